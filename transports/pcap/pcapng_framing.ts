/**
 * The frame of a pcapng block: its type, its length, and the length once more at its end. A file that lies about them is
 * refused at the offset of the lie.
 * @module
 */
import type { ByteWindow } from "./byte_source.ts";
import { MAX_BLOCK_BYTES } from "./pcapng_blocks.ts";

/** Bytes that every block has: type, length, and the length again. */
export const LEAST_BLOCK_BYTES = 12;

/** The length of the block at `position`, of which LEAST_BLOCK_BYTES are there, in bytes. Throws HostError. */
export function blockLength(window: ByteWindow, littleEndian: boolean): number {
  const length = window.view.getUint32(window.position + 4, littleEndian);
  if (length < LEAST_BLOCK_BYTES || length % 4 !== 0) {
    throw window.error(
      window.offset + 4,
      `block length ${length} is not a multiple of 4 of at least ${LEAST_BLOCK_BYTES}`,
    );
  }
  return length;
}

/**
 * Brings a whole block into the window and checks that its two lengths agree. Throws HostError, also for a length that is
 * not from `leastLength` to MAX_BLOCK_BYTES.
 */
export function holdBlock(
  window: ByteWindow,
  littleEndian: boolean,
  type: number,
  length: number,
  leastLength: number,
): void {
  const { offset } = window;
  if (length < leastLength || length > MAX_BLOCK_BYTES) {
    throw window.error(
      offset + 4,
      `block length ${length} of type ${type} is not from ${leastLength} to ${MAX_BLOCK_BYTES}; the file is damaged`,
    );
  }
  if (!window.ensure(length)) {
    throw window.error(
      offset,
      `a block of type ${type} is cut off: ${window.available} of ${length} bytes are there`,
    );
  }
  const repeated = window.view.getUint32(window.position + length - 4, littleEndian);
  checkRepeated(window, repeated, length, offset);
}

/** Steps over a block of any length, and checks that its two lengths agree. Throws HostError. */
export function stepOverBlock(
  window: ByteWindow,
  littleEndian: boolean,
  type: number,
  length: number,
): void {
  const { offset } = window;
  if (!window.skip(length - 4) || !window.ensure(4)) {
    const there = window.offset + window.available - offset;
    throw window.error(offset, `a block of type ${type} is cut off: ${there} of ${length} bytes are there`);
  }
  checkRepeated(window, window.view.getUint32(window.position, littleEndian), length, offset);
  window.advance(4);
}

function checkRepeated(window: ByteWindow, repeated: number, length: number, offset: number): void {
  if (repeated === length) return;
  throw window.error(
    offset + length - 4,
    `the block's length is ${length} at its start and ${repeated} at its end; the file is damaged`,
  );
}
