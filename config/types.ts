/**
 * The two forms of a configuration: what people write, and the complete one, which is all that the program
 * sees.
 * @module
 */
import type { ResolvedDevice, ResolvedPart } from "../plugins/plugin.ts";
import type { ConfigSource } from "./jsonc.ts";
import type { PluginKind } from "./kinds.ts";
export type { ResolvedDevice, ResolvedPart } from "../plugins/plugin.ts";

/** A plugin and its options, as written. A bare name is short for `{ "use": name }`. */
export type WrittenPart = string | {
  /** The name of a built-in plugin, or a module specifier. */
  readonly use: string;
  /** The plugin's options. */
  readonly [option: string]: unknown;
};

/** A device, as written. All other keys are the device plugin's slots and options. */
export interface WrittenDevice {
  /** The type of device: the name of a built-in one, or a module specifier. */
  readonly use: string;
  /** What it is called in messages and counters; by default its type and a number, as in `net0`. */
  readonly name?: string;
  /** The way to the guest. */
  readonly driver: WrittenPart;
  /** Who works the queue pairs: the main thread, or one thread for each; by default `loop`. */
  readonly mode?: "loop" | "threads";
  /** How long a thread may take to answer, in ms; by default 1000. */
  readonly threadLimitMs?: number;
  /** What stands in the device's slots, such as `network` and `offloads`, and the device plugin's options. */
  readonly [key: string]: unknown;
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
  /** How long to poll at most before a sleep, in µs, 0 to 1,000,000; by default 0: it sleeps at once. */
  readonly pollMaxUs?: number;
}

/** A complete, valid configuration. Frozen. */
export interface ResolvedConfig {
  /** What the machine is called. */
  readonly name: string;
  /** Memory for frames, in bytes. */
  readonly frameMemoryBytes: number;
  /** Real time, or the time of a capture. */
  readonly clock: "system" | "virtual";
  /** How long to poll at most before a sleep, in µs; 0: not at all. */
  readonly pollMaxUs: number;
  /** URL of the configuration file, against which paths in it are resolved. */
  readonly baseUrl: string;
  /** What was written, as JSON: other threads resolve it anew. */
  readonly text: string;
  /** The text that it was read from, for messages; none for a configuration that was a value. */
  readonly source?: ConfigSource;
  /** The devices. */
  readonly devices: readonly ResolvedDevice[];
  /**
   * Resolves a part that stands in another part's options: what a part that wraps others needs. Answers at
   * once: parts that stand where their kind has them (`PartKind.wraps`) were resolved with the whole, others
   * must be built-in or loaded already.
   * @param kind what kind of plugin it must be
   * @param written the part as it stands in the options
   * @param path where it stands in the configuration, such as `$.devices[0].network.inner`
   * @throws {ConfigError} if it cannot be resolved
   */
  resolvePart(kind: PluginKind, written: unknown, path: string): ResolvedPart;
}
