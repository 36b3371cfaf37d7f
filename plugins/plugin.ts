/**
 * Plugins: what a name in the JSON stands for. A device plugin names slots, and plugins of any kind stand in
 * them.
 *
 * The framework resolves, validates and builds what stands in a slot, and knows kinds by name only. The kinds
 * "device" and "driver" belong to the framework. Families of devices declare others: `pipeline/plugin.ts`
 * declares "network" and "offload".
 * @module
 */
import type { Arena } from "../rings/arena.ts";
import type { Clock } from "../core/clock.ts";
import type { Device, DeviceEventListener } from "../core/device.ts";
import type { FeatureSet } from "../core/features.ts";
import type { QueueWorkers } from "./queue_workers.ts";

/** What every plugin has. */
export interface PluginBase<O> {
  /** Version of this contract. */
  readonly api: 2;
  /** What kind of plugin this is: which slots it fits. Lower case, digits, hyphens. */
  readonly kind: string;
  /** The name that labels counters and errors: lower case, digits, hyphens. */
  readonly name: string;
  /** One line for `plugins` and for the JSON Schema. */
  readonly summary?: string;
  /** Validates what stands in the JSON beside `use`. */
  readonly options: OptionsSchema<O>;
  /** Earlier names of keys of options, and the present name of each: errors name it. */
  readonly renamedOptions?: Readonly<Record<string, string>>;
  /** Does it wait for events of the host, so that a virtual clock is of no use to it? Left out: no. */
  readonly waitsForHost?: boolean;
  /** What Deno must permit for it: files as they are written in the options, and native calls. */
  permissions?(options: O): PluginPermissions;
  /** What cannot be together with what stands elsewhere: a machine with such a conflict is not built. */
  conflicts?(options: O, site: ConfigSite): readonly PartIssue[];
  /** What works differently than expected, although nothing is wrong: `check` tells it. */
  hints?(options: O, site: BuiltSite): readonly PartIssue[];
  /** What else `check` tells of it. */
  describe?(options: O, site: BuiltSite): PluginDescription;
  /** The things that it alone can have, such as a socket: two that claim the same thing are a conflict. */
  claims?(options: O, site: ConfigSite): readonly Claim[];
}

/** What Deno must permit for a plugin with its options. */
export interface PluginPermissions {
  /** Files that it reads, as written. */
  readonly read?: readonly string[];
  /** Files that it writes, as written. */
  readonly write?: readonly string[];
  /** Does it call foreign functions? */
  readonly ffi?: boolean;
}

/** Where in a configuration a plugin stands that judges it as a whole, before anything is built. */
export interface ConfigSite {
  /** Where it stands, such as `$.devices[0].network`. */
  readonly path: string;
  /** The device that it is a part of, or is. */
  readonly device: ResolvedDevice;
  /** What the device tells its parts: `DevicePlugin.facts`. */
  readonly facts: unknown;
  /** All devices. */
  readonly devices: readonly ResolvedDevice[];
  /** A path of the configuration, absolute; as it is if it is relative to what is no file. */
  absolutePath(written: string): string;
}

/** Where a plugin stands that judges a device which was built to be looked at (`BuildOptions.preview`). */
export interface BuiltSite extends ConfigSite {
  /** The device. */
  readonly built: Device;
  /** What was made for its slots, by their names, as `MachineDevice.parts`. */
  readonly made: Readonly<Record<string, unknown>>;
  /** The features that its driver accepts; null where that is a program which is not there yet. */
  readonly agreed: FeatureSet | null;
  /** The programs that can be expected at the other end of its driver transport. */
  readonly frontEnds: readonly FrontEndOutlook[];
}

/** What `check` tells of a plugin with its options, beside its name and these. */
export interface PluginDescription {
  /** Lines for people, each a short label and a text. */
  readonly lines?: readonly (readonly [label: string, text: string])[];
  /**
   * What the features of the device depend on that are not offered for sure; each goes on a sentence: `and
   * more, if …`.
   */
  readonly offers?: readonly string[];
  /** What programs read of it with `--json`: plain JSON, beside `use` and `options`. */
  readonly json?: Readonly<Record<string, unknown>>;
  /** What must be on the host; `check` fails if it is not. */
  readonly needs?: readonly HostNeed[];
}

/** A file that must be there, or can be made. */
export interface HostNeed {
  /** Where in the configuration it is named: `$.devices[0].network.write`. */
  readonly path: string;
  /** The file, absolute. */
  readonly file: string;
  /**
   * What is done with it: `write` makes it or writes over it, `listen` makes a socket, `connect` goes to the
   * socket of another program, `open` reads and writes what is there.
   */
  readonly use: "write" | "listen" | "connect" | "open";
  /** With `open`: what to do if it is not there. */
  readonly missing?: string;
  /** With `open`: what to do if this user may not read and write it. */
  readonly refused?: string;
  /**
   * With `open`, once it can be: what else cannot be seen of the host beforehand, and how it would be; null
   * if nothing.
   */
  unseen?(): string | null;
}

/** A thing of which there is one, and who wants it. */
export interface Claim {
  /** What it is, the same text for all who may want it: `the socket /run/net0.sock`. */
  readonly thing: string;
  /** Where in the configuration it is wanted. */
  readonly path: string;
  /** Who wants it, for messages; by default `path`. One who wants it twice is no conflict with himself. */
  readonly owner?: string;
  /** Puts the conflict into words. Left out: `is that of … already`. @param owner who has it */
  problem?(owner: string): string;
  /** What to do instead. */
  readonly remedy: string;
}

/** Any plugin: of a device, a driver transport, or a part of any kind. */
export interface Plugin extends PluginBase<unknown> {
  /** Builds what the plugin stands for. */
  // deno-lint-ignore no-explicit-any
  create(context: any, options: any): unknown;
  /**
   * Of a part: builds what `check` looks at in its place. It has the same capabilities as far as they are
   * known, and opens nothing but what it reads. Left out: what the kind has (`PartKind.preview`), or else
   * what `create` makes.
   */
  // deno-lint-ignore no-explicit-any
  preview?(context: any, options: any): unknown;
  /**
   * Of a part: makes a part in the thread of a queue worker of what `giveToWorker(set)` of the part in the
   * main thread has returned, which is plain JSON. Left out: a device with such a part cannot be served in
   * threads.
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
  /** Where frames and guests lie, so that kernels reach them; null where no such memory can be had. */
  readonly arena: Arena | null;
  /** The machine's clock; for parts that must stamp what they write. */
  readonly clock: Clock;
  /** Makes a path of the configuration absolute, relative to the configuration file. */
  resolvePath(path: string): string;
  /** What the parts of this machine share under this key: made when first asked for. */
  shared<T>(key: string, make: () => T): T;
  /** Wakes the reactor: something can be done. */
  wake(): void;
  /**
   * Turns the reactor whenever this file descriptor becomes readable or writable, or its other side closes.
   * It says so once (edge-triggered): read and write until there is no more. Dispose of the watch before the
   * descriptor is closed. Throws HostError if the descriptor cannot be watched, or the machine runs by a
   * virtual clock.
   */
  watch(descriptor: number): Disposable;
  /** Makes these counters readable from outside, live. Returns the same object. */
  publish<T extends Record<string, number>>(counters: T): T;
  /**
   * Says that this part has opened a file. Throws ConfigError if something of the machine reads what is to be
   * written, or writes it. Claim a file before it is emptied, by what is open rather than by its name.
   */
  claimFile(claim: FileClaim): void;
  /**
   * Does this when the machine starts: all is built and every claim accepted, so that files may be emptied.
   */
  onStart(action: () => void): void;
  /** Tells a watching program what has happened to the device of this part. Left out: nothing watches. */
  readonly report?: DeviceEventListener | undefined;
}

/**
 * The driver's half of a type of device: drives such a device where the guest is made of software. `guest/`
 * has the classes that `create` makes an object of.
 */
export interface SoftwareDriver<O = unknown> {
  /**
   * Validates what stands in the JSON beside `use` of the driver transport: the options of every software
   * guest and its own.
   */
  readonly options: OptionsSchema<O>;
  /** Makes a guest, a `SoftwareGuest`, that is not attached yet. */
  // deno-lint-ignore no-explicit-any -- halves of any options are kept together
  create(options: any): unknown;
}

/**
 * Brings a guest: its memory, its queues, its notifications. The control plane, which may be asynchronous.
 * A transport may also be {@linkcode Pollable}: the software guest works its rings when polled.
 */
export interface DriverTransport extends Disposable {
  /**
   * Serves this device until `signal` aborts. Ends earlier if its guest has gone for good: if nothing else is
   * to be done, the machine stops then. Rejects with HostError if this host cannot.
   */
  serve(device: Device, signal: AbortSignal): Promise<void>;
  /**
   * Attaches its guest to this device, tells which features they agreed on, and lets go again: what `check`
   * tries instead of running. HostError, with the remedy, if the two cannot agree. Left out where the guest
   * is a program that is not there yet.
   */
  negotiate?(device: Device): FeatureSet;
  /** Attaches the rings of the device's sets (`Device.workers`) to these. Called before `serve`, once. */
  useWorkers?(workers: QueueWorkers): void;
}

/** What a driver transport is built from. */
export interface DriverContext extends PartContext {
  /** The driver's half that the device brings; null if it brings none, or the transport uses none. */
  readonly softwareDriver: SoftwareDriver | null;
}

/** A way to a guest. */
export interface DriverPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "driver";
  /** Can it attach rings to queue workers (`DriverTransport.useWorkers`)? Left out: no. */
  readonly supportsWorkers?: boolean;
  /**
   * Is its guest made of software? Then a device that brings its driver's half (`DevicePlugin.driver`) is
   * driven by it, and the options beside `use` are those of the half. Left out: no.
   */
  readonly runsSoftwareDriver?: boolean;
  /**
   * Tells of the programs that can be expected at the other end. Left out: there are none, or they are not
   * known.
   */
  frontEnds?(options: O, device: Device, words: FrontEndWords | undefined): readonly FrontEndOutlook[];
  /** Builds the transport; nothing is opened before `serve`. */
  create(context: DriverContext, options: O): DriverTransport;
}

/** A place of a device for a part, or for several. */
export interface Slot {
  /** The kind of plugin that fits; any kind, also one that the program has never heard of. */
  readonly kind: string;
  /** What stands in it, in one line, for messages and for the JSON Schema. */
  readonly summary?: string;
  /** Must it be filled? Left out: no. Of no meaning for `many`. */
  readonly required?: boolean;
  /** Does it take a list of parts, in order? Left out: one part. */
  readonly many?: boolean;
}

/** Where a front-end of vhost-user meets a device. */
export interface FrontEndSite {
  /** What the device offers. */
  readonly features: FeatureSet;
  /** Number of the device at this front-end, from 0: for ids, which must be unique. */
  readonly index: number;
  /** Id of QEMU's character device, which is at the socket. */
  readonly chardev: string;
  /** The lines of libvirt's element `source`, for the socket. */
  readonly source: readonly string[];
  /** The name under which libvirt finds the device again for `properties`. */
  readonly alias: string;
}

/** An element of libvirt. */
export interface LibvirtElement {
  /** Its lines, of XML: escape what comes from options. */
  readonly lines: readonly string[];
  /**
   * Properties of QEMU's device, all on, that libvirt has no word for; the element must have the alias then.
   */
  readonly properties?: readonly string[];
}

/**
 * What becomes of a feature between a device and a driver behind a front-end. `agreed`: both agree on it.
 * `own`: the front-end answers for it, the device never hears of it. `newer`: as `agreed`, but only newer
 * versions of the front-end know it. `lost`: the driver does not get it.
 */
export type FeaturePassage = "agreed" | "own" | "newer" | "lost";

/** Bits by what becomes of them at a front-end; those that are not named are lost. */
export type FeatureFilter = Readonly<Partial<Record<Exclude<FeaturePassage, "lost">, readonly number[]>>>;

/** A program that may be at the other end of a driver transport. */
export interface FrontEndOutlook {
  /** What it is called, such as `qemu`. */
  readonly name: string;
  /** What becomes there of each feature that the device offers, by bit. */
  readonly features: ReadonlyMap<number, FeaturePassage>;
}

/** How front-ends of vhost-user, which are other programs, are told of a device. */
export interface FrontEndWords<O = unknown> {
  /** The type for `--print-capabilities`, by the word for it in the back-end conventions, such as `rng`. */
  readonly type: string;
  /** Profiles of the front-ends that have a driver or a device for it. Left out: `qemu` and `uml`. */
  readonly frontEnds?: readonly string[];
  /**
   * What becomes of the bits of the device's own type at each of them. One that is left out passes all of
   * them on.
   */
  readonly filters?: Readonly<Record<string, FeatureFilter>>;
  /** Does QEMU start before the back-end is there, where QEMU is the server? Left out: no. */
  readonly startsAlone?: boolean;
  /** Writes options for QEMU, with values, that follow the `-chardev`. A comma in a value is doubled. */
  qemu?(options: O, site: FrontEndSite): readonly (readonly [option: string, value: string])[];
  /** Writes the element for libvirt. Left out: libvirt passes the options on to QEMU. */
  libvirt?(options: O, site: FrontEndSite): LibvirtElement;
}

/**
 * Which part of a device's work is done here: all of it, all but the queues of the sets, or the queues of one
 * set.
 */
export type DeviceRole = "whole" | "control" | {
  /** The set of queues, from 0 on. */
  readonly set: number;
};

/** Live counters by group, such as `{"net0.rsc-v4": {coalesced: 3}}`. */
export type CounterGroups = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** What a device is built from. Families of devices add to it. */
export interface DeviceContext {
  /** What it is called in messages and counters. */
  readonly name: string;
  /** Where it stands in the configuration, such as `$.devices[0]`, for messages. */
  readonly path?: string;
  /** What stands in its slots, by their names: null where nothing does, a list in a slot for many. */
  readonly parts: Readonly<Record<string, unknown>>;
  /** Which part of the work is done here; left out: the whole. */
  readonly role?: DeviceRole;
  /** In the role `{ set }`: what all sets share (`WorkersCapability.sharedMemory`). */
  readonly sharedMemory?: SharedArrayBuffer | undefined;
  /**
   * Makes a buffer of zeros for requests, which lives as long as the machine. It lies beside the guests'
   * memory, if there is such a place: a request is then read and written by a kernel, in a third of the time.
   * The buffer is shared memory, which some functions of the runtime refuse, such as `crypto.getRandomValues`
   * and `TextDecoder`. RangeError for a size that cannot be.
   */
  newBuffer(bytes: number): Uint8Array<ArrayBuffer>;
  /** Does the machine go by a virtual clock, which stands still while there is work? Left out: no. */
  readonly isTimeVirtual?: boolean | undefined;
  /** Makes these counters readable from outside, live, as `name` or `name.part`. Returns the same object. */
  publish<T extends Record<string, number>>(counters: T, part?: string): T;
}

/** A type of device. */
export interface DevicePlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "device";
  /** The keys under which parts of the device stand in the JSON, such as `network`. Left out: none. */
  readonly slots?: Readonly<Record<string, Slot>>;
  /** Have its devices sets of queues that threads may serve (`Device.workers`)? Left out: no. */
  readonly worksInThreads?: boolean;
  /** Drives the device where the guest is software. Left out: a guest that posts nothing of itself. */
  readonly driver?: SoftwareDriver;
  /** What `check` and `run` tell of vhost-user's front-ends. Left out: `run` has no command line for QEMU. */
  // deno-lint-ignore no-explicit-any -- words for any options are kept together
  readonly frontEnd?: FrontEndWords<any>;
  /** What parts have to know about a device with these options; the family says which facts these are. */
  facts?(options: O): unknown;
  /** Builds the device. */
  create(context: DeviceContext, options: O): Device;
}

/** A plugin with complete options, and where it stands. */
export interface ResolvedPart<P extends Plugin = Plugin> {
  /** The plugin. */
  readonly plugin: P;
  /** Its options, validated and complete; frozen as far as they are plain data. */
  readonly options: unknown;
  /** Where it stands in the configuration, such as `$.devices[0].network`. */
  readonly path: string;
  /** The parts of its own kind that it wraps, as far as they stand in its options (`PartKind.wraps`). */
  readonly inner: readonly ResolvedPart[];
}

/** A device with everything that it consists of. */
export interface ResolvedDevice extends ResolvedPart<DevicePlugin> {
  /** What it is called in messages and counters; unique. */
  readonly name: string;
  /** The way to the guest. */
  readonly driver: ResolvedPart<DriverPlugin>;
  /** What stands in its slots, by their names: null where nothing does, a list in a slot for many. */
  readonly parts: Readonly<Record<string, ResolvedPart | null | readonly ResolvedPart[]>>;
  /** Who works its queues: the main thread, or threads of their own. */
  readonly mode: "loop" | "threads";
  /** How long a thread may take to answer, in ms. */
  readonly threadLimitMs: number;
}

/** What is to be told of a configuration: what cannot be, or what works differently than expected. */
export interface PartIssue {
  /** Where: `$.devices[0].mac`. */
  readonly path: string;
  /** What is wrong. If `value` is given, the predicate of a sentence about it: `is no MAC address`. */
  readonly problem: string;
  /** The value that is wrong, if showing it helps. */
  readonly value?: unknown;
  /** What to write or do instead. */
  readonly remedy?: string;
}

/** What all parts of one machine are built in. */
export interface MachineScope {
  /** Where frames and guests lie: reserved when first asked for; null where no such memory can be had. */
  readonly arena: Arena | null;
  /** Memory for frames, in bytes. */
  readonly frameMemoryBytes: number;
  /** What the program that builds the machine listens with to a family, by names such as `verdicts`. */
  readonly listeners: Readonly<Record<string, unknown>>;
  /** What the parts of a family have in common under this key, such as memory: made when first asked for. */
  resource<T>(key: string, make: () => T): T;
}

/** A part that is being built. */
export interface PartSite {
  /** The part. */
  readonly part: ResolvedPart;
  /** What its device tells parts: `DevicePlugin.facts`; undefined if it tells nothing. */
  readonly facts: unknown;
  /** The machine around it. */
  readonly machine: MachineScope;
  /** Builds the part of the same kind that this one wraps, from what stands under `key` of its options. */
  inner(written: unknown, key: string): unknown;
}

/**
 * What is special about a kind of part: said once, by the family that declares the kind. What is left out has
 * a default, and a kind of which nothing is said at all is nothing special: its parts are built from a
 * `PartContext`.
 */
export interface PartKind {
  /** The kind. */
  readonly kind: string;
  /** What a part of it is called in a sentence, with its article: `a network transport`. */
  readonly title: string;
  /** What stands over its plugins in a list. */
  readonly heading: string;
  /** The function that declares a plugin of it, such as `defineNetwork`. */
  readonly define: string;
  /** Can a part be left out by `"enabled": false`? Left out: no. */
  readonly hasSwitch?: boolean;
  /** The key of options under which the parts stand that a part wraps. Left out: parts wrap none. */
  readonly wraps?: string;
  /** Does the device build its parts? It gets each as a {@linkcode ResolvedPart} then. Left out: no. */
  readonly isDeferred?: boolean;
  /**
   * The capability objects that only devices of the family have: of each the hooks, and what a hook answers
   * once the device has failed; undefined if it throws then.
   */
  readonly capabilities?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /**
   * What keeps an object from being such a plugin, each as the rest of a sentence; what all plugins have was
   * looked at.
   * @param show puts a value into words
   */
  faults?(plugin: Readonly<Record<string, unknown>>, show: (value: unknown) => string): string[];
  /** Throws TypeError unless this is what a device of the family tells its parts. */
  checkFacts?(facts: unknown): void;
  /** What such a part is built from. Left out: the `PartContext` alone. */
  context?(context: PartContext, site: PartSite): PartContext;
  /** Throws TypeError unless this is such a part. */
  check?(made: unknown): void;
  /**
   * Stands, where a machine is built to be looked at, for a part whose plugin has no `preview`. Left out: the
   * part itself.
   */
  preview?(context: PartContext): unknown;
  /** What `check` shows of a slot, by direction or the like. Left out: the parts under the slot's name. */
  rows?(parts: readonly ResolvedPart[]): readonly PartRow[];
  /** What works differently than expected in the slots of a device. */
  hints?(parts: readonly ResolvedPart[], site: BuiltSite): readonly PartIssue[];
  /** What the device gets in place of such a part, such as one that looks after it. */
  guard?(made: unknown, part: ResolvedPart, machine: MachineScope): unknown;
  /** What a device with a slot for the kind is built from besides. */
  deviceContext?(device: ResolvedDevice, machine: MachineScope): object;
  /** What cannot be in the slot of a device: parts that exclude each other. */
  conflicts?(parts: readonly ResolvedPart[], device: ResolvedDevice): readonly PartIssue[];
  /** What parts miss of a device that has been built. */
  missing?(parts: readonly ResolvedPart[], device: Device, resolved: ResolvedDevice): readonly PartIssue[];
  /** What keeps a part from serving so many sets of queues of a device, each in a thread of its own. */
  workerIssues?(made: unknown, part: ResolvedPart, sets: number, device: string): readonly PartIssue[];
  /** What parts have kept when everything is closed. */
  leftovers?(machine: MachineScope): readonly Error[];
}

/** Some parts of a slot, as `check` shows them. */
export interface PartRow {
  /** What stands before them, for people. */
  readonly label: string;
  /** What names them for programs, such as `stages.toGuest`. */
  readonly key: string;
  /** The parts. */
  readonly parts: readonly ResolvedPart[];
  /** What people are told if there is none. */
  readonly none: string;
}

/** A device and all its parts: itself, its driver, what stands in its slots, each with what it wraps. */
export function partsOf(device: ResolvedDevice): ResolvedPart[] {
  const withInner = (part: ResolvedPart): ResolvedPart[] => [part, ...part.inner.flatMap(withInner)];
  const inSlots = Object.values(device.parts).flatMap((part) => part ?? []);
  return [device, device.driver, ...inSlots].flatMap(withInner);
}

/** The parts in a device's slots of this kind, in order. */
export function partsOfKind(device: ResolvedDevice, kind: string): ResolvedPart[] {
  return Object.entries(device.plugin.slots ?? {}).flatMap(([name, slot]) =>
    slot.kind === kind ? device.parts[name] ?? [] : []
  );
}

/** Declares a driver transport: adds `kind` and `api`, and infers the type of options from their schema. */
export function defineDriver<O>(plugin: Omit<DriverPlugin<O>, "kind" | "api">): DriverPlugin<O> {
  return { kind: "driver", api: 2, ...plugin };
}

/** A part of any kind, for a slot of a device. */
export interface PartPlugin<O = unknown, P = unknown> extends PluginBase<O> {
  /**
   * Builds the part. What it makes may be `Disposable`, with `close()` for what takes its time, `Pollable`,
   * and may have `finished`: a device is at its end when a part of it is.
   */
  create(context: PartContext, options: O): P;
  /**
   * Builds what `check` looks at in place of the part: opens nothing but what it reads. Left out: `create`
   * does.
   */
  preview?(context: PartContext, options: O): P;
  /**
   * Makes the part of a queue worker, in its thread, of what `giveToWorker(set)` of the part in the main
   * thread has returned, which is plain JSON. Left out: a device with such a part cannot be served in
   * threads.
   */
  // deno-lint-ignore no-explicit-any -- what the part itself has given
  createInWorker?(context: Pick<PartContext, "path" | "watch" | "publish">, given: any): P;
}

/**
 * Declares a part of the kind that it names: adds `api`, and infers the type of options from their schema.
 */
export function definePart<O, P>(plugin: Omit<PartPlugin<O, P>, "api">): PartPlugin<O, P> {
  return { api: 2, ...plugin };
}

/** Declares a device: adds `kind` and `api`, and infers the type of the options from their schema. */
export function defineDevice<O>(plugin: Omit<DevicePlugin<O>, "kind" | "api">): DevicePlugin<O> {
  return { kind: "device", api: 2, ...plugin };
}

// What a plugin's option schema must be: a schema of any Standard Schema library (version 1), by its shape.
//
// Written out here, as the standard invites libraries to do, so that the core depends on no package for its
// types.

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
