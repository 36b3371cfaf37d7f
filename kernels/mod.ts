/**
 * The kernels: small WebAssembly functions that move bytes within one memory. JavaScript decides, kernels
 * move.
 *
 * Their sources are `*.as.ts` beside this file, in AssemblyScript, which is TypeScript with the types of the
 * machine. `deno task kernels` builds them; a test builds them again and compares.
 * @module
 */
import { KERNELS } from "./kernels_wasm.ts";

/**
 * What the kernels can do. Every number is a count, or a place in their memory: below 4 GiB, but for those of
 * `copy`.
 */
export interface Kernels {
  /**
   * Writes the items of a burst into chains that the device writes; returns how many are done. See
   * `ring.as.ts`.
   */
  enqueue(block: number): number;
  /** Copies chains that the device reads into the items of a burst; returns how many are done. */
  dequeue(block: number): number;
  /**
   * Copies `lengthBytes` bytes from one place to another; the two may overlap. Nothing is checked but the
   * memory's end.
   */
  copy(to: number, from: number, lengthBytes: number): void;
  /**
   * Merges the segments of a burst into what is held; returns in front of which it stopped. See
   * `coalesce.as.ts`.
   */
  coalesce(block: number): number;
  /**
   * Sums up the 16-bit little-endian words of 0 to 131071 bytes; the result is below 0x20000. See
   * `checksum.as.ts`.
   */
  sum(at: number, lengthBytes: number): number;
  /** Makes a segment of a large TCP frame. See `segment.as.ts`. */
  cut(
    to: number,
    header: number,
    headerBytes: number,
    payload: number,
    payloadBytes: number,
    ipAt: number,
    tcpAt: number,
    index: number,
    payloadAt: number,
    pseudoSum: number,
    flags: number,
  ): void;
}

let module: WebAssembly.Module | null = null;

/** Makes the kernels of this memory, which must be shared and have 64-bit addresses. */
export function instantiate(memory: WebAssembly.Memory): Kernels {
  module ??= new WebAssembly.Module(Uint8Array.fromBase64(KERNELS));
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as Kernels;
}
