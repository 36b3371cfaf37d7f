/**
 * What the names after `use` stand for.
 *
 * Theory of operation. There are two sources. Built-in plugins are handed to the constructor, so that this
 * room need not know the rooms in which they live; they are found by kind and name, at once. Everything that
 * looks like a module specifier is imported; that takes time and runs foreign code, so it happens before the
 * start, in `load`, and never again: `#modules` keeps what each URL exported. After that `find` answers for
 * both, without waiting, which is what a transport needs that builds the one it wraps.
 *
 * A module may be asked for as different kinds at different places, and its shape is checked for each. An
 * import that failed is not kept: the file may have been mended by the next attempt (although the runtime may
 * remember).
 *
 * Every failure is a ConfigError with the path in the configuration, the specifier and what to do about it.
 * @module
 */
import type { Plugin, Slot } from "../plugins/plugin.ts";
import { ConfigError, type ConfigIssue, messageOf, quoted, quotedList, showValue } from "./errors.ts";
import { BUILT_IN_KINDS, partKind, type PluginKind, slotsOf } from "./kinds.ts";
import { DEVICE_KEYS } from "./schema.ts";
import { suggest } from "./wording.ts";
export type { PluginKind } from "./kinds.ts";

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
  const sorted = new Map<PluginKind, Map<string, Plugin>>();
  for (const plugin of plugins) {
    const kind = plugin.kind;
    const faults = pluginFaults(plugin, kind);
    if (faults.length > 0) {
      throw new TypeError(`Cannot use built-in plugin ${quoted(plugin.name)}: it ${faults[0]}`);
    }
    const named = sorted.get(kind) ?? new Map<string, Plugin>();
    sorted.set(kind, named);
    if (named.has(plugin.name)) {
      throw new TypeError(
        `Cannot use two built-in plugins of kind ${kind} named ${quoted(plugin.name)}`,
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

  /** Every kind that there is a plugin or a slot of; the known ones first. */
  get kinds(): PluginKind[] {
    const slots = Object.values(this.deviceSlots).map(({ kind }) => kind);
    return [...new Set([...BUILT_IN_KINDS.map(({ kind }) => kind), ...this.#builtIns.keys(), ...slots])];
  }

  /** The slots of the built-in devices, by name. */
  get deviceSlots(): Readonly<Record<string, Slot>> {
    return slotsOf([...this.#builtIns.get("device")?.values() ?? []]);
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
   * @throws {ConfigError} if there is no such plugin, its module cannot be loaded, or it is no plugin of this
   * kind
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
    for (const other of this.kinds) {
      if (this.#builtIns.get(other)?.has(name)) {
        return {
          problem: `${quoted(name)} is ${partKind(other).title}; ${partKind(kind).title} is needed here`,
        };
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

// Is this a plugin? Modules are not type-checked when they are loaded, so everything is looked at.

const NAME = /^[a-z][a-z0-9]*(-[a-z0-9]+)*$/;
const LONGEST_NAME = 40;
const SLOT_NAME = /^[a-z][A-Za-z0-9]{0,39}$/;

/**
 * What keeps a value from being a plugin of a kind.
 * @param value what a module exports
 * @param kind the wanted kind
 * @returns each fault as the rest of a sentence that begins with what was exported; empty for a plugin
 */
export function pluginFaults(value: unknown, kind: PluginKind): string[] {
  if (typeof value !== "object" || value === null) {
    const what = typeof value === "function" ? "a function" : showValue(value);
    return [`is ${what}, not a plugin; export what ${partKind(kind).define}() returns`];
  }
  const plugin = value as Record<string, unknown>;
  if (plugin.kind === undefined) return [`has no kind; export what ${partKind(kind).define}() returns`];
  if (plugin.kind !== kind) {
    const actual = BUILT_IN_KINDS.find((one) => one.kind === plugin.kind);
    const is = actual === undefined ? `has the kind ${showValue(plugin.kind)}` : `is ${actual.title}`;
    return [`${is}; ${partKind(kind).title} is needed here`];
  }
  if (plugin.api === 1) {
    return [
      'has api 1; this program speaks api 2, so change what "Contracts" in CHANGELOG.md names, ' +
      `and export what ${partKind(kind).define}() of this version returns`,
    ];
  }
  if (plugin.api !== 2) {
    return [
      `has api ${
        showValue(plugin.api)
      }; this program speaks api 2, so use a version of the plugin made for it`,
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
  const { renamedOptions = {} } = plugin;
  const isTable = typeof renamedOptions === "object" && renamedOptions !== null &&
    Object.values(renamedOptions).every((name) => typeof name === "string");
  if (!isTable) {
    faults.push(`has the renamedOptions ${showValue(renamedOptions)}; it must name each old key's new name`);
  }
  const schemaFault = optionsFault(plugin.options);
  if (schemaFault !== null) faults.push(schemaFault);
  if (typeof plugin.create !== "function") {
    faults.push(`has ${plugin.create === undefined ? "no" : "a wrong"} create; it must be a function`);
  }
  faults.push(...partKind(kind).faults?.(plugin, showValue) ?? []);
  if (kind === "device" && plugin.facts !== undefined && typeof plugin.facts !== "function") {
    faults.push(`has the facts ${showValue(plugin.facts)}; it must be a function of the options`);
  }
  if (kind === "device" && plugin.driver !== undefined) faults.push(...softwareDriverFaults(plugin.driver));
  if (kind === "device" && plugin.frontEnd !== undefined) faults.push(...frontEndFaults(plugin.frontEnd));
  if (kind === "device" && plugin.slots !== undefined) faults.push(...slotFaults(plugin.slots));
  return faults;
}

function softwareDriverFaults(driver: unknown): string[] {
  if (!isObject(driver) || typeof driver.create !== "function") {
    return [`has the driver ${showValue(driver)}; it must be an object with options and a create function`];
  }
  const fault = optionsFault(driver.options);
  return fault === null ? [] : [`has a driver that ${fault}`];
}

function frontEndFaults(words: unknown): string[] {
  if (!isObject(words) || typeof words.type !== "string" || !NAME.test(words.type)) {
    return [`has the frontEnd ${showValue(words)}; it must be an object with a type, such as "block"`];
  }
  const { frontEnds = [] } = words;
  const isList = Array.isArray(frontEnds) && frontEnds.every((name) => typeof name === "string");
  const faults = isList ? [] : [`has the frontEnds ${showValue(frontEnds)}; they must be a list of names`];
  const { filters = {} } = words;
  const isFilter = (filter: unknown) =>
    isObject(filter) &&
    Object.values(filter).every((bits) => Array.isArray(bits) && bits.every(Number.isInteger));
  if (!isObject(filters) || !Object.values(filters).every(isFilter)) {
    faults.push(
      `has in its frontEnd the filters ${showValue(filters)}; they must be lists of bits by front-end`,
    );
  }
  for (const name of ["qemu", "libvirt"]) {
    if (words[name] === undefined || typeof words[name] === "function") continue;
    faults.push(`has in its frontEnd the ${name} ${showValue(words[name])}; it must be a function`);
  }
  return faults;
}

function slotFaults(slots: unknown): string[] {
  if (!isObject(slots)) return [`has the slots ${showValue(slots)}; they must be an object of slots`];
  return Object.entries(slots).flatMap(([name, slot]) => {
    if (!SLOT_NAME.test(name) || DEVICE_KEYS.includes(name) || name === "use") {
      return [`has the slot ${quoted(name)}; use letters and digits, and none of ${quotedList(DEVICE_KEYS)}`];
    }
    if (!isObject(slot) || typeof slot.kind !== "string" || !NAME.test(slot.kind)) {
      return [`has the slot ${quoted(name)} ${showValue(slot)}; it must have a kind, such as "network"`];
    }
    if (slot.kind === "device" || slot.kind === "driver") {
      return [
        `has the slot ${quoted(name)} of the kind ${quoted(slot.kind)}, of which no part of a device is`,
      ];
    }
    return [];
  });
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
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

// Why a module could not be imported, in words and with a remedy.

const NO_ACCESS = /Requires (read|import|net|env|sys|ffi|run|write) access to "?([^",]+)"?/;
/** Of a name that no import map has, in a folder with a deno.json or without. */
const BARE = /Import "([^"]+)" not a dependency|Relative import path "([^"]+)" not prefixed/;
const NOT_FOUND = /Module not found "([^"]+)"/;

/**
 * Puts what import() threw into words.
 * @param thrown what it threw: an error of the runtime, or whatever the module threw while it was evaluated
 * @param use the specifier as written
 * @param url the specifier as resolved
 * @returns problem and remedy
 */
export function importProblem(thrown: unknown, use: string, url: string): Omit<ConfigIssue, "path"> {
  const message = messageOf(thrown);
  const module = `module ${quoted(use)}`;
  const access = NO_ACCESS.exec(message);
  if (access !== null) {
    const [, right, target] = access;
    const problem = `${module} may not be loaded: ${right} access to ${quoted(target!)} is missing`;
    // A name with a comma or a blank would fall apart on the command line.
    const scope = /^[\w./:@+-]+$/.test(target!) ? `=${target}` : "";
    return { problem, remedy: `run with --allow-${right}${scope}` };
  }
  const missing = NOT_FOUND.exec(message);
  if (missing !== null) {
    if (missing[1] === url) {
      return { problem: `${module} does not exist`, remedy: `it was looked for at ${url}` };
    }
    return { problem: `${module} imports ${quoted(missing[1]!)}, which does not exist` };
  }
  if (isRuntimeError(thrown)) {
    const bare = BARE.exec(message);
    if (bare !== null) {
      const problem = `${module} imports ${
        quoted(bare[1] ?? bare[2])
      }, which no deno.json of its folder names`;
      return {
        problem,
        remedy: 'add it to "imports" there; the framework is "@deno-virtio/deno-virtio" in a project of init',
      };
    }
    if (message.includes("SyntaxError")) return { problem: `${module} cannot be parsed: ${message}` };
    return { problem: `${module} cannot be loaded: ${message}`, remedy: `it was looked for at ${url}` };
  }
  if (thrown instanceof SyntaxError) return { problem: `${module} does not fit together: ${message}` };
  return { problem: `${module} failed while it was loaded: ${message}` };
}

/** Thrown by the loader, not by the module's own code. */
function isRuntimeError(thrown: unknown): boolean {
  return thrown instanceof TypeError && "code" in thrown && typeof thrown.code === "string" &&
    thrown.code.startsWith("ERR_");
}
