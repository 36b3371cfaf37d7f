/**
 * Copies between mapped memory and frames by the C library.
 *
 * Nothing is allocated: an address that is made by adding a BigInt to a BigInt never becomes an object on its way into a
 * native call, if what is added was a small integer. (Hence the length is one plus the rest of it, and an offset counts from
 * the gibibyte that it lies in.) Measured, Deno 2.9: 33 ns for 1448 bytes where a view and
 * `set` take 44, and 12 where they take 25 for 64 bytes.
 * @module
 */
import type { RegionCopier } from "../core/memory_region.ts";
import { addressOf, libc, type LibcSymbols } from "./libc.ts";

const ONE = 1n;
const GIBIBYTE = 2 ** 30;

/** Copies to and from one mapping. Dispose of it before the mapping is unmapped. */
export class NativeCopier implements RegionCopier, Disposable {
  readonly #c: LibcSymbols = libc();
  /** Where each gibibyte of the mapping starts. */
  readonly #addresses: readonly bigint[];
  #isMapped = true;
  /** Where the bytes lie that were used last: the storage of all frames is a single array, as a rule. */
  #known: Uint8Array | null = null;
  #knownAddress = 0n;

  /** @param address where the mapping starts in this process; @param lengthBytes how long it is */
  constructor(address: bigint, lengthBytes: number) {
    this.#addresses = Array.from(
      { length: Math.ceil(lengthBytes / GIBIBYTE) },
      (_, index) => address + BigInt(index) * BigInt(GIBIBYTE),
    );
  }

  /** Copies out of the mapping. The caller has checked both ranges. TypeError once this is disposed of. */
  copyOut(offset: number, target: Uint8Array, at: number, length: number): void {
    if (target !== this.#known) this.#learn(target);
    const gibibyte = offset / GIBIBYTE | 0;
    this.#c.memcpy(
      this.#knownAddress + BigInt(at | 0),
      this.#addresses[gibibyte] + BigInt(offset - gibibyte * GIBIBYTE | 0),
      ONE + BigInt(length - 1 | 0),
    );
  }

  /** Copies into the mapping. The caller has checked both ranges. TypeError once this is disposed of. */
  copyIn(offset: number, source: Uint8Array, from: number, length: number): void {
    if (source !== this.#known) this.#learn(source);
    const gibibyte = offset / GIBIBYTE | 0;
    this.#c.memcpy(
      this.#addresses[gibibyte] + BigInt(offset - gibibyte * GIBIBYTE | 0),
      this.#knownAddress + BigInt(from | 0),
      ONE + BigInt(length - 1 | 0),
    );
  }

  /** The memory is going to be unmapped: a copy from now on throws. */
  [Symbol.dispose](): void {
    this.#isMapped = false;
    this.#known = null;
  }

  #learn(bytes: Uint8Array): void {
    if (!this.#isMapped) throw new TypeError("Cannot copy to or from memory that has been unmapped");
    // Short arrays may be moved by the collector until their buffer is asked for.
    this.#knownAddress = addressOf(
      new Uint8Array(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length),
    );
    this.#known = bytes;
  }
}
