/**
 * The store of frames: all that a machine moves lives in slots taken here, so that the data path allocates
 * nothing.
 * @module
 */
import { Arena } from "../rings/arena.ts";
import { accelerateChecksums } from "../wire/checksum.ts";
import { Frame, type FrameHolder, type FrameOwner, MAX_FRAME_BYTES } from "./frame.ts";

/**
 * Bytes kept free in front of a new frame's data, so that a stage can put a header there. Two more than a
 * multiple of 4, so that the IP header behind the 14 bytes of Ethernet is aligned.
 */
export const FRAME_HEADROOM_BYTES = 66;

/**
 * Slot sizes, headroom included. Each is an odd number of 64-byte cache lines: power-of-two strides would put
 * the headers of all frames into the same few cache sets.
 */
const SLOT_BYTES = [33 * 64, 147 * 64, 1091 * 64];
const SLOTS_PER_CHUNK = [512, 64, 16];
/**
 * Slots of each size whose memory frames of other sizes leave alone until there are any: without this, small
 * frames could take all memory for good, and a large one would wait for ever; or large ones, and a stage that
 * cuts them would find no room for the first piece.
 */
const SLOTS_SET_ASIDE = [16, 4, 4];
/** Pools smaller than this set nothing aside: there would be little left. */
const MIN_SHARED_BYTES = 1024 * 1024;

/** How large a pool may grow. */
export interface FramePoolOptions {
  /**
   * Most bytes of frame storage; default 128 MiB. Memory is only used as frames are. From 1 MiB on there is
   * room for at least four frames of the largest size and sixteen of 2 KiB, whatever others were taken
   * before.
   */
  maxBytes?: number;
  /**
   * Where frames are to lie, if it has room for all of them: kernels reach them there. Default: buffers of
   * the pool's own, piece by piece.
   */
  arena?: Arena | null;
}

/**
 * A pool of frames in three sizes. It grows in chunks up to its limit and never shrinks; `take` then answers
 * null and the caller waits, which is back-pressure. The last slot given back is the first taken: it is still
 * in the caches.
 *
 * All plugins of a machine take from the same storage, each by a pool of its own (`lentTo`), so that every
 * frame shows who has it.
 */
export class FramePool {
  #store: FrameStore;
  #holder: FrameHolder | null = null;

  /** A pool without frames yet. @param options how large it may grow */
  constructor(options: FramePoolOptions = {}) {
    this.#store = new FrameStore(options);
  }

  /** The same pool, for a plugin: frames that are taken from it have this holder. */
  lentTo(holder: FrameHolder): FramePool {
    const lent = new FramePool();
    lent.#store = this.#store;
    lent.#holder = holder;
    return lent;
  }

  /** Frames (pieces) that are out of the pool. 0 when the pool is whole. */
  get inUse(): number {
    return this.#store.inUse;
  }

  /** Where its frames lie, if kernels reach them; null if not. */
  get arena(): Arena | null {
    return this.#store.arena;
  }

  /** Bytes of storage reserved so far. */
  get reservedBytes(): number {
    return this.#store.reservedBytes;
  }

  /** How often `take` had to answer null because the pool was at its limit. */
  get refusals(): number {
    return this.#store.refusals;
  }

  /** Frames made so far, in and out of the pool. */
  get made(): number {
    return this.#store.all.length;
  }

  /**
   * A frame with room for `length` bytes behind the headroom; `start` and `length` are set, the header is
   * cleared, the bytes are whatever they were. Null if the pool is at its limit. Throws RangeError unless
   * `length` is 0 to MAX_FRAME_BYTES.
   * @param isNeeded does it count as a refusal if there is none? False for a frame that is taken in advance
   */
  take(length: number, isNeeded = true): Frame | null {
    const frame = this.#store.take(length, this.#holder);
    if (frame === null && isNeeded) this.#store.refusals++;
    return frame;
  }

  /** A frame that holds a copy of these bytes, or null if the pool is at its limit. */
  takeCopy(source: Uint8Array): Frame | null {
    const frame = this.take(source.length);
    if (frame !== null) frame.bytes.set(source, frame.start);
    return frame;
  }

  /** How many frames each holder has. Looks at every frame that was ever made: not for the data path. */
  held(): Map<FrameHolder | null, number> {
    const counts = new Map<FrameHolder | null, number>();
    for (const { isOwned, holder } of this.#store.all) {
      if (isOwned) counts.set(holder, (counts.get(holder) ?? 0) + 1);
    }
    return counts;
  }

  /**
   * Takes every frame back that this holder has, which must not touch them any more. Returns how many those
   * were.
   */
  reclaim(holder: FrameHolder): number {
    let frames = 0;
    for (const frame of this.#store.all) {
      if (!frame.isOwned || frame.holder !== holder) continue;
      frame.release();
      frames++;
    }
    return frames;
  }
}

/** The frames of a pool, and what lends from it. */
class FrameStore {
  /** Every frame made so far. */
  readonly all: Frame[] = [];
  readonly #free: readonly FreeFrames[] = SLOT_BYTES.map(() => new FreeFrames());
  readonly #slots: number[] = SLOT_BYTES.map(() => 0);
  readonly #maxBytes: number;
  /** Where frames lie; null for buffers of their own. */
  readonly arena: Arena | null;
  /** Where the next chunk begins in it. */
  #arenaNext: number;
  /** Bytes of storage reserved so far. */
  reservedBytes = 0;
  /** How often `take` had to answer null. */
  refusals = 0;

  constructor(options: FramePoolOptions) {
    this.#maxBytes = options.maxBytes ?? 128 * 1024 * 1024;
    const start = options.arena?.allocate(this.#maxBytes) ?? null;
    this.arena = start === null ? null : options.arena!;
    this.#arenaNext = start ?? 0;
    if (this.arena !== null) accelerateChecksums(this.arena.buffer, this.arena.kernels.sum);
  }

  get inUse(): number {
    let pieces = 0;
    for (const { inUse } of this.#free) pieces += inUse;
    return pieces;
  }

  take(length: number, holder: FrameHolder | null): Frame | null {
    if (!(length >= 0 && length <= MAX_FRAME_BYTES)) {
      throw new RangeError(`Cannot take a frame of ${length} bytes: it must have 0 to ${MAX_FRAME_BYTES}`);
    }
    const needed = length + FRAME_HEADROOM_BYTES;
    for (let size = 0; size < SLOT_BYTES.length; size++) {
      if (needed > SLOT_BYTES[size]) continue;
      const free = this.#free[size];
      if (free.isEmpty && !this.#grow(size)) continue;
      const frame = free.take();
      frame.isOwned = true;
      // What is as wanted is not stored again: the store of a reference costs a write barrier.
      if (frame.holder !== holder) frame.holder = holder;
      frame.start = frame.slot + FRAME_HEADROOM_BYTES;
      frame.length = length;
      frame.total = length;
      if (frame.next !== null) frame.next = null;
      if (frame.last !== frame) frame.last = frame;
      frame.pieces = 1;
      frame.header.clear();
      frame.queuePair = 0;
      frame.number = 0;
      frame.mark = 0;
      return frame;
    }
    return null;
  }

  #grow(size: number): boolean {
    const stride = SLOT_BYTES[size];
    const slots = Math.min(SLOTS_PER_CHUNK[size], Math.floor(this.#budget(size) / stride));
    if (slots < 1) return false;
    const { arena } = this;
    const bytes = arena?.bytes ?? new Uint8Array(stride * slots);
    const view = arena?.view ?? new DataView(bytes.buffer);
    const from = this.#arenaNext;
    if (arena !== null) this.#arenaNext += stride * slots;
    const free = this.#free[size];
    for (let i = slots - 1; i >= 0; i--) {
      const frame = new Frame(free, bytes, view, from + i * stride, stride);
      free.add(frame);
      this.all.push(frame);
    }
    this.reservedBytes += stride * slots;
    this.#slots[size] += slots;
    return true;
  }

  /**
   * Bytes that frames of this size may still reserve: a half at a time, so that no burst of one size takes
   * all at once.
   */
  #budget(size: number): number {
    let left = this.#maxBytes - this.reservedBytes;
    if (this.#maxBytes < MIN_SHARED_BYTES) return left;
    for (let other = 0; other < SLOT_BYTES.length; other++) {
      if (other !== size) {
        left -= Math.max(0, SLOTS_SET_ASIDE[other] - this.#slots[other]) * SLOT_BYTES[other];
      }
    }
    return Math.min(left, Math.max(left / 2, SLOTS_SET_ASIDE[size] * SLOT_BYTES[size], SLOT_BYTES[size]));
  }
}

/**
 * The free frames of one size in a pool. They lie here as they came back: a merged frame still hangs
 * together, and only its first piece is looked at, for the others may be far away. It comes apart when its
 * pieces are taken.
 */
export class FreeFrames implements FrameOwner {
  readonly #free: Frame[] = [];
  #count = 0;
  /** Pieces that are out. */
  inUse = 0;

  /** Is there none? */
  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Puts in a frame that is new. */
  add(frame: Frame): void {
    this.#free[this.#count++] = frame;
  }

  /** Takes back `pieces` pieces, `first` and those that follow it. */
  giveBack(first: Frame, pieces: number): void {
    const at = this.#count++;
    // A burst that comes back last to first finds its places as it has left them.
    if (this.#free[at] !== first) this.#free[at] = first;
    this.inUse -= pieces;
  }

  /** The first piece of what came back last; what follows it takes its place. There must be one. */
  take(): Frame {
    const last = this.#count - 1;
    const frame = this.#free[last];
    if (frame.next === null) this.#count = last;
    else this.#free[last] = frame.next;
    this.inUse++;
    return frame;
  }
}

/**
 * A pool of frames that kernels reach, where such memory can be had; in ordinary memory all is slower and
 * nothing else.
 * @param maxBytes most bytes of frame storage; @param arena where they are to lie
 */
export function newFramePool(maxBytes: number, arena: Arena | null = Arena.reserve()): FramePool {
  return new FramePool({ maxBytes, arena });
}
