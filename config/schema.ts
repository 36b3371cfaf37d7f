/**
 * The keys of a configuration that are not some plugin's: of the whole, of a device, of an offload. One source for
 * validation, defaults and the descriptions in the JSON Schema.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../core/plugin.ts";

/** The most devices in one configuration. */
export const MAX_DEVICES = 256;
/** The most offloads of one device. */
export const MAX_OFFLOADS = 64;
/** What a machine is called that has no name. */
export const DEFAULT_NAME = "machine";

/** Keys of the whole configuration, after validation. */
export interface FileKeys {
  /** Where the JSON Schema lies; only for editors. */
  $schema?: string | undefined;
  /** What the machine is called. */
  name: string;
  /** The devices, not yet looked at. */
  devices: unknown[];
  /** Memory for frames, in MiB. */
  frameMemoryMiB: number;
  /** Which clock drives the machine. */
  clock: "system" | "virtual";
}

/** Keys of a device that are not its plugin's, after validation. */
export interface DeviceKeys {
  /** What the device is called; undefined until a name is chosen. */
  name?: string | undefined;
  /** The way to the guest, not yet looked at. */
  driver?: unknown;
  /** The way to the network, not yet looked at. */
  network?: unknown;
  /** The offloads, not yet looked at. */
  offloads: unknown[];
  /** Who works the queue pairs. */
  mode: "loop" | "threads";
  /** How long a thread may take to answer, in ms. */
  threadLimitMs: number;
}

/** Keys of an offload that are not its plugin's, after validation. */
export interface OffloadKeys {
  /** Is it part of the line? */
  enabled: boolean;
}

const name = z.string().regex(
  /^[a-z0-9][a-z0-9_-]{0,39}$/,
  "is no name; use lower case letters, digits, hyphens and underscores, at most 40",
);

/** The keys of the whole configuration. */
export const fileKeys: OptionsSchema<FileKeys> = z.strictObject({
  $schema: z.string().optional().describe("Where the JSON Schema of this file lies, for editors"),
  name: name.default(DEFAULT_NAME).describe("What the machine is called in messages and metrics"),
  devices: z.array(z.unknown()).min(1).max(MAX_DEVICES).describe("The devices that this machine runs"),
  frameMemoryMiB: z.int().min(1).max(4096).default(128).describe(
    "Memory for frames in MiB, shared by all devices, taken at the start",
  ),
  clock: z.enum(["system", "virtual"]).default("system").describe(
    'Which time drives the machine: "system" is real time, "virtual" is that of the captures it replays, as fast as possible',
  ),
});

/** The keys of a device besides `use` and the options of its plugin. */
export const deviceKeys: OptionsSchema<DeviceKeys> = z.strictObject({
  name: name.optional().describe(
    "What the device is called in messages and metrics; by default its type and a number, such as net0",
  ),
  driver: z.unknown().optional().describe("The way to the guest: who brings memory and queues"),
  network: z.unknown().optional().describe("The way to the network, for devices that have one"),
  offloads: z.array(z.unknown()).max(MAX_OFFLOADS).default([]).describe(
    "The steps that frames go through, in order of execution",
  ),
  mode: z.enum(["loop", "threads"]).default("loop").describe(
    'Who works the queue pairs: "loop" is the main thread, "threads" one thread for each pair, with frame memory of its ' +
      "own. That needs the driver vhost-user and a network with a queue for each pair, such as tap, whose kernel chooses " +
      "the queue: RSS is not offered.",
  ),
  threadLimitMs: z.int().min(10).max(60_000).default(1000).describe(
    "How long a thread may take to answer, in ms. The usual time is less than one; in it, everything else waits. A thread that takes " +
      "longer, because a plugin does not come to its end, has failed, and its device with it.",
  ),
});

/** The keys of an offload besides `use` and the options of its plugin. */
export const offloadKeys: OptionsSchema<OffloadKeys> = z.strictObject({
  enabled: z.boolean().default(true).describe("false leaves this step out"),
});

/** Names of the keys of a device that are not its plugin's. */
export const DEVICE_KEYS: readonly string[] = [
  "name",
  "driver",
  "network",
  "offloads",
  "mode",
  "threadLimitMs",
];
/** Names of the keys of an offload that are not its plugin's. */
export const OFFLOAD_KEYS: readonly string[] = ["enabled"];
