/**
 * The Internet checksum (RFC 1071), as sums that can be added up piece by piece.
 *
 * Sums are kept in little-endian order, because that is how this host loads words: the one's-complement sum
 * does not depend on the byte order, only its result is swapped, once, when it is stored. A *sum* here is a
 * plain integer that may exceed 16 bits; `fold` brings it back.
 *
 * JavaScript has no vector instructions, and WebAssembly sees no memory but its own. Where speed matters,
 * frames therefore lie in such memory (`rings/arena.ts`), and a kernel adds them up. (Measured, 1448 bytes:
 * 37 ns against 230 ns for the plain loop.)
 *
 * @module
 */

/** Fewer bytes are summed up sooner than a kernel is called. */
const MIN_FOR_VECTORS = 64;

/**
 * Adds the bytes `at` to `at + lengthBytes - 1`, which start at an even position of the checksummed whole, to
 * `sum`. `lengthBytes` is at most 131071. Longer pieces of memory that `accelerateChecksums` knows are added
 * up by vectors, the rest 32 bits at a time; carries are counted, each of which is worth 1: 2^32 and 1 are
 * the same modulo 65535. (Measured: a third faster than adding 16-bit halves, or 32-bit words as doubles.)
 */
export function addToSum(view: DataView, at: number, lengthBytes: number, sum: number): number {
  if (lengthBytes >= MIN_FOR_VECTORS) {
    const kernel = kernelOf(view.buffer);
    if (kernel !== null) return kernel(view.byteOffset + at, lengthBytes) + fold(sum);
  }
  return addPlainly(view, at, lengthBytes, sum);
}

/** As `addToSum`, without vectors. */
function addPlainly(view: DataView, at: number, lengthBytes: number, sum: number): number {
  let total = 0;
  let carries = 0;
  let offset = at;
  const end16 = at + (lengthBytes & ~15);
  while (offset < end16) {
    let word = view.getInt32(offset, true);
    total = total + word | 0;
    carries += total >>> 0 < word >>> 0 ? 1 : 0;
    word = view.getInt32(offset + 4, true);
    total = total + word | 0;
    carries += total >>> 0 < word >>> 0 ? 1 : 0;
    word = view.getInt32(offset + 8, true);
    total = total + word | 0;
    carries += total >>> 0 < word >>> 0 ? 1 : 0;
    word = view.getInt32(offset + 12, true);
    total = total + word | 0;
    carries += total >>> 0 < word >>> 0 ? 1 : 0;
    offset += 16;
  }
  const end = at + lengthBytes;
  while (offset + 2 <= end) {
    carries += view.getUint16(offset, true);
    offset += 2;
  }
  if (offset < end) carries += view.getUint8(offset);
  return fold(total) + carries + fold(sum);
}

/** A sum as 16 bits, 0 to 65535, carries wrapped round. */
export function fold(sum: number): number {
  let folded = (sum & 0xffff) + (sum >>> 16);
  folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}

/** A 16-bit number in the other byte order. */
export function swap16(value: number): number {
  return (value & 0xff) << 8 | value >>> 8;
}

/** The sum of a 16-bit number given in network order, such as a length or a protocol number. */
export function sumOf16(value: number): number {
  return swap16(value & 0xffff);
}

/** Stores the complement of a sum at `at`, ready for the wire. */
export function storeChecksum(view: DataView, at: number, sum: number): void {
  view.setUint16(at, ~fold(sum) & 0xffff, true);
}

/** Stores a sum uncomplemented at `at`: the pseudo-header sum of a partial checksum (NEEDS_CSUM). */
export function storePartial(view: DataView, at: number, sum: number): void {
  view.setUint16(at, fold(sum), true);
}

/** Is the sum over data with its checksum in place right, that is, all ones? */
export function isSumRight(sum: number): boolean {
  return fold(sum) === 0xffff;
}

/** Sums up the 16-bit little-endian words of `lengthBytes` bytes from `at` on; at most 131071 bytes. */
export type ChecksumKernel = (at: number, lengthBytes: number) => number;

const kernels = new WeakMap<ArrayBufferLike, ChecksumKernel>();
let latestBuffer: ArrayBufferLike | null = null;
let latestKernel: ChecksumKernel | null = null;

/**
 * Checksums over this buffer are computed by a kernel from now on.
 * @param kernel sums up bytes of the buffer, by their offsets
 */
export function accelerateChecksums(buffer: ArrayBufferLike, kernel: ChecksumKernel): void {
  kernels.set(buffer, kernel);
  latestBuffer = null;
}

/**
 * What sums up bytes of this buffer by vectors; null if nothing does. Asking for the same buffer again is
 * quick.
 */
export function kernelOf(buffer: ArrayBufferLike): ChecksumKernel | null {
  if (buffer !== latestBuffer) {
    latestBuffer = buffer;
    latestKernel = kernels.get(buffer) ?? null;
  }
  return latestKernel;
}
