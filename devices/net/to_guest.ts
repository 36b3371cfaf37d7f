/**
 * The last step to the guest: frames into receive queues, or into the wait for one.
 *
 * Theory of operation. `accept` takes what comes out of the stages and has each frame written into the receive queue of its
 * queue pair (`frame_writer.ts`). A frame that finds no room waits in `waiting`, in order, and everything for that pair
 * behind it; the device then stops receiving until the guest has posted buffers, which pushes back on the network. It is
 * tried again when there are buffers that it has not seen: a guest cannot have the same ones looked at again and again. A frame
 * marked `offerAgain` waits apart, to go through the stages anew. Used buffers are shown to the guest once a round, by
 * `publish`.
 *
 * Invariants: a frame handed in is delivered, waiting, or dropped and counted by name; it is so too if the guest's ring turns
 * out to be broken in the middle of a batch. Nothing overtakes a waiting frame of its pair but units of a chain that overtake
 * frames offered again, as in the reference. No buffer is used of a pair that is not in use.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";
import type { Frame } from "../../core/frame.ts";
import { FrameBatch } from "../../core/frame_batch.ts";
import type { FrameSink } from "../../core/pipeline.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID } from "../../wire/virtio_net_header.ts";
import { FrameWriter, NEVER_FITS, NO_ROOM_YET } from "./frame_writer.ts";
import { type GuestTakes, type Refusal, refusal } from "./guest_takes.ts";
import type { Starvation } from "./kick_switch.ts";
import type { ToGuestCounters } from "./path_counters.ts";
import type { PacketHash } from "./rss.ts";

/** Fills receive queues. */
export class ToGuest implements FrameSink, Starvation {
  /** Frames that found no room and go through the stages again. */
  readonly again: FrameBatch = new FrameBatch();
  readonly #counters: ToGuestCounters;
  readonly #waiting: FrameBatch[];
  /** By pair: has the first frame that waits found too few buffers? */
  readonly #tried: boolean[];
  readonly #filled: boolean[];
  readonly #writer: FrameWriter;
  #pairs = 1;
  /** The first pair whose receive queue runs; -1 if none does. Only of meaning where queues come and go. */
  #running = 0;
  #session: Session | null = null;
  #takes!: GuestTakes;
  /** The pair whose waiting frames are tried first. */
  #firstRetried = 0;

  /** Nothing is delivered before `activate`. @param queuePairs how many the device has; @param hasher computes the hash of the 20-byte header */
  constructor(queuePairs: number, counters: ToGuestCounters, hasher: PacketHash) {
    this.#counters = counters;
    this.#writer = new FrameWriter(hasher);
    this.#waiting = Array.from({ length: queuePairs }, () => new FrameBatch());
    this.#filled = new Array<boolean>(queuePairs).fill(false);
    this.#tried = new Array<boolean>(queuePairs).fill(false);
  }

  /** The driver is ready; one pair is in use. `takes` is what it accepted. */
  activate(session: Session, takes: GuestTakes): void {
    this.#session = session;
    this.#takes = takes;
    this.#pairs = 1;
    this.#running = session.startsQueues === true ? -1 : 0;
  }

  /** The driver accepts other things from now on. What waits was welcome when it left the stages, and is not lost for this. */
  accepts(takes: GuestTakes): void {
    this.#takes = takes;
  }

  /** The first `pairs` are in use from now on; what waits for others waits for the first pair instead. */
  usePairs(pairs: number): void {
    this.#pairs = pairs;
    for (let pair = pairs; pair < this.#waiting.length; pair++) {
      const waiting = this.#waiting[pair];
      for (let i = 0; i < waiting.length; i++) this.#wait(waiting.at(i));
      waiting.clear();
    }
    for (let i = 0; i < this.again.length; i++) this.#keepToPairs(this.again.at(i));
  }

  /** Queues have come or gone; what waits for one that is gone waits for one that runs instead, if any does. */
  queuesChanged(): void {
    const queues = this.#session?.queues ?? [];
    this.#running = -1;
    this.#tried.fill(false);
    for (let pair = this.#pairs - 1; pair >= 0; pair--) {
      if ((queues[2 * pair] ?? null) !== null) this.#running = pair;
    }
    if (this.#running < 0) return;
    for (let pair = 0; pair < this.#pairs; pair++) {
      if ((queues[2 * pair] ?? null) !== null) continue;
      const waiting = this.#waiting[pair];
      for (let i = 0; i < waiting.length; i++) this.#wait(waiting.at(i));
      waiting.clear();
    }
    for (let i = 0; i < this.again.length; i++) this.#keepToPairs(this.again.at(i));
  }

  /** Is there any receive queue to receive for? Where queues come and go, frames are better left in the network. */
  get hasQueue(): boolean {
    return this.#running >= 0;
  }

  /** The driver is gone: releases what waits and returns how many frames that were. */
  reset(): number {
    this.#session = null;
    let frames = this.again.length;
    this.again.releaseAll();
    for (const waiting of this.#waiting) {
      frames += waiting.length;
      waiting.releaseAll();
    }
    this.#filled.fill(false);
    return frames;
  }

  /** Is a frame waiting for buffers? Then the device must not receive more. */
  get isBlocked(): boolean {
    if (this.again.length > 0) return true;
    for (let pair = 0; pair < this.#waiting.length; pair++) if (this.#waiting[pair].length > 0) return true;
    return false;
  }

  /** Does a frame wait for buffers of this pair? Of those to be offered again only the first one counts. */
  isStarved(pair: number): boolean {
    if (this.again.length > 0 && this.again.at(0).queue === pair) return true;
    return pair < this.#waiting.length && this.#waiting[pair].length > 0;
  }

  /** How many frames wait for buffers. */
  get waitingFrames(): number {
    return this.#waiting.reduce((sum, waiting) => sum + waiting.length, this.again.length);
  }

  /** Takes every frame: delivered, waiting, or dropped and counted. Throws GuestError, and has taken every frame then too. */
  accept(frames: FrameBatch, _nowNs: number): void {
    let i = 0;
    try {
      for (; i < frames.length; i++) this.#take(frames.at(i));
    } finally {
      // After a GuestError: the rest waits, to be counted and released by the reset that follows.
      for (; i < frames.length; i++) this.#wait(frames.at(i));
      frames.clear();
    }
  }

  /** Tries the waiting frames again. True if one was delivered or dropped. Throws GuestError. */
  retry(): boolean {
    let did = false;
    const pairs = this.#waiting.length;
    const first = this.#firstRetried;
    for (let i = 0; i < pairs; i++) {
      const pair = first + i < pairs ? first + i : first + i - pairs;
      const waiting = this.#waiting[pair];
      if (waiting.length === 0 || !this.#isWorthRetrying(pair)) continue;
      let done = 0;
      try {
        while (done < waiting.length && this.#deliver(waiting.at(done))) done++;
        this.#tried[pair] = done < waiting.length;
        // Kicks were asked for to hear of buffers.
        if (!this.#tried[pair]) this.#session?.queues[2 * pair]?.disableKicks();
      } finally {
        waiting.dropFirst(done);
      }
      if (done > 0) did = true;
    }
    // Another one is first in the next round: a pair with many small buffers may use up what can be done in one.
    this.#firstRetried = first + 1 < pairs ? first + 1 : 0;
    return did;
  }

  /** Releases frames that came while the link is down. */
  dropLinkDown(frames: FrameBatch): void {
    this.#counters.dropped_link_down += frames.length;
    frames.releaseAll();
  }

  /** Shows the guest the buffers filled since the last time, and interrupts it where it wants that. */
  publish(): void {
    const session = this.#session;
    if (session === null) return;
    for (let pair = 0; pair < this.#filled.length; pair++) {
      if (!this.#filled[pair]) continue;
      this.#filled[pair] = false;
      if (session.queues[2 * pair]!.publish()) {
        this.#counters.interrupts++;
        session.interrupt(2 * pair);
      }
    }
  }

  /** What has been tried in vain waits for buffers that were not there then. */
  #isWorthRetrying(pair: number): boolean {
    return !this.#tried[pair] || this.#session?.queues[2 * pair]?.enableKicks() === true;
  }

  #take(frame: Frame): void {
    this.#keepToPairs(frame);
    const refused = refusal(frame, this.#takes);
    if (refused !== null) {
      this.#drop(frame, refused);
      return;
    }
    // Without GUEST_CSUM the flags must be 0 (virtio 1.2, section 5.1.6.4.1); DATA_VALID is a courtesy then.
    if (!this.#takes.checksum && !this.#takes.anything) frame.header.flags &= ~VIRTIO_NET_HDR_F_DATA_VALID;
    const waiting = this.#waiting[frame.queue];
    if (waiting.length === 0) {
      if (this.#deliver(frame)) return;
      this.#counters.starved++;
    }
    // Behind a unit that waits, a frame must wait as well, even one that would fit: it may be of the same flow.
    if (frame.offerAgain) this.again.push(frame);
    else {
      if (waiting.length === 0) this.#tried[frame.queue] = true;
      waiting.push(frame);
    }
  }

  #wait(frame: Frame): void {
    this.#keepToPairs(frame);
    const waiting = this.#waiting[frame.queue];
    if (waiting.length === 0) this.#tried[frame.queue] = false;
    waiting.push(frame);
  }

  /** A frame may have been steered before the driver took its pair out of use, or while its queue does not run. */
  #keepToPairs(frame: Frame): void {
    if (!(frame.queue < this.#pairs)) frame.queue = 0;
    const session = this.#session;
    if (session === null || session.startsQueues !== true || this.#running < 0) return;
    if ((session.queues[2 * frame.queue] ?? null) === null) frame.queue = this.#running;
  }

  /** False if there is no room. Otherwise the frame is gone. */
  #deliver(frame: Frame): boolean {
    const pair = frame.queue;
    const queue = this.#session?.queues[2 * pair] ?? null;
    if (queue === null) {
      // What may still come is waited for.
      return this.#session?.startsQueues === true ? false : this.#drop(frame, "dropped_no_queue");
    }
    const buffers = this.#writer.write(queue, frame, this.#takes);
    if (buffers === NO_ROOM_YET) return false;
    if (buffers === NEVER_FITS) return this.#drop(frame, "dropped_buffer_too_small");
    this.#counters.packets++;
    this.#counters.bytes += frame.total;
    this.#counters.buffers += buffers;
    this.#filled[pair] = true;
    frame.release();
    return true;
  }

  #drop(frame: Frame, reason: Refusal | "dropped_buffer_too_small" | "dropped_no_queue"): true {
    this.#counters[reason]++;
    frame.release();
    return true;
  }
}
