/**
 * The first step to the guest: frames from the network, filtered and steered, into the line of stages.
 *
 * Theory of operation. `receive` takes up to 64 frames a round from each queue of the network, until a frame has to wait for
 * buffers: a network may have moved its flow to a queue that is received later, and then goes on where it stopped. A frame must pass the receive
 * filter *before* a stage may hold it; then it is given its queue pair. While the link is down frames are received and
 * dropped: the network must not be held up by a guest that is not there. `offerAgain` takes the frames that found no room
 * and were marked for another try, and runs them through the stages anew, one by one, until one finds no room again.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";
import { FrameBatch } from "../../core/frame_batch.ts";
import type { Pipeline } from "../../core/pipeline.ts";
import type { FrameTransport } from "../../core/transport.ts";
import type { ReceiveFilter } from "./receive_filter.ts";
import type { Steering } from "./steering.ts";
import type { ToGuest } from "./to_guest.ts";

/** Frames taken from one queue of the network in one round. */
const BURST = 64;

/** What frames from the network go through. */
export interface FromNetworkParts {
  /** Where they come from. */
  readonly network: FrameTransport;
  /** Which of them the guest gets to see. */
  readonly filter: ReceiveFilter;
  /** Which queue pair they go to. */
  readonly steering: Steering;
  /** The stages. */
  readonly line: Pipeline;
  /** The end of the line. */
  readonly toGuest: ToGuest;
  /** The queue pair to which everything goes that comes; null if each frame is steered. */
  readonly pair: number | null;
}

/** Receives frames for the guest. */
export class FromNetwork {
  readonly #parts: FromNetworkParts;
  readonly #batch = new FrameBatch();
  readonly #offered = new FrameBatch();
  /** The queue of the network that is received next. */
  #next = 0;

  /** Receives when told to. @param parts what frames go through */
  constructor(parts: FromNetworkParts) {
    this.#parts = parts;
  }

  /** Takes a burst from each queue of the network. True if there was a frame. Throws GuestError and PluginError. */
  receive(linkUp: boolean, nowNs: number): boolean {
    const { network, line, toGuest } = this.#parts;
    let did = false;
    const { queuePairs } = network;
    for (let i = 0; i < queuePairs; i++) {
      const queue = this.#next;
      this.#next = queue + 1 < queuePairs ? queue + 1 : 0;
      if (network.receive(this.#batch, BURST, queue, nowNs) === 0) continue;
      did = true;
      if (linkUp) {
        this.#admit(queue);
        line.push(this.#batch, nowNs);
      } else toGuest.dropLinkDown(this.#batch);
      if (queuePairs > 1 && toGuest.isBlocked) break;
    }
    return did;
  }

  /**
   * Runs frames through the stages again that found no room, if the guest has posted buffers since. True if one of them is
   * not where it was. Throws GuestError and PluginError.
   */
  offerAgain(session: Session, nowNs: number): boolean {
    const { line, toGuest: { again } } = this.#parts;
    if (again.length === 0) return false;
    const queue = session.queues[2 * again.at(0).queue] ?? null;
    if (queue === null || !queue.enableKicks()) return false;
    const offered = this.#offered;
    for (let i = 0; i < again.length; i++) offered.push(again.at(i));
    again.clear();
    let done = 0;
    let did = false;
    try {
      while (done < offered.length && again.length === 0) {
        this.#batch.push(offered.at(done++));
        line.push(this.#batch, nowNs);
      }
      did = done > 1 || again.length === 0;
    } finally {
      while (done < offered.length) again.push(offered.at(done++));
      offered.clear();
    }
    return did;
  }

  /** Filters the batch and gives every frame its queue pair. */
  #admit(queue: number): void {
    const { network, filter, steering, pair } = this.#parts;
    const batch = this.#batch;
    const ownQueues = network.queuePairs > 1;
    let kept = 0;
    for (let i = 0; i < batch.length; i++) {
      const frame = batch.at(i);
      if (filter.accepts(frame.bytes, frame.start, frame.length) !== "accepted") {
        frame.release();
        continue;
      }
      if (pair !== null) frame.queue = pair;
      else if (ownQueues && queue < steering.pairs && !steering.usesRss) frame.queue = queue;
      else frame.queue = steering.select(frame.bytes, frame.start, frame.length);
      batch.set(kept++, frame);
    }
    batch.shorten(kept);
  }
}
