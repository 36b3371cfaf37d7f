/**
 * A virtqueue as the driver sees it, whatever its layout: `SplitDriverRing` and `PackedDriverRing` implement it.
 * @module
 */
import type { VirtqueueSetup } from "../../core/virtqueue.ts";

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
  /** Guest address of the indirect tables, one for each entry of the ring; unused if `indirectUse` is `never`. */
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
  /** Adds a chain under `token`, 0 to 2^31 - 1. False if there is no room; the device sees it after `publish`. */
  add(list: BufferList, token: number): boolean;
  /** Shows the device all that was added. True if it wants to be kicked. */
  publish(): boolean;
  /** The token of the next chain that the device has used, or `NOTHING_USED`, or `BAD_USED`. */
  takeUsed(): number;
  /** Tells the device that interrupts are a waste for now. */
  disableInterrupts(): void;
  /** Asks the device to interrupt at the next used chain. True if one is there already: look before going to sleep. */
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
   * Appends `length` bytes at `address` in up to `pieces` pieces: one, or the first `headBytes` and the rest in equal
   * parts. Empty pieces are left out, since no descriptor may have length 0.
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

/** A full memory barrier: an atomic operation on a cell of our own orders all stores before it and loads after it. */
export function fence(): void {
  Atomics.add(fenceCell, 0, 1);
}
