/**
 * A way to the network: what moves Ethernet frames to and from the world.
 * @module
 */
import type { FrameBatch } from "./frame.ts";
import type { OffloadCapabilities } from "./offload_capabilities.ts";

/**
 * Moves Ethernet frames to and from a network. The data plane: never asynchronous, never throws per frame.
 * A transport may also be {@linkcode Pollable}, if it has work of its own.
 */
export interface FrameTransport extends Disposable {
  /** Longest frame it can carry, in bytes. */
  readonly maxFrameBytes: number;
  /** What it takes unfinished; `OffloadCapabilities.none` if frames must be complete. */
  readonly capabilities: OffloadCapabilities;
  /**
   * How many queue pairs it has of its own; 1 means that the device spreads frames over its own.
   */
  readonly queuePairs: number;
  /**
   * Appends up to `limit` frames that have arrived on `queuePair` by `nowNs` to `out`, which then owns them;
   * returns how many.
   */
  receive(out: FrameBatch, limit: number, queuePair: number, nowNs: number): number;
  /**
   * Sends the frames of `batch` in order and returns how many it took (and released). The rest stay the
   * caller's, who offers them again: back-pressure without loss.
   */
  send(batch: FrameBatch, queuePair: number, nowNs: number): number;
  /**
   * The guest takes this unfinished from now on; nothing while there is no guest. A network that can finish
   * frames itself does so for what the guest does not take.
   */
  guestCapabilities?(capabilities: OffloadCapabilities): void;
  /**
   * There is a driver from now on, or there is none any more: a new device has none. What has arrived for one
   * that has gone must not reach the next, and what arrives while there is none has no receiver: both are
   * dropped.
   */
  hasGuest?(present: boolean): void;
  /**
   * The driver uses the first `count` queue pairs from now on, 1 to `queuePairs`: frames should arrive on no
   * other.
   */
  useQueuePairs?(count: number): void;
  /**
   * Gives a queue pair to the queue worker of this number: it is not received from here any more. Returns
   * plain JSON, of which `NetworkPlugin.createInWorker` makes a transport there. It stays open until this
   * transport is disposed of.
   */
  giveToWorker?(queuePair: number): unknown;
  /** When a frame will be there to receive, if that is known in advance, in ns; Infinity if not. */
  deadlineNs?(): number;
  /**
   * Is it not known yet whether it has a frame at this time, as where a capture comes by a pipe? Then that
   * `receive` gives none does not mean that there is none. Left out: no.
   */
  readonly isBehind?: boolean;
  /** Has it delivered all that it will ever deliver, as a capture has at its end? */
  readonly finished?: boolean;
  /** Completes what it was writing; called once, before it is disposed of. */
  close?(): Promise<void>;
}
