/**
 * What in a configuration cannot work on any host, although every part of it is right by itself.
 *
 * Plugins say themselves what does not go together (`PluginBase.conflicts`) and what they alone must have
 * (`PluginBase.claims`); so do kinds of parts (`PartKind.conflicts`). Here they are asked.
 * @module
 */
import type { ConfigIssue } from "../config/errors.ts";
import { partKind } from "../config/kinds.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { kindOf, refuse, refusePromise } from "../plugins/contract.ts";
import { type Claim, type ConfigSite, type PartKind, partsOf, partsOfKind } from "../plugins/plugin.ts";
import { absolutePath } from "./paths.ts";
import { guarded } from "./plugin_guards.ts";

/** The kinds that a device has slots of, each once, and what stands in these. */
export function kindsOf(device: ResolvedDevice): [PartKind, ResolvedPart[]][] {
  const kinds = new Set(Object.values(device.plugin.slots ?? {}).map(({ kind }) => kind));
  return [...kinds].map((kind) => [partKind(kind), partsOfKind(device, kind)]);
}

/** What a device tells its parts; undefined if it tells nothing. Throws PluginError. */
export function factsOf(device: ResolvedDevice): unknown {
  return guarded(device, "facts", () => device.plugin.facts?.(device.options), (told) => {
    for (const [kind] of kindsOf(device)) kind.checkFacts?.(told);
  });
}

/** What the plugins of a device and its parts say of how it works. Throws PluginError if one cannot. */
export function hintsIn(config: ResolvedConfig, device: ResolvedDevice): ConfigIssue[] {
  const facts = factsOf(device);
  return partsOf(device).flatMap((part) => {
    const site = siteOf(config, device, part, facts);
    return told(part, "hints", ["path", "problem"], () => part.plugin.hints?.(part.options, site));
  });
}

/** The list that a hook returns, of objects with these texts; a hook that is left out says nothing. Throws PluginError. */
function told<T extends object>(
  part: ResolvedPart,
  hook: string,
  texts: readonly string[],
  ask: () => readonly T[] | undefined,
): readonly T[] {
  return guarded(part, hook, ask, (list: unknown) => {
    if (list === undefined) return;
    refusePromise(list);
    if (!Array.isArray(list)) return refuse(`it returned ${kindOf(list)}, not a list`);
    for (const one of list) {
      for (const text of texts) {
        if (typeof one?.[text] !== "string") {
          refuse(
            `it returned a list with ${kindOf(one)} whose ${text} is ${kindOf(one?.[text])}, not a text`,
          );
        }
      }
    }
  }) ?? [];
}

function siteOf(
  { devices, baseUrl }: ResolvedConfig,
  device: ResolvedDevice,
  { path }: ResolvedPart,
  facts: unknown,
): ConfigSite {
  return {
    path,
    device,
    facts,
    devices,
    absolutePath: (written) => absolutePath(written, baseUrl) ?? written,
  };
}

/** Everything that parts of the configuration make impossible together. Throws PluginError if a plugin cannot judge. */
export function conflictsIn(config: ResolvedConfig): ConfigIssue[] {
  const { devices, clock } = config;
  const issues: ConfigIssue[] = [];
  const claimed = new Map<string, Claim>();
  const waiting: string[] = [];
  for (const device of devices) {
    const facts = factsOf(device);
    for (const part of partsOf(device)) {
      const { plugin, path, options } = part;
      if (plugin.waitsForHost === true) waiting.push(path);
      const site = siteOf(config, device, part, facts);
      issues.push(...told(part, "conflicts", ["path", "problem"], () => plugin.conflicts?.(options, site)));
      const claims = told(part, "claims", ["thing", "path", "remedy"], () => plugin.claims?.(options, site));
      for (const claim of claims) {
        const first = claimed.get(claim.thing);
        const owner = first?.owner ?? first?.path;
        if (first === undefined) claimed.set(claim.thing, claim);
        else if (owner !== (claim.owner ?? claim.path)) {
          const problem = guarded(part, "claims", () => claim.problem?.(owner!)) ??
            `${claim.thing} is that of ${owner} already`;
          issues.push({ path: claim.path, problem, remedy: claim.remedy });
        }
      }
    }
    for (const [kind, parts] of kindsOf(device)) issues.push(...kind.conflicts?.(parts, device) ?? []);
  }
  if (clock === "virtual" && waiting.length > 0) {
    issues.unshift({
      path: "$.clock",
      problem: `a virtual clock cannot wait for the host, and ${waiting[0]} has to`,
      remedy: 'write "clock": "system", or leave it out',
    });
  }
  return issues;
}
