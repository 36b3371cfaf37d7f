/**
 * The Internet checksum (RFC 1071), as sums that can be added up piece by piece.
 *
 * Sums are kept in little-endian order, because that is how this host loads words: the one's-complement sum does not
 * depend on the byte order, only its result is swapped, once, when it is stored. A *sum* here is a plain integer that
 * may exceed 16 bits; `fold` brings it back.
 *
 * @module
 */

/**
 * Adds the bytes `at` to `at + lengthBytes - 1`, which start at an even position of the checksummed whole, to `sum`.
 * `lengthBytes` is at most 65535. Reads 32 bits at a time, four accumulators wide: the adds do not wait for each other.
 */
export function addToSum(view: DataView, at: number, lengthBytes: number, sum: number): number {
  let low = 0;
  let high = 0;
  let offset = at;
  const end16 = at + (lengthBytes & ~15);
  while (offset < end16) {
    const a = view.getInt32(offset, true);
    const b = view.getInt32(offset + 4, true);
    const c = view.getInt32(offset + 8, true);
    const d = view.getInt32(offset + 12, true);
    low += (a & 0xffff) + (b & 0xffff) + (c & 0xffff) + (d & 0xffff);
    high += (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16);
    offset += 16;
  }
  const end = at + lengthBytes;
  while (offset + 2 <= end) {
    low += view.getUint16(offset, true);
    offset += 2;
  }
  if (offset < end) low += view.getUint8(offset);
  return fold(low) + fold(high) + fold(sum);
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
