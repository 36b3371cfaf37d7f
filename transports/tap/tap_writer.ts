/**
 * Writes frames to the queues of a TAP, each in one call.
 *
 * A frame in one piece gets its virtio-net header right in front of its data, into the headroom that frames have, and is
 * written from there; a list of places would cost the kernel as much as a tenth of the frame. Such a list is made of frames in
 * several pieces, and of those without headroom.
 * @module
 */
import type { Frame, NetHeader } from "../../core/frame.ts";
import { type FramePool, MAX_FRAME_BYTES } from "../../core/frame_pool.ts";
import {
  NET_HEADER_BYTES,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_NONE,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";
import { EAGAIN, EBADFD, EINTR } from "../../host/errno.ts";
import { FrameAddresses } from "../../host/frame_address.ts";
import { IoVector } from "../../host/io_vector.ts";
import { addressOf, errno, libc, type LibcSymbols } from "../../host/libc.ts";
import { countError, type TapCounters } from "./counters.ts";

/** A frame in more pieces is gathered into one first: the kernel takes 1024 at most, and walks them one by one. */
const MOST_PIECES = 128;
/** Signals that may come in between before a write is given up for now. */
const MOST_INTERRUPTIONS = 16;
const ONE = 1n;
const HDR_LEN = 2;
const CSUM_START = 6;

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
  readonly #vector = new IoVector(1 + MOST_PIECES);
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
      if (places > MOST_PIECES) return this.#writeGathered(number, frame);
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
    for (let tries = 0; tries < MOST_INTERRUPTIONS; tries++) {
      if (this.#c.write(number, from, lengthBytes) >= 0) return this.#written(totalBytes);
      const error = errno();
      if (error !== EINTR) return this.#refused(error);
    }
    return this.#refused(EAGAIN);
  }

  #writeList(number: number, places: number, totalBytes: number): WriteEnd {
    for (let tries = 0; tries < MOST_INTERRUPTIONS; tries++) {
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

  /** What the kernel must know: a checksum to complete, and how to segment. It does not believe that one is valid. */
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
