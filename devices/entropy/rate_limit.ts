/**
 * A token bucket, told the time.
 * @module
 */

/**
 * Lets through so many bytes a second in the long run, and a burst after a pause.
 *
 * The bucket is kept as the one moment at which it will be full again. Taking bytes puts that moment off by the time that
 * they need to flow in, and they may be taken when it is then no further away than a whole bucket takes to fill.
 */
export class RateLimit {
  readonly #nsPerByte: number;
  readonly #burstNs: number;
  #fullAtNs = 0;

  /**
   * Starts with a full bucket.
   * @param bytesPerS what flows in, above 0
   * @param burstBytes what the bucket holds, above 0
   */
  constructor(bytesPerS: number, burstBytes: number) {
    this.#nsPerByte = 1e9 / bytesPerS;
    this.#burstNs = burstBytes * this.#nsPerByte;
  }

  /** When so many bytes, 0 to the burst, may be taken, in ns: `nowNs` if that is now. */
  earliestNs(bytes: number, nowNs: number): number {
    // The difference first: it is never above 0, where a sum with a large time would be rounded up to more than the burst.
    const missingNs = bytes * this.#nsPerByte - this.#burstNs;
    return Math.max(nowNs, Math.ceil(Math.max(this.#fullAtNs, nowNs) + missingNs));
  }

  /** Takes bytes that may be taken now. */
  take(bytes: number, nowNs: number): void {
    this.#fullAtNs = Math.max(this.#fullAtNs, nowNs) + bytes * this.#nsPerByte;
  }
}
