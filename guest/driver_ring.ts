/**
 * A virtqueue as the driver sees it, whatever its layout: `SplitDriverRing` and `PackedDriverRing` implement
 * it.
 * @module
 */
import type { GuestMemory } from "../rings/memory.ts";
import type { VirtqueueSetup } from "../rings/virtqueue.ts";

/** `takeUsed()`: the device has used nothing more. */
export const NOTHING_USED: number = -1;
/** `takeUsed()`: the device has returned something that it was never given; see `fault`. */
export const BAD_USED: number = -2;

/** Descriptor: the chain goes on (virtio 1.2, section 2.7.5). */
export const DESC_F_NEXT = 1;
/** Descriptor: the device writes here. */
export const DESC_F_WRITE = 2;
/** Descriptor: this is a table of descriptors. */
export const DESC_F_INDIRECT = 4;
/** Bytes of a descriptor, in both layouts. */
export const DESC_BYTES = 16;

/** When a ring puts a chain into an indirect table: never, for two descriptors or more, or always. */
export type IndirectUse = "never" | "chains" | "always";

/** Does a chain of `count` descriptors go by indirect table? */
export function goesIndirect(use: IndirectUse, count: number): boolean {
  return use === "always" || (use === "chains" && count > 1);
}

/** How many chains of `descriptors` descriptors each a ring of `size` entries holds. */
export function chainCapacity(use: IndirectUse, size: number, descriptors: number): number {
  return goesIndirect(use, descriptors) ? size : Math.floor(size / descriptors);
}

/** Where a ring lies, as the device is told, and where its indirect tables are. */
export interface RingPlacement extends VirtqueueSetup {
  /**
   * Guest address of the indirect tables, one for each entry of the ring; unused if `indirectUse` is `never`.
   */
  readonly tables: number;
  /** Descriptors in each indirect table. */
  readonly tableEntries: number;
  /** What goes by indirect table. */
  readonly indirectUse: IndirectUse;
}

/** The driver's side of a virtqueue. Add any number of chains, then publish them at once. */
export interface DriverRing {
  /** Entries of the ring. */
  readonly size: number;
  /** Chains that the device has and has not returned. */
  readonly inFlight: number;
  /** Bytes that the device says it has written into the chain taken last. */
  readonly usedBytes: number;
  /** What was wrong with the used element for which `takeUsed` returned `BAD_USED`. */
  readonly fault: string;
  /** Is the ring past repair, since a used element does not tell where the next one lies? */
  readonly broken: boolean;
  /**
   * Adds a chain under `token`, 0 to 2^31 - 1. False if there is no room; the device sees it after `publish`.
   */
  add(list: BufferList, token: number): boolean;
  /** Shows the device all that was added. True if it wants to be kicked. */
  publish(): boolean;
  /** The token of the next chain that the device has used, or `NOTHING_USED`, or `BAD_USED`. */
  takeUsed(): number;
  /** Tells the device that interrupts are a waste for now. */
  disableInterrupts(): void;
  /**
   * Asks the device to interrupt at the next used chain. True if one is there already: look before going to
   * sleep.
   */
  enableInterrupts(): boolean;
}

/** The pieces of one chain: those that the device reads, then those that it writes. Filled over and over. */
export class BufferList {
  /** Guest addresses. */
  readonly addresses: Float64Array<ArrayBuffer>;
  /** Lengths in bytes. */
  readonly lengths: Uint32Array<ArrayBuffer>;
  /** Pieces in all. */
  count = 0;
  /** How many of them, from the first, the device reads. */
  readable = 0;

  /**
   * Makes an empty list.
   * @param capacity the most pieces it can hold
   */
  constructor(capacity: number) {
    this.addresses = new Float64Array(capacity);
    this.lengths = new Uint32Array(capacity);
  }

  /** Forgets all pieces. */
  clear(): void {
    this.count = 0;
    this.readable = 0;
  }

  /** Appends a piece that the device reads; no writable one may have been added. */
  addReadable(address: number, length: number): void {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
    this.readable++;
  }

  /** Appends a piece that the device writes. */
  addWritable(address: number, length: number): void {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
  }

  /**
   * Appends `length` bytes at `address` in up to `pieces` pieces: one, or the first `headBytes` and the rest
   * in equal parts. Empty pieces are left out, since no descriptor may have length 0.
   */
  addCut(address: number, length: number, pieces: number, headBytes: number, writable: boolean): void {
    let at = 0;
    let piece = pieces === 1 ? length : Math.min(headBytes, length);
    const part = pieces === 1 ? 0 : Math.ceil((length - piece) / (pieces - 1));
    while (at < length) {
      if (writable) this.addWritable(address + at, piece);
      else this.addReadable(address + at, piece);
      at += piece;
      piece = Math.min(part, length - at);
    }
  }
}

const fenceCell = new Int32Array(1);

/**
 * A full memory barrier: an atomic operation on a cell of our own orders all stores before it and loads after
 * it.
 */
export function fence(): void {
  Atomics.add(fenceCell, 0, 1);
}

// The driver's side of a split virtqueue (virtio 1.2, section 2.7), written from the specification alone.
//
// Theory of operation. Three parts lie in guest memory. The driver writes the descriptor table and the
// available ring (`flags`, `idx`, the heads, `used_event`), the device the used ring (`flags`, `idx`, pairs
// of id and length, `avail_event`). Free descriptors hang on a list in `#next`, which also tells how a chain
// goes on when it comes back: it is our own copy, since the table itself can be written by others.
// `#tokens[head]` is what the caller knows a chain by; -1 marks a head that the device does not have, so that
// a used element with a wrong id is found.
//
// `add()` writes descriptors and the available entry; `publish()` stores `idx`, then, after a full barrier,
// reads whether the device wants a kick for any of the entries from `#publishedIndex` to `#availableIndex`.
// `takeUsed()` reads the used `idx` once for as many elements as it shows. All indices run freely and wrap at
// 65536; the place in a ring is the index modulo its size, a power of two.
//
// With EVENT_IDX the flags stay 0 and interrupts are refused by a `used_event` half of the 65536 indices
// away, where it is neither met soon nor can be taken for one that has just been passed.

const AVAIL_F_NO_INTERRUPT = 1;
const USED_F_NO_NOTIFY = 1;

/** A split ring, driven. */
export class SplitDriverRing implements DriverRing {
  /** Entries of the ring: a power of two. */
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
  readonly #mask: number;
  readonly #table: Uint32Array;
  readonly #available: Uint16Array;
  readonly #used16: Uint16Array;
  readonly #used32: Uint32Array;
  readonly #indirect: Uint32Array | null;
  readonly #next: Int32Array;
  readonly #tokens: Int32Array;
  #freeHead = 0;
  #freeCount: number;
  #availableIndex = 0;
  #publishedIndex = 0;
  #usedIndex = 0;
  #usedSeen = 0;

  /** Prepares the ring at `place`, whose memory is all zero. */
  constructor(memory: GuestMemory, place: RingPlacement) {
    const size = place.size;
    this.size = size;
    this.#place = place;
    this.#mask = size - 1;
    this.#table = memory.window(place.descriptors, DESC_BYTES * size, 16).u32;
    // Both rings are reserved in whole words, so that all views of a window reach to its end.
    this.#available = memory.window(place.driver, splitAvailableBytes(size), 4).u16;
    const used = memory.window(place.device, splitUsedBytes(size), 4);
    this.#used16 = used.u16;
    this.#used32 = used.u32;
    this.#indirect = place.indirectUse === "never"
      ? null
      : memory.window(place.tables, DESC_BYTES * place.tableEntries * size, 16).u32;
    this.#next = Int32Array.from({ length: size }, (_, i) => i + 1);
    this.#tokens = new Int32Array(size).fill(-1);
    this.#freeCount = size;
  }

  /** Adds a chain under `token`. False if there is no room; the device sees it after `publish`. */
  add(list: BufferList, token: number): boolean {
    const head = this.#freeHead;
    if (goesIndirect(this.#place.indirectUse, list.count)) {
      if (this.#freeCount < 1 || list.count > this.#place.tableEntries) return false;
      const first = head * this.#place.tableEntries;
      for (let i = 0; i < list.count; i++) {
        this.#write(this.#indirect!, first + i, list, i, i + 1);
      }
      const table = this.#place.tables + first * DESC_BYTES;
      writeEntry(this.#table, head, table, list.count * DESC_BYTES, DESC_F_INDIRECT);
      this.#freeHead = this.#next[head];
      this.#next[head] = -1;
      this.#freeCount--;
    } else {
      if (this.#freeCount < list.count) return false;
      let at = head;
      let last = head;
      for (let i = 0; i < list.count; i++) {
        last = at;
        at = this.#next[at];
        this.#write(this.#table, last, list, i, at);
      }
      this.#freeHead = at;
      this.#next[last] = -1;
      this.#freeCount -= list.count;
    }
    this.#tokens[head] = token;
    this.#available[2 + (this.#availableIndex & this.#mask)] = head;
    this.#availableIndex = (this.#availableIndex + 1) & 0xffff;
    this.inFlight++;
    return true;
  }

  /** Shows the device all that was added. True if it wants to be kicked. */
  publish(): boolean {
    const before = this.#publishedIndex;
    const added = (this.#availableIndex - before) & 0xffff;
    if (added === 0) return false;
    this.#available[1] = this.#availableIndex;
    this.#publishedIndex = this.#availableIndex;
    fence();
    if (!this.#place.eventIndex) return (this.#used16[0] & USED_F_NO_NOTIFY) === 0;
    // The entry at avail_event wants a kick: is it one of those that were added just now?
    const event = this.#used16[2 + 4 * this.size];
    return ((event - before) & 0xffff) < added;
  }

  /** The token of the next chain that the device has used, or `NOTHING_USED`, or `BAD_USED`. */
  takeUsed(): number {
    if (this.broken) return NOTHING_USED;
    if (this.#usedIndex === this.#usedSeen) {
      this.#usedSeen = this.#used16[1];
      const fresh = (this.#usedSeen - this.#usedIndex) & 0xffff;
      if (fresh === 0) return NOTHING_USED;
      if (fresh > this.inFlight) {
        return this.#break(
          `used index ${this.#usedSeen} shows ${fresh} chains of ${this.inFlight} in flight`,
        );
      }
    }
    const at = 1 + 2 * (this.#usedIndex & this.#mask);
    const id = this.#used32[at];
    this.usedBytes = this.#used32[at + 1];
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    const token = id < this.size ? this.#tokens[id] : -1;
    if (token < 0) {
      this.fault = `used element ${(this.#usedIndex - 1) & 0xffff} has id ${id}, which is not in flight`;
      return BAD_USED;
    }
    this.#release(id);
    return token;
  }

  /** Tells the device that interrupts are a waste for now. */
  disableInterrupts(): void {
    if (this.#place.eventIndex) this.#available[2 + this.size] = this.#usedIndex ^ 0x8000;
    else this.#available[0] = AVAIL_F_NO_INTERRUPT;
  }

  /** Asks the device to interrupt at the next used chain. True if one is there already. */
  enableInterrupts(): boolean {
    if (this.#place.eventIndex) this.#available[2 + this.size] = this.#usedIndex;
    else this.#available[0] = 0;
    fence();
    return !this.broken && this.#used16[1] !== this.#usedIndex;
  }

  #write(table: Uint32Array, entry: number, list: BufferList, i: number, next: number): void {
    const direction = i < list.readable ? 0 : DESC_F_WRITE;
    const more = i + 1 < list.count ? DESC_F_NEXT | (next << 16) : 0;
    writeEntry(table, entry, list.addresses[i], list.lengths[i], direction | more);
  }

  #release(head: number): void {
    this.#tokens[head] = -1;
    this.inFlight--;
    let last = head;
    this.#freeCount++;
    while (this.#next[last] >= 0) {
      last = this.#next[last];
      this.#freeCount++;
    }
    this.#next[last] = this.#freeHead;
    this.#freeHead = head;
  }

  #break(fault: string): number {
    this.fault = fault;
    this.broken = true;
    return BAD_USED;
  }
}

/** Bytes of the available ring of `size` entries, `used_event` included, in whole words. */
export function splitAvailableBytes(size: number): number {
  return (6 + 2 * size + 3) & ~3;
}

/** Bytes of the used ring of `size` entries, `avail_event` included, in whole words. */
export function splitUsedBytes(size: number): number {
  return (6 + 8 * size + 3) & ~3;
}

function writeEntry(table: Uint32Array, entry: number, address: number, length: number, rest: number): void {
  const at = 4 * entry;
  table[at] = address >>> 0;
  table[at + 1] = (address / 0x1_0000_0000) >>> 0;
  table[at + 2] = length;
  table[at + 3] = rest;
}

// The driver's side of a packed virtqueue (virtio 1.2, section 2.8), written from the specification alone.
//
// Theory of operation. One ring of descriptors, which the driver makes available in order and the device
// overwrites with used descriptors in the order of completion. `#position` and `#wrap` are where the driver
// writes next and its wrap counter; `#usedPosition` and `#usedWrap` where the next used descriptor will lie.
// A chain is known by its buffer id, of which there are as many as entries: free ids lie on the stack `#ids`,
// and `#lengths[id]` tells how far `#usedPosition` moves when the id comes back, since the device writes one
// used descriptor for a whole chain and skips the rest. For that reason a used descriptor with an unknown id
// breaks the ring: where to look next can no longer be known.
//
// `add()` writes every descriptor with its flags at once, except the first descriptor of the first chain
// since the last `publish()`: its last word waits in `#heldWord`, and while it waits the device, which takes
// descriptors strictly in order, sees none of the chains behind it. `publish()` stores that word, then, after
// a full barrier, reads whether the device wants a kick. If the device names one descriptor at which it wants
// it (EVENT_IDX), positions are compared on a line on which the ring's present round begins at 0 and its
// previous one at -size.

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
