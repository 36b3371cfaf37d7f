/**
 * A list of frames that is filled and cleared over and over without giving its storage up.
 * @module
 */
import type { Frame } from "./frame.ts";

/**
 * Frames in order. Keeps its own count: clearing an array by `length = 0` drops its storage, and the next
 * push would allocate anew. It grows when it must and never shrinks.
 *
 * @example
 * ```ts
 * import { FrameBatch } from "./frame_batch.ts";
 * import { FramePool } from "./frame_pool.ts";
 * const pool = new FramePool();
 * const batch = new FrameBatch();
 * batch.push(pool.take(60)!);
 * for (let i = 0; i < batch.length; i++) batch.at(i).release();
 * batch.clear();
 * if (pool.inUse !== 0) throw new Error("unreachable");
 * ```
 */
export class FrameBatch {
  readonly #frames: (Frame | null)[];
  #length = 0;

  /** An empty batch. @param capacity frames to reserve room for at first */
  constructor(capacity = 64) {
    this.#frames = new Array<Frame | null>(capacity).fill(null);
  }

  /** How many frames it holds. */
  get length(): number {
    return this.#length;
  }

  /** How many frames it can hold without growing: never less than it ever held. */
  get capacity(): number {
    return this.#frames.length;
  }

  /** The frame at `index`, which must be below `length`. */
  at(index: number): Frame {
    return this.#frames[index]!;
  }

  /** Adds a frame at the end; the batch owns it until it is cleared or handed on. */
  push(frame: Frame): void {
    this.#frames[this.#length++] = frame;
  }

  /**
   * Puts another frame in the place `index`, which must be below `length`; the one that was there is the
   * caller's.
   */
  set(index: number, frame: Frame): void {
    this.#frames[index] = frame;
  }

  /** Forgets the frames from place `length` on, which have another owner by now. */
  shorten(length: number): void {
    this.#length = length;
  }

  /** Forgets the frames, which have another owner by now. Releases none. */
  clear(): void {
    this.#length = 0;
  }

  /** Forgets the first `count` frames and moves the rest to the front. */
  dropFirst(count: number): void {
    if (count === 0) return;
    const left = this.#length - count;
    for (let i = 0; i < left; i++) this.#frames[i] = this.#frames[i + count];
    this.#length = left;
  }

  /** Releases every frame and clears. */
  releaseAll(): void {
    for (let i = 0; i < this.#length; i++) this.#frames[i]!.release();
    this.#length = 0;
  }
}
