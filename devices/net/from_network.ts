/**
 * The first step to the guest: frames from the network, filtered and steered, into the pipeline.
 *
 * Theory of operation. `poll` takes up to 64 frames from each queue pair of the network, until a frame has to
 * wait for buffers: a network may have moved its flow to a queue pair that is received later. The next round
 * goes on where this one stopped. Where all queue pairs have given fewer frames than that, there are no more,
 * and the stages are told. A frame must pass the receive filter *before* a stage may hold it; then it is
 * given its queue pair. While the link is down, frames are received and dropped: the network must not be held
 * up by a guest that is not there. `offerAgain` takes the frames that found no room and were marked for
 * another try, and runs them through the pipeline anew, one by one, until one finds no room again.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { ReceiveFilter } from "./receive_filter.ts";
import type { Steering } from "./steering.ts";
import type { ToGuest } from "./to_guest.ts";

/** Frames taken from one queue pair of the network in one round. */
const BURST = 64;

/** What is needed to receive. */
export interface FromNetworkParts {
  /** What to count in. */
  readonly counters: Record<"dropped_link_down", number>;
  /** Where frames come from. */
  readonly network: FrameTransport;
  /** Which of them the guest gets to see. */
  readonly filter: ReceiveFilter;
  /** Which queue pair they go to. */
  readonly steering: Steering;
  /** The queue pair to which everything goes that comes; null if each frame is steered. */
  readonly onlyPair: number | null;
  /** What frames go through. */
  readonly pipeline: Pipeline;
  /** The end of the pipeline. */
  readonly toGuest: ToGuest;
}

/** Receives frames for the guest. */
export class FromNetwork {
  /** Is the link up? */
  linkUp = true;
  readonly #parts: FromNetworkParts;
  readonly #batch = new FrameBatch();
  readonly #offered = new FrameBatch();
  /** The queue pair of the network that is received first. */
  #firstPair = 0;

  /** Receives when told to. */
  constructor(parts: FromNetworkParts) {
    this.#parts = parts;
  }

  /**
   * Takes a burst from each queue pair of the network. True if there was a frame, or if a stage has let one
   * go because there was none. Throws GuestError and PluginError.
   */
  poll(nowNs: number): boolean {
    const { network, pipeline, toGuest } = this.#parts;
    let did = false;
    let hasMore = false;
    const { queuePairs } = network;
    for (let i = 0; i < queuePairs; i++) {
      const pair = this.#firstPair;
      this.#firstPair = pair + 1 < queuePairs ? pair + 1 : 0;
      const count = network.receive(this.#batch, BURST, pair, nowNs);
      if (count === BURST) hasMore = true;
      if (count === 0) continue;
      did = true;
      if (this.linkUp) {
        this.#admit(pair);
        pipeline.push(this.#batch, nowNs);
      } else {
        this.#parts.counters.dropped_link_down += this.#batch.length;
        this.#batch.releaseAll();
      }
      if (queuePairs > 1 && toGuest.isBlocked) break;
    }
    const isIdle = !hasMore && !toGuest.isBlocked && network.isBehind !== true;
    return isIdle && pipeline.idle(nowNs) || did;
  }

  /**
   * Runs frames through the pipeline again that found no room, if the guest has posted buffers since. True if
   * one of them is not where it was. Throws GuestError and PluginError.
   */
  offerAgain(session: Session, nowNs: number): boolean {
    const { pipeline, toGuest: { again } } = this.#parts;
    if (again.length === 0) return false;
    const queue = session.queues[2 * again.at(0).queuePair] ?? null;
    if (queue === null || !queue.enableKicks()) return false;
    const offered = this.#offered;
    for (let i = 0; i < again.length; i++) offered.push(again.at(i));
    again.clear();
    let done = 0;
    let did = false;
    try {
      while (done < offered.length && again.length === 0) {
        this.#batch.push(offered.at(done++));
        pipeline.push(this.#batch, nowNs);
      }
      did = done > 1 || again.length === 0;
    } finally {
      while (done < offered.length) again.push(offered.at(done++));
      offered.clear();
    }
    return did;
  }

  /**
   * Filters the batch, which has come from queue pair `from` of the network, and gives every frame its own.
   */
  #admit(from: number): void {
    const { network, filter, steering, onlyPair } = this.#parts;
    const batch = this.#batch;
    const ownPairs = network.queuePairs > 1;
    let kept = 0;
    for (let i = 0; i < batch.length; i++) {
      const frame = batch.at(i);
      if (filter.accepts(frame.bytes, frame.start, frame.length) !== "accepted") {
        frame.release();
        continue;
      }
      if (onlyPair !== null) frame.queuePair = onlyPair;
      else if (ownPairs && from < steering.pairs && !steering.usesRss) frame.queuePair = from;
      else frame.queuePair = steering.select(frame.bytes, frame.start, frame.length);
      batch.set(kept++, frame);
    }
    batch.shorten(kept);
  }
}
