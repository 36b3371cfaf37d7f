/**
 * The last step to the guest: frames into receive buffers.
 *
 * Theory of operation. `accept` takes what comes out of the stages and puts each frame into the receive queue of its queue
 * pair, virtio header first. With MRG_RXBUF a frame may take several buffers: their chains are popped one after the other
 * and written as they come; if the queue runs dry, all are put back (`unpop`) and the frame waits. A frame that finds no room
 * waits in `waiting`, in order, and everything for that pair behind it; the device then stops receiving until the guest has
 * posted buffers, which pushes back on the network. A frame marked `offerAgain` waits apart, to go through the stages anew.
 * Used buffers are shown to the guest once a round, by `publish`.
 *
 * Invariants: a frame handed in is delivered, waiting, or dropped and counted by name; nothing overtakes a waiting frame of
 * its pair but units of a chain that overtake frames offered again, as in the reference.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import { GuestError } from "../../core/errors.ts";
import type { Frame } from "../../core/frame.ts";
import { FrameBatch } from "../../core/frame_batch.ts";
import type { FrameSink } from "../../core/pipeline.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import {
  HASH_NET_HEADER_BYTES,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  writeHashReport,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";
import type { GuestTakes } from "./guest_takes.ts";
import type { PacketHash } from "./rss.ts";

/** What became of frames to the guest. */
export interface ToGuestCounters extends Record<string, number> {
  /** Frames delivered. */
  packets: number;
  /** Their bytes, without virtio headers. */
  bytes: number;
  /** Receive buffers they took. */
  buffers: number;
  /** Times a frame found no buffer and had to wait. */
  starved: number;
  /** Interrupts sent. */
  interrupts: number;
  /** Dropped: a driver without MRG_RXBUF posted a buffer smaller than the frame. */
  dropped_buffer_too_small: number;
  /** Dropped: NEEDS_CSUM, which the guest did not accept, and no `checksum` stage. */
  dropped_partial_checksum: number;
  /** Dropped: a large frame of a kind the guest did not accept. */
  dropped_large: number;
  /** Dropped: its queue pair has no receive queue. */
  dropped_no_queue: number;
}

/** Counters of frames to the guest, all 0. */
export function newToGuestCounters(): ToGuestCounters {
  return {
    packets: 0,
    bytes: 0,
    buffers: 0,
    starved: 0,
    interrupts: 0,
    dropped_buffer_too_small: 0,
    dropped_partial_checksum: 0,
    dropped_large: 0,
    dropped_no_queue: 0,
  };
}

/** Fills receive queues. */
export class ToGuest implements FrameSink {
  /** Frames that found no room and go through the stages again. */
  readonly again: FrameBatch = new FrameBatch();
  readonly #counters: ToGuestCounters;
  readonly #waiting: FrameBatch[];
  readonly #filled: boolean[];
  readonly #hasher: PacketHash;
  readonly #first = new DescriptorChain();
  readonly #further = new DescriptorChain();
  readonly #header = new Uint8Array(HASH_NET_HEADER_BYTES);
  #heads = new Int32Array(64);
  #written = new Int32Array(64);
  #session: Session | null = null;
  #takes!: GuestTakes;

  /** Nothing is delivered before `activate`. @param queuePairs how many the device has; @param hasher computes the hash of the 20-byte header */
  constructor(queuePairs: number, counters: ToGuestCounters, hasher: PacketHash) {
    this.#counters = counters;
    this.#hasher = hasher;
    this.#waiting = Array.from({ length: queuePairs }, () => new FrameBatch());
    this.#filled = new Array<boolean>(queuePairs).fill(false);
  }

  /** The driver is ready. `takes` is what it accepted. */
  activate(session: Session, takes: GuestTakes): void {
    this.#session = session;
    this.#takes = takes;
  }

  /** The driver accepts other things from now on. */
  accepts(takes: GuestTakes): void {
    this.#takes = takes;
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

  /** How many frames wait for buffers. */
  get waitingFrames(): number {
    return this.#waiting.reduce((sum, waiting) => sum + waiting.length, this.again.length);
  }

  /** Takes every frame: delivered, waiting, or dropped and counted. */
  accept(frames: FrameBatch, _nowNs: number): void {
    for (let i = 0; i < frames.length; i++) {
      const frame = frames.at(i);
      const waiting = this.#waiting[frame.queue];
      if (waiting.length > 0 && !frame.offerAgain) waiting.push(frame);
      else if (!this.#deliver(frame)) {
        this.#counters.starved++;
        if (frame.offerAgain) this.again.push(frame);
        else waiting.push(frame);
      }
    }
    frames.clear();
  }

  /** Tries the waiting frames again. True if one was delivered. */
  retry(): boolean {
    let did = false;
    for (let pair = 0; pair < this.#waiting.length; pair++) {
      const waiting = this.#waiting[pair];
      let done = 0;
      while (done < waiting.length && this.#deliver(waiting.at(done))) done++;
      waiting.dropFirst(done);
      if (done > 0) did = true;
    }
    return did;
  }

  /** Shows the guest the buffers filled in this round, and interrupts it where it wants that. */
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

  /** False if there is no room. Otherwise the frame is gone. */
  #deliver(frame: Frame): boolean {
    const queue = this.#session?.queues[2 * frame.queue] ?? null;
    if (queue === null) return this.#drop(frame, "dropped_no_queue");
    if (!this.#takes.anything) {
      const refused = this.#refused(frame);
      if (refused !== null) return this.#drop(frame, refused);
    }
    const headerBytes = this.#takes.headerBytes;
    const total = headerBytes + frame.total;
    const chain = this.#first;
    if (!queue.pop(chain)) return false;
    if (chain.writableBytes < total) {
      if (this.#takes.mergeable) return this.#deliverMerged(queue, frame, total);
      if (chain.writableBytes === 0) throw wrongDirection();
      queue.unpop(1);
      return this.#drop(frame, "dropped_buffer_too_small");
    }
    this.#fillHeader(frame, 1);
    chain.write(this.#header, 0, headerBytes);
    writePieces(chain, frame);
    queue.push(chain.head, total);
    return this.#delivered(frame, 1);
  }

  /** A frame that takes several buffers; the first chain has been popped and is too small. */
  #deliverMerged(queue: Virtqueue, frame: Frame, total: number): boolean {
    const headerBytes = this.#takes.headerBytes;
    const first = this.#first;
    if (first.writableBytes < headerBytes) {
      throw new GuestError(
        "buffer-too-small",
        `A receive buffer of ${first.writableBytes} bytes cannot hold the ${headerBytes}-byte virtio-net header`,
      );
    }
    let chain = first;
    let buffers = 0;
    let room = 0;
    let left = total;
    let piece: Frame = frame;
    let at = 0;
    for (;;) {
      const part = Math.min(chain.writableBytes, left);
      if (part === 0) throw wrongDirection();
      room = part;
      if (buffers === 0) {
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
      this.#remember(buffers++, chain.head, part);
      if (left === 0) break;
      chain = this.#further;
      if (!queue.pop(chain)) {
        queue.unpop(buffers);
        return false;
      }
    }
    this.#fillHeader(frame, buffers);
    first.rewind();
    first.write(this.#header, 0, headerBytes);
    for (let i = 0; i < buffers; i++) queue.push(this.#heads[i], this.#written[i]);
    return this.#delivered(frame, buffers);
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

  #fillHeader(frame: Frame, buffers: number): void {
    writeNetHeader(this.#header, 0, frame.header, buffers, this.#takes.headerBytes);
    // Without GUEST_CSUM the flags must be 0 (virtio 1.2, section 5.1.6.4.1); DATA_VALID is a courtesy then.
    if (!this.#takes.checksum && !this.#takes.anything) this.#header[0] &= ~VIRTIO_NET_HDR_F_DATA_VALID;
    if (this.#takes.headerBytes === HASH_NET_HEADER_BYTES) {
      const report = this.#hasher.compute(frame.bytes, frame.start, frame.length);
      writeHashReport(this.#header, 0, this.#hasher.value, report);
    }
  }

  #refused(frame: Frame): "dropped_partial_checksum" | "dropped_large" | null {
    const { flags, gsoType } = frame.header;
    const takes = this.#takes;
    if (gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
      const kind = gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
      const welcome = (kind === VIRTIO_NET_HDR_GSO_TCPV4 && takes.tso4) ||
        (kind === VIRTIO_NET_HDR_GSO_TCPV6 && takes.tso6) ||
        (kind === VIRTIO_NET_HDR_GSO_UDP_L4 && takes.uso);
      if (!welcome || (kind !== gsoType && !takes.ecn)) return "dropped_large";
    }
    return (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 && !takes.checksum ? "dropped_partial_checksum" : null;
  }

  #delivered(frame: Frame, buffers: number): true {
    this.#counters.packets++;
    this.#counters.bytes += frame.total;
    this.#counters.buffers += buffers;
    this.#filled[frame.queue] = true;
    frame.release();
    return true;
  }

  #drop(
    frame: Frame,
    reason: "dropped_buffer_too_small" | "dropped_partial_checksum" | "dropped_large" | "dropped_no_queue",
  ): true {
    this.#counters[reason]++;
    frame.release();
    return true;
  }
}

function writePieces(chain: DescriptorChain, frame: Frame): void {
  for (let piece: Frame | null = frame; piece !== null; piece = piece.next) {
    chain.write(piece.bytes, piece.start, piece.length);
  }
}

function wrongDirection(): GuestError {
  return new GuestError("buffers-wrong-direction", "A chain in a receive queue has no device-writable bytes");
}
