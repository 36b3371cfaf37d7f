/**
 * Checksums over frames in one or several pieces.
 * @module
 */
import type { Frame } from "../core/frame.ts";
import { addToSum, fold, storeChecksum, swap16 } from "../wire/checksum.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../wire/virtio_net_header.ts";

/** Where the checksum is in a UDP header. */
export const UDP_CHECKSUM = 6;

/** Adds all bytes of the frame from `at` (in its first piece's storage) to its end to `sum`. */
export function addFrameToSum(frame: Frame, at: number, sum: number): number {
  const first = frame.start + frame.length - at;
  let total = addToSum(frame.view, at, first, sum);
  let isOdd = (first & 1) === 1;
  for (let piece = frame.next; piece !== null; piece = piece.next) {
    const part = fold(addToSum(piece.view, piece.start, piece.length, 0));
    // A piece that starts at an odd place has all its bytes in the other half of the 16-bit words.
    total += isOdd ? swap16(part) : part;
    if ((piece.length & 1) === 1) isOdd = !isOdd;
  }
  return fold(total);
}

/**
 * Computes the transport checksum from `startAt` to the end of the frame, on top of the pseudo header's sum, and stores it at
 * `checksumAt`. Both are offsets in the storage of the first piece.
 */
export function storeFullChecksum(
  frame: Frame,
  startAt: number,
  checksumAt: number,
  pseudoSum: number,
): void {
  frame.view.setUint16(checksumAt, 0);
  storeChecksum(frame.view, checksumAt, addFrameToSum(frame, startAt, pseudoSum));
}

/**
 * Completes the checksum of an ordinary frame with NEEDS_CSUM, wherever it is (virtio 1.2, section 5.1.6.2). False, and
 * nothing is done, if that is not in the first piece.
 */
export function completeChecksum(frame: Frame): boolean {
  const { view, header, start } = frame;
  const checksumAt = start + header.csumStart + header.csumOffset;
  if (checksumAt + 2 > start + frame.length) return false;
  // The field holds the pseudo header's sum already, so that the sum over everything includes it.
  storeFullChecksum(frame, start + header.csumStart, checksumAt, view.getUint16(checksumAt, true));
  if (header.csumOffset === UDP_CHECKSUM) avoidNoChecksum(view, checksumAt);
  header.flags &= ~VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csumStart = 0;
  header.csumOffset = 0;
  return true;
}

/** UDP says "no checksum" by 0, so that a checksum of 0 is sent as its equal (RFC 768). */
export function avoidNoChecksum(view: DataView, checksumAt: number): void {
  if (view.getUint16(checksumAt) === 0) view.setUint16(checksumAt, 0xffff);
}
