/**
 * Plugins: what a name in the JSON stands for. Four kinds, one shape.
 * @module
 */
import type { Clock } from "./clock.ts";
import type { Device, DeviceContext, DeviceEventListener } from "./device.ts";
import type { FramePool } from "./frame_pool.ts";
import type { FrameTransport } from "./frame_transport.ts";
import type { OffloadPlugin, PluginBase } from "./offload_plugin.ts";
import type { DriverTransport } from "./transport.ts";
export type { OffloadPlugin, PluginBase } from "./offload_plugin.ts";

/** A file that a part of a machine reads or writes. */
export interface FileClaim {
  /** The option that names it, such as `write`. */
  readonly key: string;
  /** Its path, for messages. */
  readonly path: string;
  /** What is done with it. */
  readonly use: "read" | "write";
  /** Which file it is, such as its device and inode in one string; null if that is not to be compared. */
  readonly identity: string | null;
}

/** What a transport is built from. */
export interface TransportContext {
  /** Where it stands in the configuration, for messages: `devices[0].network`. */
  readonly path: string;
  /** Frames come from here. */
  readonly pool: FramePool;
  /** The machine's clock; for transports that must stamp what they write. */
  readonly clock: Clock;
  /** The MAC address of the device's guest, six bytes. */
  readonly guestMac: Uint8Array;
  /** How many queue pairs the device has. */
  readonly queuePairs: number;
  /** Makes a path of the configuration absolute, relative to the configuration file. */
  resolvePath(path: string): string;
  /** The named in-memory cable of this machine: made when first asked for, shared by all who ask. */
  shared<T>(key: string, make: () => T): T;
  /** Wakes the reactor: something can be done. */
  wake(): void;
  /**
   * Turns the reactor whenever this file descriptor becomes readable or writable, or its other side closes. It says so once
   * (edge-triggered): read and write until there is no more. Dispose of the watch before the descriptor is closed.
   * Throws HostError if the descriptor cannot be watched, or the machine runs by a virtual clock.
   */
  watch(descriptor: number): Disposable;
  /** Makes these counters readable from outside, live. Returns the same object. */
  publish<T extends Record<string, number>>(counters: T): T;
  /**
   * Says that this transport has opened a file. Throws ConfigError if something of the machine reads what is to be written,
   * or writes it. Claim a file before it is emptied, by what is open rather than by its name.
   */
  claimFile(claim: FileClaim): void;
  /** Has this done when the machine starts: everything is built and every claim is accepted, so that files may be emptied. */
  onStart(action: () => void): void;
  /** Tells a watching program what has happened to the device of this transport. Left out: nothing watches. */
  readonly report?: DeviceEventListener | undefined;
  /** Builds the transport that this one wraps, from its own part of the configuration. */
  inner(config: unknown, key: string): FrameTransport;
}

/** What a transport of one queue is made from, in a thread of its own. */
export type QueueContext = Pick<TransportContext, "path" | "pool" | "watch" | "publish">;

/** A way to the network. */
export interface NetworkPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "network";
  /** Opens the transport. */
  create(context: TransportContext, options: O): FrameTransport;
  /**
   * In another thread: makes a transport with one queue of what `FrameTransport.giveQueue` has given. Left out: the queues
   * of this network cannot be given to threads.
   */
  takeQueue?(context: QueueContext, given: unknown): FrameTransport;
}

/** A way to a guest. */
export interface DriverPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "driver";
  /** Can it lend rings to other threads (`DriverTransport.lendTo`)? Left out: no. */
  readonly lendsRings?: boolean;
  /** Builds the transport; nothing is opened before `serve`. */
  create(context: TransportContext, options: O): DriverTransport;
}

/** What transports have to know about the device that they serve. */
export interface DeviceFacts {
  /** The MAC address of its guest, six bytes. */
  readonly guestMac: Uint8Array;
  /** How many queue pairs it has. */
  readonly queuePairs: number;
}

/** A type of device. */
export interface DevicePlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "device";
  /** Can its queue pairs be worked in threads of their own (`DeviceContext.role`)? Left out: no. */
  readonly worksInThreads?: boolean;
  /** Must it have a network, or can it have none? Left out: it may have one. */
  readonly network?: "required" | "none";
  /** What the transports of a device with these options have to know. */
  facts?(options: O): DeviceFacts;
  /** Builds the device. */
  create(context: DeviceContext, options: O): Device;
}

/** Any plugin. */
// deno-lint-ignore no-explicit-any
export type Plugin = OffloadPlugin<any> | NetworkPlugin<any> | DriverPlugin<any> | DevicePlugin<any>;

/**
 * Declares an offload stage. Adds `kind` and `api`, and infers the type of the options from their schema.
 *
 * @example
 * ```ts
 * import { defineOffload } from "./plugin.ts";
 * import { perFrame } from "./stage.ts";
 * import { z } from "zod";
 *
 * export default defineOffload({
 *   name: "drop-every",
 *   direction: "toGuest",
 *   options: z.strictObject({ nth: z.int().min(2).default(10) }),
 *   create(context, options) {
 *     const counters = context.publish({ dropped: 0 });
 *     let seen = 0;
 *     return perFrame((frame, output) => {
 *       if (++seen % options.nth) output.push(frame);
 *       else { counters.dropped++; frame.release(); }
 *     });
 *   },
 * });
 * ```
 */
export function defineOffload<O>(plugin: Omit<OffloadPlugin<O>, "kind" | "api">): OffloadPlugin<O> {
  return { kind: "offload", api: 1, ...plugin };
}

/** Declares a frame transport; see {@linkcode defineOffload}. */
export function defineNetwork<O>(plugin: Omit<NetworkPlugin<O>, "kind" | "api">): NetworkPlugin<O> {
  return { kind: "network", api: 1, ...plugin };
}

/** Declares a driver transport; see {@linkcode defineOffload}. */
export function defineDriver<O>(plugin: Omit<DriverPlugin<O>, "kind" | "api">): DriverPlugin<O> {
  return { kind: "driver", api: 1, ...plugin };
}

/** Declares a device; see {@linkcode defineOffload}. */
export function defineDevice<O>(plugin: Omit<DevicePlugin<O>, "kind" | "api">): DevicePlugin<O> {
  return { kind: "device", api: 1, ...plugin };
}

// What a plugin's option schema must be: a schema of any Standard Schema library (version 1), by its shape.
//
// Written out here, as the standard invites libraries to do, so that the core depends on no package for its types.

/** One thing that a schema found wrong. */
export interface SchemaIssue {
  /** What is wrong, in words. */
  readonly message: string;
  /** Where: keys from the outside in. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** What a schema says of a value: the value, complete and typed, or what is wrong with it. */
export type SchemaResult<O> =
  | { readonly value: O; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** A schema (zod, valibot, arktype, …): checks the options, fills in defaults, types the code. */
export interface OptionsSchema<O> {
  /** The standard's own property. */
  readonly "~standard": {
    /** Version of the standard. */
    readonly version: 1;
    /** The library. */
    readonly vendor: string;
    /** Judges a value. */
    readonly validate: (value: unknown) => SchemaResult<O> | Promise<SchemaResult<O>>;
  };
}
