/**
 * Checksums over frames in one or several pieces.
 * @module
 */
import type { Frame } from "../core/frame.ts";
import { addToSum, fold, storeChecksum, swap16 } from "../wire/checksum.ts";

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
