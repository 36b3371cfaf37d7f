/**
 * The Internet checksum (RFC 1071) as plainly as it can be written: two bytes at a time, most significant first. Slow, and
 * on purpose not the code that devices use.
 * @module
 */

/** The folded sum of the bytes `from` to `to - 1`, on top of `sum`. An odd last byte counts as if a zero followed. */
export function internetSum(bytes: Uint8Array, from = 0, to: number = bytes.length, sum = 0): number {
  let total = sum;
  for (let i = from; i < to; i += 2) {
    total += bytes[i] * 256 + (i + 1 < to ? bytes[i + 1] : 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

/** The checksum of the bytes: the complement of their sum. */
export function internetChecksum(bytes: Uint8Array, from = 0, to: number = bytes.length, sum = 0): number {
  return 0xffff - internetSum(bytes, from, to, sum);
}

/** The sum of a TCP or UDP pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1). Addresses are 4 or 16 bytes. */
export function pseudoHeaderSum(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  segmentBytes: number,
): number {
  const rest = new Uint8Array(8);
  const view = new DataView(rest.buffer);
  view.setUint32(0, segmentBytes);
  view.setUint32(4, protocol);
  return internetSum(rest, 0, 8, internetSum(destination, 0, destination.length, internetSum(source)));
}
