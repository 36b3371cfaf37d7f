/**
 * Numbers of the pcapng format, and the options of its blocks.
 * @module
 */
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
/** Block types that the format defines; custom blocks are the last two. */
const BLOCK_TYPES = new Set([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, BLOCK_SECTION_HEADER, 0xbad, 0x4000_0bad]);

/** Is this the type of a block that the format defines? */
export function isBlockType(type: number): boolean {
  return BLOCK_TYPES.has(type);
}
/** The byte-order magic of a section header, in the writer's byte order. */
export const BYTE_ORDER_MAGIC = 0x1a2b3c4d;

/** The longest block that is held whole; a longer one is read as it passes. */
export const MAX_HELD_BLOCK_BYTES: number = MAX_CAPTURED_BYTES + 128 * 1024;
/** The most interfaces of a section of which packets are read; the obsolete Packet block cannot name more either. */
export const MAX_INTERFACES = 65_536;
/** Bytes that every block has: type, length, and the length again. */
export const LEAST_BLOCK_BYTES = 12;

/** An option's code: the end of options. */
export const OPTION_END = 0;
/** An option's code: flags of a packet. */
export const OPTION_PACKET_FLAGS = 2;
/** Bytes of the longest option that is of interest. */
export const MAX_OPTION_BYTES = 8;
const OPTION_TIMESTAMP_RESOLUTION = 9;
const OPTION_FCS_LENGTH = 13;
const OPTION_TIMESTAMP_OFFSET = 14;

/**
 * Takes what one option of an interface says. False if its value is impossible.
 * @param view holds its value at `at`; @param code its code; @param size its bytes; @param target the interface described
 */
export function takeInterfaceOption(
  view: DataView,
  at: number,
  littleEndian: boolean,
  code: number,
  size: number,
  target: CaptureInterface,
): boolean {
  if (code === OPTION_TIMESTAMP_RESOLUTION && size === 1) target.setResolution(view.getUint8(at));
  else if (code === OPTION_FCS_LENGTH && size === 1) return target.setFcsLength(view.getUint8(at));
  else if (code === OPTION_TIMESTAMP_OFFSET && size === 8) {
    target.offsetSeconds = view.getBigInt64(at, littleEndian);
  }
  return true;
}
