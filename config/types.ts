/**
 * The two forms of a configuration: what people write, and the complete one, which is all that the program sees.
 * @module
 */
import type { DevicePlugin, DriverPlugin, Plugin } from "../core/plugin.ts";
import type { NetworkPlugin, OffloadPlugin } from "../pipeline/plugin.ts";
import type { ConfigSource } from "./jsonc.ts";
import type { PluginKind } from "./registry.ts";

/** A plugin and its options, as written. A bare name is short for `{ "use": name }`. */
export type WrittenPart = string | {
  /** The name of a built-in plugin, or a module specifier. */
  readonly use: string;
  /** The plugin's options. */
  readonly [option: string]: unknown;
};

/** A device, as written. All other keys are the device plugin's options. */
export interface WrittenDevice {
  /** The type of device: the name of a built-in one, or a module specifier. */
  readonly use: string;
  /** What it is called in messages and counters; by default its type and a number, as in `net0`. */
  readonly name?: string;
  /** The way to the guest. */
  readonly driver: WrittenPart;
  /** The way to the network, for devices that have one. */
  readonly network?: WrittenPart;
  /** The steps that frames go through, in order of execution. `"enabled": false` leaves one out. */
  readonly offloads?: readonly WrittenPart[];
  /** Who works the queue pairs: the main thread, or one thread for each; by default `loop`. */
  readonly mode?: "loop" | "threads";
  /** How long a thread may take to answer, in ms; by default 1000. */
  readonly threadLimitMs?: number;
  /** The device plugin's options. */
  readonly [option: string]: unknown;
}

/** A configuration, as written. */
export interface WrittenConfig {
  /** For editors: where the JSON Schema lies. */
  readonly $schema?: string;
  /** What the machine is called; by default `machine`. */
  readonly name?: string;
  /** The devices. */
  readonly devices: readonly WrittenDevice[];
  /** Memory for frames in MiB, 1 to 4096; by default 128. */
  readonly frameMemoryMiB?: number;
  /** Real time, or the time of a capture that is replayed as fast as possible; by default `system`. */
  readonly clock?: "system" | "virtual";
}

/** The type of plugin of a kind. */
export type PluginOf<K extends PluginKind> = K extends keyof KnownPlugins ? KnownPlugins[K] : Plugin;

/** The kinds of plugin whose types are known here. */
export interface KnownPlugins {
  /** A type of device. */
  device: DevicePlugin;
  /** A way to a guest. */
  driver: DriverPlugin;
  /** A way to the network. */
  network: NetworkPlugin;
  /** A step of the pipeline. */
  offload: OffloadPlugin;
}

/** A plugin with complete options. */
export interface ResolvedPart<P extends Plugin = Plugin> {
  /** The plugin. */
  readonly plugin: P;
  /** Its options, validated and complete; frozen as far as they are plain data. */
  readonly options: unknown;
  /** Where it stands in the configuration, such as `$.devices[0].network`. */
  readonly path: string;
}

/** A device with everything that it consists of. */
export interface ResolvedDevice extends ResolvedPart<DevicePlugin> {
  /** What it is called in messages and counters; unique. */
  readonly name: string;
  /** The way to the guest. */
  readonly driver: ResolvedPart<DriverPlugin>;
  /** The way to the network; null if none was given. */
  readonly network: ResolvedPart<NetworkPlugin> | null;
  /** The offloads that are enabled, in order of execution. */
  readonly offloads: readonly ResolvedPart<OffloadPlugin>[];
  /** Who works the queue pairs: the main thread, or one thread for each. */
  readonly mode: "loop" | "threads";
  /** How long a thread may take to answer, in ms. */
  readonly threadLimitMs: number;
}

/** A complete, valid configuration. Frozen. */
export interface ResolvedConfig {
  /** What the machine is called. */
  readonly name: string;
  /** Memory for frames, in bytes. */
  readonly frameMemoryBytes: number;
  /** Real time, or the time of a capture. */
  readonly clock: "system" | "virtual";
  /** URL of the configuration file, against which paths in it are resolved. */
  readonly baseUrl: string;
  /** What was written, as JSON: other threads resolve it anew. */
  readonly text: string;
  /** The text that it was read from, for messages; none for a configuration that was a value. */
  readonly source?: ConfigSource;
  /** The devices. */
  readonly devices: readonly ResolvedDevice[];
  /**
   * Resolves a part that stands in another part's options: what `NetworkContext.inner` needs. Answers at once: parts
   * under the key `inner` of a network were resolved with the whole, others must be built-in or loaded already.
   * @param kind what kind of plugin it must be
   * @param written the part as it stands in the options
   * @param path where it stands in the configuration, such as `$.devices[0].network.inner`
   * @throws {ConfigError} if it cannot be resolved
   */
  resolvePart<K extends PluginKind>(kind: K, written: unknown, path: string): ResolvedPart<PluginOf<K>>;
}
