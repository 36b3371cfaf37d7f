/**
 * The last step to the guest: frames into receive queues, or into the wait for one.
 *
 * Theory of operation. `accept` takes what comes out of the stages and has each frame written into the receive queue of its
 * queue pair (`frame_writer.ts`). A frame that finds no room waits in `waiting`, in order, and everything for that pair
 * behind it; the device then stops receiving until the guest has posted buffers, which pushes back on the network. It is
 * tried again when there are buffers that it has not seen: a guest cannot have the same ones looked at again and again. A frame
 * marked `OFFER_AGAIN` waits apart, to go through the stages anew. Used buffers are shown to the guest once a round, by
 * `publish`.
 *
 * Invariants: a frame handed in is delivered, waiting, or dropped and counted by name; it is so too if the guest's ring turns
 * out to be broken in the middle of a batch. Nothing overtakes a waiting frame of its pair but packets of a chain that overtake
 * frames offered again, as in the reference. No buffer is used of a pair that is not in use.
 *
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { FrameBatch } from "../../pipeline/frame_batch.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameSink, Pipeline } from "../../pipeline/pipeline.ts";
import { OFFER_AGAIN } from "../../pipeline/qemu_compat.ts";
import {
  HASH_NET_HEADER_BYTES,
  VIRTIO_NET_HDR_F_DATA_VALID,
  writeHashReport,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";
import { type GuestTakes, type Refusal, refusal } from "./from_network.ts";
import type { Starvation } from "./kick_switch.ts";
import type { ToGuestCounters } from "./path_counters.ts";
import type { PacketHash } from "./steering.ts";

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
    if (!this.#takes.capabilities.csum && !this.#takes.anything) {
      frame.header.flags &= ~VIRTIO_NET_HDR_F_DATA_VALID;
    }
    const waiting = this.#waiting[frame.queue];
    if (waiting.length === 0) {
      if (this.#deliver(frame)) return;
      this.#counters.starved++;
    }
    // Behind a packet that waits, a frame must wait as well, even one that would fit: it may be of the same flow.
    if (frame.mark === OFFER_AGAIN) this.again.push(frame);
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

// Writes one frame, virtio header first, into the buffers of a receive queue (virtio 1.2, section 5.1.6.4).
//
// Theory of operation. Most frames fit into the first buffer; their header is put in front of them, into the frame's own
// headroom, so that one copy does for both. With MRG_RXBUF a frame may go on in further ones: their chains
// are popped one after the other and written as they come, and the header, which counts them, is written last. If the
// queue runs dry, all are put back, and the frame must wait; it is written anew then. A frame that is too long for a ring
// whose every slot was popped for it can wait for ever, and so it is told apart; so is one for which buffers are too small.

/** `write()`: the queue has not enough buffers now; nothing was taken from it. */
export const NO_ROOM_YET = 0;
/** `write()`: the frame fits into no buffers that this queue can have; nothing was taken from it. */
export const NEVER_FITS: number = -1;

/**
 * Pieces of buffers that one frame may be spread over: the longest frame fits into the smallest buffers that a driver may post,
 * which are as long as the header (5.1.6.3.1). So many are less than what a round leaves to receive queues at least
 * (`ROUND_UNITS` without what transmit queues and commands may take): a frame that fits does so in one round.
 */
const MAX_PIECES = 6144;

/** Writes frames into receive buffers. */
export class FrameWriter {
  readonly #hasher: PacketHash;
  readonly #first = new DescriptorChain();
  readonly #further = new DescriptorChain();
  readonly #header = new Uint8Array(HASH_NET_HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  #heads = new Int32Array(64);
  #written = new Int32Array(64);

  /** Has written nothing yet. @param hasher computes the hash of the 20-byte header */
  constructor(hasher: PacketHash) {
    this.#hasher = hasher;
  }

  /**
   * Pops buffers, fills and pushes them. Returns how many, NO_ROOM_YET or NEVER_FITS. Throws GuestError for broken rings and
   * for buffers of the wrong direction.
   */
  write(queue: Virtqueue, frame: Frame, takes: GuestTakes): number {
    const { headerBytes } = takes;
    const total = headerBytes + frame.total;
    const chain = this.#first;
    if (!queue.pop(chain)) return NO_ROOM_YET;
    if (chain.writableBytes < total) {
      if (chain.writableBytes === 0) throw wrongDirection();
      if (takes.mergeable) return this.#writeMerged(queue, frame, total, takes);
      queue.unpop(1);
      return NEVER_FITS;
    }
    const { bytes, start } = frame;
    if (start - frame.slot >= headerBytes) {
      this.#fillHeader(frame.view, start - headerBytes, frame, 1, takes);
      chain.write(bytes, start - headerBytes, headerBytes + frame.length);
    } else {
      // A stage has used the headroom up.
      this.#fillHeader(this.#headerView, 0, frame, 1, takes);
      chain.write(this.#header, 0, headerBytes);
      chain.write(bytes, start, frame.length);
    }
    for (let piece = frame.next; piece !== null; piece = piece.next) {
      chain.write(piece.bytes, piece.start, piece.length);
    }
    queue.push(chain.head, total);
    return 1;
  }

  /** The first chain has been popped and is too small. */
  #writeMerged(queue: Virtqueue, frame: Frame, total: number, takes: GuestTakes): number {
    const { headerBytes } = takes;
    const first = this.#first;
    if (first.writableBytes < headerBytes) throw tooSmallForHeader(first.writableBytes, headerBytes);
    let chain = first;
    let buffers = 0;
    let slots = 0;
    let pieces = 0;
    let left = total;
    let piece = frame;
    let at = 0;
    for (;;) {
      const part = Math.min(chain.writableBytes, left);
      if (part === 0) throw wrongDirection();
      let room = part;
      if (buffers === 0) {
        // Only keeps the place: it says how many buffers there are, which is known at the end.
        chain.write(this.#header, 0, headerBytes);
        room -= headerBytes;
      }
      while (room > 0) {
        if (at === piece.length) {
          piece = piece.next!;
          at = 0;
          continue;
        }
        const bytes = Math.min(room, piece.length - at);
        chain.write(piece.bytes, piece.start + at, bytes);
        at += bytes;
        room -= bytes;
      }
      left -= part;
      slots += chain.descriptors;
      this.#remember(buffers++, chain.head, part);
      if (left === 0) break;
      pieces += chain.pieces;
      if (pieces >= MAX_PIECES) {
        queue.unpop(buffers);
        return NEVER_FITS;
      }
      chain = this.#further;
      if (!queue.pop(chain)) {
        queue.unpop(buffers);
        // The reference lets it wait all the same.
        return slots >= queue.size && !takes.anything ? NEVER_FITS : NO_ROOM_YET;
      }
    }
    this.#fillHeader(this.#headerView, 0, frame, buffers, takes);
    first.rewind();
    first.write(this.#header, 0, headerBytes);
    for (let i = 0; i < buffers; i++) queue.push(this.#heads[i], this.#written[i]);
    return buffers;
  }

  #remember(index: number, head: number, writtenBytes: number): void {
    if (index === this.#heads.length) {
      const heads = new Int32Array(2 * index);
      heads.set(this.#heads);
      this.#heads = heads;
      const written = new Int32Array(2 * index);
      written.set(this.#written);
      this.#written = written;
    }
    this.#heads[index] = head;
    this.#written[index] = writtenBytes;
  }

  #fillHeader(target: DataView, at: number, frame: Frame, buffers: number, takes: GuestTakes): void {
    writeNetHeader(target, at, frame.header, buffers, takes.headerBytes);
    if (takes.headerBytes === HASH_NET_HEADER_BYTES) {
      const report = this.#hasher.compute(frame.bytes, frame.start, frame.length);
      writeHashReport(target, at, this.#hasher.value, report);
    }
  }
}

function wrongDirection(): GuestError {
  return new GuestError("buffers-wrong-direction", "A chain in a receive queue has no device-writable bytes");
}

function tooSmallForHeader(bytes: number, headerBytes: number): GuestError {
  return new GuestError(
    "buffer-too-small",
    `A receive buffer of ${bytes} bytes cannot hold the ${headerBytes}-byte virtio-net header`,
  );
}

// Lets held packets go before their time when memory for frames runs out.
//
// Theory of operation. The pool counts whom it has refused a frame, be it this device or anybody else with the same pool. A
// refusal that was not seen yet calls for relief: everything that is held leaves, both ways. Whoever polls after the device
// may be refused as well, so that a refusal also makes the device due at once (`isWanted`). If that helped nobody, because
// as many frames are out of the pool as after the last relief, the device is not due again: those frames are not held here.
// Once a second a stage is looked for that has most of them although it has let everything go: it keeps them for ever.

/** Time between two looks at who has the frames, in ns: every frame is looked at. */
const LOOK_INTERVAL_NS = 1_000_000_000;

/** Relief for one pool by what one device holds. */
export class MemoryRelief {
  readonly #pool: FramePool;
  readonly #toGuest: Pipeline;
  readonly #fromGuest: Pipeline;
  readonly #counters: Record<"flushed_for_memory", number>;
  #refusalsSeen = 0;
  /** Frames that were out of the pool after the last relief. */
  #outWhenRelieved = -1;
  #lookedNs = -Infinity;

  /** Watches `pool`. @param toGuest and @param fromGuest are what holds packets; @param counters where relief is counted */
  constructor(
    pool: FramePool,
    toGuest: Pipeline,
    fromGuest: Pipeline,
    counters: Record<"flushed_for_memory", number>,
  ) {
    this.#pool = pool;
    this.#toGuest = toGuest;
    this.#fromGuest = fromGuest;
    this.#counters = counters;
  }

  /** Does somebody want a frame? Not one who wants it in vain, and did so before. */
  get isWanted(): boolean {
    return this.#pool.refusals !== this.#refusalsSeen && this.#pool.inUse !== this.#outWhenRelieved;
  }

  /** Lets held packets go, if the pool has refused somebody a frame. True if any could. Throws GuestError and PluginError. */
  relieve(nowNs: number): boolean {
    const { refusals } = this.#pool;
    if (refusals === this.#refusalsSeen) return false;
    this.#refusalsSeen = refusals;
    let did = false;
    if (this.#toGuest.deadlineNs() !== Infinity || this.#fromGuest.deadlineNs() !== Infinity) {
      this.#counters.flushed_for_memory++;
      const toGuest = this.#toGuest.drain(nowNs);
      const fromGuest = this.#fromGuest.drain(nowNs);
      this.#outWhenRelieved = this.#pool.inUse;
      did = toGuest || fromGuest;
    }
    if (nowNs - this.#lookedNs >= LOOK_INTERVAL_NS) {
      this.#lookedNs = nowNs;
      this.#toGuest.refuseHoarders();
      this.#fromGuest.refuseHoarders();
    }
    return did;
  }
}
