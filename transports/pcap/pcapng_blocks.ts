/**
 * Numbers of the pcapng format, and the options of its blocks.
 * @module
 */
import type { ByteWindow } from "./byte_source.ts";
import { MAX_CAPTURED_BYTES } from "./captured_packet.ts";
import type { CaptureInterface } from "./capture_interface.ts";

/** Block type: Section Header; the same in both byte orders. */
export const BLOCK_SECTION_HEADER = 0x0a0d0d0a;
/** Block type: Interface Description. */
export const BLOCK_INTERFACE = 1;
/** Block type: Packet, obsolete. */
export const BLOCK_PACKET = 2;
/** Block type: Simple Packet. */
export const BLOCK_SIMPLE_PACKET = 3;
/** Block type: Enhanced Packet. */
export const BLOCK_ENHANCED_PACKET = 6;
/** The byte-order magic of a section header, in the writer's byte order. */
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

/** The longest block that is read: a packet of the greatest length and options of 128 KiB. */
export const MAX_BLOCK_BYTES: number = MAX_CAPTURED_BYTES + 128 * 1024;
/** The most interfaces in a section. */
export const MAX_INTERFACES = 4096;

const OPTION_END = 0;
const OPTION_PACKET_FLAGS = 2;
const OPTION_TIMESTAMP_RESOLUTION = 9;
const OPTION_FCS_LENGTH = 13;
const OPTION_TIMESTAMP_OFFSET = 14;

/**
 * Reads the options of the block at `position` of the window, and takes what says how to read packets. Throws
 * HostError for an option that is longer than its block.
 * @param window holds the whole block; @param offset the block's offset in the file; @param at where in the block its
 * options begin; @param length the block's length; @param littleEndian its byte order; @param target the interface
 * that is described, or null for a packet block
 * @returns the flags of a packet; 0 if it has none
 */
export function readOptions(
  window: ByteWindow,
  offset: number,
  at: number,
  length: number,
  littleEndian: boolean,
  target: CaptureInterface | null,
): number {
  const { view, position } = window;
  const end = length - 4;
  let flags = 0;
  while (end - at >= 4) {
    const code = view.getUint16(position + at, littleEndian);
    const size = view.getUint16(position + at + 2, littleEndian);
    if (code === OPTION_END) break;
    const value = at + 4;
    if (size > end - value) {
      throw window.error(
        offset + at,
        `option ${code} has ${size} bytes, and the block ends after ${end - value}; the file is damaged`,
      );
    }
    if (target === null) {
      if (code === OPTION_PACKET_FLAGS && size === 4) flags = view.getUint32(position + value, littleEndian);
    } else if (code === OPTION_TIMESTAMP_RESOLUTION && size === 1) {
      target.setResolution(view.getUint8(position + value));
    } else if (code === OPTION_FCS_LENGTH && size === 1) {
      target.fcsBytes = view.getUint8(position + value);
    } else if (code === OPTION_TIMESTAMP_OFFSET && size === 8) {
      target.offsetSeconds = view.getBigInt64(position + value, littleEndian);
    }
    at = value + ((size + 3) & ~3);
  }
  return flags;
}
