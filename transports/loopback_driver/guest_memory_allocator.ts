/**
 * Lays out the software guest's memory: first everything is reserved, then the regions are made.
 *
 * Theory of operation. A real guest's memory is not one piece: it begins somewhere, has a hole below 4 GiB, and its
 * halves are mapped one by one. So the regions made here lie in pairs: the two regions of a pair touch each other in the
 * guest's address space but not in ours, and a buffer may lie across that seam; between pairs there is a hole. Pair `p`
 * starts at `FIRST_ADDRESS + p * PAIR_DISTANCE`, so that from the second pair on an address needs more than 32 bits.
 *
 * `reserve()` only notes what is wanted; `build()` chooses the size of the regions, gives every reservation its address
 * in the order in which it was made, and makes the memory. What must be in one piece (a ring) is moved behind a seam
 * instead of across it, which wastes less than the largest reservation at each seam: the regions are that much larger.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { GuestMemory, type MemoryRegion } from "../../core/memory.ts";

const FIRST_ADDRESS = 0x10_0000;
const PAIR_DISTANCE = 0x1_0000_0000;
const PAGE = 4096;
/** All the memory that a software guest may have, in bytes. */
export const MAX_GUEST_BYTES: number = 2 ** 30;

/** A piece of guest memory that somebody has asked for. */
export interface Reservation {
  /** Bytes. */
  readonly size: number;
  /** Its guest address is a multiple of this. */
  readonly alignment: number;
  /** Must it lie in one region? */
  readonly contiguous: boolean;
  /** Its guest address; -1 until the memory has been built. */
  address: number;
}

/** Collects reservations and builds guest memory for them. */
export class GuestMemoryAllocator {
  readonly #regionCount: number;
  readonly #reservations: Reservation[] = [];

  /**
   * Starts without reservations.
   * @param regionCount in how many regions the memory is to lie, 1 or more
   */
  constructor(regionCount: number) {
    this.#regionCount = regionCount;
  }

  /**
   * Asks for `size` bytes, 1 or more, at a multiple of `alignment`, a power of two of at most 4096. What is
   * `contiguous` lies in one region; anything else may cross from one region to the next.
   */
  reserve(size: number, alignment: number, contiguous: boolean): Reservation {
    const reservation = { size, alignment, contiguous, address: -1 };
    this.#reservations.push(reservation);
    return reservation;
  }

  /** Gives every reservation its address and makes the memory. HostError if that is more than `MAX_GUEST_BYTES`. */
  build(): GuestMemory {
    let total = 0;
    let largest = 0;
    for (const { size, alignment } of this.#reservations) {
      total += size + alignment;
      largest = Math.max(largest, size + alignment);
    }
    if (total > MAX_GUEST_BYTES) {
      throw new HostError(
        `Cannot give the software guest ${Math.ceil(total / 2 ** 20)} MiB of memory, the limit is ` +
          `${MAX_GUEST_BYTES / 2 ** 20} MiB: lower queueSize, queuePairs or receiveBufferBytes`,
      );
    }
    const count = this.#regionCount;
    const slack = count > 1 ? largest : 0;
    const bytes = Math.ceil((total / count + slack) / PAGE) * PAGE || PAGE;
    const regions: MemoryRegion[] = [];
    for (let i = 0; i < count; i++) {
      const guestAddress = FIRST_ADDRESS + (i >> 1) * PAIR_DISTANCE + (i & 1) * bytes;
      regions.push({ guestAddress, size: bytes, buffer: new ArrayBuffer(bytes), bufferOffset: 0 });
    }
    this.#place(regions);
    return new GuestMemory(regions);
  }

  #place(regions: readonly MemoryRegion[]): void {
    let region = 0;
    let cursor = regions[0].guestAddress;
    for (const wanted of this.#reservations) {
      let at = alignUp(cursor, wanted.alignment);
      let end = regions[region].guestAddress + regions[region].size;
      const mayCross = !wanted.contiguous && (region & 1) === 0 && region + 1 < regions.length;
      if (at >= end || (at + wanted.size > end && !mayCross)) {
        region++;
        at = alignUp(regions[region].guestAddress, wanted.alignment);
        end = regions[region].guestAddress + regions[region].size;
      }
      wanted.address = at;
      cursor = at + wanted.size;
      if (cursor > end) region++;
    }
  }
}

function alignUp(address: number, alignment: number): number {
  return Math.ceil(address / alignment) * alignment;
}
