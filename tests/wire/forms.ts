/**
 * Other forms of a frame: the same packet behind tags and encapsulations, and in other dresses of IP.
 * @module
 */

/** A frame with `bytes` put in at `at`. */
export function insert(frame: Uint8Array, at: number, bytes: readonly number[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...frame.subarray(0, at), ...bytes, ...frame.subarray(at)]);
}

/** The frame behind these tags, as words of type and TCI, the outermost first. */
export function tagged(frame: Uint8Array, ...tags: readonly (readonly [number, number])[]) {
  const bytes = tags.flat().flatMap((word) => [word >>> 8, word & 0xff]);
  return insert(frame, 12, bytes);
}

/** The frame in LLC/SNAP: its type behind an 802.3 length. */
export function snap(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = frame.length - 14 + 8;
  return insert(frame, 12, [length >>> 8, length & 0xff, 0xaa, 0xaa, 3, 0, 0, 0]);
}

/** The packet in a PPPoE session. */
export function pppoe(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = frame.length - 14 + 2;
  const protocol = frame[12] === 0x08 ? 0x21 : 0x57;
  const head = [0x88, 0x64, 0x11, 0, 0, 1, length >>> 8, length & 0xff, 0, protocol];
  return Uint8Array.from([...frame.subarray(0, 12), ...head, ...frame.subarray(14)]);
}

/** The packet behind two MPLS labels. */
export function mpls(frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = [0x88, 0x47, 0, 1, 0x00, 64, 0, 1, 0x01, 64];
  return Uint8Array.from([...frame.subarray(0, 12), ...head, ...frame.subarray(14)]);
}

/** The IPv4 packet with options put in, header length, total length and checksum made right. */
export function withOptions(frame: Uint8Array, options: readonly number[]): Uint8Array<ArrayBuffer> {
  const longer = insert(frame, 34, options);
  const view = new DataView(longer.buffer);
  longer[14] += options.length / 4;
  view.setUint16(16, view.getUint16(16) + options.length);
  view.setUint16(24, 0);
  let sum = 0;
  for (let at = 14; at < 34 + options.length; at += 2) sum += view.getUint16(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(24, ~((sum & 0xffff) + (sum >>> 16)));
  return longer;
}

/**
 * The IPv6 packet with an extension header put in; `bytes` is a multiple of 8, its first byte is filled in.
 */
export function withExtension(
  frame: Uint8Array,
  type: number,
  bytes: readonly number[],
): Uint8Array<ArrayBuffer> {
  const longer = insert(frame, 54, [frame[20], ...bytes.slice(1)]);
  longer[20] = type;
  const view = new DataView(longer.buffer);
  view.setUint16(18, view.getUint16(18) + bytes.length);
  return longer;
}
