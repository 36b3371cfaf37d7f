/**
 * The command `plugins`: what is built in, and its options.
 * @module
 */
import { newRegistry } from "../config/builtins.ts";
import { type JsonSchema, jsonSchemaOf } from "../config/option_schema.ts";
import { isPlainObject } from "../config/plain.ts";
import { partKind, type PluginKind } from "../config/kinds.ts";
import { suggest } from "../config/wording.ts";
import type { Plugin } from "../plugins/plugin.ts";
import type { OffloadPlugin } from "../pipeline/plugin.ts";
import { EXIT_OK } from "./console/failure.ts";
import { type Io, labelled, styleFor } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";

/** How `plugins` is used. */
export const PLUGINS: CommandUsage = {
  name: "plugins",
  operands: "[NAME] [options]",
  least: 0,
  most: 1,
  summary: "List the built-in plugins and their options.",
  about: [
    'Lists what can stand behind "use" in a configuration without a module of one\'s own: devices, ways to the guest ' +
    "(drivers), ways to the network, and offloads. With NAME, only the plugins of that name.",
  ],
  options: [],
  examples: ["plugins", "plugins rsc-v4"],
};

/** Prints the built-in plugins. */
// deno-lint-ignore require-await -- all commands have one shape; errors must reject
export async function runPlugins(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(PLUGINS, args, io);
  if (parsed === null) return EXIT_OK;
  const registry = newRegistry();
  const [name] = parsed.operands;
  const all = registry.kinds.flatMap((kind) => registry.builtIns(kind));
  const listed = name === undefined ? all : all.filter((plugin) => plugin.name === name);
  if (listed.length === 0) {
    const nearest = suggest(name, all.map((plugin) => plugin.name));
    const remedy = nearest === null ? '; "plugins" lists them all' : `, did you mean "${nearest}"?`;
    throw parsed.usageError(`No built-in plugin is called "${name}"${remedy}`);
  }
  if (parsed.json) io.out(`${JSON.stringify(listed.map(describePlugin), null, 2)}\n`);
  else io.out(pluginsText(listed, io));
  return EXIT_OK;
}

function describePlugin(plugin: Plugin): object {
  return {
    kind: plugin.kind,
    name: plugin.name,
    summary: plugin.summary ?? "",
    ...(plugin.kind === "offload" && { direction: (plugin as OffloadPlugin).direction }),
    options: describeOptions(plugin),
  };
}

function pluginsText(plugins: readonly Plugin[], io: Io): string {
  const { bold, cyan } = styleFor(io);
  let text = "";
  let kind: PluginKind | null = null;
  for (const plugin of plugins) {
    if (plugin.kind !== kind) text += `${kind === null ? "" : "\n"}${bold(partKind(plugin.kind).heading)}\n`;
    kind = plugin.kind;
    text += `\n  ${cyan(plugin.name)}\n`;
    if (plugin.summary !== undefined) text += labelled("", plugin.summary, 4, io.columns);
    for (const option of describeOptions(plugin)) text += optionText(option, io);
  }
  return text;
}

function optionText(option: OptionDescription, io: Io): string {
  const needed = option.required ? " Required." : "";
  const normally = option.default === undefined ? "" : ` Default ${JSON.stringify(option.default)}.`;
  const description = option.description === "" ? "" : `${option.description}.`;
  const text = `${option.type}. ${description}${needed}${normally}`;
  return labelled(`    ${option.name}`, text, 26, io.columns);
}

// What a plugin's schema says of its options, in words.

/** An option of a plugin. */
export interface OptionDescription {
  /** Its key in the configuration. */
  readonly name: string;
  /** What may be written, in words. */
  readonly type: string;
  /** Must it be given? */
  readonly required: boolean;
  /** What it is if it is not given, if that is known. */
  readonly default?: unknown;
  /** What it means, without a full stop. */
  readonly description: string;
}

/** The options of a plugin; none if its schema does not tell. */
export function describeOptions(plugin: Plugin): OptionDescription[] {
  const schema = jsonSchemaOf(plugin.options);
  const properties = schema?.properties;
  if (!isPlainObject(properties)) return [];
  const required = Array.isArray(schema?.required) ? schema.required : [];
  return Object.entries(properties).map(([name, option]) => {
    const known: JsonSchema = isPlainObject(option) ? option : {};
    return {
      name,
      type: typeInWords(known),
      // Where the input may be left out, zod says so by the default.
      required: required.includes(name) && known.default === undefined,
      ...(known.default !== undefined && { default: known.default }),
      description: typeof known.description === "string" ? known.description.replace(/\.$/, "") : "",
    };
  });
}

/** What a schema takes: `integer 1 to 256`, `"split" or "packed"`. */
export function typeInWords(schema: JsonSchema): string {
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const forms = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(forms)) {
    return forms.map((form) => isPlainObject(form) ? typeInWords(form) : "anything").join(" or ");
  }
  switch (schema.type) {
    case "integer":
    case "number":
      return `${schema.type}${rangeInWords(schema)}`;
    case "boolean":
      return "true or false";
    case "string":
      return "text";
    case "array":
      return `list of ${isPlainObject(schema.items) ? typeInWords(schema.items) : "anything"}`;
    case "object":
      return isPlainObject(schema.properties) ? `{ ${Object.keys(schema.properties).join(", ")} }` : "object";
    default:
      return "anything";
  }
}

/** Limits that a person chose; those of the number format say nothing. */
function rangeInWords({ minimum, maximum }: JsonSchema): string {
  const least = typeof minimum === "number" && minimum > Number.MIN_SAFE_INTEGER ? minimum : undefined;
  const most = typeof maximum === "number" && maximum < Number.MAX_SAFE_INTEGER ? maximum : undefined;
  if (least === undefined) return most === undefined ? "" : ` up to ${most}`;
  return most === undefined ? ` from ${least}` : ` ${least} to ${most}`;
}
