/**
 * Feature bits: an immutable set of bit numbers, 0 to 127, and the bits that every virtio device shares.
 * @module
 */

/** Ring: indirect descriptors (virtio 1.2, section 6). */
export const VIRTIO_F_INDIRECT_DESC = 28;
/** Ring: used_event and avail_event (virtio 1.2, section 6). */
export const VIRTIO_F_EVENT_IDX = 29;
/** The device follows virtio 1.0 or later (virtio 1.2, section 6). */
export const VIRTIO_F_VERSION_1 = 32;
/** The packed virtqueue layout (virtio 1.2, section 2.8). */
export const VIRTIO_F_RING_PACKED = 34;
/** The device uses buffers in the order in which they were made available (virtio 1.2, section 6). */
export const VIRTIO_F_IN_ORDER = 35;

/** The bits of rings and transports, which all types share (virtio 1.3, section 6), and legacy ones. */
const SHARED_NAMES: ReadonlyMap<number, string> = new Map([
  [24, "NOTIFY_ON_EMPTY"],
  [27, "ANY_LAYOUT"],
  [VIRTIO_F_INDIRECT_DESC, "INDIRECT_DESC"],
  [VIRTIO_F_EVENT_IDX, "EVENT_IDX"],
  [VIRTIO_F_VERSION_1, "VERSION_1"],
  [33, "ACCESS_PLATFORM"],
  [VIRTIO_F_RING_PACKED, "RING_PACKED"],
  [VIRTIO_F_IN_ORDER, "IN_ORDER"],
  [36, "ORDER_PLATFORM"],
  [37, "SR_IOV"],
  [38, "NOTIFICATION_DATA"],
  [39, "NOTIF_CONFIG_DATA"],
  [40, "RING_RESET"],
  [41, "ADMIN_VQ"],
]);

/** The name of a bit without prefix. @param own names of a type (`Device.featureNames`), which come first */
export function featureName(bit: number, own: ReadonlyMap<number, string>): string {
  return own.get(bit) ?? SHARED_NAMES.get(bit) ?? `bit ${bit}`;
}

const WORDS = 4;
const BITS = WORDS * 32;

/**
 * An immutable set of feature bits. Kept in 32-bit words, so that the 64-bit masks of the wire need no
 * BigInt.
 *
 * @example
 * ```ts
 * import { FeatureSet } from "./features.ts";
 * const set = FeatureSet.of(0, 61);
 * if (!set.has(61) || set.has(7)) throw new Error("unreachable");
 * if (set.toString() !== "0x2000000000000001") throw new Error("unreachable");
 * ```
 */
export class FeatureSet {
  /** No bit at all. */
  static readonly none: FeatureSet = new FeatureSet(new Uint32Array(WORDS));
  readonly #words: Uint32Array;

  private constructor(words: Uint32Array) {
    this.#words = words;
  }

  /** The set of these bit numbers. Throws RangeError for a number outside 0 to 127. */
  static of(...bits: number[]): FeatureSet {
    return FeatureSet.from(bits);
  }

  /** The set of these bit numbers. Throws RangeError for a number outside 0 to 127. */
  static from(bits: Iterable<number>): FeatureSet {
    const words = new Uint32Array(WORDS);
    for (const bit of bits) {
      if (!Number.isInteger(bit) || bit < 0 || bit >= BITS) {
        throw new RangeError(`Cannot use feature bit ${bit}: it must be an integer from 0 to ${BITS - 1}`);
      }
      words[bit >>> 5] |= 1 << (bit & 31);
    }
    return new FeatureSet(words);
  }

  /** From the 32-bit words of a mask, lowest first; missing words are 0. */
  static fromWords(...words: number[]): FeatureSet {
    const kept = new Uint32Array(WORDS);
    kept.set(words.slice(0, WORDS));
    return new FeatureSet(kept);
  }

  /** From a 64-bit (or 128-bit) mask. */
  static fromBigInt(mask: bigint): FeatureSet {
    const words = new Uint32Array(WORDS);
    for (let i = 0; i < WORDS; i++) words[i] = Number((mask >> BigInt(32 * i)) & 0xffffffffn);
    return new FeatureSet(words);
  }

  /** Is this bit in the set? */
  has(bit: number): boolean {
    return (this.#words[bit >>> 5] >>> (bit & 31) & 1) === 1;
  }

  /** Are all of these bits in the set? */
  hasAll(bits: Iterable<number>): boolean {
    for (const bit of bits) if (!this.has(bit)) return false;
    return true;
  }

  /** This set and these bits. */
  with(...bits: number[]): FeatureSet {
    return this.union(FeatureSet.from(bits));
  }

  /** This set less these bits. */
  without(...bits: number[]): FeatureSet {
    return this.minus(FeatureSet.from(bits));
  }

  /** Bits of either set. */
  union(other: FeatureSet): FeatureSet {
    return new FeatureSet(this.#words.map((word, i) => word | other.#words[i]));
  }

  /** Bits of both sets. */
  intersect(other: FeatureSet): FeatureSet {
    return new FeatureSet(this.#words.map((word, i) => word & other.#words[i]));
  }

  /** Bits of this set that the other lacks. */
  minus(other: FeatureSet): FeatureSet {
    return new FeatureSet(this.#words.map((word, i) => word & ~other.#words[i]));
  }

  /** Is there no bit in the set? */
  get isEmpty(): boolean {
    return this.#words.every((word) => word === 0);
  }

  /** Do both sets hold the same bits? */
  equals(other: FeatureSet): boolean {
    return this.#words.every((word, i) => word === other.#words[i]);
  }

  /** Word `index` of the mask, 0 being bits 0 to 31. */
  word(index: number): number {
    return this.#words[index];
  }

  /** The bit numbers, ascending. */
  *[Symbol.iterator](): Iterator<number> {
    for (let bit = 0; bit < BITS; bit++) if (this.has(bit)) yield bit;
  }

  /** The mask as a BigInt, for protocol messages and JSON; not for hot paths. */
  toBigInt(): bigint {
    let mask = 0n;
    for (let i = WORDS - 1; i >= 0; i--) mask = mask << 32n | BigInt(this.#words[i]);
    return mask;
  }

  /** The mask in hexadecimal. */
  toString(): string {
    return `0x${this.toBigInt().toString(16)}`;
  }
}
