/**
 * A list of memory ranges for `readv` and `writev`, made once and filled anew for each call.
 * @module
 */
import { addressOf } from "./libc.ts";

/** Numbers of 32 bits in a struct iovec: address and length, of 64 bits each. */
const WORDS = 4;
const HIGH = 2 ** 32;

/** An array of struct iovec. */
export class IoVector {
  /** How many ranges it has room for. */
  readonly capacity: number;
  /** Where it lies, for the system call. */
  readonly address: bigint;
  readonly #words: Uint32Array<ArrayBuffer>;

  /** Makes room. @param capacity the most ranges */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#words = new Uint32Array(capacity * WORDS);
    this.address = addressOf(this.#words);
  }

  /** Fills place `index`, below `capacity`. @param address an address below 2^53; @param lengthBytes below 2^32 */
  set(index: number, address: number, lengthBytes: number): void {
    const at = index * WORDS;
    // An address has less than 53 bits, so that its upper part is a small integer.
    const high = address / HIGH | 0;
    this.#words[at] = address - high * HIGH;
    this.#words[at + 1] = high;
    this.#words[at + 2] = lengthBytes;
  }
}
