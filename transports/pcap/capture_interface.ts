/**
 * An interface of a pcapng section: its link type, its limits, and how it counts time.
 * @module
 */

const NS_PER_SECOND = 1_000_000_000n;

/** What an Interface Description block says. */
export class CaptureInterface {
  /** The link type. */
  readonly linkType: number;
  /** The most bytes captured of a packet; 0 if there is no limit. */
  readonly snapLength: number;
  /** Bytes of the frame check sequence at the end of each packet. */
  fcsBytes = 0;
  /** `if_tsoffset`: seconds to add to every stamp. */
  offsetSeconds = 0n;
  /** Has `setBase` been called? */
  hasBase = false;
  #ticksPerSecond = 1_000_000n;
  // ns = ticks * #multiplier / #divisor; one of the two is 1 for a decimal resolution, which keeps it exact.
  #multiplier = 1000;
  #divisor = 1;
  #baseHigh = 0;
  #baseLow = 0;
  #baseNs = 0;

  /**
   * An interface that counts microseconds since 1970, until its options say otherwise.
   * @param linkType its link type; @param snapLength the most bytes of a packet, 0 for no limit
   */
  constructor(linkType: number, snapLength: number) {
    this.linkType = linkType;
    this.snapLength = snapLength;
  }

  /**
   * Takes `if_fcslen`. The draft counts bits, much of what writes it counts octets: a number below 8 is octets, a multiple of 8
   * bits. False, and nothing is taken, for any other.
   */
  setFcsLength(value: number): boolean {
    if (value >= 8 && value % 8 !== 0) return false;
    this.fcsBytes = value < 8 ? value : value / 8;
    return true;
  }

  /** Takes `if_tsresol`: ticks are 10 to the power of -`value` seconds, or of 2 if its upper bit is set. */
  setResolution(value: number): void {
    const exponent = value & 0x7f;
    if ((value & 0x80) !== 0) {
      this.#ticksPerSecond = 2n ** BigInt(exponent);
      this.#multiplier = 1e9;
      this.#divisor = 2 ** exponent;
    } else {
      this.#ticksPerSecond = 10n ** BigInt(exponent);
      this.#multiplier = exponent < 9 ? 10 ** (9 - exponent) : 1;
      this.#divisor = exponent > 9 ? 10 ** (exponent - 9) : 1;
    }
  }

  /** A stamp in ns since 1970, exactly; for the first packet only. */
  unixNs(high: number, low: number): bigint {
    const ticks = BigInt(high) << 32n | BigInt(low);
    return ticks * NS_PER_SECOND / this.#ticksPerSecond + this.offsetSeconds * NS_PER_SECOND;
  }

  /** Says that the stamp `high`, `low` is `baseNs` from the start of the file. */
  setBase(high: number, low: number, baseNs: number): void {
    this.hasBase = true;
    this.#baseHigh = high;
    this.#baseLow = low;
    this.#baseNs = baseNs;
  }

  /** A stamp in ns from the start of the file; exact while it is less than 2^53 ticks from the first one. */
  timeNs(high: number, low: number): number {
    const ticks = (high - this.#baseHigh) * 4_294_967_296 + (low - this.#baseLow);
    return this.#baseNs + Math.floor(ticks * this.#multiplier / this.#divisor);
  }
}
