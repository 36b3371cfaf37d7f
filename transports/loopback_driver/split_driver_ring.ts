/**
 * The driver's side of a split virtqueue (virtio 1.2, section 2.7), written from the specification alone.
 *
 * Theory of operation. Three parts lie in guest memory. The driver writes the descriptor table and the available ring
 * (`flags`, `idx`, the heads, `used_event`), the device the used ring (`flags`, `idx`, pairs of id and length,
 * `avail_event`). Free descriptors hang on a list in `#next`, which also tells how a chain goes on when it comes back:
 * it is our own copy, since the table itself can be written by others. `#tokens[head]` is what the caller knows a chain
 * by; -1 marks a head that the device does not have, so that a used element with a wrong id is found.
 *
 * `add()` writes descriptors and the available entry; `publish()` stores `idx`, then, after a full barrier, reads whether
 * the device wants a kick for any of the entries from `#publishedIndex` to `#availableIndex`. `takeUsed()` reads the used
 * `idx` once for as many elements as it shows. All indices run freely and wrap at 65536; the place in a ring is the
 * index modulo its size, a power of two.
 *
 * With EVENT_IDX the flags stay 0 and interrupts are refused by a `used_event` half of the 65536 indices away, where it
 * is neither met soon nor can be taken for one that has just been passed.
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
