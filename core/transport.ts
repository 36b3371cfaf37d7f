/**
 * The two kinds of transport: one brings a guest's memory and queues, the other moves Ethernet frames to the world.
 * @module
 */
import type { Device } from "./device.ts";
import type { FrameBatch } from "./frame_batch.ts";
import type { NetworkAbilities } from "./stage.ts";
import type { RingBorrower } from "./threads.ts";

/** Something the reactor turns: bounded work now, and a time at which to come back. */
export interface Pollable {
  /** Does a bounded amount of work at time `nowNs`. True if it did something, and so may have more to do. */
  poll(nowNs: number): boolean;
  /** When it wants to be polled again although nobody wakes it, in ns; Infinity if never. */
  deadlineNs(): number;
}

/** What may be delivered to a guest that is still to be checksummed or segmented. */
export interface GuestAccepts {
  /** Frames with a partial checksum (NEEDS_CSUM). */
  readonly checksum: boolean;
  /** Large TCP frames over IPv4. */
  readonly tso4: boolean;
  /** Large TCP frames over IPv6. */
  readonly tso6: boolean;
  /** Large TCP frames with ECN. */
  readonly ecn: boolean;
  /** Large UDP frames, over IPv4 and IPv6. */
  readonly uso: boolean;
}

/**
 * Moves Ethernet frames to and from a network. The data plane: never asynchronous, never throws per frame.
 * A transport may also be {@linkcode Pollable}, if it has work of its own.
 */
export interface FrameTransport extends Disposable {
  /** Longest frame it can carry, in bytes. */
  readonly maxFrameBytes: number;
  /** What it takes without our help. */
  readonly abilities: NetworkAbilities;
  /** How many queue pairs it has of its own; 1 means that the device spreads frames over its queues itself. */
  readonly queuePairs: number;
  /** Appends up to `limit` frames that have arrived on `queue` by `nowNs` to `out`, which then owns them; returns how many. */
  receive(out: FrameBatch, limit: number, queue: number, nowNs: number): number;
  /**
   * Sends the frames of `batch` in order and returns how many it took (and released). The rest stay the caller's,
   * who offers them again: back-pressure without loss.
   */
  send(batch: FrameBatch, queue: number, nowNs: number): number;
  /**
   * The guest accepts this from now on; nothing while there is no guest. A network that can finish frames itself does so
   * for what the guest does not accept.
   */
  guestAccepts?(accepts: GuestAccepts): void;
  /**
   * The driver uses the first `pairs` queue pairs from now on, 1 to `queuePairs`: frames should arrive on no other queue.
   */
  usePairs?(pairs: number): void;
  /**
   * Gives a queue to another thread: it is not received from here any more. Returns plain JSON, of which
   * `NetworkPlugin.takeQueue` makes a transport there. The queue stays open until this transport is disposed of.
   */
  giveQueue?(queue: number): unknown;
  /** When a frame will be there to receive, if that is known in advance, in ns; Infinity if not. */
  deadlineNs?(): number;
  /** Has it delivered all that it will ever deliver, as a capture has at its end? */
  readonly finished?: boolean;
  /** Completes what it was writing; called once, before it is disposed of. */
  close?(): Promise<void>;
}

/**
 * Brings a guest: its memory, its queues, its notifications. The control plane, which may be asynchronous.
 * A transport may also be {@linkcode Pollable}: the software guest works its rings when polled.
 */
export interface DriverTransport extends Disposable {
  /**
   * Serves this device until `signal` aborts. Ends earlier if its guest has gone for good: if nothing else is to be done,
   * the machine stops then. Rejects with HostError if this host cannot.
   */
  serve(device: Device, signal: AbortSignal): Promise<void>;
  /** Lends the rings that the device leaves to other threads (`Device.lendsQueue`). Called before `serve`, once. */
  lendTo?(borrower: RingBorrower): void;
}

/** Does this object have work of its own? */
export function isPollable(object: object): object is Pollable {
  return "poll" in object && "deadlineNs" in object;
}
