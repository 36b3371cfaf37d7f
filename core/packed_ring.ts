/**
 * Marks and positions of packed rings: what follows from the wrap counters (virtio 1.2, section 2.8.1).
 * @module
 */
import { DESC_F_NEXT } from "./indirect_table.ts";
import * as ringErrors from "./ring_errors.ts";

/** The AVAIL and USED flags of a descriptor: whose turn it is. */
export const TURN = 0x8080;
/** What they are on a descriptor that a driver with wrap counter 1 made available; with 0 it is the other flag. */
export const AVAILABLE_1 = 0x0080;
/** The packed position of a ring that was never used: both slots 0, both wrap counters 1. */
export const FRESH_RING = 0x80008000;

/** Where a packed ring stands, by both of its walkers. */
export interface PackedPosition {
  /** The slot that is read next. */
  readonly available: number;
  /** What AVAIL and USED are there if it is the device's turn. */
  readonly availableMark: number;
  /** The slot that is written next. */
  readonly used: number;
  /** What AVAIL and USED are to be there. */
  readonly usedMark: number;
  /** Slots between the two. */
  readonly inFlight: number;
}

/**
 * Unpacks a position: available slot (bits 0 to 14), its wrap counter (15), used slot (16 to 30), its wrap counter (31).
 * GuestError `ring-state-invalid` if a ring of `size` cannot stand so.
 */
export function unpackPosition(base: number, size: number): PackedPosition {
  const available = base & 0x7fff;
  const used = base >>> 16 & 0x7fff;
  const availableWrap = base >>> 15 & 1;
  const usedWrap = base >>> 31;
  const inFlight = available - used + (availableWrap === usedWrap ? 0 : size);
  if (
    !Number.isInteger(base) || base < 0 || base > 0xffffffff ||
    available >= size || used >= size || inFlight < 0 || inFlight > size
  ) {
    throw ringErrors.stateInvalid(
      `Position of a packed ring of ${size} is ${base} (available slot ${available}, used slot ${used}); both must ` +
        "lie in the ring, the first at most a lap ahead of the second",
    );
  }
  return {
    available,
    availableMark: availableWrap === 1 ? AVAILABLE_1 : TURN ^ AVAILABLE_1,
    used,
    usedMark: usedWrap === 1 ? TURN : 0,
    inFlight,
  };
}

/** Packs a position, the inverse of {@linkcode unpackPosition}. */
export function packPosition(
  available: number,
  availableMark: number,
  used: number,
  usedMark: number,
): number {
  const low = available | (availableMark === AVAILABLE_1 ? 0x8000 : 0);
  const high = used | (usedMark === TURN ? 0x8000 : 0);
  return high * 0x10000 + low;
}

/**
 * Counts the lists that are available in a ring of `size` from `slot` on, looking at no more than `limit` slots. After
 * it, all that the driver wrote into them can be seen.
 *
 * The flags are loaded plainly but for those of the last list's first descriptor, which are loaded again by an atomic:
 * the driver writes lists in order, and in each of them these flags last.
 */
export function countLists(
  ring: Uint16Array<ArrayBuffer>,
  size: number,
  slot: number,
  mark: number,
  limit: number,
): number {
  let last = -1;
  let lists = 0;
  let inList = false;
  let at = slot;
  let expected = mark;
  for (let i = 0; i < limit; i++) {
    const flags = ring[(at << 3) + 7];
    if ((flags & TURN) !== expected) break;
    if (!inList) {
      lists++;
      last = at;
    }
    inList = (flags & DESC_F_NEXT) !== 0;
    if (++at === size) {
      at = 0;
      expected ^= TURN;
    }
  }
  if (lists !== 0) Atomics.load(ring, (last << 3) + 7);
  return lists;
}

/** Slots that the next `lists` lists take from `slot` on, as far as they are available; at most `limit`. */
export function slotsOfLists(
  ring: Uint16Array<ArrayBuffer>,
  size: number,
  slot: number,
  mark: number,
  lists: number,
  limit: number,
): number {
  let at = slot;
  let expected = mark;
  let left = lists;
  let slots = 0;
  for (; left > 0 && slots < limit; slots++) {
    const flags = ring[(at << 3) + 7];
    if ((flags & TURN) !== expected) break;
    if ((flags & DESC_F_NEXT) === 0) left--;
    if (++at === size) {
      at = 0;
      expected ^= TURN;
    }
  }
  return slots;
}
