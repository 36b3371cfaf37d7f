/**
 * A burst: what goes from frames to the chains of a queue, or the other way, in one call of a kernel.
 * @module
 */
import type { Arena } from "./arena.ts";
import type { GuestMemory, MemoryHolder } from "./memory.ts";
import { ROUND_UNITS } from "./virtqueue.ts";
import * as layout from "../kernels/layout.ts";

/** Pieces that a burst has room for; an item in more pieces does not fit. */
const MAX_PIECES = 1024;
const PIECE_BYTES = 8;
/** Most items of a burst for `Virtqueue.dequeueBurst`. */
export const MAX_ITEMS = 512;
/** Regions of a guest that a burst has room for; a guest with more is worked by plain code. */
const MAX_REGIONS = 64;
const REGION_BYTES = 24;

/**
 * A list of items for `Virtqueue.enqueueBurst` or `Virtqueue.dequeueBurst`, with the memory that the kernels
 * need. Made once by a device; lives as long as the arena.
 *
 * To enqueue, an item is one piece of the low part of the arena or several. To dequeue, it is room for one of
 * them.
 */
export class Burst implements MemoryHolder {
  /** The memory in which it lies. */
  readonly arena: Arena;
  /** Where its block is, see `kernels/layout.ts`. */
  readonly block: number;
  /** Items in it. */
  items = 0;
  /** Units after which no further chain is taken, whatever the round has left. */
  maxUnits = 0;
  /** Of the last call: units that its chains cost. */
  units = 0;
  /** Of the last call: chains that were used. */
  chains = 0;
  /**
   * Of the last call of `dequeueBurst`: bytes of the chain that its item has no room for; 0 if that is not
   * why it ended.
   */
  neededBytes = 0;
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #doubles: Float64Array<ArrayBuffer>;
  /** Where the regions and the list begin, in words. */
  readonly #regions: number;
  readonly #list: number;
  #pieces = 0;
  #memory: GuestMemory | null = null;
  #isReached = false;

  private constructor(arena: Arena, at: number) {
    this.arena = arena;
    this.block = at;
    this.#words = arena.words;
    this.#doubles = arena.doubles;
    this.#regions = (at + layout.BLOCK_BYTES) / 4;
    this.#list = this.#regions + MAX_REGIONS * REGION_BYTES / 4;
    this.#words[(at + layout.REGIONS) / 4] = this.#regions * 4;
    this.#words[(at + layout.ITEMS) / 4] = this.#list * 4;
  }

  /** Makes a burst in this arena; null if there is none, or it has no room. */
  static make(arena: Arena | null): Burst | null {
    if (arena === null) return null;
    const bytes = layout.BLOCK_BYTES + MAX_REGIONS * REGION_BYTES + MAX_PIECES * PIECE_BYTES;
    const at = arena.allocate(bytes);
    return at === null ? null : new Burst(arena, at);
  }

  /**
   * Empties it, to be filled for `Virtqueue.enqueueBurst`.
   * @param minBytes bytes that the first chain of an item must have at least
   * @param countAt where in an item the number of its chains is to be written, as a le16; 0 if it may take
   * only one
   */
  beginEnqueue(minBytes: number, countAt: number): void {
    this.items = 0;
    this.maxUnits = ROUND_UNITS;
    this.#pieces = 0;
    this.#words[(this.block + layout.MIN_BYTES) / 4] = minBytes;
    this.#words[(this.block + layout.COUNT_AT) / 4] = countAt;
  }

  /** Is there room for so many pieces? */
  hasRoom(pieces: number): boolean {
    return this.#pieces + pieces <= MAX_PIECES;
  }

  /**
   * Adds a piece to the present item: `lengthBytes` (below 2^31) of the low part of the arena. False if there
   * is no room: the item must be left out then. An item has at least one byte.
   */
  addPiece(offset: number, lengthBytes: number, isLast: boolean): boolean {
    const piece = this.#pieces;
    if (piece === MAX_PIECES) return false;
    const at = this.#list + 2 * piece;
    this.#words[at] = offset;
    this.#words[at + 1] = isLast ? lengthBytes | layout.LAST_PIECE : lengthBytes;
    this.#pieces = piece + 1;
    if (isLast) this.items++;
    return true;
  }

  /**
   * Empties it, to be filled for `Virtqueue.dequeueBurst`.
   * @param minBytes bytes that a chain must have at least
   * @param stopAt where in an item a le16 stands that ends the burst if it is not 0; 0 if nothing does
   * @param maxUnits units after which no further chain is taken, see `RoundBudget`
   */
  beginDequeue(minBytes: number, stopAt: number, maxUnits: number): void {
    this.items = 0;
    this.maxUnits = maxUnits;
    this.#words[(this.block + layout.MIN_BYTES) / 4] = minBytes;
    this.#words[(this.block + layout.STOP_AT) / 4] = stopAt;
  }

  /** Adds room for a chain; at most {@linkcode MAX_ITEMS} times. */
  addRoom(offset: number, roomBytes: number): void {
    const at = this.#list + 4 * this.items++;
    this.#words[at] = offset;
    this.#words[at + 1] = roomBytes;
  }

  /** After `dequeueBurst`: bytes of the chain that was copied into item `index`. */
  bytesOf(index: number): number {
    return this.#words[this.#list + 4 * index + 2];
  }

  /** Tells the kernels of a guest's memory. False if they do not reach it, or must not write to it unseen. */
  reaches(memory: GuestMemory): boolean {
    if (memory !== this.#memory) this.#learn(memory);
    return this.#isReached && !memory.isLogged;
  }

  /** Memory that the kernels were told of is taken away. */
  letGo(): void {
    this.#memory = null;
  }

  #learn(memory: GuestMemory): void {
    const { regions } = memory;
    this.#memory = memory;
    this.#isReached = regions.length <= MAX_REGIONS &&
      regions.every(({ buffer }) => buffer === this.arena.buffer);
    if (!this.#isReached) return;
    let at = this.#regions / 2;
    for (const { guestAddress, size, bufferOffset, holders } of regions) {
      this.#doubles[at++] = guestAddress;
      this.#doubles[at++] = size;
      this.#doubles[at++] = bufferOffset;
      holders.add(this);
    }
    this.#words[(this.block + layout.REGION_COUNT) / 4] = regions.length;
  }
}
