/**
 * Rings in other threads: what a driver transport lends, and who works it.
 *
 * Theory of operation. In the mode `threads` a device exists several times. The one in the main thread has the role
 * `control`: it answers to the driver, keeps configuration space and carries out commands. For each queue pair there is one
 * more, with the role `{ pair: n }`, in a thread of its own, made anew from the same configuration; it works queues 2n and
 * 2n + 1 and receives from a queue of the network that is its alone.
 *
 * A ring has one owner at any time. The driver transport describes rings and memory in plain JSON and *lends* them; before
 * anything about them changes (a message of the front-end, a command of the driver) it *recalls* them, and gets told where
 * each stands. In between the borrower alone touches them. What the driver has programmed travels with every loan, as
 * `DeviceMigration.save` gives it. Messages and commands are rare, so that stopping everything for them costs nothing, and they
 * are dealt with in one thread as ever.
 *
 * @module
 */
import type { GuestError } from "./errors.ts";
import type { Pollable } from "./reactor.ts";

/** Which part of a device's work is done here: all, all but the data queues, or the data queues of one pair. */
export type DeviceRole = "whole" | "control" | {
  /** The queue pair, from 0 on. */
  readonly pair: number;
};

/** A region of the guest's memory, as it is mapped in this process. */
export interface RegionLoan {
  /** Guest address of its first byte. */
  readonly guestAddress: number;
  /** Bytes in it. */
  readonly size: number;
  /** Where it is mapped in this process, as a decimal number; JSON knows none that is large enough. */
  readonly address: string;
}

/** The dirty log of a migration. */
export interface LogLoan {
  /** Where it is mapped in this process, as a decimal number. */
  readonly address: string;
  /** Bytes in it. */
  readonly sizeBytes: number;
  /** Descriptor of the event that tells of marks; null if nobody wants to know. */
  readonly event: number | null;
}

/** A ring that runs and is enabled. */
export interface RingLoan {
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
  /** Descriptor of the event that tells of used buffers; null if the borrower must say so (`RingNews.interrupts`). */
  readonly call: number | null;
  /** By which guest address writes to the used part are logged; null if they are not. */
  readonly logAddress: number | null;
}

/** Everything that is needed to work rings. Plain JSON. */
export interface RingsLoan {
  /** The features that were agreed on, as `FeatureSet.toString` gives them. */
  readonly features: string;
  /** The guest's memory. */
  readonly regions: readonly RegionLoan[];
  /** Who is told of writes to it; null for nobody. */
  readonly log: LogLoan | null;
  /** The rings. */
  readonly rings: readonly RingLoan[];
  /** What the driver has programmed of the device: see `DeviceMigration.save`. */
  readonly state: unknown;
}

/** What a borrower gives back. */
export interface RecalledRings {
  /** Where each ring stands, by its index. */
  readonly bases: ReadonlyMap<number, number>;
  /** The rule that a guest has broken meanwhile; null if none was. */
  readonly fault: GuestError | null;
}

/** What a borrower has to say while it has the rings. */
export interface RingNews {
  /** A guest has broken a rule: `recall` says which. */
  readonly hasFault: boolean;
  /** Rings without an event that have used buffers. */
  readonly interrupts: readonly number[];
}

/** Works rings that it is lent. */
export interface RingBorrower {
  /** Can it take rings yet? Whoever waits for it is woken by the reactor. */
  readonly isReady: boolean;
  /** What ends the device with the next round; null if nothing. Until then no message is answered. */
  readonly failure: Error | null;
  /**
   * Has a thread not given back what it was lent, and may it still write to it? Then the memory must stay mapped until the
   * process ends; the device has failed.
   */
  readonly isStuck: boolean;
  /** Takes rings over, those that it should have from now on. They were recalled before. */
  lend(loan: RingsLoan): void;
  /**
   * Lets everything go that is held, and gives all rings back: they are not touched any more when this returns, unless it
   * `isStuck` then.
   */
  recall(): RecalledRings;
  /** The driver takes the device back, or begins anew: everything about it is forgotten. After `recall`. */
  reset(): void;
  /** What there is to say since this was last asked; null if nothing, which costs nothing. */
  takeNews(): RingNews | null;
}

/** The other threads of one device. */
export interface DeviceThreads extends RingBorrower, Pollable {
  /** Frames that the threads had not given back when they ended; for tests. */
  readonly framesKept: number;
  /** Starts them. Throws HostError if the network gives no queue. */
  start(): void;
  /** Adds what they have counted since the last time to the machine's counters. */
  pullCounters(): void;
  /** Lets go everything that is held, both ways. */
  drain(): void;
  /** Ends them, within seconds. Nothing is lent any more. */
  close(): Promise<void>;
}
