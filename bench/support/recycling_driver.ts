/**
 * A driver that makes the same buffers available over and over and never looks into them. It allocates
 * nothing, and costs a nanosecond or two a buffer.
 *
 * Entry i of a ring is buffer i for good, which holds because our devices use buffers in the order in which
 * they come.
 *
 * @module
 */

/** Entries of a ring whose place `ringAddresses` gives. */
export const RING_SIZE = 256;
/** Bytes of guest memory that such a ring takes. */
export const RING_BYTES = 0x3000;

const DRIVER_AT = 0x1000;
const DEVICE_AT = 0x2000;
/**
 * VIRTQ_DESC_F_AVAIL of a packed ring, which alone is set where a driver is in its first lap; and with
 * VIRTQ_DESC_F_USED.
 */
const AVAILABLE = 0x0080;
const BOTH = 0x8080;

/** One ring of the driver. */
export interface Ring {
  /** Makes buffers available: as many as it was told at the start, or as have come back. */
  refill(): void;
}

/** What a ring is made of. */
export interface RingSetup {
  /** The guest's memory where the ring lies. */
  readonly buffer: ArrayBuffer;
  /**
   * First byte in `buffer` of the descriptors; unless told otherwise, the driver's and the device's parts
   * follow.
   */
  readonly at: number;
  /** First byte of the part that the driver writes. */
  readonly driverAt?: number;
  /** First byte of the part that the device writes. */
  readonly deviceAt?: number;
  /** Guest address of the buffer of each entry: as many as the ring has. */
  readonly addresses: readonly number[];
  /** Bytes of each buffer. */
  readonly bytes: number;
  /** Flags of each descriptor: VIRTQ_DESC_F_WRITE 2, VIRTQ_DESC_F_INDIRECT 4. */
  readonly flags: number;
  /** How many are made available each time; "returned" for as many as the device has used since. */
  readonly each: number | "returned";
}

/** Where the parts of a ring lie, for `buildQueue`. */
export function ringAddresses(
  guestAddress: number,
): { size: number; descriptors: number; driver: number; device: number } {
  return {
    size: RING_SIZE,
    descriptors: guestAddress,
    driver: guestAddress + DRIVER_AT,
    device: guestAddress + DEVICE_AT,
  };
}

/** A split ring. */
export function splitRing(setup: RingSetup): Ring {
  const { buffer, at, driverAt = at + DRIVER_AT, deviceAt = at + DEVICE_AT, addresses, bytes, flags, each } =
    setup;
  const size = addresses.length;
  const descriptors = new Uint32Array(buffer, at, size * 4);
  const available = new Uint16Array(buffer, driverAt, size + 2);
  const used = new Uint16Array(buffer, deviceAt, 2);
  for (let i = 0; i < size; i++) {
    descriptors.set(
      [addresses[i] >>> 0, Math.floor(addresses[i] / 2 ** 32), bytes, flags],
      i * 4,
    );
    available[2 + i] = i;
  }
  if (each !== "returned") return { refill: () => void (available[1] += each) };
  return { refill: () => void (available[1] = used[1] + size) };
}

/** A packed ring. */
export function packedRing(setup: RingSetup): Ring {
  const { buffer, at, addresses, bytes, flags, each } = setup;
  const size = addresses.length;
  const ring = new Uint32Array(buffer, at, size * 4);
  let slot = 0;
  let mark = AVAILABLE;
  const makeAvailable = (): void => {
    const word = slot * 4;
    ring[word] = addresses[slot] >>> 0;
    ring[word + 1] = Math.floor(addresses[slot] / 2 ** 32);
    ring[word + 2] = bytes;
    ring[word + 3] = (flags | mark) << 16 | slot;
    if (++slot < size) return;
    slot = 0;
    mark ^= BOTH;
  };
  if (each !== "returned") {
    return {
      refill: () => {
        for (let i = 0; i < each; i++) makeAvailable();
      },
    };
  }
  return {
    refill: () => {
      for (let i = 0; i < size; i++) {
        // Both bits are equal where the device has used the buffer, or the driver has never had it.
        const bits = ring[slot * 4 + 3] >>> 16 & BOTH;
        if (bits !== 0 && bits !== BOTH) return;
        makeAvailable();
      }
    },
  };
}
