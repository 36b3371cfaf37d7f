/**
 * Where the kernels find what they are told: one block of numbers in the arena for each {@linkcode Burst}.
 *
 * This file is read by TypeScript and by AssemblyScript: plain constants only. Offsets are bytes from the
 * start of the block.
 * @module
 */

/** f64: where the descriptor table (split) or the ring (packed) lies in the arena. */
export const DESCRIPTORS = 0;
/** f64: where the available ring (split) lies in the arena. */
export const AVAILABLE = 8;
/** f64: where the used ring (split) lies in the arena. */
export const USED = 16;
/** f64: what may still be taken in this round, see `RoundBudget`. */
export const BUDGET = 24;
/** u32: entries of the ring. */
export const SIZE = 32;
/** u32: `PACKED`, `INDIRECT` and `READS_TABLES`. */
export const FLAGS = 36;
/** u32: most elements of a chain. */
export const MAX_ELEMENTS = 40;
/** u32: where the rows of the guest's regions lie: guest address, size, place in the arena, each an f64. */
export const REGIONS = 44;
/** u32: how many regions there are. */
export const REGION_COUNT = 48;
/** u32: where the items lie. */
export const ITEMS = 52;
/** u32: how many items there are. */
export const ITEM_COUNT = 56;
/** u32: bytes that a chain must have at least, or the first of an item. */
export const MIN_BYTES = 60;
/** u32: where in an item its number of chains is written, as le16; 0 if an item may take one chain only. */
export const COUNT_AT = 64;
/** u32: the available index (split) or slot (packed) that is read next. */
export const NEXT = 68;
/** u32: the available index as last seen (split). */
export const SEEN = 72;
/** u32: what AVAIL and USED show on a descriptor that is the device's (packed). */
export const AVAILABLE_MARK = 76;
/** u32: the used index (split) or slot (packed) that is written next. */
export const USED_NEXT = 80;
/** u32: the used index that the driver sees (split). */
export const PUBLISHED = 84;
/** u32: what AVAIL and USED are to show on a used descriptor (packed). */
export const USED_MARK = 88;
/** i32: the slot of the first used descriptor that is not shown yet, or -1 (packed). */
export const FIRST = 92;
/** u32: its flags (packed). */
export const FIRST_FLAGS = 96;
/** u32: slots that the device does not hold (packed). */
export const FREE = 100;
/** u32: where in an item a le16 stands that ends the burst if it is not 0; 0 for none. */
export const STOP_AT = 116;
/** u32, result: ring slots used (packed). */
export const SLOTS = 104;
/** u32, result: chains used. */
export const CHAINS = 108;
/**
 * u32, result: bytes of the chain that did not fit into its item; 0 if that is not why the kernel stopped.
 */
export const NEEDED = 112;
/** Where the scratch space begins: pieces of the chains of one item, 16 bytes each. */
export const PIECES = 128;
/** Most pieces of the chains of one item. */
export const MAX_PIECES = 64;
/** Chains of one item: id, bytes, slots, and a word that is not used. */
export const CHAIN_ROWS = 1152;
/** Bytes of the whole block. */
export const BLOCK_BYTES = 2176;

/** Of `FLAGS`: the ring is packed. */
export const PACKED = 1;
/** Of `FLAGS`: indirect tables may be used. */
export const INDIRECT = 2;
/**
 * Of `FLAGS`: elements of a packed ring's tables are readable, whatever they say (virtio 1.2, 2.8.8; DPDK).
 */
export const READS_TABLES = 4;
/** Of a length in an item: its last piece. */
export const LAST_PIECE = 0x80000000;

/** Of the flags of `cut`: it is IPv4. */
export const IS_V4 = 1;
/** Of the flags of `cut`: it is the last segment. */
export const IS_LAST = 2;
/** Of the flags of `cut`: the receiver computes the checksum, which is left as the pseudo header's sum. */
export const LEAVES_CHECKSUM = 4;
