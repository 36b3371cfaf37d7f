/**
 * Time, as an argument: nanoseconds since some start, as a plain number (exact for 104 days).
 * @module
 */

/** Tells the time. Only the reactor asks, once a round; everybody else is told. */
export interface Clock {
  /** Nanoseconds since an arbitrary start; never goes back. */
  nowNs(): number;
}

/** The machine's monotonic clock. */
export class SystemClock implements Clock {
  /** Nanoseconds since the process started. */
  nowNs(): number {
    return Math.round(performance.now() * 1e6);
  }
}

/**
 * A clock that only moves when told to: for tests, and for replaying a capture as fast as the machine can.
 *
 * @example
 * ```ts
 * import { ManualClock } from "./clock.ts";
 * const clock = new ManualClock();
 * clock.advanceTo(300_000);
 * if (clock.nowNs() !== 300_000) throw new Error("unreachable");
 * ```
 */
export class ManualClock implements Clock {
  /** May it be held? False while a machine that was stopped brings out what it has. */
  mayBeHeld = true;
  #nowNs: number;
  #holds = 0;

  /** A clock that stands still. @param nowNs where it stands */
  constructor(nowNs = 0) {
    this.#nowNs = nowNs;
  }

  /** The time it was last set to. */
  nowNs(): number {
    return this.#nowNs;
  }

  /** Is an input awaited, so that it is not known what happens next? Then the reactor lets it stand. */
  get isHeld(): boolean {
    return this.#holds > 0 && this.mayBeHeld;
  }

  /** Lets it stand until `release` has been called as often as this. */
  hold(): void {
    this.#holds++;
  }

  /** Takes one `hold` back. */
  release(): void {
    this.#holds--;
  }

  /** Moves on to `nowNs`. Throws RangeError for a time that has passed, and for what is no time. */
  advanceTo(nowNs: number): void {
    if (!(nowNs >= this.#nowNs && nowNs < Infinity)) {
      throw new RangeError(
        `Cannot set the clock from ${this.#nowNs} ns to ${nowNs} ns: time is finite and never goes back`,
      );
    }
    this.#nowNs = nowNs;
  }
}
