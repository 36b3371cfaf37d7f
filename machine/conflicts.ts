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
import {
  type Claim,
  type ConfigSite,
  type PartIssue,
  type PartKind,
  partsOf,
  partsOfKind,
} from "../plugins/plugin.ts";
import { absolutePath } from "./paths.ts";
import { guarded, toldObjects, toldText } from "./plugin_guards.ts";

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

/** Where a part stands, for the hooks that judge a configuration. */
export function siteOf(
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

/**
 * Everything that parts of the configuration make impossible together. Throws PluginError if a plugin cannot
 * judge.
 */
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
      issues.push(
        ...guarded(
          part,
          "conflicts",
          () => toldObjects<PartIssue>(plugin.conflicts?.(options, site), ["path", "problem"]),
        ),
      );
      const claims = guarded(
        part,
        "claims",
        () => toldObjects<Claim>(plugin.claims?.(options, site), ["thing", "path", "remedy"]),
      );
      for (const claim of claims) {
        const first = claimed.get(claim.thing);
        const owner = first?.owner ?? first?.path;
        if (first === undefined) claimed.set(claim.thing, claim);
        else if (owner !== (claim.owner ?? claim.path)) {
          const problem = guarded(
            part,
            "claims",
            () =>
              claim.problem === undefined
                ? `${claim.thing} is that of ${owner} already`
                : toldText(claim.problem(owner!), "it returned a claim whose problem"),
          );
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
