/**
 * One region of the guest's memory, and the copies in and out of it.
 * @module
 */
import { GuestError } from "./errors.ts";

/** A piece of the guest's address space and where it lies in this process. */
export interface MemoryRegion {
  /** Guest address of its first byte; below 2^53. */
  readonly guestAddress: number;
  /** Bytes in it. */
  readonly size: number;
  /** What it is a slice of. */
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` it starts. Equal to `guestAddress` modulo 16, so that aligned rings are aligned here too. */
  readonly bufferOffset: number;
  /** What copies longer pieces quicker than the language does; left out: nothing. */
  readonly copier?: RegionCopier;
}

/**
 * Copies between one region and frames. The language needs a view for every copy, which costs more than a short copy
 * itself and is garbage afterwards; a host can do without. Both ranges have been checked; throws if the region is gone.
 */
export interface RegionCopier {
  /** Copies `length` bytes from `offset` of the region to `target[at]` on. */
  copyOut(offset: number, target: Uint8Array, at: number, length: number): void;
  /** Copies `length` bytes from `source[from]` on to `offset` of the region. */
  copyIn(offset: number, source: Uint8Array, from: number, length: number): void;
}

/** Remembers which pages of the guest's memory this process has written, for a migration. */
export interface DirtyLog {
  /**
   * These `lengthBytes` (at least 1) from `guestAddress` on have been written. Called after the write: whoever copies
   * the page clears its mark first. Must not throw.
   */
  mark(guestAddress: number, lengthBytes: number): void;
}

if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1) {
  throw new Error("Cannot work rings in place on a big-endian host: use a little-endian one");
}

/** Copies up to this length go byte by byte: making a view costs more than a few bytes. Measured, see the bench. */
const SHORT_COPY = 24;

/** A region with the views that the copies need. */
export class MappedRegion implements MemoryRegion {
  /** Guest address of its first byte. */
  readonly guestAddress: number;
  /** Bytes in it. */
  readonly size: number;
  /** What it is a slice of. */
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` it starts. */
  readonly bufferOffset: number;
  /** Exactly the region. To copy into; never to be indexed, see the theory of operation. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Exactly the region, fast at any offset. */
  readonly view: DataView<ArrayBuffer>;
  readonly #copier: RegionCopier | null;
  /** Told of every write through `copyIn`; null if nobody asks. Set by `GuestMemory`. */
  dirtyLog: DirtyLog | null = null;

  /** Maps a region. @param region what to map; GuestError `memory-map-invalid` if it does not lie in its buffer. */
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
    this.#copier = region.copier ?? null;
  }

  /** Copies `length` bytes from `offset` of the region to `target[at]` on. The caller has checked both ranges. */
  copyOut(offset: number, target: Uint8Array, at: number, length: number): void {
    if (length > SHORT_COPY) {
      if (this.#copier !== null) this.#copier.copyOut(offset, target, at, length);
      else target.set(new Uint8Array(this.buffer, this.bufferOffset + offset, length), at);
      return;
    }
    const view = this.view;
    for (let i = 0; i < length; i++) target[at + i] = view.getUint8(offset + i);
  }

  /** Copies `length` bytes from `source[from]` on to `offset` of the region. The caller has checked both ranges. */
  copyIn(offset: number, source: Uint8Array, from: number, length: number): void {
    if (length > SHORT_COPY) {
      if (this.#copier !== null) this.#copier.copyIn(offset, source, from, length);
      else this.bytes.set(new Uint8Array(source.buffer, source.byteOffset + from, length), offset);
    } else {
      const view = this.view;
      for (let i = 0; i < length; i++) view.setUint8(offset + i, source[from + i]);
    }
    if (this.dirtyLog !== null && length > 0) this.dirtyLog.mark(this.guestAddress + offset, length);
  }
}

/** The error for a region that cannot be, and what it must be instead. */
export function mapInvalid(region: MemoryRegion, remedy: string): GuestError {
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
