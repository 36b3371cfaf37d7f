/**
 * Memory for one ring, its three parts and tables at known addresses, and the device's side worked by hand.
 * @module
 */
import { GuestMemory } from "../../../rings/memory.ts";
import type { IndirectUse, RingPlacement } from "../../../guest/driver_ring.ts";

/** Where the parts of the ring lie. */
export const DESCRIPTORS = 0x1000;
export const DRIVER = 0x8000;
export const DEVICE = 0xa000;
export const TABLES = 0xc000;

/** A memory of 128 KiB from 0 on, and a ring of `size` entries in it. */
export function placeRing(
  size: number,
  eventIndex: boolean,
  indirectUse: IndirectUse = "never",
): { memory: GuestMemory; place: RingPlacement } {
  const bytes = 0x20000;
  const memory = new GuestMemory([
    { guestAddress: 0, size: bytes, buffer: new ArrayBuffer(bytes), bufferOffset: 0 },
  ]);
  const place: RingPlacement = {
    size,
    descriptors: DESCRIPTORS,
    driver: DRIVER,
    device: DEVICE,
    eventIndex,
    indirect: indirectUse !== "never",
    tables: TABLES,
    tableEntries: 4,
    indirectUse,
  };
  return { memory, place };
}

/** The device of a split ring: returns `id` as used element number `index`, and shows it. */
export function useSplit(memory: GuestMemory, size: number, index: number, id: number, length: number): void {
  memory.writeU32(DEVICE + 4 + 8 * (index % size), id);
  memory.writeU32(DEVICE + 8 + 8 * (index % size), length);
  memory.writeU16(DEVICE + 2, (index + 1) & 0xffff);
}

/**
 * The fields of the descriptor at `address`: of a split ring flags and next, of a packed one id and flags are
 * last.
 */
export function descriptorAt(memory: GuestMemory, address: number): number[] {
  return [
    memory.readAddress(address),
    memory.readU32(address + 8),
    memory.readU16(address + 12),
    memory.readU16(address + 14),
  ];
}
