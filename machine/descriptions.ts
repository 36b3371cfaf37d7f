/**
 * What plugins say of themselves to people and programs: what a configuration means, needs, and does
 * differently than expected. `check` asks for it, of a machine that was built to be looked at
 * (`BuildOptions.preview`).
 * @module
 */
import type { ConfigIssue } from "../config/errors.ts";
import { isPlainObject } from "../config/plain.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { kindOf, refuse, shapeFault } from "../plugins/contract.ts";
import type { Device } from "../core/device.ts";
import type { FeatureSet } from "../core/features.ts";
import {
  type BuiltSite,
  type FeaturePassage,
  type FrontEndOutlook,
  type HostNeed,
  type PartIssue,
  partsOf,
  type PluginDescription,
  type PluginPermissions,
} from "../plugins/plugin.ts";
import { factsOf, kindsOf, siteOf } from "./conflicts.ts";
import type { MachineDevice } from "./machine.ts";
import { guarded, toldList, toldObjects, toldText, toldTexts } from "./plugin_guards.ts";

/** The most characters of JSON that a plugin may tell. */
const MAX_JSON_LENGTH = 65_536;
/** What can become of a feature at a front-end. */
export const PASSAGES: readonly FeaturePassage[] = ["agreed", "newer", "own", "lost"];
const USES: readonly HostNeed["use"][] = ["write", "listen", "connect", "open"];

/** What the plugins of a device tell. */
export interface DeviceTold {
  /** The programs that can be expected at its driver transport. */
  readonly frontEnds: readonly FrontEndOutlook[];
  /** What works differently than expected. */
  readonly hints: readonly ConfigIssue[];
  /** What each of its parts is, itself included. */
  readonly descriptions: ReadonlyMap<ResolvedPart, Required<PluginDescription>>;
}

/**
 * Asks the plugins of a device that was built to be looked at. Throws PluginError if one cannot tell.
 * @param agreed the features that its driver accepts; null if that is not known
 */
export function deviceTold(
  config: ResolvedConfig,
  { resolved, device: built, parts: made }: Pick<MachineDevice, "resolved" | "device" | "parts">,
  agreed: FeatureSet | null,
): DeviceTold {
  const frontEnds = frontEndsAt(resolved, built);
  const facts = factsOf(resolved);
  const site = (part: ResolvedPart): BuiltSite => ({
    ...siteOf(config, resolved, part, facts),
    built,
    made,
    agreed,
    frontEnds,
  });
  const all = partsOf(resolved);
  const hints = all.flatMap((part) =>
    guarded(
      part,
      "hints",
      () => toldObjects<PartIssue>(part.plugin.hints?.(part.options, site(part)), ["path", "problem"]),
    )
  );
  for (const [kind, parts] of kindsOf(resolved)) hints.push(...kind.hints?.(parts, site(resolved)) ?? []);
  return {
    frontEnds,
    hints,
    descriptions: new Map(all.map((part) => [part, described(part, site(part))])),
  };
}

/** What a plugin tells of itself, looked at. */
function described(part: ResolvedPart, site: BuiltSite): Required<PluginDescription> {
  const { plugin, options } = part;
  return guarded(part, "describe", () => {
    const told: unknown = plugin.describe?.(options, site) ?? {};
    refuse(shapeFault(told, "a description", [], []));
    const { lines, offers, json = {}, needs } = told as PluginDescription;
    return {
      lines: toldList(lines).map((line): [string, string] => {
        const [label, text, ...more] = toldTexts(line, "it returned a description of which a line");
        if (text === undefined || more.length > 0) {
          throw new TypeError("it returned a description of which a line is no pair of label and text");
        }
        return [label, text];
      }),
      offers: toldTexts(offers),
      json: plainJson(json),
      needs: toldObjects<HostNeed>(needs, ["path", "file", "use"]).map((need) => checkedNeed(part, need)),
    };
  });
}

function checkedNeed(part: ResolvedPart, need: HostNeed): HostNeed {
  if (!USES.includes(need.use)) {
    throw new TypeError(`it returned a need with use ${kindOf(need.use)}; ${USES.join(", ")} are possible`);
  }
  for (const name of ["missing", "refused"] as const) {
    if (need[name] !== undefined) toldText(need[name], `it returned a need whose ${name}`);
  }
  refuse(shapeFault(need, "a need", [], ["unseen"]));
  return {
    ...need,
    unseen: () =>
      guarded(part, "describe.unseen", () => need.unseen?.() ?? null, (text: unknown) => {
        if (text !== null) toldText(text, "what it returned");
      }),
  };
}

function plainJson(value: unknown): Record<string, unknown> {
  const text = JSON.stringify(value) ?? "null";
  if (text.length > MAX_JSON_LENGTH) {
    throw new TypeError(
      `it returned a description whose json has ${text.length} characters; at most ${MAX_JSON_LENGTH} are possible`,
    );
  }
  const json: unknown = JSON.parse(text);
  if (isPlainObject(json)) return json;
  throw new TypeError(`it returned a description whose json is ${kindOf(value)}, not an object`);
}

/**
 * The programs that a driver transport expects, looked at: what becomes there of each feature of the device.
 */
function frontEndsAt({ plugin, driver }: ResolvedDevice, built: Device): FrontEndOutlook[] {
  return guarded(driver, "frontEnds", () => {
    const told = driver.plugin.frontEnds?.(driver.options, built, plugin.frontEnd);
    return toldObjects<FrontEndOutlook>(told, ["name"]).map(({ name, features }) => {
      if (!(features instanceof Map)) {
        throw new TypeError(`it returned a front-end whose features are ${kindOf(features)}, no Map of bits`);
      }
      return {
        name,
        features: new Map(Array.from(built.features, (bit) => {
          const passage = features.get(bit);
          if (PASSAGES.includes(passage!)) return [bit, passage!];
          throw new TypeError(
            `it returned a front-end of whose feature ${bit} becomes ${kindOf(passage)}; ${
              PASSAGES.join(", ")
            } are possible`,
          );
        })),
      };
    });
  });
}

/** What Deno must permit for a part. Throws PluginError if its plugin cannot tell. */
export function permissionsTold(part: ResolvedPart): Required<PluginPermissions> {
  const { plugin, options } = part;
  return guarded(part, "permissions", () => {
    const told: unknown = plugin.permissions?.(options) ?? {};
    refuse(shapeFault(told, "the permissions", [], []));
    const { read = [], write = [], ffi = false } = told as PluginPermissions;
    const what = "it returned permissions of whose files one";
    for (const files of [read, write]) {
      if (!Array.isArray(files) || files.some((file) => typeof file !== "string")) {
        throw new TypeError(
          `it returned permissions with the files ${kindOf(files)}; a list of paths is needed`,
        );
      }
    }
    return { read: toldTexts(read, what), write: toldTexts(write, what), ffi: ffi === true };
  });
}
