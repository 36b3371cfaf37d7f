/**
 * A driver that makes the same buffers available over and over, for a nanosecond or two each: nobody looks into them.
 * @module
 */

/** Entries of every ring. */
export const RING_SIZE = 256;
/** Bytes of guest memory that a ring takes. */
export const RING_BYTES = 0x3000;

/** One ring of the driver. */
export interface Ring {
  /** Makes buffers available: as many as it was told at the start, or as have come back. */
  refill(): void;
}

/** What a ring is made of. */
export interface RingSetup {
  /** The guest's memory where the ring lies. */
  readonly buffer: ArrayBuffer;
  /** First byte of the ring in `buffer`; RING_BYTES of them. Descriptors, then what the driver writes, then the device. */
  readonly at: number;
  /** Guest address of each of the RING_SIZE buffers. */
  readonly addresses: readonly number[];
  /** Bytes of each buffer. */
  readonly bytes: number;
  /** Flags of each descriptor: VIRTQ_DESC_F_WRITE 2, VIRTQ_DESC_F_INDIRECT 4. */
  readonly flags: number;
  /** How many are made available each time; "returned" for as many as the device has used since (split rings only). */
  readonly each: number | "returned";
}

/** Where the parts of a ring lie, for `buildQueue`. */
export function ringAddresses(
  guestAddress: number,
): { size: number; descriptors: number; driver: number; device: number } {
  return {
    size: RING_SIZE,
    descriptors: guestAddress,
    driver: guestAddress + 0x1000,
    device: guestAddress + 0x2000,
  };
}

/** A split ring; entry i is always buffer i. */
export function splitRing(setup: RingSetup): Ring {
  const { buffer, at, addresses, bytes, flags, each } = setup;
  const descriptors = new Uint32Array(buffer, at, RING_SIZE * 4);
  const available = new Uint16Array(buffer, at + 0x1000, RING_SIZE + 3);
  const used = new Uint16Array(buffer, at + 0x2000, 2);
  for (let i = 0; i < RING_SIZE; i++) {
    descriptors.set(
      [addresses[i] >>> 0, Math.floor(addresses[i] / 2 ** 32), bytes, flags],
      i * 4,
    );
    available[2 + i] = i;
  }
  if (each !== "returned") return { refill: () => void (available[1] += each) };
  return { refill: () => void (available[1] = used[1] + RING_SIZE) };
}

/** A packed ring; slot i is always buffer i. Throws if it is to look what the device has used. */
export function packedRing(setup: RingSetup): Ring {
  const { buffer, at, addresses, bytes, flags, each } = setup;
  if (each === "returned") {
    throw new Error("Cannot refill a packed ring by what has come back: give a number");
  }
  const ring = new Uint32Array(buffer, at, RING_SIZE * 4);
  let slot = 0;
  let mark = 0x0080;
  const makeAvailable = (): void => {
    const word = slot * 4;
    ring[word] = addresses[slot] >>> 0;
    ring[word + 1] = Math.floor(addresses[slot] / 2 ** 32);
    ring[word + 2] = bytes;
    ring[word + 3] = (flags | mark) << 16 | slot;
    if (++slot < RING_SIZE) return;
    slot = 0;
    mark ^= 0x8080;
  };
  return {
    refill: () => {
      for (let i = 0; i < each; i++) makeAvailable();
    },
  };
}
