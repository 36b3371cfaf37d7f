/**
 * The Internet checksum by vectors, for bytes in the memory of WebAssembly.
 *
 * JavaScript has no vector instructions, and WebAssembly sees no memory but its own; hence frames lie in such memory where
 * speed matters. (Measured, 1448 bytes: 37 ns against 230 ns for the plain loop.)
 * @module
 */
import { CHECKSUM_KERNEL } from "./checksum_kernel_wasm.ts";

/** Sums up the 16-bit little-endian words of `lengthBytes` bytes from `at` on; at most 131071 bytes. */
export type ChecksumKernel = (at: number, lengthBytes: number) => number;

const kernels = new WeakMap<ArrayBufferLike, ChecksumKernel>();
let compiled: WebAssembly.Module | null = null;
let latestBuffer: ArrayBufferLike | null = null;
let latestKernel: ChecksumKernel | null = null;

/**
 * Checksums over this memory are computed by vectors from now on, for as long as it does not grow. Without vectors on this
 * processor nothing changes.
 */
export function accelerateChecksums(memory: WebAssembly.Memory): void {
  try {
    compiled ??= new WebAssembly.Module(Uint8Array.fromBase64(CHECKSUM_KERNEL));
  } catch {
    return;
  }
  const { exports } = new WebAssembly.Instance(compiled, { host: { memory } });
  kernels.set(memory.buffer, exports.sum as ChecksumKernel);
  latestBuffer = null;
}

/** What sums up bytes of this buffer by vectors; null if nothing does. Asking for the same buffer again is quick. */
export function kernelOf(buffer: ArrayBufferLike): ChecksumKernel | null {
  if (buffer !== latestBuffer) {
    latestBuffer = buffer;
    latestKernel = kernels.get(buffer) ?? null;
  }
  return latestKernel;
}
