/**
 * A guest for the tests of the queues: memory in several regions, and byte access to it that shares no code
 * with core.
 * @module
 */
import { GuestMemory, type MemoryRegion } from "../../../rings/memory.ts";

/** Two regions that touch at 0x14000, and one apart from them: [guest address, size]. */
export const LAYOUT: readonly (readonly [number, number])[] = [
  [0x10000, 0x4000],
  [0x14000, 0x4000],
  [0x1_0000_0000, 0x4000],
];

/** The memory of a test guest. */
export class TestGuest {
  /** What the device gets. */
  readonly memory: GuestMemory;
  readonly #regions: readonly MemoryRegion[];

  /** Makes zeroed regions, each in a buffer of its own that is larger than it. */
  constructor(layout: readonly (readonly [number, number])[] = LAYOUT) {
    this.#regions = layout.map(([guestAddress, size]) => ({
      guestAddress,
      size,
      buffer: new ArrayBuffer(size + 96),
      bufferOffset: 64,
    }));
    this.memory = new GuestMemory(this.#regions);
  }

  /** The byte at an address. */
  get(address: number): number {
    const [bytes, at] = this.#locate(address);
    return bytes[at];
  }

  /** Sets the byte at an address. */
  set(address: number, value: number): void {
    const [bytes, at] = this.#locate(address);
    bytes[at] = value;
  }

  /** A little-endian number of `bytes` bytes. */
  number(address: number, bytes: number): number {
    let value = 0;
    for (let i = bytes - 1; i >= 0; i--) value = value * 256 + this.get(address + i);
    return value;
  }

  /** Sets a little-endian number of `bytes` bytes. */
  setNumber(address: number, bytes: number, value: number): void {
    let rest = value;
    for (let i = 0; i < bytes; i++) {
      this.set(address + i, rest % 256);
      rest = Math.floor(rest / 256);
    }
  }

  /** A copy of bytes. */
  bytes(address: number, length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, (_, i) => this.get(address + i));
  }

  /** Sets bytes. */
  setBytes(address: number, bytes: Uint8Array): void {
    bytes.forEach((byte, i) => this.set(address + i, byte));
  }

  /**
   * Sets a descriptor: `last` is `next` in a split ring or table, and the id in a packed ring, before the
   * flags there.
   */
  setDescriptor(at: number, address: number, length: number, first: number, second: number): void {
    this.setNumber(at, 8, address);
    this.setNumber(at + 8, 4, length);
    this.setNumber(at + 12, 2, first);
    this.setNumber(at + 14, 2, second);
  }

  /** Every region as bytes, for garbage. */
  *spans(): Generator<Uint8Array<ArrayBuffer>> {
    for (const { buffer, bufferOffset, size } of this.#regions) {
      yield new Uint8Array(buffer, bufferOffset, size);
    }
  }

  #locate(address: number): [Uint8Array<ArrayBuffer>, number] {
    for (const region of this.#regions) {
      const at = address - region.guestAddress;
      if (at >= 0 && at < region.size) {
        return [new Uint8Array(region.buffer), region.bufferOffset + at];
      }
    }
    throw new Error(`The test looks for memory at 0x${address.toString(16)}, where there is none`);
  }
}
