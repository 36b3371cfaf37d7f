/**
 * The command `plugins`: what is built in, and its options.
 * @module
 */
import { newRegistry } from "../config/builtins.ts";
import { PLUGIN_KINDS, type PluginKind } from "../config/plugin_shape.ts";
import { suggest } from "../config/suggest.ts";
import type { Plugin } from "../core/plugin.ts";
import { EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { styleFor } from "./console/style.ts";
import { labelled } from "./console/text.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";
import { describeOptions, type OptionDescription } from "./plugins/describe.ts";

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

const HEADINGS: Readonly<Record<PluginKind, string>> = {
  device: 'Devices ("use" of a device)',
  driver: 'Ways to the guest ("driver")',
  network: 'Ways to the network ("network")',
  offload: 'Offloads ("offloads", in order)',
};

/** Prints the built-in plugins. */
// deno-lint-ignore require-await -- all commands have one shape; errors must reject
export async function runPlugins(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(PLUGINS, args, io);
  if (parsed === null) return EXIT_OK;
  const registry = newRegistry();
  const [name] = parsed.operands;
  const all = PLUGIN_KINDS.flatMap((kind) => registry.builtIns(kind));
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
    ...(plugin.kind === "offload" && { direction: plugin.direction }),
    options: describeOptions(plugin),
  };
}

function pluginsText(plugins: readonly Plugin[], io: Io): string {
  const { bold, cyan } = styleFor(io);
  let text = "";
  let kind: PluginKind | null = null;
  for (const plugin of plugins) {
    if (plugin.kind !== kind) text += `${kind === null ? "" : "\n"}${bold(HEADINGS[plugin.kind])}\n`;
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
