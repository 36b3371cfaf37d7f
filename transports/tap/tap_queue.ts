/**
 * Reads frames from the queues of a TAP, straight into frames of the pool, and writes frames to them; many in
 * one system call, where the kernel allows that (`host/call_batch.ts`).
 *
 * Theory of operation, reading. The length of a frame is not known before it has been read, and almost all
 * are short. So every frame is read to a *scratch frame*, one of the pool that has room for the longest,
 * its virtio-net header in the headroom:
 *
 *     scratch:  [ ...headroom... | header ][ room for the longest frame and more ]
 *
 * What fits into a smaller frame is copied into one, and the scratch frame stays for the next read; it is in
 * the caches by then. There are as many of them as frames are expected, one more than the last time. That is
 * quicker than to offer the kernel a list of a short and a long place (measured, Linux 6.18: 100 ns for
 * `readv` where a copy takes 15 to 40), and a frame that is held does not keep 68 KiB. A large frame is the
 * scratch frame itself.
 *
 * They serve all queues of a TAP, for a call reads from one queue only. If the pool has none to offer,
 * nothing is read, and so nothing can be lost: the kernel's queue is the back-pressure, and the pool's
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
 * Each of these is a call of its own; all others go to the kernel together. Where there may be no room for a
 * frame, what comes behind it is not written either, or it would overtake.
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
import type { CallBatch } from "../../host/call_batch.ts";
import { FrameAddresses } from "../../host/memory_mapping.ts";
import { type Frame, FrameBatch, MAX_FRAME_BYTES, type NetHeader } from "../../pipeline/frame.ts";
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

/** Frames that are read in one system call, and so many places are ready for them then. */
const MAX_READS = 32;
/** Reads that are made one by one before there must be many frames: for two of them a batch does not pay. */
const FIRST_READS = 3;

/** Reads frames. */
export class TapReader implements Disposable {
  /** How the last call ended. */
  end: ReadEnd = "drained";
  readonly #pool: FramePool;
  readonly #headerBytes: number;
  readonly #counters: TapCounters;
  readonly #calls: CallBatch | null;
  readonly #c: LibcSymbols = libc();
  readonly #addresses = new FrameAddresses();
  /** The scratch frames; between two calls one is kept at most. */
  readonly #scratch = new FrameBatch(MAX_READS);
  /** Frames that there may be, and one more: so the same call tells that there are no more. */
  #guess = 1;
  /** Frames that there were when there were any. */
  #latest = 0;

  /**
   * @param headerBytes of the virtio-net header, or 0;
   * @param calls reads several at once, if there is such a thing
   */
  constructor(pool: FramePool, headerBytes: number, counters: TapCounters, calls: CallBatch | null = null) {
    this.#pool = pool;
    this.#headerBytes = headerBytes;
    this.#counters = counters;
    this.#calls = calls;
  }

  /**
   * Reads up to `limit` frames from descriptor `number` and appends them to `out`. Returns how many; `end`
   * says why.
   */
  read(number: number, out: FrameBatch, limit: number): number {
    const before = out.length;
    this.end = "more";
    let wanted = this.#guess;
    for (let tries = 0; tries < limit && this.end === "more";) {
      const ready = this.#prepare(this.#calls === null ? 1 : Math.min(wanted, limit - tries));
      if (ready === 0) {
        this.end = "noFrame";
        break;
      }
      tries += ready;
      if (ready === 1) this.#readOne(number, out);
      else this.#readSeveral(this.#calls!, ready, number, out);
      wanted = tries < FIRST_READS ? 1 : Math.min(2 * tries, MAX_READS);
    }
    this.#keep(1);
    const count = out.length - before;
    this.#expect(count);
    return count;
  }

  /** Gives the scratch frames back. */
  [Symbol.dispose](): void {
    this.#keep(0);
  }

  /** `count` frames were read: how many may there be the next time? */
  #expect(count: number): void {
    if (this.end === "more") this.#guess = MAX_READS;
    else if (count > 0) {
      // The device asks again at once, mostly in vain.
      this.#latest = count;
      this.#guess = 1;
    } else this.#guess = this.#latest < FIRST_READS ? 1 : Math.min(this.#latest + 1, MAX_READS);
  }

  #readOne(number: number, out: FrameBatch): void {
    const scratch = this.#scratch.at(0);
    const from = this.#addresses.pointer(scratch.bytes) + BigInt(scratch.start - this.#headerBytes | 0);
    const bytes = this.#c.read(number, from, ONE + BigInt(this.#roomOf(scratch) - 1 | 0));
    if (!this.#take(scratch, bytes >= 0 ? bytes : -errno(), out)) this.#scratch.dropFirst(1);
  }

  #readSeveral(calls: CallBatch, ready: number, number: number, out: FrameBatch): void {
    const scratch = this.#scratch;
    for (let i = 0; i < ready; i++) {
      const frame = scratch.at(i);
      const at = this.#addresses.of(frame.bytes) + frame.start - this.#headerBytes;
      calls.read(number, at, this.#roomOf(frame));
    }
    const made = calls.submit();
    let left = 0;
    for (let i = 0; i < ready; i++) {
      const frame = scratch.at(i);
      const result = i < made ? calls.result(i) : -EINTR;
      // One may have come behind a read that found none.
      if (result >= 0) this.end = "more";
      if (this.#take(frame, result, out)) scratch.set(left++, frame);
    }
    // Frames were expected, and fewer are now.
    for (let i = ready; i < scratch.length; i++) scratch.set(left++, scratch.at(i));
    scratch.shorten(left);
  }

  /** A read to this frame has ended so. Is the frame still ours? */
  #take(scratch: Frame, result: number, out: FrameBatch): boolean {
    if (result >= 0) {
      const frame = this.#finish(scratch, result);
      if (frame !== null) out.push(frame);
      return frame !== scratch;
    }
    if (result === -EINTR) return true;
    if (result !== -EAGAIN) countError(this.#counters, "read", -result);
    if (this.end !== "gone") this.end = result === -EBADFD ? "gone" : "drained";
    return true;
  }

  /** Fetches scratch frames; returns how many there are, up to `wanted`. */
  #prepare(wanted: number): number {
    const scratch = this.#scratch;
    while (scratch.length < wanted) {
      const frame = this.#pool.take(MAX_FRAME_BYTES, scratch.length === 0);
      if (frame === null) break;
      scratch.push(frame);
    }
    return Math.min(scratch.length, wanted);
  }

  #keep(count: number): void {
    const scratch = this.#scratch;
    for (let i = count; i < scratch.length; i++) scratch.at(i).release();
    if (count < scratch.length) scratch.shorten(count);
  }

  /** Bytes that header and frame may have. */
  #roomOf(scratch: Frame): number {
    return this.#headerBytes + scratch.length + scratch.tailRoom;
  }

  /** The frame that was read, which may be the scratch frame itself; null if it was dropped. */
  #finish(scratch: Frame, bytes: number): Frame | null {
    const counters = this.#counters;
    const total = bytes - this.#headerBytes;
    if (total > MAX_FRAME_BYTES) {
      if (bytes === this.#roomOf(scratch)) counters.truncated++;
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
      scratch.trim(total);
      if (!hasFacts) scratch.header.clear();
      return scratch;
    }
    // A BigInt that a small integer is added to does not become an object on its way into the call.
    const from = this.#addresses.pointer(scratch.bytes) + BigInt(scratch.start | 0);
    const to = this.#addresses.pointer(small.bytes) + BigInt(small.start | 0);
    this.#c.memcpy(to, from, ONE + BigInt(total - 1 | 0));
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
  /** How the last call ended. */
  end: WriteEnd = "done";
  readonly #pool: FramePool;
  readonly #headerBytes: number;
  readonly #counters: TapCounters;
  readonly #calls: CallBatch | null;
  readonly #c: LibcSymbols = libc();
  readonly #addresses = new FrameAddresses();
  readonly #vector = new IoVector(1 + MAX_PIECES);
  readonly #header = new Uint8Array(NET_HEADER_BYTES);
  readonly #headerView = new DataView(this.#header.buffer);
  /** Where in the list the pieces begin: behind the header, if there is one. */
  readonly #pieceAt: number;

  /**
   * @param pool for gathering
   * @param headerBytes of the virtio-net header, or 0
   * @param calls writes several at once, if there is such a thing
   */
  constructor(pool: FramePool, headerBytes: number, counters: TapCounters, calls: CallBatch | null = null) {
    this.#pool = pool;
    this.#calls = calls;
    this.#headerBytes = headerBytes;
    this.#counters = counters;
    this.#pieceAt = headerBytes > 0 ? 1 : 0;
    if (headerBytes > 0) this.#vector.set(0, Number(addressOf(this.#header)), headerBytes);
  }

  /**
   * Writes the first `count` frames of a batch to descriptor `number`, as long as there is room. Returns how
   * many were written, or dropped and counted; `end` says why.
   * @param mayWait may there be no room for a frame and then room for the next?
   */
  writeFirst(number: number, frames: FrameBatch, count: number, mayWait: boolean): number {
    let done = 0;
    this.end = "done";
    while (done < count && this.end === "done") {
      const calls = this.#calls === null ? 0 : this.#add(this.#calls, number, frames, done, count, mayWait);
      const made = calls > 1 ? this.#calls!.submit() : 0;
      if (made === 0) {
        if (calls === 1) this.#calls!.length = 0;
        this.end = this.#write(number, frames.at(done));
        if (this.end === "done") done++;
      }
      for (let i = 0; i < made && this.end === "done"; i++) {
        const result = this.#calls!.result(i);
        if (result >= 0) this.#written(frames.at(done).total);
        // What comes after it has been written already.
        else if (result === -EAGAIN && !mayWait) countError(this.#counters, "write", EAGAIN);
        else this.end = this.#refused(-result);
        if (this.end === "done") done++;
      }
    }
    return done;
  }

  /** Adds frames from `from` on to the batch of calls, up to the first that needs more than a plain write. */
  #add(
    calls: CallBatch,
    number: number,
    frames: FrameBatch,
    from: number,
    to: number,
    isLinked: boolean,
  ): number {
    const headerBytes = this.#headerBytes;
    const end = Math.min(to, from + calls.capacity);
    for (let i = from; i < end; i++) {
      const frame = frames.at(i);
      const headerAt = frame.start - headerBytes;
      const isSimple = frame.next === null && headerAt >= frame.slot && frame.length <= MAX_FRAME_BYTES &&
        (headerBytes > 0 || isFinished(frame.header));
      if (!isSimple) break;
      if (headerBytes > 0) this.#fillHeader(frame.view, headerAt, frame);
      const at = this.#addresses.of(frame.bytes) + headerAt;
      calls.write(number, at, headerBytes + frame.length, isLinked);
    }
    return calls.length;
  }

  /** Writes a frame to descriptor `number`. */
  #write(number: number, frame: Frame): WriteEnd {
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
    const end = this.#write(number, whole);
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
