/**
 * A network that is never the bottleneck.
 * @module
 */
import type { FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";

/** Frames that are in the pool before the first is taken. */
const FRAMES = 256;

/** Has frames ready when it is told so, and takes all that it is given. */
export class ReadyNetwork implements FrameTransport {
  readonly maxFrameBytes = 65_550;
  readonly capabilities = OffloadCapabilities.none;
  readonly queuePairs = 1;
  /** Frames that it has taken. */
  sent = 0;
  /** Frames that are there to be received. */
  ready = 0;
  readonly #pool: FramePool;
  readonly #frameBytes: number;

  /**
   * Every slot of the pool says one of `frames`, all of the same length, for good: writing them is the work
   * of a network card or a kernel, not ours. The pool must be new, and this network's alone.
   */
  constructor(pool: FramePool, frames: readonly Uint8Array[]) {
    this.#pool = pool;
    this.#frameBytes = frames[0].length;
    const all = Array.from({ length: FRAMES }, (_, i) => pool.takeCopy(frames[i % frames.length])!);
    for (const frame of all) frame.release();
  }

  /** Frames, as many as there are. */
  receive(out: FrameBatch, limit: number): number {
    const count = Math.min(limit, this.ready);
    this.ready -= count;
    for (let i = 0; i < count; i++) out.push(this.#pool.take(this.#frameBytes)!);
    return count;
  }

  /** Takes all of them. */
  send(batch: FrameBatch): number {
    for (let i = 0; i < batch.length; i++) batch.at(i).release();
    this.sent += batch.length;
    return batch.length;
  }

  /** There is nothing to close. */
  [Symbol.dispose](): void {}
}
