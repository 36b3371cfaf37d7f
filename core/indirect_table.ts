/**
 * Indirect descriptors: a table of descriptors in guest memory, the same for both ring layouts.
 * @module
 */
import type { DescriptorChain } from "./descriptor_chain.ts";
import { GuestError } from "./errors.ts";
import { addressTooLarge, type GuestMemory, type MappedRegion } from "./memory.ts";
import { hex } from "./memory_region.ts";
import * as ringErrors from "./ring_errors.ts";

/** The chain goes on at `next` (split), or in the next slot (packed). */
export const DESC_F_NEXT = 1;
/** The device writes the buffer; otherwise it reads it. */
export const DESC_F_WRITE = 2;
/** The buffer holds a table of descriptors. */
export const DESC_F_INDIRECT = 4;
/** Bytes of a descriptor, in rings and in tables. */
export const DESC_BYTES = 16;

/** Elements of a chain that are taken whatever the size of its queue: as many as Linux and QEMU take (UIO_MAXIOV). */
const MAX_TABLE_ELEMENTS = 1024;

/**
 * Most elements of a chain with a table. The specification allows as many as the queue has entries (virtio 1.2, section
 * 2.7.5.3.1), but drivers do not look at that: Linux puts a whole request into a table, also where the queue has four.
 */
export function maxElements(queueSize: number): number {
  return Math.max(queueSize, MAX_TABLE_ELEMENTS);
}

/**
 * Reads the tables of one queue into chains. A table may start anywhere and lie across regions. Each field is read once.
 * All functions throw GuestError: `indirect-table-invalid` for a length that is 0 or no multiple of 16, `chain-too-long`
 * for more than `limit` elements, `address-out-of-range`, and what {@linkcode DescriptorChain.add} throws.
 */
export class IndirectTable {
  readonly #memory: GuestMemory;
  // Tables and buffers often lie in different regions: a last hit of its own spares both the search.
  #region: MappedRegion | null = null;
  #offset = 0;

  /** Reads tables of this guest. @param memory where tables and buffers lie */
  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /**
   * As a split ring has them: element 0, then along `next`, to the first without NEXT. A table may be longer than what is
   * used of it. Throws `indirect-nested`, `descriptor-loop` and `descriptor-index-out-of-range`
   * as well.
   */
  addLinked(chain: DescriptorChain, address: number, bytes: number, limit: number): void {
    const entries = this.#open(address, bytes);
    let index = 0;
    for (let count = 1;; count++) {
      if (index >= entries) throw ringErrors.indexOutOfRange(index, entries);
      if (count > entries) throw ringErrors.loop(entries);
      if (count > limit) throw ringErrors.chainTooLong(count, limit);
      const word = this.#add(chain, index, true);
      if ((word & DESC_F_NEXT) === 0) return;
      index = word >>> 16;
    }
  }

  /**
   * As a packed ring has them: every element of the table, in order. All flags but WRITE are reserved there and ignored
   * (virtio 1.2, section 2.8.8).
   *
   * A readable element may stand behind writable ones, which are then read as well. No driver should do so, but DPDK
   * does: it fills its tables with WRITE beforehand, and forgets to take that off the element of the virtio-net header.
   * To read what was said to be writable harms nobody; the other way round it would.
   */
  addInOrder(chain: DescriptorChain, address: number, bytes: number, limit: number): void {
    const entries = this.#open(address, bytes);
    if (entries > limit) throw ringErrors.chainTooLong(entries, limit);
    chain.inPackedTable = true;
    for (let i = 0; i < entries; i++) this.#add(chain, i, false);
  }

  #open(address: number, bytes: number): number {
    if (bytes === 0 || bytes % DESC_BYTES !== 0) throw tableInvalid(address, bytes);
    let region = this.#region;
    if (region === null || !(address >= region.guestAddress && address < region.guestAddress + region.size)) {
      region = this.#memory.find(address);
      this.#region = region;
    }
    this.#offset = address - region.guestAddress;
    if (this.#offset + bytes > region.size) this.#memory.check(address, bytes);
    return bytes / DESC_BYTES;
  }

  /** Adds element `index` and returns its last four bytes: flags and next if `linked`, otherwise id and flags. */
  #add(chain: DescriptorChain, index: number, linked: boolean): number {
    const region = this.#region!;
    const memory = this.#memory;
    const offset = this.#offset + index * DESC_BYTES;
    let low: number, high: number, length: number, word: number;
    if (offset + DESC_BYTES <= region.size) {
      const view = region.view;
      low = view.getUint32(offset, true);
      high = view.getUint32(offset + 4, true);
      length = view.getUint32(offset + 8, true);
      word = view.getInt32(offset + 12, true);
    } else {
      const address = region.guestAddress + offset;
      low = memory.readU32(address);
      high = memory.readU32(address + 4);
      length = memory.readU32(address + 8);
      word = memory.readU32(address + 12) | 0;
    }
    const writable = ((linked ? word : word >>> 16) & DESC_F_WRITE) !== 0;
    if (linked) {
      if ((word & DESC_F_INDIRECT) !== 0) throw ringErrors.nested();
    } else if (!writable && chain.writableBytes !== 0) chain.turnReadable();
    chain.add(memory, high === 0 ? low : wideAddress(low, high), length, writable);
    return word;
  }
}

/** A guest address from its halves; GuestError `address-out-of-range` if it is 2^53 or more. */
export function wideAddress(low: number, high: number): number {
  if (high >= 0x200000) throw addressTooLarge(low, high);
  return high * 0x100000000 + low;
}

function tableInvalid(address: number, bytes: number): GuestError {
  return new GuestError(
    "indirect-table-invalid",
    `Length of the indirect table at ${hex(address)} is ${bytes}; it must be a multiple of 16 and not 0`,
  );
}
