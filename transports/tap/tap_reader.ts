/**
 * Reads frames from the queues of a TAP, straight into frames of the pool.
 *
 * Theory of operation. The length of a frame is not known before it has been read, and almost all are short. So each read is
 * offered a list of pieces: a first one that fits the MTU, with the virtio-net header in its headroom, and two *spares* of
 * growing size for what does not fit. A short frame takes the first piece only, and the spares stay for the next read; a
 * large one takes of the spares what it needs, and is then a frame in several pieces with all its headers in the first.
 *
 *     first:  [ ...headroom... | header ][ up to MTU and more ]     spare: [ 9 KiB ]     spare: [ 68 KiB ]
 *
 * One set of pieces serves all queues of a TAP, for a call reads from one queue only. If the pool has no piece to offer,
 * nothing is read, and so nothing can be lost: the kernel's queue is the back-pressure, and the pool's refusal makes the
 * device let go what it holds.
 *
 * The kernel cuts silently what does not fit all pieces together; a read that fills them to the last byte is taken for cut,
 * dropped and counted. A header that does not fit its frame is dropped as well: who made a passed descriptor is not known.
 *
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import type { FrameBatch } from "../../core/frame_batch.ts";
import { type FramePool, MAX_FRAME_BYTES } from "../../core/frame_pool.ts";
import {
  readNetHeader,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";
import { EAGAIN, EBADFD, EINTR } from "../host/errno.ts";
import { FrameAddresses } from "../host/frame_address.ts";
import { IoVector } from "../host/io_vector.ts";
import { errno, libc, type LibcSymbols } from "../host/libc.ts";
import { countError, type TapCounters } from "./counters.ts";

const ETHERNET_HEADER_BYTES = 14;
const VLAN_TAG_BYTES = 4;
const LEAST_FIRST_BYTES = 1600;
const SPARE_BYTES = [9216, 65_600];
const PIECES = 1 + SPARE_BYTES.length;
const KNOWN_FLAGS = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;

/** How a call of `read` ended. */
export type ReadEnd =
  /** There is no more; the kernel tells when there is. */
  | "drained"
  /** There may be more. */
  | "more"
  /** The pool had no frame. */
  | "noFrame"
  /** The interface has been deleted. */
  | "gone";

/** Reads frames. */
export class TapReader implements Disposable {
  /** How the last call ended. */
  end: ReadEnd = "drained";
  readonly #pool: FramePool;
  readonly #headerBytes: number;
  readonly #sizes: readonly number[];
  readonly #counters: TapCounters;
  readonly #c: LibcSymbols = libc();
  readonly #addresses = new FrameAddresses();
  readonly #vector = new IoVector(PIECES);
  readonly #pieces: (Frame | null)[] = new Array<Frame | null>(PIECES).fill(null);
  readonly #rooms: number[] = new Array<number>(PIECES).fill(0);

  /** @param headerBytes of the virtio-net header, or 0; @param mtu of the interface, in bytes */
  constructor(pool: FramePool, headerBytes: number, mtu: number, counters: TapCounters) {
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    const first = Math.max(LEAST_FIRST_BYTES, mtu + ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES);
    this.#sizes = [first, ...SPARE_BYTES];
    this.#counters = counters;
  }

  /** Reads up to `limit` frames from descriptor `number` and appends them to `out`. Returns how many; `end` says why. */
  read(number: number, out: FrameBatch, limit: number): number {
    let count = 0;
    for (let tries = 0; tries < limit; tries++) {
      if (!this.#prepare()) {
        this.end = "noFrame";
        return count;
      }
      const bytes = this.#c.readv(number, this.#vector.address, PIECES);
      if (bytes >= 0) {
        const frame = this.#finish(bytes);
        if (frame === null) continue;
        out.push(frame);
        count++;
        continue;
      }
      const error = errno();
      if (error === EINTR) continue;
      if (error !== EAGAIN) countError(this.#counters, "read", error);
      this.end = error === EBADFD ? "gone" : "drained";
      return count;
    }
    this.end = "more";
    return count;
  }

  /** Gives the pieces back that wait for frames. */
  [Symbol.dispose](): void {
    for (let i = 0; i < PIECES; i++) {
      this.#pieces[i]?.release();
      this.#pieces[i] = null;
    }
  }

  /** Fetches the pieces that are missing; false if the pool is empty. */
  #prepare(): boolean {
    for (let i = 0; i < PIECES; i++) {
      if (this.#pieces[i] !== null) continue;
      const piece = this.#pool.take(this.#sizes[i]);
      if (piece === null) return false;
      const before = i === 0 ? this.#headerBytes : 0;
      const room = piece.slot + piece.capacity - piece.start;
      this.#pieces[i] = piece;
      this.#rooms[i] = room;
      this.#vector.set(i, this.#addresses.of(piece.bytes) + piece.start - before, before + room);
    }
    return true;
  }

  /** The frame that was read, in as many pieces as it needs; null if it was dropped. */
  #finish(bytes: number): Frame | null {
    const counters = this.#counters;
    const total = bytes - this.#headerBytes;
    if (total > MAX_FRAME_BYTES) {
      if (total === this.#rooms[0] + this.#rooms[1] + this.#rooms[2]) counters.truncated++;
      else counters.tooLong++;
      return null;
    }
    const first = this.#pieces[0]!;
    const firstBytes = Math.min(total, this.#rooms[0]);
    if (this.#headerBytes > 0) readNetHeader(first.bytes, first.start - this.#headerBytes, first.header);
    if (firstBytes < ETHERNET_HEADER_BYTES || !isSound(first, firstBytes)) {
      counters.badHeader++;
      return null;
    }
    this.#pieces[0] = null;
    first.length = firstBytes;
    first.total = firstBytes;
    let left = total - firstBytes;
    for (let i = 1; left > 0; i++) {
      const piece = this.#pieces[i]!;
      this.#pieces[i] = null;
      piece.length = Math.min(left, this.#rooms[i]);
      piece.total = piece.length;
      left -= piece.length;
      first.append(piece);
    }
    counters.read++;
    counters.readBytes += total;
    return first;
  }
}

/** Does the header fit the frame, of which the first piece has `length` bytes? Unknown flags are taken off. */
function isSound({ header }: Frame, length: number): boolean {
  header.flags &= KNOWN_FLAGS;
  if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) {
    header.csumStart = 0;
    header.csumOffset = 0;
  } else if (header.csumStart + header.csumOffset + 2 > length) return false;
  switch (header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
      return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return header.gsoSize > 0;
    default:
      return false;
  }
}
