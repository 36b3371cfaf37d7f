/**
 * Plugins: what a name in the JSON stands for. A device plugin names slots, and plugins of any kind stand in them.
 *
 * The framework resolves, validates and builds what stands in a slot, and knows kinds by name only. The kinds "device" and
 * "driver" belong to the framework. Families of devices declare others: `pipeline/plugin.ts` declares "network" and "offload".
 * @module
 */
import type { Clock } from "./clock.ts";
import type { Device, DeviceContext, DeviceEventListener } from "./device.ts";
import type { DriverTransport } from "./transport.ts";

/** What every plugin has. */
export interface PluginBase<O> {
  /** Version of this contract. */
  readonly api: 1;
  /** What kind of plugin this is: which slots it fits. Lower case, digits, hyphens. */
  readonly kind: string;
  /** The name that labels counters and errors: lower case, digits, hyphens. */
  readonly name: string;
  /** One line for `plugins` and for the JSON Schema. */
  readonly summary?: string;
  /** Validates what stands in the JSON beside `use`. */
  readonly options: OptionsSchema<O>;
  /** Keys of options that had another name in an earlier version, and the present name of each: errors name it. */
  readonly renamedOptions?: Readonly<Record<string, string>>;
}

/** Any plugin: of a device, a driver transport, or a part of any kind. */
export interface Plugin extends PluginBase<unknown> {
  /** Builds what the plugin stands for. */
  // deno-lint-ignore no-explicit-any
  create(context: any, options: any): unknown;
  /**
   * Of a part: makes a part in the thread of a queue worker of what `giveToWorker(set)` of the part in the main thread has
   * returned, which is plain JSON. Left out: a device with such a part cannot be served in threads.
   */
  // deno-lint-ignore no-explicit-any
  createInWorker?(context: any, given: any): unknown;
}

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

/** What every part of a machine is built from. Families of devices add to it. */
export interface PartContext {
  /** Where it stands in the configuration, for messages: `$.devices[0].network`. */
  readonly path: string;
  /** The machine's clock; for parts that must stamp what they write. */
  readonly clock: Clock;
  /** Makes a path of the configuration absolute, relative to the configuration file. */
  resolvePath(path: string): string;
  /** What the parts of this machine share under this key: made when first asked for. */
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
   * Says that this part has opened a file. Throws ConfigError if something of the machine reads what is to be written, or
   * writes it. Claim a file before it is emptied, by what is open rather than by its name.
   */
  claimFile(claim: FileClaim): void;
  /** Does this when the machine starts: everything is built and every claim is accepted, so that files may be emptied. */
  onStart(action: () => void): void;
  /** Tells a watching program what has happened to the device of this part. Left out: nothing watches. */
  readonly report?: DeviceEventListener | undefined;
}

/**
 * The driver's half of a type of device: drives such a device where the guest is made of software. `guest/` has the classes that
 * `create` makes an object of.
 */
export interface SoftwareDriver<O = unknown> {
  /** Validates what stands in the JSON beside `use` of the driver transport: the options of every software guest and its own. */
  readonly options: OptionsSchema<O>;
  /** Makes a guest, a `SoftwareGuest`, that is not attached yet. */
  // deno-lint-ignore no-explicit-any -- halves of any options are kept together
  create(options: any): unknown;
}

/** What a driver transport is built from. */
export interface DriverContext extends PartContext {
  /** The driver's half that the device brings; null if it brings none, or the transport has no use for one. */
  readonly softwareDriver: SoftwareDriver | null;
}

/** A way to a guest. */
export interface DriverPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "driver";
  /** Can it attach rings to queue workers (`DriverTransport.useWorkers`)? Left out: no. */
  readonly supportsWorkers?: boolean;
  /**
   * Is its guest made of software? Then a device that brings its driver's half (`DevicePlugin.driver`) is driven by it, and the
   * options beside `use` are those of the half. Left out: no.
   */
  readonly runsSoftwareDriver?: boolean;
  /** Builds the transport; nothing is opened before `serve`. */
  create(context: DriverContext, options: O): DriverTransport;
}

/** A place of a device for a part, or for several. */
export interface Slot {
  /** The kind of plugin that fits. */
  readonly kind: string;
  /** Must it be filled? Left out: no. Of no meaning for `many`. */
  readonly required?: boolean;
  /** Does it take a list of parts, in order? Left out: one part. */
  readonly many?: boolean;
}

/** A type of device. */
export interface DevicePlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "device";
  /** The keys under which parts of the device stand in the JSON, such as `network`. Left out: none. */
  readonly slots?: Readonly<Record<string, Slot>>;
  /** Have its devices sets of queues that threads may serve (`Device.workers`)? Left out: no. */
  readonly worksInThreads?: boolean;
  /** Drives the device where the guest is made of software. Left out: a guest that posts nothing of itself. */
  readonly driver?: SoftwareDriver;
  /** What parts have to know about a device with these options; the family's plugins say which facts these are. */
  facts?(options: O): unknown;
  /** Builds the device. */
  create(context: DeviceContext, options: O): Device;
}

/** Declares a driver transport: adds `kind` and `api`, and infers the type of the options from their schema. */
export function defineDriver<O>(plugin: Omit<DriverPlugin<O>, "kind" | "api">): DriverPlugin<O> {
  return { kind: "driver", api: 1, ...plugin };
}

/** Declares a device: adds `kind` and `api`, and infers the type of the options from their schema. */
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
