/**
 * The keys of a configuration that are not some plugin's: of the whole, of a device, of a part. One source
 * for validation, defaults and the descriptions in the JSON Schema.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema, Slot } from "../plugins/plugin.ts";

/** The most devices in one configuration. */
export const MAX_DEVICES = 256;
/** The most parts in one slot. */
export const MAX_PARTS = 64;
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
  /** How long to poll at most before a sleep, in µs. */
  pollMaxUs: number;
}

/** Keys of a device that are neither its plugin's options nor its slots, after validation. */
export interface DeviceKeys {
  /** What the device is called; undefined until a name is chosen. */
  name?: string | undefined;
  /** The way to the guest, not yet looked at. */
  driver?: unknown;
  /** Who works the queue pairs. */
  mode: "loop" | "threads";
  /** How long a thread may take to answer, in ms. */
  threadLimitMs: number;
}

/** Keys of a part with a switch that are not its plugin's, after validation. */
export interface SwitchKeys {
  /** Is it there? */
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
  pollMaxUs: z.int().min(0).max(1_000_000).default(0).describe(
    "How long to poll at most before a sleep, in µs. The time adapts itself: it grows while what comes would have been met, and shrinks " +
      "while it was in vain. It costs up to a processor for the main thread and for each thread of a device, and saves what a wake takes. " +
      "0: it sleeps at once.",
  ),
});

const deviceShape = {
  name: name.optional().describe(
    "What the device is called in messages and metrics; by default its type and a number, such as net0",
  ),
  driver: z.unknown().optional().describe("The way to the guest: who brings memory and queues"),
  mode: z.enum(["loop", "threads"]).default("loop").describe(
    'Who works the queues: "loop" is the main thread, "threads" one thread for each set of queues that the device names, ' +
      "such as a pair, with frame memory of its own. A driver or a part that cannot be served by threads is refused, with " +
      "the names of those that can.",
  ),
  threadLimitMs: z.int().min(10).max(60_000).default(1000).describe(
    "How long a thread may take to answer, in ms. The usual time is less than one; in it, everything else waits. A thread that takes " +
      "longer, because a plugin does not come to its end, has failed, and its device with it.",
  ),
};

const known = new WeakMap<object, OptionsSchema<DeviceKeys & Record<string, unknown>>>();

/** The keys of a device with these slots, besides `use` and the options of its plugin. */
export function deviceKeys(
  slots: Readonly<Record<string, Slot>>,
): OptionsSchema<DeviceKeys & Record<string, unknown>> {
  let schema = known.get(slots);
  if (schema === undefined) {
    const { name, driver, ...others } = deviceShape;
    const places = Object.entries(slots).map(([key, { kind, many, summary }]) => {
      const about = summary ?? `What stands in the slot of kind ${kind}`;
      return [
        key,
        many === true
          ? z.array(z.unknown()).max(MAX_PARTS).default([]).describe(about)
          : z.unknown().optional().describe(about),
      ];
    });
    schema = z.strictObject({
      name,
      driver,
      ...Object.fromEntries(places),
      ...others,
    }) as unknown as OptionsSchema<
      DeviceKeys & Record<string, unknown>
    >;
    known.set(slots, schema);
  }
  return schema;
}

/** The keys of a part that can be left out, besides `use` and the options of its plugin. */
export const switchKeys: OptionsSchema<SwitchKeys> = z.strictObject({
  enabled: z.boolean().default(true).describe("false leaves this step out"),
});

/** Names of the keys of a device that are neither its plugin's options nor its slots. */
export const DEVICE_KEYS: readonly string[] = ["name", "driver", "mode", "threadLimitMs"];
/** Names of the keys of a part with a switch that are not its plugin's. */
export const SWITCH_KEYS: readonly string[] = ["enabled"];
