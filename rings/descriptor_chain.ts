/**
 * A chain of descriptors as a device sees it: bytes to read, then bytes to write.
 *
 * Theory of operation. A virtqueue's `pop` refills one object over and over: `begin`, one `add` for each
 * element of the chain, `finish`. `add` judges each element, translates its guest address at once, and keeps
 * a *piece*: a region, an offset in it, a length. An element that crosses from one region into the next
 * becomes two pieces. Pieces are kept in ring order; the specification wants all readable elements before the
 * writable ones, so that a count divides them.
 *
 *     pieces   | r0 | r1 | r2 | w0 | w1 |
 *                       ^ #readable = 3
 *              reading cursor ->   writing cursor ->
 *
 * `read` and `write` each move a cursor (piece, offset in the piece) over their part and copy whole runs;
 * framing has no meaning (virtio 1.2, section 2.7.4.1). `rewind` sets both cursors back. Everything was
 * checked when the chain was filled and is never read from the ring again, so that a guest that changes its
 * descriptors afterwards changes nothing.
 *
 * Limits: a chain holds at most 2^32 bytes (section 2.7.5.2) in at most 65536 pieces. The arrays grow by
 * doubling, up to that bound, and are kept.
 * @module
 */
import { GuestError } from "./guest_error.ts";
import { addressTooLarge, checkRange, type GuestMemory, hex, type MappedRegion } from "./memory.ts";
import * as ringErrors from "./ring_errors.ts";

/**
 * What a piece of a chain counts beside its bytes: to read its descriptor and to begin a copy takes as long
 * as so many.
 */
export const PIECE_UNITS = 1024;
const MAX_PIECES = 65536;
const MAX_BYTES = 0x100000000;

/**
 * One buffer that a driver has made available. A device keeps one object and has the `pop` of a virtqueue
 * refill it.
 */
export class DescriptorChain {
  /**
   * Names the chain when it is returned by `push`: index of the first descriptor (split) or buffer id
   * (packed).
   */
  head = 0;
  /** Ring slots that it took: 1 for an indirect chain. */
  descriptors = 0;
  /** Bytes of the part that the device reads. */
  readableBytes = 0;
  /** Bytes of the part that the device writes. */
  writableBytes = 0;
  /** What it costs to work on, as far as the driver decides that: see {@linkcode RoundBudget}. */
  units = 0;
  /**
   * Is it an indirect table of a packed ring? Not every driver marks the writable elements there as it
   * should.
   */
  inPackedTable = false;

  #regions: (MappedRegion | null)[] = new Array<MappedRegion | null>(16).fill(null);
  #offsets: Float64Array<ArrayBuffer> = new Float64Array(16);
  #lengths: Uint32Array<ArrayBuffer> = new Uint32Array(16);
  #pieces = 0;
  #readable = 0;
  #readPiece = 0;
  #readOffset = 0;
  #writePiece = 0;
  #writeOffset = 0;

  /** Pieces of memory that it lies in. */
  get pieces(): number {
    return this.#pieces;
  }

  /**
   * Copies up to `length` bytes from the readable part to `target[at]` on and moves on. Returns how many
   * bytes that were: fewer than `length` at its end. RangeError if they would not fit into `target`.
   */
  read(target: Uint8Array, at: number, length: number): number {
    checkRange(target, at, length);
    let done = 0;
    while (done < length && this.#readPiece < this.#readable) {
      const piece = this.#readPiece;
      const room = this.#lengths[piece] - this.#readOffset;
      const wanted = length - done;
      const count = wanted < room ? wanted : room;
      this.#regions[piece]!.copyOut(this.#offsets[piece] + this.#readOffset, target, at + done, count);
      done += count;
      if (count === room) {
        this.#readPiece = piece + 1;
        this.#readOffset = 0;
      } else this.#readOffset += count;
    }
    return done;
  }

  /**
   * Copies up to `length` bytes from `source[at]` on into the writable part and moves on. Returns how many
   * bytes that were: fewer than `length` at its end. RangeError if `source` does not hold them.
   */
  write(source: Uint8Array, at: number, length: number): number {
    checkRange(source, at, length);
    let done = 0;
    while (done < length && this.#writePiece < this.#pieces) {
      const piece = this.#writePiece;
      const room = this.#lengths[piece] - this.#writeOffset;
      const wanted = length - done;
      const count = wanted < room ? wanted : room;
      this.#regions[piece]!.copyIn(this.#offsets[piece] + this.#writeOffset, source, at + done, count);
      done += count;
      if (count === room) {
        this.#writePiece = piece + 1;
        this.#writeOffset = 0;
      } else this.#writeOffset += count;
    }
    return done;
  }

  /**
   * Finds `length` bytes from `offset` on of the readable or the writable part in this process, for system
   * calls that read or write them in place. Puts an address and a number of bytes into `places` for each
   * piece of memory, and returns how many pieces; 0 if there are not so many bytes, if they do not fit into
   * `places`, or if an address is not known: copy then.
   */
  locate(part: "readable" | "writable", offset: number, length: number, places: Float64Array): number {
    const [first, end] = part === "readable" ? [0, this.#readable] : [this.#readable, this.#pieces];
    let skip = offset;
    let left = length;
    let count = 0;
    for (let piece = first; piece < end && left > 0; piece++) {
      const bytes = Math.min(this.#lengths[piece] - skip, left);
      if (bytes <= 0) {
        skip -= this.#lengths[piece];
        continue;
      }
      const { hostAddress } = this.#regions[piece]!;
      if (hostAddress === 0 || 2 * count + 2 > places.length) return 0;
      places[2 * count] = hostAddress + this.#offsets[piece] + skip;
      places[2 * count + 1] = bytes;
      count++;
      left -= bytes;
      skip = 0;
    }
    return left > 0 ? 0 : count;
  }

  /**
   * The host has written into the first `length` bytes of the writable part by itself: a migration is told.
   */
  wroteInPlace(length: number): void {
    let left = length;
    for (let piece = this.#readable; piece < this.#pieces && left > 0; piece++) {
      const region = this.#regions[piece]!;
      const bytes = Math.min(this.#lengths[piece], left);
      if (region.dirtyLog !== null) region.dirtyLog.mark(region.guestAddress + this.#offsets[piece], bytes);
      left -= bytes;
    }
  }

  /** Starts reading and writing at the first byte again. */
  rewind(): void {
    this.#readPiece = 0;
    this.#readOffset = 0;
    this.#writePiece = this.#readable;
    this.#writeOffset = 0;
  }

  /** For queues: empties the chain, to be filled by `add`. */
  begin(): void {
    this.readableBytes = 0;
    this.writableBytes = 0;
    this.inPackedTable = false;
    this.#pieces = 0;
    this.#readable = 0;
  }

  /**
   * For queues: appends an element of `length` bytes at a guest address. GuestError if it has no bytes, lies
   * outside memory, is readable behind a writable one, or makes the chain too long.
   */
  add(memory: GuestMemory, address: number, length: number, writable: boolean): void {
    if (length === 0) throw zeroLength(address);
    if (writable) this.writableBytes += length;
    else {
      if (this.writableBytes !== 0) throw readableAfterWritable(address);
      this.readableBytes += length;
    }
    const region = memory.find(address);
    const offset = address - region.guestAddress;
    if (length <= region.size - offset) this.#append(region, offset, length);
    else this.#appendAcross(memory, address, length);
    if (!writable) this.#readable = this.#pieces;
  }

  /**
   * All that was said to be writable is to be read, in its turn, and never written. More may be added behind
   * it.
   */
  turnReadable(): void {
    this.readableBytes += this.writableBytes;
    this.writableBytes = 0;
    this.#readable = this.#pieces;
    this.#writePiece = this.#pieces;
    this.#writeOffset = 0;
  }

  /** For queues: the chain is complete; `head` and `descriptors` are what `push` and the ring need. */
  finish(head: number, descriptors: number): void {
    const bytes = this.readableBytes + this.writableBytes;
    if (bytes > MAX_BYTES) throw tooManyBytes(this);
    this.head = head;
    this.descriptors = descriptors;
    this.units = bytes + this.#pieces * PIECE_UNITS;
    this.rewind();
  }

  #append(region: MappedRegion, offset: number, length: number): void {
    const piece = this.#pieces;
    if (piece === this.#lengths.length) this.#grow();
    // An unchanged region is not stored again: the store of a reference costs a write barrier.
    if (this.#regions[piece] !== region) this.#regions[piece] = region;
    this.#offsets[piece] = offset;
    this.#lengths[piece] = length;
    this.#pieces = piece + 1;
  }

  #appendAcross(memory: GuestMemory, address: number, length: number): void {
    for (let done = 0; done < length;) {
      const region = memory.find(address + done);
      const offset = address + done - region.guestAddress;
      const count = Math.min(length - done, region.size - offset);
      this.#append(region, offset, count);
      done += count;
    }
  }

  #grow(): void {
    const capacity = this.#lengths.length * 2;
    if (capacity > MAX_PIECES) {
      throw new GuestError("chain-too-long", `A chain must lie in at most ${MAX_PIECES} pieces of memory`);
    }
    const offsets = new Float64Array(capacity);
    offsets.set(this.#offsets);
    this.#offsets = offsets;
    const lengths = new Uint32Array(capacity);
    lengths.set(this.#lengths);
    this.#lengths = lengths;
    while (this.#regions.length < capacity) this.#regions.push(null);
  }
}

// Errors are made out of line, so that the functions that may throw them stay small enough to be inlined.

function zeroLength(address: number): GuestError {
  return new GuestError(
    "descriptor-zero-length",
    `Length of the descriptor at address ${hex(address)} is 0; it must be at least 1`,
  );
}

function readableAfterWritable(address: number): GuestError {
  return new GuestError(
    "descriptor-readable-after-writable",
    `The descriptor at address ${hex(address)} is readable; it must stand before all writable ones`,
  );
}

function tooManyBytes(chain: DescriptorChain): GuestError {
  const bytes = chain.readableBytes + chain.writableBytes;
  return new GuestError("chain-too-long", `A chain of ${bytes} bytes must not exceed ${MAX_BYTES} bytes`);
}

// Indirect descriptors: a table of descriptors in guest memory, the same for both ring layouts.

/** The chain goes on at `next` (split), or in the next slot (packed). */
export const DESC_F_NEXT = 1;
/** The device writes the buffer; otherwise it reads it. */
export const DESC_F_WRITE = 2;
/** The buffer holds a table of descriptors. */
export const DESC_F_INDIRECT = 4;
/** Bytes of a descriptor, in rings and in tables. */
export const DESC_BYTES = 16;

/**
 * Elements of a chain that are taken whatever the size of its queue: as many as Linux and QEMU take
 * (UIO_MAXIOV).
 */
const MAX_TABLE_ELEMENTS = 1024;

/**
 * Most elements of a chain with a table. The specification allows as many as the queue has entries (virtio
 * 1.2, section 2.7.5.3.1), but drivers do not look at that: Linux puts a whole request into a table, also
 * where the queue has four.
 */
export function maxElements(queueSize: number): number {
  return Math.max(queueSize, MAX_TABLE_ELEMENTS);
}

/**
 * Reads the tables of one queue into chains. A table may start anywhere and lie across regions. Each field is
 * read once. All functions throw GuestError: `indirect-table-invalid` for a length that is 0 or no multiple
 * of 16, `chain-too-long` for more than `limit` elements, `address-out-of-range`, and what {@linkcode
 * DescriptorChain.add} throws.
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
   * As a split ring has them: element 0, then along `next`, to the first without NEXT. A table may be longer
   * than what is used of it. Throws `indirect-nested`, `descriptor-loop` and `descriptor-index-out-of-range`
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
   * As a packed ring has them: every element of the table, in order. All flags but WRITE are reserved there
   * and ignored (virtio 1.2, section 2.8.8).
   *
   * A readable element may stand behind writable ones, which are then read as well. No driver should do so,
   * but DPDK does: it fills its tables with WRITE beforehand, and forgets to take that off the element of the
   * virtio-net header. To read what was said to be writable does no harm; the other way round it would.
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

  /**
   * Adds element `index` and returns its last four bytes: flags and next if `linked`, otherwise id and flags.
   */
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
