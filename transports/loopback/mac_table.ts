/**
 * Which port of a cable an Ethernet address was last seen on.
 * @module
 */

const ENTRIES = 1024;

/** No port is known for an address. */
export const NO_PORT = -1;

/**
 * A table of fixed size: an address has one place in it, and a later address takes the place over. So no flood of
 * forged addresses makes it grow; an address that lost its place is only flooded until it is learned again.
 */
export class MacTable {
  readonly #high = new Uint16Array(ENTRIES);
  readonly #low = new Uint32Array(ENTRIES);
  readonly #port = new Int16Array(ENTRIES).fill(NO_PORT);

  /** Notes that the address at `bytes[at]` is behind `port`, 0 to 32767. Group addresses are behind no port. */
  learn(bytes: Uint8Array, at: number, port: number): void {
    if ((bytes[at] & 1) === 1) return;
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    this.#high[place] = high;
    this.#low[place] = low;
    this.#port[place] = port;
  }

  /** The port behind which the address at `bytes[at]` is, or NO_PORT. */
  find(bytes: Uint8Array, at: number): number {
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    return this.#high[place] === high && this.#low[place] === low ? this.#port[place] : NO_PORT;
  }

  /** Forgets the addresses behind `port`. */
  forget(port: number): void {
    for (let i = 0; i < ENTRIES; i++) if (this.#port[i] === port) this.#port[i] = NO_PORT;
  }
}

function lowWord(bytes: Uint8Array, at: number): number {
  return (bytes[at + 2] << 24 | bytes[at + 3] << 16 | bytes[at + 4] << 8 | bytes[at + 5]) >>> 0;
}

function placeOf(high: number, low: number): number {
  return (Math.imul(low ^ high << 16, 0x9e3779b1) >>> 22) & (ENTRIES - 1);
}
