/**
 * Writes one frame, virtio header first, into the buffers of a receive queue (virtio 1.2, section 5.1.6.4).
 *
 * Theory of operation. Most frames fit into the first buffer; their header is put in front of them, into the frame's own
 * headroom, so that one copy does for both. With MRG_RXBUF a frame may go on in further ones: their chains
 * are popped one after the other and written as they come, and the header, which counts them, is written last. If the
 * queue runs dry, all are put back, and the frame must wait; it is written anew then. A frame that is too long for a ring
 * whose every slot was popped for it can wait for ever, and so it is told apart; so is one for which buffers are too small.
 *
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import { GuestError } from "../../core/errors.ts";
import type { Frame } from "../../core/frame.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import { HASH_NET_HEADER_BYTES, writeHashReport, writeNetHeader } from "../../wire/virtio_net_header.ts";
import type { GuestTakes } from "./guest_takes.ts";
import type { PacketHash } from "./rss.ts";

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
