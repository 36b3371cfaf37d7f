/**
 * Frames of one size that nobody uses.
 * @module
 */
import type { Frame, FrameOwner } from "./frame.ts";

/**
 * The free frames of one size in a pool. They lie here as they came back: a merged frame still hangs together, and only its
 * first piece is looked at, for the others may be far away. It comes apart when its pieces are taken.
 */
export class FreeFrames implements FrameOwner {
  readonly #free: Frame[] = [];
  #count = 0;
  /** Pieces that are out. */
  inUse = 0;

  /** Is there none? */
  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Puts in a frame that is new. */
  add(frame: Frame): void {
    this.#free[this.#count++] = frame;
  }

  /** Takes back `pieces` pieces, `first` and those that follow it. */
  giveBack(first: Frame, pieces: number): void {
    this.#free[this.#count++] = first;
    this.inUse -= pieces;
  }

  /** The first piece of what came back last; what follows it takes its place. There must be one. */
  take(): Frame {
    const last = this.#count - 1;
    const frame = this.#free[last];
    if (frame.next === null) this.#count = last;
    else this.#free[last] = frame.next;
    this.inUse++;
    return frame;
  }
}
