/**
 * Cutting one large frame into segments, one at a time, so that it can be left off and gone on with.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import type { FramePool } from "../../core/frame_pool.ts";
import { finishChecksum, writeSegmentHeaders } from "./headers.ts";
import type { LargeFrame } from "./large_frame.ts";

/** Goes along the payload of a large frame, piece by piece. */
export class Cutter {
  readonly #large: LargeFrame;
  readonly #pool: FramePool;
  #piece!: Frame;
  /** Bytes of `#piece` that are behind us. */
  #offset = 0;
  #index = 0;
  #cutBytes = 0;

  /** @param large what is cut; is filled anew before each `begin`. @param pool where segments come from */
  constructor(large: LargeFrame, pool: FramePool) {
    this.#large = large;
    this.#pool = pool;
  }

  /** Starts with the large frame that was located last. */
  begin(): void {
    this.#piece = this.#large.frame;
    this.#offset = this.#large.headerBytes;
    this.#index = 0;
    this.#cutBytes = 0;
  }

  /** Is there a segment left to be cut? */
  get hasNext(): boolean {
    return this.#index < this.#large.segments;
  }

  /** The next segment, complete; null if the pool is empty. @param partial the receiver completes checksums itself */
  next(partial: boolean): Frame | null {
    const large = this.#large;
    const { frame, headerBytes } = large;
    const bytes = Math.min(large.segmentBytes, large.payloadBytes - this.#cutBytes);
    const segment = this.#pool.take(headerBytes + bytes);
    if (segment === null) return null;
    segment.bytes.set(new Uint8Array(frame.bytes.buffer, frame.start, headerBytes), segment.start);
    this.#copyPayload(segment.bytes, segment.start + headerBytes, bytes);
    segment.queue = frame.queue;
    segment.number = frame.number;
    writeSegmentHeaders(segment, large, this.#index, this.#cutBytes);
    finishChecksum(segment, large, partial);
    this.#index++;
    this.#cutBytes += bytes;
    return segment;
  }

  #copyPayload(target: Uint8Array, at: number, length: number): void {
    for (let done = 0; done < length;) {
      const piece = this.#piece;
      const count = Math.min(length - done, piece.length - this.#offset);
      target.set(new Uint8Array(piece.bytes.buffer, piece.start + this.#offset, count), at + done);
      done += count;
      this.#offset += count;
      if (this.#offset === piece.length && piece.next !== null) {
        this.#piece = piece.next;
        this.#offset = 0;
      }
    }
  }
}
