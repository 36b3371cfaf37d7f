/**
 * Which port of a cable an Ethernet address was last seen on.
 * @module
 */

const ENTRIES = 1024;

/** No port is known for an address. */
export const NO_PORT = -1;

/** How long an address is known that is not seen again, in ns, as in IEEE 802.1D. */
const AGE_NS = 300e9;

/**
 * A table of fixed size: an address has one place in it, and a later address takes the place over. So no flood of
 * forged addresses makes it grow; an address that lost its place is only flooded until it is learned again.
 *
 * Two kinds of address are told apart. One that the configuration gives to a port is behind that port and nowhere else,
 * whatever guests send: no guest can draw the frames of another to itself, or into nothing. All others are learned from
 * what is sent; the last port counts, since guests do move and choose addresses of their own, and each is forgotten after
 * five minutes in which it was not seen.
 */
export class MacTable {
  readonly #high = new Uint16Array(ENTRIES);
  readonly #low = new Uint32Array(ENTRIES);
  readonly #port = new Int16Array(ENTRIES).fill(NO_PORT);
  /** When the address was seen last, in ns; Infinity for one of the configuration. */
  readonly #seenNs = new Float64Array(ENTRIES);

  /** Notes that the address at `bytes[at]` is behind `port`, 0 to 32767. Group addresses are behind no port. */
  learn(bytes: Uint8Array, at: number, port: number, nowNs: number): void {
    if ((bytes[at] & 1) === 1) return;
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    if (this.#port[place] !== NO_PORT && this.#seenNs[place] === Infinity) return;
    this.#high[place] = high;
    this.#low[place] = low;
    this.#port[place] = port;
    this.#seenNs[place] = nowNs;
  }

  /** Notes that the address at `bytes[at]` belongs to `port` for good; unless another has it, or its place, already. */
  fix(bytes: Uint8Array, at: number, port: number): void {
    this.learn(bytes, at, port, Infinity);
  }

  /** The port behind which the address at `bytes[at]` is, or NO_PORT. */
  find(bytes: Uint8Array, at: number, nowNs: number): number {
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    const isKnown = this.#high[place] === high && this.#low[place] === low &&
      nowNs - this.#seenNs[place] < AGE_NS;
    return isKnown ? this.#port[place] : NO_PORT;
  }

  /** Forgets the addresses behind `port`, those of the configuration only if it goes for good. */
  forget(port: number, forGood: boolean): void {
    for (let i = 0; i < ENTRIES; i++) {
      if (this.#port[i] === port && (forGood || this.#seenNs[i] !== Infinity)) this.#port[i] = NO_PORT;
    }
  }
}

function lowWord(bytes: Uint8Array, at: number): number {
  return (bytes[at + 2] << 24 | bytes[at + 3] << 16 | bytes[at + 4] << 8 | bytes[at + 5]) >>> 0;
}

function placeOf(high: number, low: number): number {
  return (Math.imul(low ^ high << 16, 0x9e3779b1) >>> 22) & (ENTRIES - 1);
}
