/**
 * The MAC table of a receive filter: a unicast and a multicast list in one table of fixed size (virtio 1.2, section
 * 5.1.6.5.2).
 *
 * Unicast addresses come first, then multicast ones, compared one by one as a 32-bit and a 16-bit word. A list that does
 * not fit is not kept at all: it overflows, and whoever filters lets everything of its kind through.
 *
 * @module
 */
import { MAC_BYTES } from "../../wire/ethernet.ts";

/** Addresses that the unicast and the multicast list hold together. */
export const MAC_TABLE_ENTRIES = 64;

/** The addresses that one driver listens to. */
export class MacTable {
  readonly #high = new Uint32Array(MAC_TABLE_ENTRIES);
  readonly #low = new Uint16Array(MAC_TABLE_ENTRIES);
  #unicastEntries = 0;
  #entries = 0;
  /** Was the list of unicast addresses too long? */
  unicastOverflow = false;
  /** Was that of multicast addresses? */
  multicastOverflow = false;

  /** The unicast addresses, six bytes one after the other; a copy. */
  get unicast(): Uint8Array {
    return this.#addresses(0, this.#unicastEntries);
  }

  /** The multicast addresses likewise. */
  get multicast(): Uint8Array {
    return this.#addresses(this.#unicastEntries, this.#entries);
  }

  /**
   * Replaces both lists by addresses in `bytes`, six bytes each: `unicastCount` from `unicastAt` on and `multicastCount` from
   * `multicastAt` on. They must be there.
   */
  set(
    bytes: Uint8Array,
    unicastAt: number,
    unicastCount: number,
    multicastAt: number,
    multicastCount: number,
  ): void {
    this.#entries = 0;
    this.unicastOverflow = !this.#append(bytes, unicastAt, unicastCount);
    this.#unicastEntries = this.#entries;
    this.multicastOverflow = !this.#append(bytes, multicastAt, multicastCount);
  }

  /** Forgets both lists. */
  clear(): void {
    this.#unicastEntries = 0;
    this.#entries = 0;
    this.unicastOverflow = false;
    this.multicastOverflow = false;
  }

  /** Is the address at `at` among the unicast ones? */
  hasUnicast(bytes: Uint8Array, at: number): boolean {
    return this.#has(bytes, at, 0, this.#unicastEntries);
  }

  /** Is the address at `at` among the multicast ones? */
  hasMulticast(bytes: Uint8Array, at: number): boolean {
    return this.#has(bytes, at, this.#unicastEntries, this.#entries);
  }

  #append(bytes: Uint8Array, at: number, count: number): boolean {
    if (this.#entries + count > MAC_TABLE_ENTRIES) return false;
    for (let i = 0, from = at; i < count; i++, from += MAC_BYTES) {
      this.#high[this.#entries] = highWord(bytes, from);
      this.#low[this.#entries++] = lowWord(bytes, from);
    }
    return true;
  }

  #addresses(first: number, end: number): Uint8Array {
    const bytes = new Uint8Array(MAC_BYTES * (end - first));
    const view = new DataView(bytes.buffer);
    for (let i = first, at = 0; i < end; i++, at += MAC_BYTES) {
      view.setUint32(at, this.#high[i]);
      view.setUint16(at + 4, this.#low[i]);
    }
    return bytes;
  }

  #has(bytes: Uint8Array, at: number, first: number, end: number): boolean {
    const high = highWord(bytes, at);
    const low = lowWord(bytes, at);
    for (let i = first; i < end; i++) if (this.#high[i] === high && this.#low[i] === low) return true;
    return false;
  }
}

function highWord(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0;
}

function lowWord(bytes: Uint8Array, at: number): number {
  return bytes[at + 4] << 8 | bytes[at + 5];
}
