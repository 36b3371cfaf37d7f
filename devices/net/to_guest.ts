/**
 * The last step to the guest: frames into receive queues, or into the wait for buffers.
 *
 * Theory of operation. `accept` takes what comes out of the pipeline and writes each frame into the receive
 * queue of its queue pair (`FrameWriter`). A frame that finds no room waits in `#waiting`, in order, and
 * everything for that pair behind it; the device then stops receiving until the guest has posted buffers,
 * which pushes back on the network. It is tried again when there are buffers that it has not seen: a guest
 * cannot have the same ones looked at again and again. A frame marked `OFFER_AGAIN` waits apart, to go
 * through the pipeline anew. Used buffers are shown to the guest once a round, by `publish`.
 *
 * Invariants: a frame handed in is delivered, waiting, or dropped and counted by name; it is so too if the
 * guest's ring turns out to be broken in the middle of a batch. Nothing overtakes a waiting frame of its pair
 * but packets that a chain has coalesced and that overtake frames offered again, as in the reference. No
 * buffer is used of a pair that is not in use.
 *
 * @module
 */
import type { Arena } from "../../rings/arena.ts";
import { Burst } from "../../rings/burst.ts";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import type { Virtqueue } from "../../rings/virtqueue.ts";
import { type Frame, FrameBatch } from "../../pipeline/frame.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { FrameSink } from "../../pipeline/pipeline.ts";
import { OFFER_AGAIN, type RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Negotiated } from "../../pipeline/stage.ts";
import { ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU } from "../../wire/net_features.ts";
import {
  HASH_NET_HEADER_BYTES,
  headerBytes,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  writeHashReport,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";
import type { PacketHash } from "./steering.ts";

/** Counters of frames to the guest, all 0. */
export function newToGuestCounters() {
  return {
    /** Frames delivered. */
    packets: 0,
    /** Their bytes, without virtio headers. */
    bytes: 0,
    /** Receive buffers they took. */
    buffers: 0,
    /** Times a frame found no buffer and had to wait. */
    starved: 0,
    /** Interrupts sent. */
    interrupts: 0,
    /**
     * Dropped: a buffer without MRG_RXBUF, or all buffers that the ring can hold, are smaller than the frame.
     */
    dropped_buffer_too_small: 0,
    /** Dropped: NEEDS_CSUM, which the guest did not accept, and no `checksum` stage. */
    dropped_partial_checksum: 0,
    /** Dropped: a large frame of a kind the guest did not accept. */
    dropped_large: 0,
    /** Dropped: longer than the MTU that the driver accepted. */
    dropped_over_mtu: 0,
    /** Dropped: its queue pair has no receive queue. */
    dropped_no_queue: 0,
    /** Dropped: the link is down. */
    dropped_link_down: 0,
  };
}

/** What became of frames to the guest. */
export type ToGuestCounters = ReturnType<typeof newToGuestCounters>;

/** Frames that a kernel delivers at once. */
const BURST = 64;
/** Where the virtio-net header has `num_buffers`. */
const NUM_BUFFERS_AT = 10;

/** Why a frame is dropped here, which is also what counts it. */
type DropReason =
  | "dropped_large"
  | "dropped_partial_checksum"
  | "dropped_over_mtu"
  | "dropped_buffer_too_small"
  | "dropped_no_queue";

/** What is needed to deliver frames. */
export interface ToGuestParts {
  /** How many queue pairs the device has. */
  readonly queuePairs: number;
  /** What to count in. */
  readonly counters: ToGuestCounters;
  /** Computes the hash of the 20-byte header. */
  readonly packetHash: PacketHash;
  /** The rule book: the reference delivers whatever it has. */
  readonly rules: RuleBook;
  /** The MTU that the device advises, in bytes, if it does. */
  readonly mtu?: number | undefined;
  /** Where frames lie, if kernels reach them. */
  readonly arena: Arena | null;
}

/** Fills receive queues. */
export class ToGuest implements FrameSink {
  /** Frames that found no room and go through the pipeline again. */
  readonly again: FrameBatch = new FrameBatch();
  readonly #counters: ToGuestCounters;
  readonly #deliversAll: boolean;
  readonly #mtu: number;
  readonly #headers = new HeaderLocator();
  readonly #waiting: FrameBatch[];
  /** By pair: has the first frame that waits found too few buffers? */
  readonly #tried: boolean[];
  readonly #filled: boolean[];
  readonly #writer: FrameWriter;
  #session: Session | null = null;
  /** What the guest takes unfinished. With `csum` it also looks at DATA_VALID. */
  #capabilities = OffloadCapabilities.none;
  /**
   * Longest frame that is not a large one, in bytes, without VLAN tags: by the MTU, if that was negotiated.
   */
  #maxFrameBytes = Infinity;
  #pairs = 1;
  /** The first pair whose receive queue runs; -1 if none does. Only of meaning where queues come and go. */
  #running = 0;
  /** The pair whose waiting frames are tried first. */
  #firstRetried = 0;
  /** Frames that are given to a kernel at once. */
  #burstLimit = BURST;

  /** Delivers nothing before `activate`. */
  constructor({ queuePairs, counters, packetHash, rules, mtu, arena }: ToGuestParts) {
    this.#counters = counters;
    this.#deliversAll = rules === "qemu";
    this.#mtu = mtu ?? Infinity;
    this.#writer = new FrameWriter(packetHash, rules, arena);
    this.#waiting = Array.from({ length: queuePairs }, () => new FrameBatch());
    this.#filled = new Array<boolean>(queuePairs).fill(false);
    this.#tried = new Array<boolean>(queuePairs).fill(false);
  }

  /** The driver is ready; one pair is in use. */
  activate(session: Session, negotiated: Negotiated): void {
    this.#session = session;
    this.#pairs = 1;
    this.#running = session.startsQueues === true ? -1 : 0;
    this.negotiated(negotiated);
  }

  /**
   * The guest has agreed to this, or has changed its offloads. What waits could be delivered when it left the
   * pipeline, and is not lost for a change.
   */
  negotiated({ features, offloads }: Negotiated): void {
    this.#capabilities = OffloadCapabilities.ofGuest(offloads);
    this.#maxFrameBytes = features.has(VIRTIO_NET_F_MTU) ? ETHERNET_HEADER_BYTES + this.#mtu : Infinity;
    this.#writer.negotiated(headerBytes(features), features.has(VIRTIO_NET_F_MRG_RXBUF));
  }

  /** What the guest takes unfinished. */
  get capabilities(): OffloadCapabilities {
    return this.#capabilities;
  }

  /** The first `pairs` are in use from now on; what waits for others waits for the first pair instead. */
  useQueuePairs(pairs: number): void {
    this.#pairs = pairs;
    for (let pair = pairs; pair < this.#waiting.length; pair++) this.#moveWaiting(pair);
    for (let i = 0; i < this.again.length; i++) this.#keepToPairs(this.again.at(i));
  }

  /**
   * Queues have come or gone; what waits for one that is gone waits for one that runs instead, if any does.
   */
  queuesChanged(): void {
    const queues = this.#session?.queues ?? [];
    this.#running = -1;
    this.#tried.fill(false);
    for (let pair = this.#pairs - 1; pair >= 0; pair--) {
      if ((queues[2 * pair] ?? null) !== null) this.#running = pair;
    }
    if (this.#running < 0) return;
    for (let pair = 0; pair < this.#pairs; pair++) {
      if ((queues[2 * pair] ?? null) === null) this.#moveWaiting(pair);
    }
    for (let i = 0; i < this.again.length; i++) this.#keepToPairs(this.again.at(i));
  }

  /**
   * Is there any receive queue to receive for? Where queues come and go, frames are better left in the
   * network.
   */
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

  /** Does a frame of any pair wait for buffers? Then the device must not receive more. */
  get isBlocked(): boolean {
    if (this.again.length > 0) return true;
    for (let pair = 0; pair < this.#waiting.length; pair++) if (this.#waiting[pair].length > 0) return true;
    return false;
  }

  /** Does a frame of this pair wait for buffers? Of those to be offered again only the first one counts. */
  isBlockedAt(pair: number): boolean {
    if (this.again.length > 0 && this.again.at(0).queuePair === pair) return true;
    return pair < this.#waiting.length && this.#waiting[pair].length > 0;
  }

  /** How many frames wait for buffers. */
  get waitingFrames(): number {
    return this.#waiting.reduce((sum, waiting) => sum + waiting.length, this.again.length);
  }

  /**
   * Takes every frame: delivered, waiting, or dropped and counted. Throws GuestError, and has taken every
   * frame then too.
   */
  accept(frames: FrameBatch, _nowNs: number): void {
    let i = 0;
    try {
      while (i < frames.length) {
        i += this.#deliverBurst(frames, i, true);
        // The kernel has stopped in front of this one, or it is not for a kernel.
        if (i >= frames.length) break;
        this.#take(frames.at(i));
        i++;
      }
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
        while (done < waiting.length) {
          done += this.#deliverBurst(waiting, done, false);
          if (done < waiting.length && !this.#deliver(waiting.at(done))) break;
          if (done < waiting.length) done++;
        }
        this.#tried[pair] = done < waiting.length;
        // Kicks were asked for to hear of buffers.
        if (!this.#tried[pair]) this.#session?.queues[2 * pair]?.disableKicks();
      } finally {
        waiting.dropFirst(done);
      }
      if (done > 0) did = true;
    }
    // Another one is first in the next round: a pair with many small buffers may use up what can be done in
    // one.
    this.#firstRetried = first + 1 < pairs ? first + 1 : 0;
    return did;
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

  /**
   * Has a kernel deliver frames from `from` on, as long as they are for one pair and in order; returns how
   * many, which are gone.
   * @param areNew have they just come out of the pipeline? Then they are judged first, and wait behind those
   * that wait
   */
  #deliverBurst(frames: FrameBatch, from: number, areNew: boolean): number {
    const writer = this.#writer;
    const burst = writer.burst;
    if (burst === null) return 0;
    const most = Math.min(frames.length, from + this.#burstLimit);
    let pair = -1;
    let end = from;
    for (; end < most; end++) {
      const frame = frames.at(end);
      if (end === from) {
        if (areNew) this.#keepToPairs(frame);
        pair = frame.queuePair;
        if (areNew && this.#waiting[pair].length > 0) break;
        writer.beginBurst();
      } else if (frame.queuePair !== pair) break;
      if (areNew && this.#judge(frame) !== null || !writer.addToBurst(frame)) break;
    }
    if (end === from) return 0;
    const done = this.#session?.queues[2 * pair]?.enqueueBurst?.(burst) ?? 0;
    // Frames behind the one at which a kernel stops are looked at again: fewer the next time.
    this.#burstLimit = done === end - from ? Math.min(2 * this.#burstLimit, BURST) : Math.max(done, 1);
    if (done === 0) return 0;
    const counters = this.#counters;
    counters.packets += done;
    counters.buffers += burst.chains;
    this.#filled[pair] = true;
    let bytes = 0;
    // Last to first: so they come out of the pool in the same order the next time.
    for (let i = from + done - 1; i >= from; i--) {
      const frame = frames.at(i);
      bytes += frame.total;
      frame.release();
    }
    counters.bytes += bytes;
    return done;
  }

  /** Why this frame must not be delivered; null if it may be, with a header that the guest may see. */
  #judge(frame: Frame): DropReason | null {
    const { header } = frame;
    // What most frames are.
    const isPlain = (header.flags | header.gsoType) === 0 && frame.total <= this.#maxFrameBytes;
    if (isPlain || this.#deliversAll) return null;
    const refusal = this.#refusal(frame);
    // Without GUEST_CSUM the flags must be 0 (virtio 1.2, section 5.1.6.4.1); DATA_VALID is a courtesy then.
    if (refusal === null && !this.#capabilities.csum) frame.header.flags &= ~VIRTIO_NET_HDR_F_DATA_VALID;
    return refusal;
  }

  #take(frame: Frame): void {
    this.#keepToPairs(frame);
    const refusal = this.#judge(frame);
    if (refusal !== null) {
      this.#drop(frame, refusal);
      return;
    }
    const waiting = this.#waiting[frame.queuePair];
    if (waiting.length === 0) {
      if (this.#deliver(frame)) return;
      this.#counters.starved++;
    }
    // Behind a frame that waits, a frame must wait as well, even one that would fit: it may be of the same
    // flow.
    if (frame.mark === OFFER_AGAIN) this.again.push(frame);
    else {
      if (waiting.length === 0) this.#tried[frame.queuePair] = true;
      waiting.push(frame);
    }
  }

  /** Why this frame must not be delivered; null if it may be (virtio 1.2, 5.1.4.1 and 5.1.6.4). */
  #refusal(frame: Frame): DropReason | null {
    const { header } = frame;
    const isOrdinary = (header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) === VIRTIO_NET_HDR_GSO_NONE;
    if (isOrdinary && frame.total > this.#maxFrameBytes && this.#isOverMtu(frame)) return "dropped_over_mtu";
    if (this.#capabilities.admits(header)) return null;
    return this.#capabilities.admitsGso(header.gsoType) ? "dropped_partial_checksum" : "dropped_large";
  }

  /** The MTU is that of the payload: VLAN tags belong to the header. */
  #isOverMtu(frame: Frame): boolean {
    this.#headers.locate(frame.bytes, frame.start, frame.length);
    return frame.total > this.#maxFrameBytes + this.#headers.vlanTags * VLAN_TAG_BYTES;
  }

  /** What waits for `pair`, which is not served any more, waits for another. */
  #moveWaiting(pair: number): void {
    const waiting = this.#waiting[pair];
    for (let i = 0; i < waiting.length; i++) this.#wait(waiting.at(i));
    waiting.clear();
  }

  #wait(frame: Frame): void {
    this.#keepToPairs(frame);
    const waiting = this.#waiting[frame.queuePair];
    if (waiting.length === 0) this.#tried[frame.queuePair] = false;
    waiting.push(frame);
  }

  /**
   * A frame may have been steered before the driver took its pair out of use, or while its queue does not
   * run.
   */
  #keepToPairs(frame: Frame): void {
    if (!(frame.queuePair < this.#pairs)) frame.queuePair = 0;
    const session = this.#session;
    if (session === null || session.startsQueues !== true || this.#running < 0) return;
    if ((session.queues[2 * frame.queuePair] ?? null) === null) frame.queuePair = this.#running;
  }

  /** False if there is no room. Otherwise the frame is gone. */
  #deliver(frame: Frame): boolean {
    const pair = frame.queuePair;
    const queue = this.#session?.queues[2 * pair] ?? null;
    if (queue === null) {
      // What may still come is waited for.
      return this.#session?.startsQueues === true ? false : this.#drop(frame, "dropped_no_queue");
    }
    const buffers = this.#writer.write(queue, frame);
    if (buffers === NO_ROOM_YET) return false;
    if (buffers === NEVER_FITS) return this.#drop(frame, "dropped_buffer_too_small");
    this.#counters.packets++;
    this.#counters.bytes += frame.total;
    this.#counters.buffers += buffers;
    this.#filled[pair] = true;
    frame.release();
    return true;
  }

  #drop(frame: Frame, reason: DropReason): true {
    this.#counters[reason]++;
    frame.release();
    return true;
  }
}

// Writes one frame, virtio header first, into the buffers of a receive queue (virtio 1.2, section 5.1.6.4).
//
// Most frames fit into the first buffer; their header is put in front of them, into the frame's own headroom,
// so that one copy does for both. With MRG_RXBUF a frame may go on in further ones: their chains are popped
// one after the other and written as they come, and the header, which counts them, is written last. If the
// queue runs dry, all are put back, and the frame must wait; it is written anew then. A frame that is too
// long for a ring whose every slot was popped for it can wait for ever, and so it is told apart; so is one
// for which buffers are too small.

/** `write()`: the queue has not enough buffers now; nothing was taken from it. */
export const NO_ROOM_YET = 0;
/** `write()`: the frame fits into no buffers that this queue can have; nothing was taken from it. */
export const NEVER_FITS: number = -1;

/**
 * Pieces of buffers that one frame may be spread over: the longest frame fits into the smallest buffers that
 * a driver may post, which are as long as the header (5.1.6.3.1). So many are less than what a round leaves
 * to receive queues at least (`ROUND_UNITS` without what transmit queues and commands may take): a frame that
 * fits does so in one round.
 */
const MAX_PIECES = 6144;
/** Pieces of a frame that a kernel takes. */
const MAX_BURST_PIECES = 128;

/** Writes frames into receive buffers. */
export class FrameWriter {
  readonly #packetHash: PacketHash;
  readonly #isReference: boolean;
  readonly #first = new DescriptorChain();
  readonly #further = new DescriptorChain();
  readonly #header = new Uint8Array(HASH_NET_HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  #heads = new Int32Array(64);
  #written = new Int32Array(64);
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  #headerBytes = 0;
  #isMergeable = false;
  /** What kernels deliver; null where there are none. */
  readonly burst: Burst | null;

  /** Writes nothing before `negotiated`. @param arena where frames lie, if kernels reach them */
  constructor(packetHash: PacketHash, rules: RuleBook, arena: Arena | null = null) {
    this.#packetHash = packetHash;
    this.#isReference = rules === "qemu";
    this.burst = Burst.make(arena);
  }

  /** Empties the burst. */
  beginBurst(): void {
    this.burst!.beginEnqueue(this.#headerBytes, this.#isMergeable ? NUM_BUFFERS_AT : 0);
  }

  /**
   * Puts a frame into the burst, with its header. False if it is not for a kernel; it is not in the burst
   * then.
   */
  addToBurst(frame: Frame): boolean {
    const burst = this.burst!;
    const headerBytes = this.#headerBytes;
    const at = frame.start - headerBytes;
    if (at < frame.slot) return false;
    this.#fillHeader(frame.view, at, frame, 1);
    if (frame.next === null && frame.bytes === burst.arena.bytes) {
      return burst.addPiece(at, headerBytes + frame.length, true);
    }
    return this.#addPieces(burst, frame);
  }

  #addPieces(burst: Burst, frame: Frame): boolean {
    const headerBytes = this.#headerBytes;
    const { bytes } = burst.arena;
    if (!burst.hasRoom(MAX_BURST_PIECES)) return false;
    let pieces = 0;
    for (let piece: Frame | null = frame; piece !== null; piece = piece.next) {
      if (piece.bytes !== bytes || ++pieces > MAX_BURST_PIECES) return false;
    }
    burst.addPiece(frame.start - headerBytes, headerBytes + frame.length, false);
    for (let piece = frame.next; piece !== null; piece = piece.next) {
      burst.addPiece(piece.start, piece.length, piece.next === null);
    }
    return true;
  }

  /** How frames are written from now on. @param isMergeable over several buffers, where one is too small */
  negotiated(headerBytes: number, isMergeable: boolean): void {
    this.#headerBytes = headerBytes;
    this.#isMergeable = isMergeable;
  }

  /**
   * Pops buffers, fills and pushes them. Returns how many, NO_ROOM_YET or NEVER_FITS. Throws GuestError for
   * broken rings and for buffers of the wrong direction.
   */
  write(queue: Virtqueue, frame: Frame): number {
    const headerBytes = this.#headerBytes;
    const total = headerBytes + frame.total;
    const chain = this.#first;
    if (!queue.pop(chain)) return NO_ROOM_YET;
    if (chain.writableBytes < total) {
      if (chain.writableBytes === 0) throw wrongDirection();
      if (this.#isMergeable) return this.#writeMerged(queue, frame, total);
      queue.unpop(1);
      return NEVER_FITS;
    }
    const { bytes, start } = frame;
    if (start - frame.slot >= headerBytes) {
      this.#fillHeader(frame.view, start - headerBytes, frame, 1);
      chain.write(bytes, start - headerBytes, headerBytes + frame.length);
    } else {
      // A stage has used the headroom up.
      this.#fillHeader(this.#headerView, 0, frame, 1);
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
  #writeMerged(queue: Virtqueue, frame: Frame, total: number): number {
    const headerBytes = this.#headerBytes;
    const first = this.#first;
    if (first.writableBytes < headerBytes) throw tooSmallForHeader(first.writableBytes, headerBytes);
    this.#fillHeader(this.#headerView, 0, frame, 1);
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
        return slots >= queue.size && !this.#isReference ? NEVER_FITS : NO_ROOM_YET;
      }
    }
    this.#fillHeader(this.#headerView, 0, frame, buffers);
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

  #fillHeader(target: DataView, at: number, frame: Frame, buffers: number): void {
    writeNetHeader(target, at, frame.header, buffers, this.#headerBytes);
    if (this.#headerBytes === HASH_NET_HEADER_BYTES) {
      const report = this.#packetHash.compute(frame.bytes, frame.start, frame.length);
      writeHashReport(target, at, this.#packetHash.value, report);
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
