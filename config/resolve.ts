/**
 * From the written form of a configuration to the complete one.
 *
 * Theory of operation. `resolveConfig` copies what was written (so that it is plain data of bounded depth, and nobody
 * else's), then walks it once, in the order in which it is read: the keys of the whole, and for each device its own
 * keys, its options, driver, network, offloads. Every step adds to `issues` and goes on as well as it can, so that one
 * run shows everything that is wrong; only at the end does it throw.
 *
 * Every `{ "use": … }` goes through `#part`: split the entry into `use`, keys of ours and options of the plugin; find
 * the plugin, importing its module; validate the options by the plugin's own schema.
 *
 * A transport may wrap another one, whose configuration stands in its options under `inner`, and it asks for it while
 * it is being built, when nobody can wait. So `#part` looks into `inner` of a network right away, imports and
 * validates what stands there, and keeps the result in `#inner` by kind and path. `resolvePart` answers from there if
 * it is asked for the same thing; a plugin that has put another configuration together gets that one resolved, as far
 * as it can be done at once. The key `inner` of a network is thereby reserved for networks.
 * @module
 */
import type { DevicePlugin, DriverPlugin, OptionsSchema } from "../core/plugin.ts";
import type { OffloadPlugin } from "../pipeline/plugin.ts";
import { childPath, ConfigError, type ConfigIssue, quoted, quotedList } from "./errors.ts";
import { jsonSchemaOf, knownKeys } from "./option_schema.ts";
import { checkOptions, checkOptionsNow, type OptionsResult } from "./options.ts";
import { canonical, copyPlain, freezePlain, isPlainObject, type Plain } from "./plain.ts";
import { KIND_NAMES, type PluginKind, PluginRegistry } from "./registry.ts";
import {
  DEVICE_KEYS,
  type DeviceKeys,
  deviceKeys,
  type FileKeys,
  fileKeys,
  MAX_DEVICES,
  OFFLOAD_KEYS,
  type OffloadKeys,
  offloadKeys,
} from "./schema.ts";
import { threadIssues } from "./thread_refusals.ts";
import type { PluginOf, ResolvedConfig, ResolvedDevice, ResolvedPart } from "./types.ts";

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
    for (const device of devices) this.#add(threadIssues(device, keys?.clock));
    if (keys === null || this.issues.length > 0) return null;
    return Object.freeze({
      name: keys.name,
      frameMemoryBytes: keys.frameMemoryMiB * 2 ** 20,
      clock: keys.clock,
      baseUrl: this.#baseUrl,
      text: JSON.stringify(written),
      devices: Object.freeze(devices),
      resolvePart: <K extends PluginKind>(kind: K, inner: unknown, path: string) =>
        this.resolvePart(kind, inner, path),
    });
  }

  resolvePart<K extends PluginKind>(kind: K, written: unknown, path: string): ResolvedPart<PluginOf<K>> {
    const issues: ConfigIssue[] = [];
    const copy = copyPlain(written, path, issues);
    if (issues.length > 0) throw new ConfigError(issues);
    const prepared = this.#inner.get(`${kind} ${path}`);
    if (prepared?.written === canonical(copy)) return prepared.part as ResolvedPart<PluginOf<K>>;
    const entry = readEntry(copy, { kind, path, ownKeys: [], registry: this.#registry });
    if (!("use" in entry)) throw new ConfigError([entry]);
    const plugin = this.#registry.find(kind, entry.use, this.#baseUrl, entry.usePath);
    const result = checkOptionsNow(plugin.options, entry.options, path, { renamed: plugin.renamedOptions });
    if (!result.ok) throw new ConfigError(result.issues);
    return part(plugin, result.options, path) as ResolvedPart<PluginOf<K>>;
  }

  async #device(written: Plain, path: string): Promise<NamelessDevice | null> {
    const entry = this.#entry("device", written, path, DEVICE_KEYS);
    if (entry === null) return null;
    const keys = this.#take(await checkOptions(deviceKeys, entry.own, path)) as DeviceKeys | null;
    const device = await this.#plugin("device", entry, path, DEVICE_KEYS);
    const driver = await this.#driver(entry.own.driver, childPath(path, "driver"), this.#devicePlugin(entry));
    const wish = this.#networkWish(entry);
    const isGiven = entry.own.network !== undefined;
    if (wish === "none") {
      for (const key of ["network", "offloads"].filter((key) => entry.own[key] !== undefined)) {
        const problem = `${quoted(entry.use)} is a device without a network`;
        this.#add([{ path: childPath(path, key), problem, remedy: `leave ${quoted(key)} out` }]);
      }
    }
    const hasNetwork = isGiven || wish === "required";
    const network = hasNetwork
      ? await this.#part("network", entry.own.network, childPath(path, "network"))
      : null;
    const offloads: ResolvedPart<OffloadPlugin>[] = [];
    for (const [i, one] of (keys?.offloads ?? []).entries()) {
      const offload = await this.#offload(one as Plain, childPath(childPath(path, "offloads"), i));
      if (offload !== null) offloads.push(offload);
    }
    if (keys === null || device === null || driver === null || (hasNetwork && network === null)) return null;
    return {
      ...device,
      plugin: device.plugin as DevicePlugin,
      name: keys.name,
      driver,
      network,
      offloads: Object.freeze(offloads),
      mode: keys.mode,
      threadLimitMs: keys.threadLimitMs,
    };
  }

  /** The plugin of a device, even if its options are wrong; undefined if there is none, which is an issue already. */
  #devicePlugin({ use, usePath }: Entry): DevicePlugin | undefined {
    try {
      return this.#registry.find("device", use, this.#baseUrl, usePath) as DevicePlugin;
    } catch {
      return undefined;
    }
  }

  /** Must a device have a network? */
  #networkWish(entry: Entry): "required" | "none" | undefined {
    const plugin = this.#devicePlugin(entry);
    if (plugin === undefined) return undefined;
    const { slots } = plugin;
    if (slots?.network === undefined) return "none";
    return slots.network.required === true ? "required" : undefined;
  }

  /** Null if it is wrong, and also if it is right but switched off. */
  async #offload(written: Plain, path: string): Promise<ResolvedPart<OffloadPlugin> | null> {
    const entry = this.#entry("offload", written, path, OFFLOAD_KEYS);
    if (entry === null) return null;
    const keys = this.#take(await checkOptions(offloadKeys, entry.own, path)) as OffloadKeys | null;
    const isOff = keys !== null && !keys.enabled;
    // A module may be switched off because it is broken, so it must not even be loaded.
    if (isOff && PluginRegistry.isSpecifier(entry.use)) return null;
    const offload = await this.#plugin("offload", entry, path, OFFLOAD_KEYS);
    return isOff ? null : offload;
  }

  /** A guest made of software takes the options of the driver's half that the device brings. */
  async #driver(
    written: Plain | undefined,
    path: string,
    device: DevicePlugin | undefined,
  ): Promise<ResolvedPart<DriverPlugin> | null> {
    const entry = this.#entry("driver", written, path, []);
    if (entry === null) return null;
    return await this.#plugin("driver", entry, path, [], ({ runsSoftwareDriver, options }) => {
      if (runsSoftwareDriver !== true) return options;
      // Of an unknown device it is not known which options its driver takes.
      return device === undefined ? null : device.driver?.options ?? options;
    });
  }

  async #part<K extends PluginKind>(
    kind: K,
    written: Plain | undefined,
    path: string,
  ): Promise<ResolvedPart<PluginOf<K>> | null> {
    const entry = this.#entry(kind, written, path, []);
    return entry === null ? null : await this.#plugin(kind, entry, path, []);
  }

  async #plugin<K extends PluginKind>(
    kind: K,
    entry: Entry,
    path: string,
    ownKeys: readonly string[],
    schemaOf: (plugin: PluginOf<K>) => OptionsSchema<unknown> | null = ({ options }) => options,
  ): Promise<ResolvedPart<PluginOf<K>> | null> {
    let plugin;
    try {
      plugin = await this.#registry.load(kind, entry.use, this.#baseUrl, entry.usePath);
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      this.#add(error.issues);
      return null;
    }
    const schema = schemaOf(plugin as PluginOf<K>);
    if (schema === null) return null;
    const result = await checkOptions(schema, entry.options, path, {
      alsoKnown: ownKeys,
      renamed: plugin.renamedOptions,
    });
    if (!result.ok) this.#add(result.issues);
    if (kind === "network" && entry.options.inner !== undefined) {
      const known = knownKeys(jsonSchemaOf(plugin.options), []);
      if (known === null || known.includes("inner")) {
        await this.#prepare(entry.options.inner, childPath(path, "inner"));
      }
    }
    return result.ok ? part(plugin, result.options, path) as ResolvedPart<PluginOf<K>> : null;
  }

  /** Resolves what will be asked for later, when nobody can wait. */
  async #prepare(written: Plain, path: string): Promise<void> {
    // Switched off by null; and a list is what a transport over several others would have.
    if (written === null) return;
    if (Array.isArray(written)) {
      const items = written.slice(0, MAX_INNER);
      for (const [i, one] of items.entries()) await this.#prepare(one, childPath(path, i));
      if (written.length > MAX_INNER) this.#add([{ path, problem: `has more than ${MAX_INNER} items` }]);
      return;
    }
    const inner = await this.#part("network", written, path);
    if (inner !== null) this.#inner.set(`network ${path}`, { written: canonical(written), part: inner });
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

function part(plugin: ResolvedPart["plugin"], options: unknown, path: string): ResolvedPart {
  return Object.freeze({ plugin, options: freezePlain(options), path });
}

/**
 * Makes the complete form of a configuration that was written as a value rather than as text.
 * @param written the configuration: plain data, which is copied
 * @param baseUrl URL of the file in which it stands, or would stand: paths and module specifiers are resolved against it
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

function notUsable(value: Plain | undefined, path: string, { kind, registry }: EntryContext): ConfigIssue {
  const names = registry.builtIns(kind).map((plugin) => plugin.name);
  const choice = names.length === 0 ? "" : `one of ${quotedList(names)} or `;
  const remedy = `write ${choice}a module such as "./name.ts"`;
  if (value === undefined) return { path, problem: "missing", remedy };
  return { path, value, problem: `is not ${KIND_NAMES[kind]}`, remedy };
}

// What devices are called: the names that were given, and numbers for the others.

/** A device that is complete but for its name, which may have been given. */
export type NamelessDevice = Omit<ResolvedDevice, "name"> & {
  /** The name that was given, if one was. */
  readonly name: string | undefined;
};

/**
 * Gives every device a name of its own: type and number, such as `net0`, where none was given. Names that were given
 * come first, so that a device without a name never takes one away.
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
