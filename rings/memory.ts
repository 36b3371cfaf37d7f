/**
 * The guest's memory: regions of an address space, read and written with every access checked.
 *
 * Theory of operation. A guest's physical memory reaches us as a few regions, each a slice of an ArrayBuffer
 * (later of mapped memory of many GiB). Guest addresses are plain numbers: exact below 2^53, and anything
 * above is refused, which spares the BigInt. `find` remembers the region that it found last, because
 * neighbouring accesses share it.
 *
 * Three ways in, for three kinds of use:
 *
 * - `readU16` and its sisters: single fields, slow enough to be convenient; a field may lie across two
 *   regions.
 * - `copyOut` and `copyIn`: buffers; a buffer may lie across any number of regions that touch each other.
 * - `window`: typed arrays laid over one ring. A typed array that is indexed past 2^31 leaves the fast path
 *   of the
 *   engine (30 ns and more instead of 0.4), a small one that starts there does not. A ring is in one region, aligned.
 *
 * Memory goes: a front-end removes a region, or ends. Its place in this process may be another guest's
 * afterwards, and an old queue, chain or `GuestMemory` must not reach that. So a region is revoked before it
 * is unmapped: that empties the region's own views and has those who took a `window` empty theirs. A late
 * access then throws or does nothing.
 *
 * Everything that a driver can get wrong is a GuestError, here `address-out-of-range`, `ring-misaligned` and,
 * for the regions themselves, `memory-map-invalid`. The guest changes its memory while we look at it: code
 * that uses these functions reads a field once, into a local, and judges the local.
 * @module
 */
import { GuestError } from "./guest_error.ts";

/** Views over one range of guest memory, for rings. */
export interface MemoryWindow {
  /** The range by bytes. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** The range by 16 bits: as many as fit; empty if the range does not start at a multiple of 2. */
  readonly u16: Uint16Array<ArrayBuffer>;
  /** The range by 32 bits: as many as fit; empty if the range does not start at a multiple of 4. */
  readonly u32: Uint32Array<ArrayBuffer>;
  /** The range at any offset. */
  readonly view: DataView<ArrayBuffer>;
}

/** Keeps views of guest memory, such as those of a ring. */
export interface MemoryHolder {
  /** The memory is taken away: lets go of every view of it. Must not throw. */
  letGo(): void;
}

/**
 * Those who keep views of some memory. They are held weakly: a ring that is made anew leaves nothing behind.
 */
export class MemoryHolders {
  #all: WeakRef<MemoryHolder>[] = [];
  #pruneAt = 16;

  /** Has `holder` let go when the memory is taken away. */
  add(holder: MemoryHolder): void {
    if (this.#all.length >= this.#pruneAt) {
      this.#all = this.#all.filter((one) => one.deref() !== undefined);
      this.#pruneAt = 2 * this.#all.length + 16;
    }
    this.#all.push(new WeakRef(holder));
  }

  /** Takes the memory away. */
  letGo(): void {
    for (const one of this.#all.splice(0)) one.deref()?.letGo();
  }
}

/**
 * The memory of one guest.
 *
 * @example
 * ```ts
 * import { GuestMemory } from "./memory.ts";
 * const memory = new GuestMemory([
 *   { guestAddress: 0x1000, size: 4096, buffer: new ArrayBuffer(4096), bufferOffset: 0 },
 * ]);
 * memory.writeU32(0x1ffc, 7);
 * if (memory.readU16(0x1ffc) !== 7) throw new Error("unreachable");
 * ```
 */
export class GuestMemory {
  /** The regions by ascending guest address. */
  readonly regions: readonly MappedRegion[];
  /** Is a log told of every write? */
  isLogged: boolean;
  #last: MappedRegion | null = null;

  /**
   * Takes the memory map. @param regions in any order; a `MappedRegion` is taken as it is, and shared with
   * who else has it. GuestError `memory-map-invalid` if two overlap or one is impossible.
   */
  constructor(regions: readonly MemoryRegion[]) {
    const mapped = regions.map((region) =>
      region instanceof MappedRegion ? region : new MappedRegion(region)
    );
    mapped.sort((a, b) => a.guestAddress - b.guestAddress);
    for (let i = 1; i < mapped.length; i++) {
      const before = mapped[i - 1];
      if (before.guestAddress + before.size > mapped[i].guestAddress) {
        throw mapInvalid(mapped[i], `it must not overlap the region at ${hex(before.guestAddress)}`);
      }
    }
    this.regions = mapped;
    this.isLogged = mapped.some(({ dirtyLog }) => dirtyLog !== null);
  }

  /** Takes all of it away, see {@linkcode MappedRegion.revoke}. */
  revoke(): void {
    for (const region of this.regions) region.revoke();
  }

  /**
   * Who is told of every write to the guest's memory that goes through this object or a descriptor chain, or
   * null, which costs one comparison a write. Windows write behind its back: queues have a log of their own.
   */
  set dirtyLog(log: DirtyLog | null) {
    this.isLogged = log !== null;
    for (const region of this.regions) region.dirtyLog = log;
  }

  /** The region in which `address` lies; GuestError `address-out-of-range` if there is none. */
  find(address: number): MappedRegion {
    const last = this.#last;
    if (last !== null) {
      const offset = address - last.guestAddress;
      if (offset >= 0 && offset < last.size) return last;
    }
    return this.#search(address);
  }

  /** Checks that all `length` bytes from `address` on exist; GuestError `address-out-of-range` if not. */
  check(address: number, length: number): void {
    let at = address;
    let left = length;
    while (left > 0) {
      const region = this.find(at);
      const room = region.size - (at - region.guestAddress);
      at += room;
      left -= room;
    }
  }

  /** The byte at `address`. GuestError if out of range, as with all that follow. */
  readU8(address: number): number {
    const region = this.find(address);
    return region.view.getUint8(address - region.guestAddress);
  }

  /** The le16 at `address`, which need not be aligned. */
  readU16(address: number): number {
    const region = this.find(address);
    const offset = address - region.guestAddress;
    if (offset + 2 <= region.size) return region.view.getUint16(offset, true);
    return this.readU8(address) + this.readU8(address + 1) * 0x100;
  }

  /** The le32 at `address`, which need not be aligned. */
  readU32(address: number): number {
    const region = this.find(address);
    const offset = address - region.guestAddress;
    if (offset + 4 <= region.size) return region.view.getUint32(offset, true);
    return this.readU16(address) + this.readU16(address + 2) * 0x10000;
  }

  /**
   * The le64 at `address`, to be used as a guest address; GuestError `address-out-of-range` if it is 2^53 or
   * more.
   */
  readAddress(address: number): number {
    const low = this.readU32(address);
    const high = this.readU32(address + 4);
    if (high >= 0x200000) throw addressTooLarge(low, high);
    return high * 0x100000000 + low;
  }

  /** Writes a byte. */
  writeU8(address: number, value: number): void {
    const region = this.find(address);
    region.view.setUint8(address - region.guestAddress, value);
    region.dirtyLog?.mark(address, 1);
  }

  /** Writes a le16; the address need not be aligned. */
  writeU16(address: number, value: number): void {
    const region = this.find(address);
    const offset = address - region.guestAddress;
    if (offset + 2 <= region.size) {
      region.view.setUint16(offset, value, true);
      region.dirtyLog?.mark(address, 2);
      return;
    }
    this.check(address, 2);
    this.writeU8(address, value & 0xff);
    this.writeU8(address + 1, value >>> 8 & 0xff);
  }

  /** Writes a le32; the address need not be aligned. */
  writeU32(address: number, value: number): void {
    const region = this.find(address);
    const offset = address - region.guestAddress;
    if (offset + 4 <= region.size) {
      region.view.setUint32(offset, value, true);
      region.dirtyLog?.mark(address, 4);
      return;
    }
    this.check(address, 4);
    this.writeU16(address, value & 0xffff);
    this.writeU16(address + 2, value >>> 16);
  }

  /**
   * Copies `length` bytes from the guest to `target[at]` on. All or, with a GuestError, nothing is copied.
   */
  copyOut(address: number, target: Uint8Array, at: number, length: number): void {
    checkRange(target, at, length);
    this.check(address, length);
    for (let done = 0; done < length;) {
      const region = this.find(address + done);
      const offset = address + done - region.guestAddress;
      const count = Math.min(length - done, region.size - offset);
      region.copyOut(offset, target, at + done, count);
      done += count;
    }
  }

  /**
   * Copies `length` bytes from `source[from]` on to the guest. All or, with a GuestError, nothing is copied.
   */
  copyIn(address: number, source: Uint8Array, from: number, length: number): void {
    checkRange(source, from, length);
    this.check(address, length);
    for (let done = 0; done < length;) {
      const region = this.find(address + done);
      const offset = address + done - region.guestAddress;
      const count = Math.min(length - done, region.size - offset);
      region.copyIn(offset, source, from + done, count);
      done += count;
    }
  }

  /**
   * Views over `length` bytes from `address` on.
   * GuestError `ring-misaligned` if the address is not a multiple of `alignment` (1, 2, 4, 8 or 16), or
   * `address-out-of-range` if the bytes are not all in one region: rings must be contiguous.
   * @param holder who keeps the views, and lets go of them when the memory goes. Without one they must not be
   * kept beyond
   *   the present round: the place may be another guest's then
   */
  window(address: number, length: number, alignment: number, holder?: MemoryHolder): MemoryWindow {
    if (address % alignment !== 0) {
      throw new GuestError("ring-misaligned", `Address ${hex(address)} must be a multiple of ${alignment}`);
    }
    const region = this.find(address);
    const offset = address - region.guestAddress;
    if (offset + length > region.size) {
      throw new GuestError(
        "address-out-of-range",
        `The ${length} bytes at ${hex(address)} must lie in one region; it ends at ${
          hex(region.guestAddress + region.size)
        }`,
      );
    }
    if (holder !== undefined) region.holders.add(holder);
    const start = region.bufferOffset + offset;
    return {
      u8: new Uint8Array(region.buffer, start, length),
      u16: start % 2 === 0 ? new Uint16Array(region.buffer, start, length >>> 1) : new Uint16Array(0),
      u32: start % 4 === 0 ? new Uint32Array(region.buffer, start, length >>> 2) : new Uint32Array(0),
      view: new DataView(region.buffer, start, length),
    };
  }

  #search(address: number): MappedRegion {
    let low = 0;
    let high = this.regions.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const region = this.regions[middle];
      if (address < region.guestAddress) high = middle;
      else if (address >= region.guestAddress + region.size) low = middle + 1;
      else if (address === address) return this.#last = region;
      else break;
    }
    throw new GuestError("address-out-of-range", `No memory at guest address ${hex(address)}`);
  }
}

/** The error for an address of 2^53 or more, given by halves. */
export function addressTooLarge(low: number, high: number): GuestError {
  return new GuestError(
    "address-out-of-range",
    `Guest address 0x${high.toString(16)}${low.toString(16).padStart(8, "0")} must be below 2^53`,
  );
}

/**
 * Throws RangeError unless `length` bytes from `at` on lie in `bytes`: the mistake of a device, not of a
 * guest.
 */
export function checkRange(bytes: Uint8Array, at: number, length: number): void {
  if (!(at >= 0 && length >= 0 && at + length <= bytes.length)) {
    throw new RangeError(`Cannot copy ${length} bytes at ${at} of a buffer of ${bytes.length} bytes`);
  }
}

// One region of the guest's memory, and the copies in and out of it.

/** A piece of the guest's address space and where it lies in this process. */
export interface MemoryRegion {
  /** Guest address of its first byte; below 2^53. */
  readonly guestAddress: number;
  /** Bytes in it. */
  readonly size: number;
  /** What it is a slice of. */
  readonly buffer: ArrayBuffer;
  /**
   * Where in `buffer` it starts. Equal to `guestAddress` modulo 16, so that aligned rings are aligned here
   * too.
   */
  readonly bufferOffset: number;
  /** Where its first byte lies in this process, for system calls; left out where that is not known. */
  readonly hostAddress?: number;
}

/** Remembers which pages of the guest's memory this process has written, for a migration. */
export interface DirtyLog {
  /**
   * These `lengthBytes` (at least 1) from `guestAddress` on have been written. Called after the write: code
   * that copies the page clears its mark first. Must not throw.
   */
  mark(guestAddress: number, lengthBytes: number): void;
}

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("Cannot work rings in place on a big-endian host: use a little-endian one");
}

/**
 * Copies up to this length go byte by byte: making a view costs more than a few bytes. Measured, see the
 * bench.
 */
const SHORT_COPY = 24;
/** The same for a kernel, which needs no view. */
const TINY_COPY = 8;

/** Copies bytes within one buffer. */
type Copier = (to: number, from: number, lengthBytes: number) => void;

const copiers = new WeakMap<ArrayBuffer, Copier>();

let lastArray: Uint8Array | null = null;
let lastBuffer: ArrayBufferLike | null = null;

/**
 * What an array is a view of. Code copies to and from the same array over and over, and the engine takes 7 ns
 * to tell.
 */
function bufferOf(array: Uint8Array): ArrayBufferLike | null {
  if (array !== lastArray) {
    lastArray = array;
    lastBuffer = array.buffer;
  }
  return lastBuffer;
}

let lastWhole: Uint8Array | null = null;
let lastCopier: Copier | null = null;

/**
 * As `array.copyWithin(to, from, from + lengthBytes)`, by a kernel if there is one for the array. All of it
 * must lie in it.
 */
export function copyWithin(array: Uint8Array, to: number, from: number, lengthBytes: number): void {
  if (array !== lastWhole) {
    lastWhole = array;
    // Places in the array are places in its buffer.
    lastCopier = array.byteOffset === 0 ? copiers.get(array.buffer as ArrayBuffer) ?? null : null;
  }
  if (lastCopier === null) array.copyWithin(to, from, from + lengthBytes);
  else lastCopier(to, from, lengthBytes);
}

/** Has copies within this buffer done by a kernel. */
export function accelerateCopies(buffer: ArrayBuffer, copier: Copier): void {
  copiers.set(buffer, copier);
}

const NOTHING = new ArrayBuffer(0);

/** A region with the views that the copies need. Once it has been revoked it has no bytes. */
export class MappedRegion implements MemoryRegion {
  /** Guest address of its first byte. */
  readonly guestAddress: number;
  /** Bytes in it. */
  size: number;
  /** What it is a slice of. */
  buffer: ArrayBuffer;
  /** Where in `buffer` it starts. */
  bufferOffset: number;
  /** Exactly the region. To copy into; never to be indexed, see the theory of operation. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Exactly the region, fast at any offset. */
  view: DataView<ArrayBuffer>;
  /** Copies within the buffer, if there is a kernel for it. */
  #copy: Copier | null;
  /** Where its first byte lies in this process; 0 if that is not known. */
  hostAddress: number;
  /** Who keeps views of it. */
  readonly holders: MemoryHolders = new MemoryHolders();
  /** Told of every write through `copyIn`; null if none is wanted. Set by `GuestMemory`. */
  dirtyLog: DirtyLog | null = null;

  /**
   * Maps a region.
   * @param region what to map; GuestError `memory-map-invalid` if it does not lie in its buffer.
   */
  constructor(region: MemoryRegion) {
    const { guestAddress, size, buffer, bufferOffset } = region;
    if (
      !Number.isSafeInteger(guestAddress) || guestAddress < 0 || !Number.isSafeInteger(guestAddress + size)
    ) {
      throw mapInvalid(region, "its addresses must be integers from 0 to 2^53 - 1");
    }
    if (!Number.isSafeInteger(size) || size < 1) throw mapInvalid(region, "it must hold at least one byte");
    if (
      !Number.isSafeInteger(bufferOffset) || bufferOffset < 0 || bufferOffset + size > buffer.byteLength
    ) {
      throw mapInvalid(region, `it must lie within its buffer of ${buffer.byteLength} bytes`);
    }
    if ((bufferOffset - guestAddress) % 16 !== 0) {
      throw mapInvalid(region, "guestAddress and bufferOffset must agree modulo 16");
    }
    this.guestAddress = guestAddress;
    this.size = size;
    this.buffer = buffer;
    this.bufferOffset = bufferOffset;
    this.bytes = new Uint8Array(buffer, bufferOffset, size);
    this.view = new DataView(buffer, bufferOffset, size);
    this.#copy = copiers.get(buffer) ?? null;
    this.hostAddress = region.hostAddress ?? 0;
  }

  /**
   * Takes the memory away, before it is unmapped: nothing that was made of this region reaches it any more.
   * What comes late meets a GuestError (an address), a RangeError (a copy, a ring), or does nothing.
   */
  revoke(): void {
    this.holders.letGo();
    this.size = 0;
    this.buffer = NOTHING;
    this.bufferOffset = 0;
    this.bytes = new Uint8Array(NOTHING);
    this.#copy = null;
    this.view = new DataView(NOTHING);
    this.hostAddress = 0;
    this.dirtyLog = null;
  }

  /**
   * Copies `length` bytes from `offset` of the region to `target[at]` on. The caller has checked both ranges.
   */
  copyOut(offset: number, target: Uint8Array, at: number, length: number): void {
    // Within an arena no view is needed, which would be garbage.
    if (length > TINY_COPY && this.#copy !== null && bufferOf(target) === this.buffer) {
      this.#copy(target.byteOffset + at, this.bufferOffset + offset, length);
    } else if (length > SHORT_COPY) {
      target.set(new Uint8Array(this.buffer, this.bufferOffset + offset, length), at);
    } else {
      const view = this.view;
      for (let i = 0; i < length; i++) target[at + i] = view.getUint8(offset + i);
    }
  }

  /**
   * Copies `length` bytes from `source[from]` on to `offset` of the region. The caller has checked both
   * ranges.
   */
  copyIn(offset: number, source: Uint8Array, from: number, length: number): void {
    if (length > TINY_COPY && this.#copy !== null && bufferOf(source) === this.buffer) {
      this.#copy(this.bufferOffset + offset, source.byteOffset + from, length);
    } else if (length > SHORT_COPY) {
      this.bytes.set(new Uint8Array(source.buffer, source.byteOffset + from, length), offset);
    } else {
      const view = this.view;
      for (let i = 0; i < length; i++) view.setUint8(offset + i, source[from + i]);
    }
    if (this.dirtyLog !== null && length > 0) this.dirtyLog.mark(this.guestAddress + offset, length);
  }
}

/** The error for a region that cannot be, and what it must be instead. */
function mapInvalid(region: MemoryRegion, remedy: string): GuestError {
  return new GuestError(
    "memory-map-invalid",
    `Region at ${
      hex(region.guestAddress)
    } of ${region.size} bytes (bufferOffset ${region.bufferOffset}): ${remedy}`,
  );
}

/** A guest address as people read it. */
export function hex(address: number): string {
  return `0x${address.toString(16)}`;
}
