/**
 * What is held of a flow as a row of numbers, and the block that tells the coalescing kernel what to do.
 *
 * This file is read by TypeScript and by AssemblyScript: plain constants only. Words of rows are counted from
 * the start of the row; offsets in the block are bytes.
 * @module
 */

/** Words of a row: two cache lines. The first is all that rules without strictness look at. */
export const ROW_WORDS = 32;
/** Which VLAN it is of. */
export const VLAN = 0;
/** The outer VLAN tag; 0 if there is none, and no inner one then. */
export const OUTER_TAG = 1;
/** Sequence number of the first byte. */
export const SEQ = 2;
/** Bytes of payload. */
export const PAYLOAD_BYTES = 3;
/** The IP length field. */
export const IP_LENGTH = 4;
/** Bytes in all pieces of the frame. */
export const TOTAL_BYTES = 5;
/** Segments merged. */
export const SEGMENTS = 6;
/** 1 if anything has been merged. */
export const CHANGED = 7;
/** Acknowledgment number. */
export const ACK = 8;
/** Window, as in the header. */
export const WINDOW = 9;
/** The 16-bit word of data offset and flags. */
export const OFFSET_FLAGS = 10;
/** 1 if it has the timestamp block. */
export const HAS_TIMESTAMP = 11;
/** Addresses and ports, as they lie in the headers: 3 words of IPv4, 9 of IPv6. */
export const KEY = 12;
/** The inner VLAN tag. */
export const INNER_TAG = 21;
/** What of the IP header must be equal. */
export const TRAITS = 22;
/** The queue pair. */
export const QUEUE_PAIR = 23;
/** The latest TSval. */
export const TS_VALUE = 24;
/** The latest TSecr. */
export const TS_ECHO = 25;
/** The smallest TTL or hop limit. */
export const HOP_LIMIT = 26;
/** Bytes of payload of the largest segment. */
export const LARGEST = 27;
/** The two MAC addresses, as they lie in the header: three words. */
export const MACS = 28;

/** u32: 4 or 6. */
export const FAMILY = 0;
/** u32: 1 for the rule book `qemu`, 0 for `strict`. */
export const IS_QEMU = 4;
/** u32: how many items there are. */
export const ITEM_COUNT = 8;
/** u32: the first item that is to be looked at. */
export const FROM = 12;
/** u32: flags of TCP that are looked at. */
export const FLAGS_MASK = 16;
/** u32: what these flags must be. */
export const FLAGS_VALUE = 20;
/** u32: 1 if segments with the timestamp block are merged. */
export const TIMESTAMPS = 24;
/** u32: 1 if segments with ECN are merged. */
export const ECN = 28;
/** u32: largest value of the IP length field. */
export const MAX_IP_LENGTH = 32;
/** u32: most bytes of a merged frame. */
export const MAX_BYTES = 36;
/** u32: most segments of a merged frame. */
export const MAX_SEGMENTS = 40;
/**
 * u32: where the places of the shortcut lie: two pairs each of a tag and the number of its flow plus 1, or 0.
 */
export const PLACES = 44;
/** u32: by how many bits a hash is shifted to become the number of a place. */
export const SHIFT = 48;
/** u32: where the rows of the flows lie. */
export const ROWS = 52;
/** u32, result: 1 if the kernel has found the checksums right of the segment in front of which it stopped. */
export const IS_RIGHT = 56;
/** Where the items begin, 16 bytes each. */
export const LIST = 64;
/** Most items. */
export const MAX_ITEMS = 64;
/** Bytes of the whole block. */
export const FLOW_BLOCK_BYTES = 1088;

// Of an item, the first word: where the frame begins; once done, where its payload does.
/** Of an item, u32: bytes of the frame, and `SUM`; once done, bytes of its payload. */
export const ITEM_BYTES = 4;
/** Of an item, u32: its queue pair; once done, the flow into which it is merged, or `PASSES`. */
export const ITEM_FLOW = 8;
/** Of `ITEM_BYTES`: the checksums are to be verified. */
export const SUM = 0x80000000;
/** Of `ITEM_FLOW`: the frame is one of the other IP version, which passes. */
export const PASSES = 0xffffffff;
