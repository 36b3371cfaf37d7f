/**
 * A device: what answers to a driver. It has memory and queues from `activate` to `reset`.
 * @module
 */
import type { FeatureSet } from "./features.ts";
import type { RequestsInFlight } from "./in_flight.ts";
import type { GuestMemory } from "../rings/memory.ts";
import type { Pollable } from "./reactor.ts";
import type { Virtqueue } from "../rings/virtqueue.ts";

/** Bits of the device status field (virtio 1.2, section 2.1). */
export const STATUS_ACKNOWLEDGE = 1;
/** The driver knows how to drive the device. */
export const STATUS_DRIVER = 2;
/** The driver is set up and ready. */
export const STATUS_DRIVER_OK = 4;
/** The driver has accepted features. */
export const STATUS_FEATURES_OK = 8;
/** The device has met an error from which it cannot recover. */
export const STATUS_NEEDS_RESET = 64;
/** The driver has given up on the device. */
export const STATUS_FAILED = 128;

/** What a driver has set up for the device. Valid until the device is reset. */
export interface Session {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** The queues by index; null where none is enabled, and where a worker serves it (`Device.workers`). */
  readonly queues: readonly (Virtqueue | null)[];
  /** Is queue `index` enabled? Also true where a worker serves it. Left out: those in `queues` are. */
  isEnabled?(index: number): boolean;
  /**
   * Queues come and go between `activate` and `reset`: a null in `queues` may become a queue and the reverse,
   * and `Device.queuesChanged` tells of it. Without it the queues are what they were at `activate`.
   */
  readonly startsQueues?: boolean;
  /** The features that driver and device agreed on. */
  readonly features: FeatureSet;
  /** Tells the driver that queue `index` has used buffers. */
  interrupt(index: number): void;
  /** Tells the driver that the configuration space has changed. */
  configChanged(): void;
  /**
   * Takes back the queues that workers have, before a command takes effect; they are attached again after the
   * round. Throws GuestError if the guest has broken a rule there.
   */
  detachWorkers?(): void;
}

/** What a driver has programmed beyond features and queues: for a migration, and for other threads. */
export interface DeviceMigration {
  /** That state, as plain JSON. */
  save(): unknown;
  /**
   * Takes over what `save` of another device gave; it is in force at once, or from the next `activate` on.
   * GuestError `device-state-invalid` if it cannot be.
   */
  restore(state: unknown): void;
}

/**
 * A virtio device, seen from its transport. What only some devices can do stands in objects of its own, which
 * a device has or has not: `migration`, and those that a family declares, such as `net`
 * (`pipeline/plugin.ts`).
 */
export interface Device extends Pollable {
  /** Device type (virtio 1.2, section 5): 1 net, 4 entropy. */
  readonly type: number;
  /** What it is called in messages and counters. */
  readonly name: string;
  /** The features it offers. */
  readonly features: FeatureSet;
  /**
   * The names of its type's own feature bits, without prefix, such as `MAC`; those that all types share are
   * known ({@linkcode featureName}).
   */
  readonly featureNames: ReadonlyMap<number, string>;
  /** The largest size of each of its queues, by index; the length is the number of queues. */
  readonly queueSizes: readonly number[];
  /** What it keeps over rounds: a `QueueService`. Left out: it answers in the round in which it takes. */
  readonly inflight?: RequestsInFlight | undefined;
  /** Copies `target.length` bytes of configuration space from `offset` on; beyond its end there are zeros. */
  readConfig(offset: number, target: Uint8Array): void;
  /** Takes a write to configuration space; GuestError if the field is read-only. */
  writeConfig(offset: number, source: Uint8Array): void;
  /** Judges what the driver wants to accept, framework bits included; GuestError if it must not. */
  acceptFeatures(features: FeatureSet): void;
  /** The driver is ready: memory and queues belong to the device from now on. */
  activate(session: Session): void;
  /** The driver takes memory and queues back; nothing of the session may be touched any more. */
  reset(): void;
  /** Lets go everything it holds, in order, while the driver is still there: before a stop or a migration. */
  drain(nowNs: number): void;
  /** Of a session with `startsQueues`: some of its queues have come or gone. */
  queuesChanged(): void;
  /** The sets of queues that threads may serve. Left out: there are none. */
  readonly workers?: WorkersCapability | undefined;
  /** Moves what the driver has programmed to another such device. Left out: there is nothing to move. */
  readonly migration?: DeviceMigration;
  /** There is work, such as a kick of the driver: poll before long. Set by the runner of the device. */
  wake: () => void;
}

/** Which queues of a device workers may serve: the capability `workers` of a device in the role `control`. */
export interface WorkersCapability {
  /**
   * The queues of each set, by index. No queue is in two sets; what is in none is served in the main thread.
   */
  readonly queueSets: readonly (readonly number[])[];
  /** Memory that all sets share: each gets it as `DeviceContext.sharedMemory`. Left out: they share none. */
  readonly sharedMemory?: SharedArrayBuffer;
}

// What happens between a driver and its device, for programs that want to know: to print it, to log it, to
// react to it.

/**
 * One thing that has happened to a device. A guest decides how often, so that a listener that keeps or prints
 * events must bound what it does.
 */
export type DeviceEvent =
  /** A front-end has connected. */
  | { readonly event: "connected" }
  /** Memory that the front-end has shared can end this program later; `message` says which, and how. */
  | { readonly event: "memory-at-risk"; readonly message: string }
  /**
   * Memory that the front-end has shared is out of reach of kernels; `message` says which, and why. All is
   * slower.
   */
  | { readonly event: "memory-out-of-reach"; readonly message: string }
  /** Driver and device agree on these features. */
  | { readonly event: "features"; readonly features: FeatureSet }
  /** The driver is ready: the device has memory and queues. */
  | { readonly event: "ready" }
  /** The device works the queue of this index from now on, or no longer. */
  | { readonly event: "queue-started" | "queue-stopped"; readonly queue: number }
  /** The guest has broken the rule of this name ({@linkcode GuestFault}); `message` has the values. */
  | { readonly event: "fault"; readonly fault: string; readonly message: string }
  /** A plugin has failed, and the device with it: it serves no driver any more; other devices may go on. */
  | { readonly event: "failed"; readonly message: string }
  /** A message of the front-end was refused by the rule of this name; `message` has the values. */
  | { readonly event: "refused"; readonly fault: string; readonly message: string }
  /** The driver, or a fault, has taken memory and queues back. */
  | { readonly event: "reset" }
  /** The front-end has gone. */
  | { readonly event: "disconnected"; readonly reason: string }
  /** A file cannot be written: records are lost, and counted, until `recording-resumed`. */
  | { readonly event: "recording-failed"; readonly path: string; readonly message: string }
  /** A file takes records again; `lost` of them are missing. */
  | { readonly event: "recording-resumed"; readonly path: string; readonly lost: number };

/** Listens to what happens, in the midst of the work: returns at once, changes nothing, never throws. */
export type DeviceEventListener = (event: DeviceEvent) => void;
