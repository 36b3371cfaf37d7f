/**
 * Time of many short spans, gathered in laps, less what reading the clock costs.
 *
 * A lap is the smallest piece of work that repeats, such as filling a table and emptying it. The median of
 * the laps is the figure: a program that takes the processor away for some milliseconds spoils one lap, not
 * the mean of all.
 *
 * @module
 */
import { median } from "./statistics.ts";

const READINGS = 2001;

/**
 * Adds up spans of some microseconds each. Reading the clock takes 300 ns on some machines: as much as ten
 * segments.
 */
export class Stopwatch {
  #laps: Float64Array = new Float64Array(0);
  #lap = 0;
  #startedMs = 0;
  #lapMs = 0;
  #spans = 0;
  #readingMs = 0;

  /** Starts from nothing, with room for `laps`, and measures anew what a reading of the clock costs. */
  reset(laps: number): void {
    const readings = new Float64Array(READINGS);
    for (let i = 0; i < READINGS; i++) {
      this.#lapMs = 0;
      this.start();
      this.stop();
      readings[i] = this.#lapMs;
    }
    this.#readingMs = median(Array.from(readings));
    this.#laps = new Float64Array(laps);
    this.#lap = 0;
    this.#lapMs = 0;
    this.#spans = 0;
  }

  /** A span begins. */
  start(): void {
    this.#startedMs = performance.now();
  }

  /** The span ends. */
  stop(): void {
    this.#lapMs += performance.now() - this.#startedMs;
    this.#spans++;
  }

  /** The lap ends. */
  lap(): void {
    this.#laps[this.#lap++] = (this.#lapMs - this.#spans * this.#readingMs) * 1e6;
    this.#lapMs = 0;
    this.#spans = 0;
  }

  /** The median of the laps since `reset`, in ns. */
  get lapNs(): number {
    return median(Array.from(this.#laps.subarray(0, this.#lap)));
  }
}
