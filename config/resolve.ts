/**
 * From the written form of a configuration to the complete one.
 *
 * Theory of operation. `resolveConfig` copies what was written (so that it is plain data of bounded depth,
 * and no other code's), then walks it once, in the order in which it is read: the keys of the whole, and for
 * each device its own keys, its options, its driver, what stands in its slots. Every step adds to `issues`
 * and goes on as well as it can, so that one run shows everything that is wrong; only at the end does it
 * throw.
 *
 * Every `{ "use": … }` is split into `use`, keys of ours and options of the plugin; its plugin is found,
 * importing its module (`#load`); the options are validated by the plugin's own schema (`#validated`). Which
 * slots a device has, and of which kinds, says its plugin; no kind is known here by name but "device" and
 * "driver".
 *
 * A part may wrap others of its kind, whose configuration stands in its options under the key that its kind
 * reserves for that (`PartKind.wraps`), and it asks for them while it is being built, when nothing can wait.
 * So what stands there is imported and validated right away, and kept in `#inner` by kind and path.
 * `resolvePart` answers from there if it is asked for the same thing; a plugin that has put another
 * configuration together gets that one resolved, as far as it can be done at once.
 * @module
 */
import type {
  DevicePlugin,
  DriverPlugin,
  OptionsSchema,
  Plugin,
  ResolvedDevice,
  ResolvedPart,
  Slot,
} from "../plugins/plugin.ts";
import { childPath, ConfigError, type ConfigIssue, quoted, quotedList } from "./errors.ts";
import { jsonSchemaOf, knownKeys } from "./option_schema.ts";
import { checkOptions, checkOptionsNow, type OptionsResult } from "./options.ts";
import { canonical, copyPlain, freezePlain, isPlainObject, type Plain } from "./plain.ts";
import { partKind, type PluginKind } from "./kinds.ts";
import { PluginRegistry } from "./registry.ts";
import {
  DEVICE_KEYS,
  type DeviceKeys,
  deviceKeys,
  type FileKeys,
  fileKeys,
  MAX_DEVICES,
  SWITCH_KEYS,
  type SwitchKeys,
  switchKeys,
} from "./schema.ts";
import { threadIssues } from "./thread_refusals.ts";
import type { ResolvedConfig } from "./types.ts";

/** The most transports that one can wrap; a hostile list is not followed to its end. */
const MAX_INNER = 64;

class Resolver {
  readonly issues: ConfigIssue[] = [];
  readonly #registry: PluginRegistry;
  readonly #baseUrl: string;
  readonly #inner = new Map<string, { written: string; part: ResolvedPart }>();

  constructor(registry: PluginRegistry, baseUrl: string) {
    this.#registry = registry;
    this.#baseUrl = baseUrl;
  }

  async config(written: Plain): Promise<ResolvedConfig | null> {
    const checked = await checkOptions(fileKeys, written, "$");
    const keys = this.#take(checked) as FileKeys | null;
    // Even if another key is wrong, the devices are looked at: one run is to show everything.
    const entries = isPlainObject(written) && Array.isArray(written.devices)
      ? written.devices as Plain[]
      : [];
    const found: NamelessDevice[] = [];
    for (const [i, entry] of entries.slice(0, MAX_DEVICES).entries()) {
      const device = await this.#device(entry, childPath("$.devices", i));
      if (device !== null) found.push(device);
    }
    const devices = nameDevices(found, this.issues);
    for (const device of devices) this.#add(threadIssues(device, keys?.clock, this.#registry));
    if (keys?.clock === "virtual" && keys.pollMaxUs > 0) {
      this.issues.push({
        path: "$.pollMaxUs",
        problem: "is of no use with a virtual clock, which waits for nothing",
        remedy: 'leave "pollMaxUs" out, or write "clock": "system"',
      });
    }
    if (keys === null || this.issues.length > 0) return null;
    return Object.freeze({
      name: keys.name,
      frameMemoryBytes: keys.frameMemoryMiB * 2 ** 20,
      clock: keys.clock,
      pollMaxUs: keys.pollMaxUs,
      baseUrl: this.#baseUrl,
      text: JSON.stringify(written),
      devices: Object.freeze(devices),
      resolvePart: (kind: PluginKind, inner: unknown, path: string) => this.resolvePart(kind, inner, path),
    });
  }

  resolvePart(kind: PluginKind, written: unknown, path: string): ResolvedPart {
    const issues: ConfigIssue[] = [];
    const copy = copyPlain(written, path, issues);
    if (issues.length > 0) throw new ConfigError(issues);
    const prepared = this.#inner.get(`${kind} ${path}`);
    if (prepared?.written === canonical(copy)) return prepared.part;
    const entry = readEntry(copy, { kind, path, ownKeys: [], registry: this.#registry });
    if (!("use" in entry)) throw new ConfigError([entry]);
    const plugin = this.#registry.find(kind, entry.use, this.#baseUrl, entry.usePath);
    const result = checkOptionsNow(plugin.options, entry.options, path, { renamed: plugin.renamedOptions });
    if (!result.ok) throw new ConfigError(result.issues);
    return part(plugin, result.options, path);
  }

  async #device(written: Plain, path: string): Promise<NamelessDevice | null> {
    const whole = this.#entry("device", written, path, []);
    if (whole === null) return null;
    const plugin = await this.#load("device", whole) as DevicePlugin | ConfigError;
    // Of an unknown device it is not known which slots it has: what stands in the usual ones is looked at all
    // the same.
    const isKnown = !(plugin instanceof ConfigError);
    const slots = isKnown ? plugin.slots ?? NO_SLOTS : this.#registry.deviceSlots;
    const ownKeys = [...DEVICE_KEYS, ...Object.keys(slots)];
    const split = splitKeys(whole, ownKeys);
    const [entry, foreign] = isKnown ? this.#foreignSlots(plugin, split, path) : [split, []];
    const keys = this.#take(await checkOptions(deviceKeys(slots), entry.own, path)) as DeviceKeys | null;
    const device = await this.#validated(plugin, entry, path, ownKeys);
    const driver = await this.#driver(
      entry.own.driver,
      childPath(path, "driver"),
      isKnown ? plugin : undefined,
    );
    this.#add(foreign);
    const parts: Record<string, ResolvedPart | null | readonly ResolvedPart[]> = {};
    let areWhole = foreign.length === 0;
    for (const [name, slot] of Object.entries(slots)) {
      const here = childPath(path, name);
      if (slot.many === true) {
        const list = (keys as Record<string, unknown> | null)?.[name] as readonly Plain[] | undefined;
        parts[name] = Object.freeze(await this.#list(slot.kind, list ?? [], here));
        continue;
      }
      const isWanted = entry.own[name] !== undefined || (isKnown && slot.required === true);
      parts[name] = isWanted ? await this.#switchable(slot.kind, entry.own[name], here) : null;
      if (parts[name] === null && (slot.required === true || isWanted)) areWhole = false;
    }
    if (keys === null || device === null || driver === null || !areWhole) return null;
    return {
      ...device,
      plugin: device.plugin as DevicePlugin,
      name: keys.name,
      driver: driver as ResolvedPart<DriverPlugin>,
      parts: Object.freeze(parts),
      mode: keys.mode,
      threadLimitMs: keys.threadLimitMs,
    };
  }

  /**
   * Takes out of the options, and refuses, what stands there for a slot that other devices have and this one
   * has not.
   */
  #foreignSlots(plugin: DevicePlugin, entry: Entry, path: string): [Entry, ConfigIssue[]] {
    const known = knownKeys(jsonSchemaOf(plugin.options), []);
    const foreign = Object.keys(this.#registry.deviceSlots).filter((name) =>
      entry.options[name] !== undefined && known?.includes(name) === false
    );
    const options = Object.fromEntries(
      Object.entries(entry.options).filter(([key]) => !foreign.includes(key)),
    );
    return [
      { ...entry, options },
      foreign.map((name) => ({
        path: childPath(path, name),
        problem: `${quoted(entry.use)} is a device without ${quoted(name)}`,
        remedy: `leave ${quoted(name)} out`,
      })),
    ];
  }

  async #list(kind: PluginKind, written: readonly Plain[], path: string): Promise<ResolvedPart[]> {
    const parts: ResolvedPart[] = [];
    for (const [i, one] of written.entries()) {
      const part = await this.#switchable(kind, one, childPath(path, i));
      if (part !== null) parts.push(part);
    }
    return parts;
  }

  /** Null if it is wrong, and also if it is right but switched off. */
  async #switchable(
    kind: PluginKind,
    written: Plain | undefined,
    path: string,
  ): Promise<ResolvedPart | null> {
    if (partKind(kind).hasSwitch !== true) return await this.#part(kind, written, path);
    const entry = this.#entry(kind, written, path, SWITCH_KEYS);
    if (entry === null) return null;
    const keys = this.#take(await checkOptions(switchKeys, entry.own, path)) as SwitchKeys | null;
    const isOff = keys !== null && !keys.enabled;
    // A module may be switched off because it is broken, so it must not even be loaded.
    if (isOff && PluginRegistry.isSpecifier(entry.use)) return null;
    const part = await this.#validated(await this.#load(kind, entry), entry, path, SWITCH_KEYS);
    return isOff ? null : part;
  }

  /** A guest made of software takes the options of the driver's half that the device brings. */
  async #driver(
    written: Plain | undefined,
    path: string,
    device: DevicePlugin | undefined,
  ): Promise<ResolvedPart | null> {
    const entry = this.#entry("driver", written, path, []);
    if (entry === null) return null;
    const plugin = await this.#load("driver", entry) as DriverPlugin | ConfigError;
    let schema: OptionsSchema<unknown> | null = null;
    if (!(plugin instanceof ConfigError)) {
      schema = plugin.options;
      if (plugin.runsSoftwareDriver === true) {
        // Of an unknown device it is not known which options its driver takes.
        if (device === undefined) return null;
        schema = device.driver?.options ?? schema;
      }
    }
    return await this.#validated(plugin, entry, path, [], schema);
  }

  async #part(kind: PluginKind, written: Plain | undefined, path: string): Promise<ResolvedPart | null> {
    const entry = this.#entry(kind, written, path, []);
    return entry === null ? null : await this.#validated(await this.#load(kind, entry), entry, path, []);
  }

  /** The plugin of an entry, or what is wrong with that. */
  async #load(kind: PluginKind, { use, usePath }: Entry): Promise<Plugin | ConfigError> {
    try {
      return await this.#registry.load(kind, use, this.#baseUrl, usePath);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      return error;
    }
  }

  /** The part of an entry, with its options and what it wraps; null if something is wrong. */
  async #validated(
    plugin: Plugin | ConfigError,
    entry: Entry,
    path: string,
    ownKeys: readonly string[],
    otherSchema: OptionsSchema<unknown> | null = null,
  ): Promise<ResolvedPart | null> {
    if (plugin instanceof ConfigError) {
      this.#add(plugin.issues);
      return null;
    }
    const result = await checkOptions(otherSchema ?? plugin.options, entry.options, path, {
      alsoKnown: ownKeys,
      renamed: plugin.renamedOptions,
    });
    if (!result.ok) this.#add(result.issues);
    const inner: ResolvedPart[] = [];
    const { wraps } = partKind(plugin.kind);
    if (wraps !== undefined && entry.options[wraps] !== undefined) {
      const known = knownKeys(jsonSchemaOf(plugin.options), []);
      if (known === null || known.includes(wraps)) {
        await this.#prepare(plugin.kind, entry.options[wraps], childPath(path, wraps), inner);
      }
    }
    return result.ok ? part(plugin, result.options, path, Object.freeze(inner)) : null;
  }

  /** Resolves what will be asked for later, when no caller can wait. */
  async #prepare(kind: PluginKind, written: Plain, path: string, into: ResolvedPart[]): Promise<void> {
    // Switched off by null; and a list is what a transport over several others would have.
    if (written === null) return;
    if (Array.isArray(written)) {
      const items = written.slice(0, MAX_INNER);
      for (const [i, one] of items.entries()) await this.#prepare(kind, one, childPath(path, i), into);
      if (written.length > MAX_INNER) this.#add([{ path, problem: `has more than ${MAX_INNER} items` }]);
      return;
    }
    const inner = await this.#part(kind, written, path);
    if (inner === null) return;
    into.push(inner);
    this.#inner.set(`${kind} ${path}`, { written: canonical(written), part: inner });
  }

  #entry(
    kind: PluginKind,
    written: Plain | undefined,
    path: string,
    ownKeys: readonly string[],
  ): Entry | null {
    const result = readEntry(written, { kind, path, ownKeys, registry: this.#registry });
    if ("use" in result) return result;
    this.#add([result]);
    return null;
  }

  #add(issues: readonly ConfigIssue[]): void {
    for (const issue of issues) this.issues.push(issue);
  }

  #take(result: OptionsResult): unknown {
    if (result.ok) return result.options;
    this.#add(result.issues);
    return null;
  }
}

const NO_SLOTS: Readonly<Record<string, Slot>> = {};

function part(
  plugin: Plugin,
  options: unknown,
  path: string,
  inner: readonly ResolvedPart[] = [],
): ResolvedPart {
  return Object.freeze({ plugin, options: freezePlain(options), path, inner });
}

/**
 * Makes the complete form of a configuration that was written as a value rather than as text.
 * @param written the configuration: plain data, which is copied
 * @param baseUrl URL of the file in which it stands, or would stand: paths and module specifiers are resolved
 * against it
 * @param registry finds the plugins; modules are imported, which runs their code
 * @throws {ConfigError} with everything that is wrong
 */
export async function resolveConfig(
  written: unknown,
  baseUrl: string | URL,
  registry: PluginRegistry,
): Promise<ResolvedConfig> {
  if (!URL.canParse(baseUrl)) {
    throw new ConfigError([{
      path: "$",
      problem: `the base URL ${quoted(String(baseUrl))} is no URL`,
      remedy: 'give one such as "file:///dir/"',
    }]);
  }
  const resolver = new Resolver(registry, new URL(baseUrl).href);
  const copy = copyPlain(written, "$", resolver.issues);
  if (resolver.issues.length > 0) throw new ConfigError(resolver.issues);
  const config = await resolver.config(copy);
  if (config === null) throw new ConfigError(resolver.issues);
  return config;
}

// Takes an entry of the configuration apart: `{ "use": … }`, or a bare name.

/** An entry, taken apart. */
export interface Entry {
  /** The name of a built-in plugin, or a module specifier. */
  readonly use: string;
  /** Where that stands; for a bare name the entry itself. */
  readonly usePath: string;
  /** The keys that belong to the framework. */
  readonly own: Readonly<Record<string, Plain>>;
  /** All other keys: the options of the plugin, as written. */
  readonly options: Readonly<Record<string, Plain>>;
}

/** What an entry is to be, and where it stands. */
export interface EntryContext {
  /** The kind of plugin. */
  readonly kind: PluginKind;
  /** Where the entry stands. */
  readonly path: string;
  /** The keys that belong to the framework. */
  readonly ownKeys: readonly string[];
  /** Knows what could be written. */
  readonly registry: PluginRegistry;
}

/**
 * Takes an entry apart.
 * @param written the entry; undefined if it is missing
 * @param context what it is to be
 * @returns its parts, or what is wrong with it
 */
export function readEntry(written: Plain | undefined, context: EntryContext): Entry | ConfigIssue {
  const { path, ownKeys } = context;
  if (typeof written === "string") return { use: written, usePath: path, own: {}, options: {} };
  if (!isPlainObject(written)) return notUsable(written, path, context);
  const { use, ...rest } = written as Record<string, Plain>;
  const usePath = childPath(path, "use");
  if (typeof use !== "string") return notUsable(use, usePath, context);
  const own: Record<string, Plain> = {};
  const options: Record<string, Plain> = {};
  for (const [key, value] of Object.entries(rest)) (ownKeys.includes(key) ? own : options)[key] = value;
  return { use, usePath, own, options };
}

/** The same entry, with these keys taken out of the options. */
function splitKeys(entry: Entry, ownKeys: readonly string[]): Entry {
  const own: Record<string, Plain> = { ...entry.own };
  const options: Record<string, Plain> = {};
  for (const [key, value] of Object.entries(entry.options)) {
    (ownKeys.includes(key) ? own : options)[key] = value;
  }
  return { ...entry, own, options };
}

function notUsable(value: Plain | undefined, path: string, { kind, registry }: EntryContext): ConfigIssue {
  const names = registry.builtIns(kind).map((plugin) => plugin.name);
  const choice = names.length === 0 ? "" : `one of ${quotedList(names)} or `;
  const remedy = `write ${choice}a module such as "./name.ts"`;
  if (value === undefined) return { path, problem: "missing", remedy };
  return { path, value, problem: `is not ${partKind(kind).title}`, remedy };
}

// What devices are called: the names that were given, and numbers for the others.

/** A device that is complete but for its name, which may have been given. */
export type NamelessDevice = Omit<ResolvedDevice, "name"> & {
  /** The name that was given, if one was. */
  readonly name: string | undefined;
};

/**
 * Gives every device a name of its own: type and number, such as `net0`, where none was given. Names that
 * were given come first, so that a device without a name never takes one away.
 * @param devices the devices, in order
 * @param issues takes names that were given twice
 * @returns the devices with their names, in the same order, frozen
 */
export function nameDevices(devices: readonly NamelessDevice[], issues: ConfigIssue[]): ResolvedDevice[] {
  const taken = new Map<string, string>();
  for (const { name, path } of devices) {
    if (name === undefined) continue;
    const owner = taken.get(name);
    if (owner === undefined) taken.set(name, path);
    else {issues.push({
        path: childPath(path, "name"),
        value: name,
        problem: `is the name of ${owner} already`,
      });}
  }
  return devices.map((device) => {
    let name = device.name;
    for (let i = 0; name === undefined; i++) {
      const free = `${device.plugin.name}${i}`;
      if (!taken.has(free)) taken.set(name = free, device.path);
    }
    return Object.freeze({ ...device, name });
  });
}
