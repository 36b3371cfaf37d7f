/**
 * Reads frames from the queues of a TAP, straight into frames of the pool.
 *
 * Theory of operation. The length of a frame is not known before it has been read, and almost all are short. So every frame
 * is read to the *landing*, a frame of the pool that has room for the longest, its virtio-net header in the headroom:
 *
 *     landing:  [ ...headroom... | header ][ room for the longest frame and more ]
 *
 * What fits into a smaller frame is copied into one, and the landing stays for the next read; it is in the caches by then. That
 * is quicker than to offer the kernel a list of a short and a long place (measured, Linux 6.18: 100 ns for `readv` where a
 * copy takes 15 to 40), and a frame that is held does not keep 68 KiB. A large frame is the landing itself.
 *
 * One landing serves all queues of a TAP, for a call reads from one queue only. If the pool has none to offer, nothing is
 * read, and so nothing can be lost: the kernel's queue is the back-pressure, and the pool's refusal makes the device let go
 * what it holds. If it has only no small frame, the landing goes, however short what it holds.
 *
 * The kernel cuts silently what does not fit; a read that fills the landing to the last byte is taken for cut, dropped and
 * counted. A header that does not fit its frame is dropped as well: who made a passed descriptor is not known.
 *
 * @module
 */
import type { Frame, NetHeader } from "../../core/frame.ts";
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
import { EAGAIN, EBADFD, EINTR } from "../../host/errno.ts";
import { FrameAddresses } from "../../host/frame_address.ts";
import { errno, libc, type LibcSymbols } from "../../host/libc.ts";
import { countError, type TapCounters } from "./counters.ts";

const ETHERNET_HEADER_BYTES = 14;
/** Longer frames are not copied. */
const MOST_COPIED_BYTES = 9216;
const ONE = 1n;
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
  readonly #counters: TapCounters;
  readonly #c: LibcSymbols = libc();
  readonly #addresses = new FrameAddresses();
  #landing: Frame | null = null;
  /** Where the next header is to go, where the frame behind it, and how many bytes both may have. */
  #headerAddress = 0n;
  #frameAddress = 0n;
  #room = 0n;

  /** @param headerBytes of the virtio-net header, or 0 */
  constructor(pool: FramePool, headerBytes: number, counters: TapCounters) {
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    this.#counters = counters;
  }

  /** Reads up to `limit` frames from descriptor `number` and appends them to `out`. Returns how many; `end` says why. */
  read(number: number, out: FrameBatch, limit: number): number {
    let count = 0;
    for (let tries = 0; tries < limit; tries++) {
      if (this.#landing === null && !this.#prepare()) {
        this.end = "noFrame";
        return count;
      }
      const bytes = this.#c.read(number, this.#headerAddress, this.#room);
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

  /** Gives the landing back. */
  [Symbol.dispose](): void {
    this.#landing?.release();
    this.#landing = null;
  }

  /** Fetches a landing; false if the pool has none. */
  #prepare(): boolean {
    const landing = this.#pool.take(MAX_FRAME_BYTES);
    if (landing === null) return false;
    this.#landing = landing;
    this.#frameAddress = this.#addresses.pointer(landing.bytes) + BigInt(landing.start | 0);
    this.#headerAddress = this.#frameAddress - BigInt(this.#headerBytes);
    this.#room = BigInt(this.#headerBytes + landing.length + landing.tailRoom);
    return true;
  }

  /** The frame that was read; null if it was dropped. */
  #finish(bytes: number): Frame | null {
    const counters = this.#counters;
    const landing = this.#landing!;
    const total = bytes - this.#headerBytes;
    if (total > MAX_FRAME_BYTES) {
      if (bytes === Number(this.#room)) counters.truncated++;
      else counters.tooLong++;
      return null;
    }
    const at = landing.start - this.#headerBytes;
    // Most frames are finished: nothing is said of them.
    const hasFacts = this.#headerBytes > 0 && (landing.bytes[at] | landing.bytes[at + 1]) !== 0;
    if (hasFacts) readNetHeader(landing.view, at, landing.header);
    if (total < ETHERNET_HEADER_BYTES || hasFacts && !isSound(landing.header, total)) {
      counters.badHeader++;
      return null;
    }
    counters.read++;
    counters.readBytes += total;
    const small = total <= MOST_COPIED_BYTES ? this.#pool.take(total) : null;
    if (small === null) {
      this.#landing = null;
      landing.trim(total);
      if (!hasFacts) landing.header.clear();
      return landing;
    }
    // A BigInt that a small integer is added to does not become an object on its way into the call.
    const to = this.#addresses.pointer(small.bytes) + BigInt(small.start | 0);
    this.#c.memcpy(to, this.#frameAddress, ONE + BigInt(total - 1 | 0));
    if (hasFacts) small.header.copyFrom(landing.header);
    return small;
  }
}

/** Does the header fit a frame of `length` bytes? Unknown flags are taken off. */
function isSound(header: NetHeader, length: number): boolean {
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
