/**
 * A driver over the rings of a test's guest that makes every buffer available again as soon as it is back, and allocates
 * nothing meanwhile: nobody looks into the buffers.
 *
 * Entry i of the ring is buffer i for good, which holds because our devices use buffers in the order in which they come.
 *
 * @module
 */
import { GUEST_BASE, type TestGuest } from "../../rigs/vhost_user/guest.ts";

/** Entries of a ring that is driven: as many as fit where the test's guest has room for one. */
export const TREADMILL_SIZE = 64;

const VIRTQ_DESC_F_WRITE = 2;
/** VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED of a packed ring, where a driver is in its first lap. */
const AVAILABLE = 0x0080;
const BOTH = 0x8080;

/** What the buffers of a queue are. */
export interface TreadmillSetup {
  /** Guest address of the first; the others follow. */
  readonly address: number;
  /** Bytes of each. */
  readonly bytes: number;
  /** Does the device write them, as those of a receive queue? */
  readonly writable: boolean;
}

/** One queue, driven. */
export interface Treadmill {
  /** Makes all buffers available that the driver has. */
  refill(): void;
}

/** Drives queue `queue`, split or packed as the guest is. */
export function treadmill(guest: TestGuest, queue: number, setup: TreadmillSetup): Treadmill {
  return guest.layout.packed ? packed(guest, queue, setup) : split(guest, queue, setup);
}

function split(guest: TestGuest, queue: number, setup: TreadmillSetup): Treadmill {
  const { buffer } = guest.memory.regions[0];
  const { descriptors, driver, device } = guest.place(queue);
  const table = new Uint32Array(buffer, descriptors - GUEST_BASE, TREADMILL_SIZE * 4);
  const available = new Uint16Array(buffer, driver - GUEST_BASE, 2 + TREADMILL_SIZE);
  const used = new Uint16Array(buffer, device - GUEST_BASE, 2);
  for (let i = 0; i < TREADMILL_SIZE; i++) {
    const flags = setup.writable ? VIRTQ_DESC_F_WRITE : 0;
    table.set([setup.address + i * setup.bytes, 0, setup.bytes, flags], i * 4);
    available[2 + i] = i;
  }
  return { refill: () => void (available[1] = used[1] + TREADMILL_SIZE) };
}

function packed(guest: TestGuest, queue: number, setup: TreadmillSetup): Treadmill {
  const { buffer } = guest.memory.regions[0];
  const at = guest.place(queue).descriptors - GUEST_BASE;
  const ring = new Uint32Array(buffer, at, TREADMILL_SIZE * 4);
  const flags = setup.writable ? VIRTQ_DESC_F_WRITE : 0;
  let slot = 0;
  let mark = AVAILABLE;
  return {
    refill: () => {
      for (let free = 0; free < TREADMILL_SIZE; free++) {
        const word = slot * 4;
        const bits = ring[word + 3] >>> 16 & BOTH;
        if (bits !== 0 && bits !== BOTH) return;
        ring[word] = setup.address + slot * setup.bytes;
        ring[word + 1] = 0;
        ring[word + 2] = setup.bytes;
        ring[word + 3] = (flags | mark) << 16 | slot;
        if (++slot < TREADMILL_SIZE) continue;
        slot = 0;
        mark ^= BOTH;
      }
    },
  };
}
