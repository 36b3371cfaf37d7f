/**
 * Reads frames from the queues of a TAP, straight into frames of the pool, and writes frames to them, each in
 * one call.
 *
 * Theory of operation, reading. The length of a frame is not known before it has been read, and almost all
 * are short. So every frame is read to the *scratch frame*, one of the pool that has room for the longest,
 * its virtio-net header in the headroom:
 *
 *     scratch:  [ ...headroom... | header ][ room for the longest frame and more ]
 *
 * What fits into a smaller frame is copied into one, and the scratch frame stays for the next read; it is in
 * the caches by then. That is quicker than to offer the kernel a list of a short and a long place (measured,
 * Linux 6.18: 100 ns for `readv` where a copy takes 15 to 40), and a frame that is held does not keep 68 KiB.
 * A large frame is the scratch frame itself.
 *
 * One scratch frame serves all queues of a TAP, for a call reads from one queue only. If the pool has none to
 * offer, nothing is read, and so nothing can be lost: the kernel's queue is the back-pressure, and the pool's
 * refusal makes the device flush what it holds. If the pool has no small frame, the scratch frame itself is
 * delivered, however short its content.
 *
 * The kernel cuts silently what does not fit; a read that fills the scratch frame to the last byte is taken
 * for cut, dropped and counted. A header that does not fit its frame is dropped as well: it is not known
 * which program made a passed descriptor.
 *
 * Writing. A frame in one piece gets its virtio-net header right in front of its data, into the headroom that
 * frames have, and is written from there; a list of places would cost the kernel as much as a tenth of the
 * frame. Such a list is made of frames in several pieces, and of those without headroom.
 *
 * @module
 */
import {
  addressOf,
  EAGAIN,
  EBADFD,
  EINTR,
  errno,
  errnoName,
  IoVector,
  libc,
  type LibcSymbols,
} from "../../host/libc.ts";
import { FrameAddresses } from "../../host/memory_mapping.ts";
import { type Frame, type FrameBatch, MAX_FRAME_BYTES, type NetHeader } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import {
  NET_HEADER_BYTES,
  readNetHeader,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";

/** Longer frames are not copied. */
const MAX_COPIED_BYTES = 9216;
const ONE = 1n;
/**
 * A frame in more pieces is gathered into one first: the kernel takes 1024 at most, and walks them one by
 * one.
 */
const MAX_PIECES = 128;
/** Signals that may come in between before a write is given up for now. */
const MAX_INTERRUPTIONS = 16;
const HDR_LEN = 2;
const CSUM_START = 6;
const KNOWN_FLAGS = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;

/**
 * Counters of a TAP. Errors of system calls are counted as they come up, under names such as `write_EIO` (the
 * interface is down) and `write_EINVAL` (the kernel does not take a frame's header); such a frame is dropped.
 */
export interface TapCounters extends Record<string, number> {
  /** Frames read. */
  read: number;
  /** Their bytes, without headers. */
  readBytes: number;
  /** Frames written. */
  written: number;
  /** Their bytes, without headers. */
  writtenBytes: number;
  /** Times that a frame could not be written yet, and stayed with the device. */
  again: number;
  /** Dropped on reading: longer than everything that was ready to take it. */
  truncated: number;
  /** Dropped: longer than a frame can be. */
  tooLong: number;
  /** Dropped on reading: the virtio-net header contradicts the frame. */
  badHeader: number;
  /** Dropped: the kernel had queued them before there was a guest. */
  noGuest: number;
  /** Dropped on writing: still to be checksummed or segmented, and there is no header to say so. */
  unfinished: number;
  /** Dropped on writing: the interface has been deleted. */
  noInterface: number;
}

/** Counters of a TAP, all 0. */
export function newTapCounters(): TapCounters {
  return {
    read: 0,
    readBytes: 0,
    written: 0,
    writtenBytes: 0,
    again: 0,
    truncated: 0,
    tooLong: 0,
    badHeader: 0,
    noGuest: 0,
    unfinished: 0,
    noInterface: 0,
  };
}

/** Counts an error of a system call under its name. */
export function countError(
  counters: TapCounters,
  call: "read" | "write" | "offload" | "queue",
  error: number,
): void {
  const name = `${call}_${errnoName(error)}`;
  counters[name] = (counters[name] ?? 0) + 1;
}

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
  #scratch: Frame | null = null;
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

  /**
   * Reads up to `limit` frames from descriptor `number` and appends them to `out`. Returns how many; `end`
   * says why.
   */
  read(number: number, out: FrameBatch, limit: number): number {
    let count = 0;
    for (let tries = 0; tries < limit; tries++) {
      if (this.#scratch === null && !this.#prepare()) {
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

  /** Gives the scratch frame back. */
  [Symbol.dispose](): void {
    this.#scratch?.release();
    this.#scratch = null;
  }

  /** Fetches a scratch frame; false if the pool has none. */
  #prepare(): boolean {
    const scratch = this.#pool.take(MAX_FRAME_BYTES);
    if (scratch === null) return false;
    this.#scratch = scratch;
    this.#frameAddress = this.#addresses.pointer(scratch.bytes) + BigInt(scratch.start | 0);
    this.#headerAddress = this.#frameAddress - BigInt(this.#headerBytes);
    this.#room = BigInt(this.#headerBytes + scratch.length + scratch.tailRoom);
    return true;
  }

  /** The frame that was read; null if it was dropped. */
  #finish(bytes: number): Frame | null {
    const counters = this.#counters;
    const scratch = this.#scratch!;
    const total = bytes - this.#headerBytes;
    if (total > MAX_FRAME_BYTES) {
      if (bytes === Number(this.#room)) counters.truncated++;
      else counters.tooLong++;
      return null;
    }
    const at = scratch.start - this.#headerBytes;
    // Most frames are finished: nothing is said of them.
    const hasFacts = this.#headerBytes > 0 && (scratch.bytes[at] | scratch.bytes[at + 1]) !== 0;
    if (hasFacts) readNetHeader(scratch.view, at, scratch.header);
    if (total < ETHERNET_HEADER_BYTES || hasFacts && !isSound(scratch.header, total)) {
      counters.badHeader++;
      return null;
    }
    counters.read++;
    counters.readBytes += total;
    const small = total <= MAX_COPIED_BYTES ? this.#pool.take(total) : null;
    if (small === null) {
      this.#scratch = null;
      scratch.trim(total);
      if (!hasFacts) scratch.header.clear();
      return scratch;
    }
    // A BigInt that a small integer is added to does not become an object on its way into the call.
    const to = this.#addresses.pointer(small.bytes) + BigInt(small.start | 0);
    this.#c.memcpy(to, this.#frameAddress, ONE + BigInt(total - 1 | 0));
    if (hasFacts) small.header.copyFrom(scratch.header);
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

/** What became of a frame. */
export type WriteEnd =
  /** It was written, or dropped and counted. */
  | "done"
  /** There is no room yet. */
  | "again"
  /** The interface has been deleted. */
  | "gone";

/** Writes frames. They stay the caller's. */
export class TapWriter {
  readonly #pool: FramePool;
  readonly #headerBytes: number;
  readonly #counters: TapCounters;
  readonly #c: LibcSymbols = libc();
  readonly #addresses = new FrameAddresses();
  readonly #vector = new IoVector(1 + MAX_PIECES);
  readonly #header = new Uint8Array(NET_HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  /** Where in the list the pieces begin: behind the header, if there is one. */
  readonly #pieceAt: number;

  /** @param pool for gathering; @param headerBytes of the virtio-net header, or 0 */
  constructor(pool: FramePool, headerBytes: number, counters: TapCounters) {
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    this.#counters = counters;
    this.#pieceAt = headerBytes > 0 ? 1 : 0;
    if (headerBytes > 0) this.#vector.set(0, Number(addressOf(this.#header)), headerBytes);
  }

  /** Writes a frame to descriptor `number`. */
  write(number: number, frame: Frame): WriteEnd {
    if (this.#headerBytes === 0 && !isFinished(frame.header)) {
      this.#counters.unfinished++;
      return "done";
    }
    if (frame.total > MAX_FRAME_BYTES) {
      this.#counters.tooLong++;
      return "done";
    }
    const headerAt = frame.start - this.#headerBytes;
    if (frame.next !== null || headerAt < frame.slot) return this.#writePieces(number, frame);
    if (this.#headerBytes > 0) this.#fillHeader(frame.view, headerAt, frame);
    // A BigInt that a small integer is added to does not become an object on its way into the call.
    const from = this.#addresses.pointer(frame.bytes) + BigInt(headerAt | 0);
    return this.#writeBytes(
      number,
      from,
      ONE + BigInt(this.#headerBytes + frame.length - 1 | 0),
      frame.total,
    );
  }

  #writePieces(number: number, frame: Frame): WriteEnd {
    if (this.#headerBytes > 0) this.#fillHeader(this.#headerView, 0, frame);
    let places = this.#pieceAt;
    for (let piece: Frame | null = frame; piece !== null; piece = piece.next) {
      if (places > MAX_PIECES) return this.#writeGathered(number, frame);
      this.#vector.set(places++, this.#addresses.of(piece.bytes) + piece.start, piece.length);
    }
    return this.#writeList(number, places, frame.total);
  }

  #writeGathered(number: number, frame: Frame): WriteEnd {
    const whole = this.#pool.take(frame.total);
    if (whole === null) {
      this.#counters.again++;
      return "again";
    }
    frame.copyTo(whole.bytes, whole.start);
    whole.header.copyFrom(frame.header);
    const end = this.write(number, whole);
    whole.release();
    return end;
  }

  #writeBytes(number: number, from: bigint, lengthBytes: bigint, totalBytes: number): WriteEnd {
    for (let tries = 0; tries < MAX_INTERRUPTIONS; tries++) {
      if (this.#c.write(number, from, lengthBytes) >= 0) return this.#written(totalBytes);
      const error = errno();
      if (error !== EINTR) return this.#refused(error);
    }
    return this.#refused(EAGAIN);
  }

  #writeList(number: number, places: number, totalBytes: number): WriteEnd {
    for (let tries = 0; tries < MAX_INTERRUPTIONS; tries++) {
      if (this.#c.writev(number, this.#vector.address, places) >= 0) return this.#written(totalBytes);
      const error = errno();
      if (error !== EINTR) return this.#refused(error);
    }
    return this.#refused(EAGAIN);
  }

  #written(totalBytes: number): WriteEnd {
    this.#counters.written++;
    this.#counters.writtenBytes += totalBytes;
    return "done";
  }

  #refused(error: number): WriteEnd {
    if (error === EAGAIN) {
      this.#counters.again++;
      return "again";
    }
    countError(this.#counters, "write", error);
    return error === EBADFD ? "gone" : "done";
  }

  /**
   * What the kernel must know: a checksum to complete, and how to segment. It does not believe that one is
   * valid.
   */
  #fillHeader(view: DataView, at: number, frame: Frame): void {
    const { header } = frame;
    if (isFinished(header)) {
      for (let i = 0; i < this.#headerBytes; i += 2) view.setUint16(at + i, 0);
      return;
    }
    writeNetHeader(view, at, header, 0, this.#headerBytes);
    const flags = header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    view.setUint8(at, flags);
    if (flags === 0) view.setUint32(at + CSUM_START, 0);
    // Only a hint, but the kernel refuses one that cannot be.
    if (header.hdrLen > frame.total) view.setUint16(at + HDR_LEN, 0);
  }
}

/** Is there nothing that the kernel must do to such a frame? */
function isFinished({ flags, gsoType }: NetHeader): boolean {
  return (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0 && gsoType === VIRTIO_NET_HDR_GSO_NONE;
}
