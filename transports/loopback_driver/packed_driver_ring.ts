/**
 * The driver's side of a packed virtqueue (virtio 1.2, section 2.8), written from the specification alone.
 *
 * Theory of operation. One ring of descriptors, which the driver makes available in order and the device overwrites with
 * used descriptors in the order of completion. `#position` and `#wrap` are where the driver writes next and its wrap
 * counter; `#usedPosition` and `#usedWrap` where the next used descriptor will lie. A chain is known by its buffer id, of
 * which there are as many as entries: free ids lie on the stack `#ids`, and `#lengths[id]` tells how far `#usedPosition`
 * moves when the id comes back, since the device writes one used descriptor for a whole chain and skips the rest. For
 * that reason a used descriptor with an unknown id breaks the ring: where to look next can no longer be known.
 *
 * `add()` writes every descriptor with its flags at once, except the first descriptor of the first chain since the last
 * `publish()`: its last word waits in `#heldWord`, and while it waits the device, which takes descriptors strictly in
 * order, sees none of the chains behind it. `publish()` stores that word, then, after a full barrier, reads whether the
 * device wants a kick. If the device names one descriptor at which it wants it (EVENT_IDX), positions are compared on a
 * line on which the ring's present round begins at 0 and its previous one at -size.
 * @module
 */
import type { GuestMemory } from "../../core/memory.ts";
import {
  BAD_USED,
  type BufferList,
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  type DriverRing,
  fence,
  goesIndirect,
  NOTHING_USED,
  type RingPlacement,
} from "./driver_ring.ts";

const DESC_F_AVAIL = 1 << 7;
const DESC_F_USED = 1 << 15;
const EVENT_ENABLE = 0;
const EVENT_DISABLE = 1;
const EVENT_DESC = 2;

/** A packed ring, driven. */
export class PackedDriverRing implements DriverRing {
  /** Entries of the ring: any number up to 32768. */
  readonly size: number;
  /** What was wrong with the used element for which `takeUsed` returned `BAD_USED`. */
  fault = "";
  /** Is the ring past repair? */
  broken = false;
  /** Bytes that the device says it has written into the chain taken last. */
  usedBytes = 0;
  /** Chains that the device has and has not returned. */
  inFlight = 0;

  readonly #place: RingPlacement;
  readonly #ring: Uint32Array;
  readonly #driverEvent: Uint16Array;
  readonly #deviceEvent: Uint16Array;
  readonly #indirect: Uint32Array | null;
  readonly #ids: Int32Array;
  readonly #tokens: Int32Array;
  readonly #lengths: Int32Array;
  #idCount: number;
  #freeCount: number;
  #position = 0;
  #wrap = 1;
  #usedPosition = 0;
  #usedWrap = 1;
  #heldAt = -1;
  #heldWord = 0;
  #added = 0;

  /** Prepares the ring at `place`, whose memory is all zero. */
  constructor(memory: GuestMemory, place: RingPlacement) {
    const size = place.size;
    this.size = size;
    this.#place = place;
    this.#ring = memory.window(place.descriptors, DESC_BYTES * size, 16).u32;
    this.#driverEvent = memory.window(place.driver, 4, 4).u16;
    this.#deviceEvent = memory.window(place.device, 4, 4).u16;
    this.#indirect = place.indirectUse === "never"
      ? null
      : memory.window(place.tables, DESC_BYTES * place.tableEntries * size, 16).u32;
    this.#ids = Int32Array.from({ length: size }, (_, i) => size - 1 - i);
    this.#tokens = new Int32Array(size).fill(-1);
    this.#lengths = new Int32Array(size);
    this.#idCount = size;
    this.#freeCount = size;
  }

  /** Adds a chain under `token`. False if there is no room; the device sees it after `publish`. */
  add(list: BufferList, token: number): boolean {
    const indirect = goesIndirect(this.#place.indirectUse, list.count);
    const entries = indirect ? 1 : list.count;
    if (this.#freeCount < entries || (indirect && list.count > this.#place.tableEntries)) return false;
    const id = this.#ids[--this.#idCount];
    if (indirect) {
      const first = id * this.#place.tableEntries;
      for (let i = 0; i < list.count; i++) {
        // In a table, only the direction is a valid flag; the id is reserved.
        const direction = i < list.readable ? 0 : DESC_F_WRITE;
        writeBuffer(this.#indirect!, first + i, list.addresses[i], list.lengths[i]);
        this.#indirect![4 * (first + i) + 3] = direction << 16;
      }
      const table = this.#place.tables + first * DESC_BYTES;
      this.#append(table, list.count * DESC_BYTES, DESC_F_INDIRECT, id);
    } else {
      for (let i = 0; i < entries; i++) {
        const direction = i < list.readable ? 0 : DESC_F_WRITE;
        const more = i + 1 < entries ? DESC_F_NEXT : 0;
        this.#append(list.addresses[i], list.lengths[i], direction | more, id);
      }
    }
    this.#tokens[id] = token;
    this.#lengths[id] = entries;
    this.#freeCount -= entries;
    this.inFlight++;
    return true;
  }

  /** Shows the device all that was added. True if it wants to be kicked. */
  publish(): boolean {
    if (this.#heldAt < 0) return false;
    this.#ring[this.#heldAt] = this.#heldWord;
    this.#heldAt = -1;
    const added = this.#added;
    this.#added = 0;
    fence();
    const flags = this.#deviceEvent[1] & 3;
    if (flags === EVENT_DISABLE) return false;
    if (flags !== EVENT_DESC || !this.#place.eventIndex) return true;
    const event = this.#deviceEvent[0];
    const at = (event & 0x7fff) - (event >>> 15 === this.#wrap ? 0 : this.size);
    return at >= this.#position - added && at < this.#position;
  }

  /** The token of the next chain that the device has used, or `NOTHING_USED`, or `BAD_USED`. */
  takeUsed(): number {
    if (this.broken || !this.#isUsed()) return NOTHING_USED;
    const at = 4 * this.#usedPosition;
    const word = this.#ring[at + 3];
    const id = word & 0xffff;
    // Without the write flag the length is reserved: nothing was written.
    this.usedBytes = (word >>> 16 & DESC_F_WRITE) !== 0 ? this.#ring[at + 2] : 0;
    const token = id < this.size ? this.#tokens[id] : -1;
    if (token < 0) {
      this.fault = `used descriptor ${this.#usedPosition} has id ${id}, which is not in flight`;
      this.broken = true;
      return BAD_USED;
    }
    this.#tokens[id] = -1;
    this.#ids[this.#idCount++] = id;
    this.#freeCount += this.#lengths[id];
    this.inFlight--;
    this.#usedPosition += this.#lengths[id];
    if (this.#usedPosition >= this.size) {
      this.#usedPosition -= this.size;
      this.#usedWrap ^= 1;
    }
    return token;
  }

  /** Tells the device that interrupts are a waste for now. */
  disableInterrupts(): void {
    this.#driverEvent[1] = EVENT_DISABLE;
  }

  /** Asks the device to interrupt at the next used chain. True if one is there already. */
  enableInterrupts(): boolean {
    if (this.#place.eventIndex) {
      this.#driverEvent[0] = this.#usedPosition | (this.#usedWrap << 15);
      this.#driverEvent[1] = EVENT_DESC;
    } else {
      this.#driverEvent[1] = EVENT_ENABLE;
    }
    fence();
    return !this.broken && this.#isUsed();
  }

  #isUsed(): boolean {
    const flags = this.#ring[4 * this.#usedPosition + 3] >>> 16;
    const both = this.#usedWrap === 1 ? DESC_F_AVAIL | DESC_F_USED : 0;
    return this.inFlight > 0 && (flags & (DESC_F_AVAIL | DESC_F_USED)) === both;
  }

  #append(address: number, length: number, flags: number, id: number): void {
    const round = this.#wrap === 1 ? DESC_F_AVAIL : DESC_F_USED;
    const word = (id | (flags | round) << 16) >>> 0;
    writeBuffer(this.#ring, this.#position, address, length);
    const at = 4 * this.#position + 3;
    if (this.#heldAt < 0) {
      this.#heldAt = at;
      this.#heldWord = word;
    } else {
      this.#ring[at] = word;
    }
    this.#added++;
    if (++this.#position === this.size) {
      this.#position = 0;
      this.#wrap ^= 1;
    }
  }
}

function writeBuffer(table: Uint32Array, entry: number, address: number, length: number): void {
  const at = 4 * entry;
  table[at] = address >>> 0;
  table[at + 1] = (address / 0x1_0000_0000) >>> 0;
  table[at + 2] = length;
}
