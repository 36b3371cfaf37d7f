/**
 * Is this a plugin? Modules are not type-checked when they are loaded, so everything is looked at.
 * @module
 */
import type { Plugin } from "../core/plugin.ts";
import { quoted, quotedList, showValue } from "./paths.ts";

/** What kind of plugin: where in the configuration it may stand. */
export type PluginKind = Plugin["kind"];

/** The kinds, in the order in which a configuration meets them. */
export const PLUGIN_KINDS: readonly PluginKind[] = ["device", "driver", "network", "offload"];

/** How each kind is called in a sentence. */
export const KIND_NAMES: Readonly<Record<PluginKind, string>> = {
  device: "a device",
  driver: "a driver transport",
  network: "a network transport",
  offload: "an offload",
};

const DEFINE: Readonly<Record<PluginKind, string>> = {
  device: "defineDevice",
  driver: "defineDriver",
  network: "defineNetwork",
  offload: "defineOffload",
};

const NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;
const LONGEST_NAME = 40;
const DIRECTIONS = ["toGuest", "fromGuest", "both"];

/**
 * What keeps a value from being a plugin of a kind.
 * @param value what a module exports
 * @param kind the wanted kind
 * @returns each fault as the rest of a sentence that begins with what was exported; empty for a plugin
 */
export function pluginFaults(value: unknown, kind: PluginKind): string[] {
  if (typeof value !== "object" || value === null) {
    const what = typeof value === "function" ? "a function" : showValue(value);
    return [`is ${what}, not a plugin; export what ${DEFINE[kind]}() returns`];
  }
  const plugin = value as Record<string, unknown>;
  if (plugin.kind === undefined) return [`has no kind; export what ${DEFINE[kind]}() returns`];
  if (plugin.kind !== kind) {
    const actual = PLUGIN_KINDS.find((one) => one === plugin.kind);
    const is = actual === undefined ? `has the kind ${showValue(plugin.kind)}` : `is ${KIND_NAMES[actual]}`;
    return [`${is}; ${KIND_NAMES[kind]} is needed here`];
  }
  if (plugin.api !== 1) {
    return [
      `has api ${
        showValue(plugin.api)
      }; this program speaks api 1, so use a version of the plugin made for it`,
    ];
  }
  const faults: string[] = [];
  if (typeof plugin.name !== "string" || !NAME.test(plugin.name) || plugin.name.length > LONGEST_NAME) {
    faults.push(
      `has the name ${showValue(plugin.name)}; ` +
        `use lower case, digits and single hyphens, a letter first, at most ${LONGEST_NAME} characters`,
    );
  }
  if (plugin.summary !== undefined && typeof plugin.summary !== "string") {
    faults.push(`has the summary ${showValue(plugin.summary)}; it must be text`);
  }
  const schemaFault = optionsFault(plugin.options);
  if (schemaFault !== null) faults.push(schemaFault);
  if (typeof plugin.create !== "function") {
    faults.push(`has ${plugin.create === undefined ? "no" : "a wrong"} create; it must be a function`);
  }
  if (kind === "offload") faults.push(...offloadFaults(plugin));
  if (kind === "device" && plugin.facts !== undefined && typeof plugin.facts !== "function") {
    faults.push(`has the facts ${showValue(plugin.facts)}; it must be a function of the options`);
  }
  if (kind === "device" && ![undefined, "required", "none"].includes(plugin.network as string | undefined)) {
    faults.push(`has the network ${showValue(plugin.network)}; it must be "required", "none" or left out`);
  }
  return faults;
}

function optionsFault(options: unknown): string | null {
  const remedy = "it must be a schema that follows Standard Schema 1, such as z.strictObject({})";
  if (options === undefined) return `has no options; ${remedy}`;
  // ArkType's schemas are functions.
  if ((typeof options !== "object" && typeof options !== "function") || options === null) {
    return `has the options ${showValue(options)}; ${remedy}`;
  }
  const standard = (options as Record<string, unknown>)["~standard"];
  if (typeof standard !== "object" || standard === null) return `has options without "~standard"; ${remedy}`;
  const { version, validate } = standard as Record<string, unknown>;
  if (version !== 1) return `has options of Standard Schema version ${showValue(version)}; ${remedy}`;
  return typeof validate === "function" ? null : `has options without a validate function; ${remedy}`;
}

function offloadFaults(plugin: Record<string, unknown>): string[] {
  const faults: string[] = [];
  if (!DIRECTIONS.includes(plugin.direction as string)) {
    faults.push(
      `has the direction ${showValue(plugin.direction)}; it must be one of ${quotedList(DIRECTIONS)}`,
    );
  }
  for (const key of ["offers", "needs"]) {
    const bits = plugin[key];
    if (bits === undefined || (key === "offers" && typeof bits === "function")) continue;
    if (!Array.isArray(bits) || !bits.every((bit) => Number.isInteger(bit) && bit >= 0 && bit <= 127)) {
      faults.push(`has ${quoted(key)} ${showValue(bits)}; it must be a list of feature bits, 0 to 127`);
    }
  }
  return faults;
}
