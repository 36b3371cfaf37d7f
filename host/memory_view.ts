/**
 * Memory that another thread of this process has mapped, as an ArrayBuffer.
 * @module
 */
import { NativeCopier } from "./native_copier.ts";

/** A view that is taken back before the memory is unmapped: a later access would end the process. */
export class MemoryView implements Disposable {
  /** The memory. Of length 0 once it has been taken back. */
  readonly buffer: ArrayBuffer;
  /** Copies to and from the memory. */
  readonly copier: NativeCopier;

  /** Sees `lengthBytes` bytes from `address` on, as somebody has mapped them. RangeError for address 0. */
  constructor(address: bigint, lengthBytes: number) {
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new RangeError("Cannot see memory at address 0: nothing is mapped there");
    this.buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes);
    this.copier = new NativeCopier(address, lengthBytes);
  }

  /** Empties every view of it. */
  [Symbol.dispose](): void {
    this.copier[Symbol.dispose]();
    if (this.buffer.byteLength > 0) this.buffer.transfer();
  }
}
