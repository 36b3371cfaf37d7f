/**
 * What the names after `use` stand for.
 *
 * Theory of operation. There are two sources. Built-in plugins are handed to the constructor, so that this room need
 * not know the rooms in which they live; they are found by kind and name, at once. Everything that looks like a module
 * specifier is imported; that takes time and runs foreign code, so it happens before the start, in `load`, and never
 * again: `#modules` keeps what each URL exported. After that `find` answers for both, without waiting, which is what a
 * transport needs that builds the one it wraps.
 *
 * A module may be asked for as different kinds at different places, and its shape is checked for each. An import that
 * failed is not kept: the file may have been mended by the next attempt (although the runtime may remember).
 *
 * Every failure is a ConfigError with the path in the configuration, the specifier and what to do about it.
 * @module
 */
import type { Plugin } from "../core/plugin.ts";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { importProblem } from "./import_problem.ts";
import { quoted, quotedList } from "./paths.ts";
import { KIND_NAMES, PLUGIN_KINDS, pluginFaults, type PluginKind } from "./plugin_shape.ts";
import { suggest } from "./suggest.ts";

/** The plugins that come with the program, by kind and name. */
export type BuiltIns = ReadonlyMap<PluginKind, ReadonlyMap<string, Plugin>>;

/** What a module specifier begins with, as a regular expression in JSON Schema also understands it. */
export const SPECIFIER_PATTERN = "^(\\.{1,2}/|/|file:|jsr:|npm:|https:)";

const SPECIFIER = new RegExp(SPECIFIER_PATTERN);
const LONGEST_SPECIFIER = 2048;
/** URL of the module that each plugin comes from; none for built-in ones. */
const MODULES = new WeakMap<Plugin, string>();
/** All of these. */
const MODULE_URLS = new Set<string>();

/** URL of the module that a plugin comes from; undefined for a built-in one. */
export function moduleOf(plugin: Plugin): string | undefined {
  return MODULES.get(plugin);
}

/** Does a plugin come from this module? */
export function isModuleOfPlugin(url: string): boolean {
  return MODULE_URLS.has(url);
}

/**
 * Sorts plugins by kind and name.
 * @param plugins in the order in which they are to be listed
 * @throws {TypeError} if two of a kind have the same name, or one is no plugin
 */
export function builtIns(plugins: Iterable<Plugin>): BuiltIns {
  const sorted = new Map<PluginKind, Map<string, Plugin>>(PLUGIN_KINDS.map((kind) => [kind, new Map()]));
  for (const plugin of plugins) {
    const faults = pluginFaults(plugin, plugin.kind);
    if (faults.length > 0) {
      throw new TypeError(`Cannot use built-in plugin ${quoted(plugin.name)}: it ${faults[0]}`);
    }
    const named = sorted.get(plugin.kind)!;
    if (named.has(plugin.name)) {
      throw new TypeError(
        `Cannot use two built-in plugins of kind ${plugin.kind} named ${quoted(plugin.name)}`,
      );
    }
    named.set(plugin.name, plugin);
  }
  return sorted;
}

/** Finds plugins: the built-in ones by name, all others by the module that exports them. */
export class PluginRegistry {
  readonly #builtIns: BuiltIns;
  readonly #modules = new Map<string, object>();

  /**
   * A registry that has loaded no module yet.
   * @param builtIns the plugins that come with the program; see {@linkcode builtIns}
   */
  constructor(builtIns: BuiltIns) {
    this.#builtIns = builtIns;
  }

  /** The built-in plugins of a kind, sorted by name. */
  builtIns(kind: PluginKind): Plugin[] {
    const plugins = [...this.#builtIns.get(kind)?.values() ?? []];
    return plugins.sort((a, b) => a.name < b.name ? -1 : 1);
  }

  /** Is this written like a module specifier, and not like the name of a built-in plugin? */
  static isSpecifier(use: string): boolean {
    return SPECIFIER.test(use);
  }

  /**
   * Finds a plugin, importing its module if need be.
   * @param kind what kind it must be
   * @param use the name of a built-in plugin, or a module specifier
   * @param baseUrl the configuration file, against which specifiers are resolved
   * @param path where `use` stands in the configuration
   * @throws {ConfigError} if there is no such plugin, its module cannot be loaded, or it is no plugin of this kind
   */
  async load(kind: PluginKind, use: string, baseUrl: string, path: string): Promise<Plugin> {
    if (!PluginRegistry.isSpecifier(use)) return this.#named(kind, use, path);
    const url = resolve(use, baseUrl, path);
    let exports = this.#modules.get(url);
    if (exports === undefined) {
      try {
        exports = await import(url) as object;
      } catch (thrown) {
        throw new ConfigError([{ path, ...importProblem(thrown, use, url) }], { cause: thrown });
      }
      this.#modules.set(url, exports);
    }
    return pluginOf(exports, kind, use, path, url);
  }

  /**
   * Finds a plugin that is there already: a built-in one, or one whose module has been loaded.
   * @param kind what kind it must be
   * @param use the name of a built-in plugin, or a module specifier
   * @param baseUrl the configuration file, against which specifiers are resolved
   * @param path where `use` stands in the configuration
   * @throws {ConfigError} if it is not there
   */
  find(kind: PluginKind, use: string, baseUrl: string, path: string): Plugin {
    if (!PluginRegistry.isSpecifier(use)) return this.#named(kind, use, path);
    const url = resolve(use, baseUrl, path);
    const exports = this.#modules.get(url);
    if (exports === undefined) {
      const problem = `module ${quoted(use)} has not been loaded, and it is too late for that`;
      throw new ConfigError([{
        path,
        problem,
        remedy: 'modules are loaded in advance only under the key "inner"',
      }]);
    }
    return pluginOf(exports, kind, use, path, url);
  }

  #named(kind: PluginKind, name: string, path: string): Plugin {
    const named = this.#builtIns.get(kind);
    const plugin = named?.get(name);
    if (plugin !== undefined) return plugin;
    throw new ConfigError([{ path, ...this.#unknown(kind, name) }]);
  }

  #unknown(kind: PluginKind, name: string): Omit<ConfigIssue, "path"> {
    const problem = `unknown ${kind} ${quoted(name)}`;
    for (const other of PLUGIN_KINDS) {
      if (this.#builtIns.get(other)?.has(name)) {
        return { problem: `${quoted(name)} is ${KIND_NAMES[other]}; ${KIND_NAMES[kind]} is needed here` };
      }
    }
    if (/^http:/i.test(name)) return { problem, remedy: "modules come by https: only" };
    if (/[/\\]|\.[cm]?[jt]s$/.test(name)) {
      const remedy = 'a module begins with "./", "../", "/", "file:", "jsr:", "npm:" or "https:"';
      return { problem, remedy };
    }
    const names = [...this.#builtIns.get(kind)?.keys() ?? []];
    const nearest = suggest(name, names);
    if (nearest !== null) return { problem: `${problem}, did you mean ${quoted(nearest)}?` };
    const there = names.length === 0
      ? "there are no built-in ones"
      : `built in are ${quotedList(names.sort())}`;
    return { problem, remedy: `${there}; a module of your own is written "./name.ts"` };
  }
}

function resolve(use: string, baseUrl: string, path: string): string {
  try {
    if (use.length <= LONGEST_SPECIFIER) return new URL(use, baseUrl).href;
  } catch {
    // Said below.
  }
  const remedy = 'write one such as "./stage.ts" or "npm:name@1"';
  throw new ConfigError([{ path, problem: `${quoted(use)} is no module specifier`, remedy }]);
}

/** The default export, or the one named `plugin`, if it is a plugin of this kind. */
function pluginOf(exports: object, kind: PluginKind, use: string, path: string, url: string): Plugin {
  const { default: main, plugin: named } = exports as { default?: unknown; plugin?: unknown };
  if (main === undefined && named === undefined) {
    if ("default" in exports) {
      const remedy = "export what defineOffload() and the like return";
      throw new ConfigError([{
        path,
        problem: `the default export of ${quoted(use)} is undefined`,
        remedy,
      }]);
    }
    const others = Object.keys(exports);
    const remedy = `export the plugin as default${
      others.length > 0 ? `, it exports ${quotedList(others)}` : ""
    }`;
    throw new ConfigError([{ path, problem: `module ${quoted(use)} has no default export`, remedy }]);
  }
  const what = main === undefined ? 'export "plugin"' : "default export";
  const candidate = main ?? named;
  const faults = pluginFaults(candidate, kind);
  if (faults.length === 0) {
    MODULES.set(candidate as Plugin, url);
    MODULE_URLS.add(url);
    return candidate as Plugin;
  }
  throw new ConfigError(faults.map((fault) => ({ path, problem: `the ${what} of ${quoted(use)} ${fault}` })));
}
