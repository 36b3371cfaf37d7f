/**
 * Queue workers: threads that serve sets of a device's queues.
 *
 * Theory of operation. In the mode `threads` a device exists several times. The one in the main thread has
 * the role `control`: it answers to the driver, keeps configuration space and carries out commands. For each
 * set of queues that the device names (`Device.workers`) there is one more, with the role `{ set: n }`, in a
 * thread of its own, made anew from the same configuration. It serves the queues of its set. Of each part of
 * the device it has what the part gives to that set alone (`giveToWorker`), such as a queue of a TAP.
 *
 * A ring has one owner at any time. The driver transport describes rings and memory in plain JSON and
 * *attaches* them to the workers. Before anything about them changes (a message of the front-end, a command
 * of the driver) it *detaches* them, and is told where each stands. In between the workers alone touch them.
 * What the driver has programmed goes along each time, as `DeviceMigration.save` gives it. Messages and
 * commands are rare, so that stopping everything for them costs nothing, and they are dealt with in one
 * thread.
 *
 * Requests that a worker has in flight are part of `Device.inflight` as the driver transport sees it: what it
 * does before it takes rings or memory away holds for workers as well.
 *
 * @module
 */
import type { GuestError } from "../rings/guest_error.ts";

/** How often a ring is looked at whose driver does not notify, in ns. */
export const RING_POLL_INTERVAL_NS = 200_000;

/** A region of the guest's memory, as it is mapped in this process. */
export interface AttachedRegion {
  /** Guest address of its first byte. */
  readonly guestAddress: number;
  /** Bytes in it. */
  readonly size: number;
  /** Where it is mapped in this process, as a decimal number: JSON knows none that is large enough. */
  readonly address: string;
}

/** The dirty log of a migration. */
export interface AttachedLog {
  /** Where it is mapped in this process, as a decimal number. */
  readonly address: string;
  /** Bytes in it. */
  readonly sizeBytes: number;
  /** Descriptor of the event that tells of marks; null if none is wanted. */
  readonly event: number | null;
}

/** A ring that runs and is enabled. */
export interface AttachedRing {
  /** Its queue's index. */
  readonly index: number;
  /** Entries. */
  readonly size: number;
  /** Guest address of the descriptors. */
  readonly descriptors: number;
  /** Guest address of what the driver writes. */
  readonly driver: number;
  /** Guest address of what the device writes. */
  readonly device: number;
  /** Where it stands. */
  readonly base: number;
  /** Descriptor of the event by which it is kicked; null if there is none. */
  readonly kick: number | null;
  /** Must it be looked at without being asked? */
  readonly polled: boolean;
  /**
   * Descriptor of the event that tells of used buffers; null if the worker must say so
   * (`WorkerNotices.interrupts`).
   */
  readonly call: number | null;
  /** By which guest address writes to the used part are logged; null if they are not. */
  readonly logAddress: number | null;
}

/** Everything that is needed to serve rings. Plain JSON. */
export interface AttachedRings {
  /** The features that were agreed on, as `FeatureSet.toString` gives them. */
  readonly features: string;
  /** The guest's memory. */
  readonly regions: readonly AttachedRegion[];
  /** Where writes to it are logged; null if they are not. */
  readonly log: AttachedLog | null;
  /** The rings. */
  readonly rings: readonly AttachedRing[];
  /** What the driver has programmed of the device: see `DeviceMigration.save`. */
  readonly state: unknown;
}

/** What the workers give back. */
export interface DetachedRings {
  /** Where each ring stands, by its index. */
  readonly bases: ReadonlyMap<number, number>;
  /** The rule that a guest has broken meanwhile; null if none was. */
  readonly fault: GuestError | null;
}

/** What the workers have to say while they have the rings. */
export interface WorkerNotices {
  /** A guest has broken a rule: `detach` says which. */
  readonly hasFault: boolean;
  /** Rings without an event that have used buffers. */
  readonly interrupts: readonly number[];
}

/** The queue workers of one device, as its driver transport sees them. */
export interface QueueWorkers {
  /** Do all of them work? What waits for it is woken by the reactor. */
  readonly isReady: boolean;
  /** What ends the device with the next round; null if nothing. Until then no message is answered. */
  readonly failure: Error | null;
  /**
   * Has a worker not given back its rings, and may it still write to their memory? Then the memory must stay
   * mapped until the process ends; the device has failed.
   */
  readonly isStuck: boolean;
  /** Gives each worker those of the rings that are its own. They were detached before. */
  attach(rings: AttachedRings): void;
  /**
   * Has the workers let go what they hold, and takes all rings back: they are not touched any more when this
   * returns, unless a worker `isStuck` then. Requests in flight are waited for, but no longer than half of
   * the time that a worker may take to answer: the fault is `quiesce-timeout` then. A device that must not be
   * held up quiesces first (`Device.inflight`).
   * @param giveUp the device is reset next: requests in flight are given up and not waited for
   */
  detach(giveUp: boolean): DetachedRings;
  /** The driver takes the device back, or begins anew: everything about it is forgotten. After `detach`. */
  reset(): void;
  /** What there is to say since this was last asked; null if nothing, which costs nothing. */
  takeNotices(): WorkerNotices | null;
}
