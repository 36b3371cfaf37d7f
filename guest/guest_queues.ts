/**
 * The queues of a software guest, laid out in its memory before the first word with the device.
 *
 * Theory of operation. A driver tells its {@linkcode QueuePlan} which queues it uses, how long their chains
 * are and how much memory their buffers take. `build()` then makes the memory, with the rings of the
 * negotiated layout in it.
 * @module
 */
import type { Device } from "../core/device.ts";
import { HostError } from "../core/errors.ts";
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "../core/features.ts";
import { GuestMemory, type MemoryRegion } from "../rings/memory.ts";
import {
  chainCapacity,
  DESC_BYTES,
  type DriverRing,
  type IndirectUse,
  PackedDriverRing,
  type RingPlacement,
  splitAvailableBytes,
  SplitDriverRing,
  splitUsedBytes,
} from "./driver_ring.ts";
import type { SoftwareGuestOptions } from "./options.ts";

const EVENT_BYTES = 4;
const PAGE = 4096;

/** A queue as it is told to the device. */
export interface PlacedQueue {
  /** Its index. */
  readonly index: number;
  /** Where it lies. */
  readonly place: RingPlacement;
  /** Its driver's side. */
  readonly ring: DriverRing;
  /** Guest address of its buffers; -1 if it has none. */
  readonly buffers: number;
}

interface PlannedQueue {
  readonly index: number;
  readonly size: number;
  readonly tableEntries: number;
  readonly descriptors: Reservation;
  readonly driver: Reservation;
  readonly device: Reservation;
  readonly tables: Reservation | null;
  readonly buffers: Reservation | null;
}

/** What a driver asks of one queue. */
export interface QueueWish {
  /** Descriptors of the longest chain; longer ones than the ring are cut to its size. */
  readonly longest: number;
  /** Descriptors of the shortest chain: HostError if not even that fits into the ring. */
  readonly shortest: number;
  /** Bytes of memory for buffers of a ring of `size` entries; left out: none. */
  bufferBytes?(size: number): number;
}

/** Collects what the queues need until the memory can be made. */
export class QueuePlan {
  /** The features that will be agreed on. */
  readonly features: FeatureSet;
  readonly #device: Device;
  readonly #options: SoftwareGuestOptions;
  readonly #packed: boolean;
  readonly #use: IndirectUse;
  readonly #allocator: GuestMemoryAllocator;
  readonly #queues: PlannedQueue[] = [];

  /** Begins without queues. */
  constructor(device: Device, options: SoftwareGuestOptions, features: FeatureSet) {
    this.#device = device;
    this.#options = options;
    this.features = features;
    this.#packed = features.has(VIRTIO_F_RING_PACKED);
    const indirect = features.has(VIRTIO_F_INDIRECT_DESC);
    this.#use = !indirect ? "never" : options.indirect === "always" ? "always" : "chains";
    this.#allocator = new GuestMemoryAllocator(options.memoryRegions);
  }

  /** How many chains of so many descriptors a ring of `size` entries holds. */
  chainCapacity(size: number, descriptors: number): number {
    return chainCapacity(this.#use, size, descriptors);
  }

  /** Reserves memory beside that of the queues; its address is known after `build`. */
  reserve(bytes: number): Reservation {
    return this.#allocator.reserve(bytes, PAGE, false);
  }

  /**
   * Reserves ring and buffers; by ascending index. HostError if the device has no such queue, or it is too
   * small.
   */
  addQueue(index: number, { longest, shortest, bufferBytes }: QueueWish): void {
    const offered = this.#device.queueSizes[index] ?? 0;
    if (offered < 1) throw new HostError(`Cannot use queue ${index}, which the device does not have`);
    let size = Math.min(offered, this.#options.queueSize);
    if (!this.#packed) size = 2 ** Math.floor(Math.log2(size));
    if (shortest > size) {
      throw new HostError(
        `Cannot put a buffer of ${shortest} descriptors into queue ${index} of ${size} entries: lower ` +
          "descriptorsPerBuffer or raise queueSize",
      );
    }
    const allocator = this.#allocator;
    const tableEntries = this.#use === "never" ? 0 : Math.min(longest, size);
    this.#queues.push({
      index,
      size,
      tableEntries,
      descriptors: allocator.reserve(DESC_BYTES * size, 16, true),
      driver: allocator.reserve(this.#packed ? EVENT_BYTES : splitAvailableBytes(size), 4, true),
      device: allocator.reserve(this.#packed ? EVENT_BYTES : splitUsedBytes(size), 4, true),
      tables: tableEntries === 0 ? null : allocator.reserve(DESC_BYTES * tableEntries * size, 16, true),
      buffers: bufferBytes === undefined ? null : allocator.reserve(bufferBytes(size), PAGE, false),
    });
  }

  /**
   * Makes the memory and the rings in it.
   * @param storage gives the bytes of which the memory is made, as zeros
   */
  build(storage: GuestStorage = newStorage): { memory: GuestMemory; placed: PlacedQueue[] } {
    const memory = this.#allocator.build(storage);
    const eventIndex = this.features.has(VIRTIO_F_EVENT_IDX);
    const placed = this.#queues.map((queue): PlacedQueue => {
      const place: RingPlacement = {
        size: queue.size,
        descriptors: queue.descriptors.address,
        driver: queue.driver.address,
        device: queue.device.address,
        eventIndex,
        indirect: this.#use !== "never",
        tables: queue.tables?.address ?? 0,
        tableEntries: queue.tableEntries,
        indirectUse: this.#use,
      };
      const ring = this.#packed ? new PackedDriverRing(memory, place) : new SplitDriverRing(memory, place);
      return { index: queue.index, place, ring, buffers: queue.buffers?.address ?? -1 };
    });
    return { memory, placed };
  }
}

// Lays out the software guest's memory: first everything is reserved, then the regions are made.
//
// Theory of operation. A real guest's memory is not one piece: it begins somewhere, has a hole below 4 GiB,
// and its halves are mapped one by one. So the regions made here lie in pairs: the two regions of a pair
// touch each other in the guest's address space but not in ours, and a buffer may lie across that seam;
// between pairs there is a hole. Pair `p` starts at `FIRST_ADDRESS + p * PAIR_DISTANCE`, so that from the
// second pair on an address needs more than 32 bits.
//
// `reserve()` only notes what is wanted; `build()` chooses the size of the regions, gives every reservation
// its address in the order in which it was made, and makes the memory. What must be in one piece (a ring) is
// moved behind a seam instead of across it, which wastes less than the largest reservation at each seam: the
// regions are that much larger.

const FIRST_ADDRESS = 0x10_0000;
const PAIR_DISTANCE = 0x1_0000_0000;
/** All the memory that a software guest may have, in bytes. */
export const MAX_GUEST_BYTES: number = 2 ** 30;

/** A piece of guest memory that was asked for. */
export interface Reservation {
  /** Bytes. */
  readonly size: number;
  /** Its guest address is a multiple of this. */
  readonly alignment: number;
  /** Must it lie in one region? */
  readonly contiguous: boolean;
  /** Its guest address; -1 until the memory has been built. */
  address: number;
}

/** Gives `bytes` bytes of zeros, of which guest memory is made; `bufferOffset` is a multiple of 4096. */
export type GuestStorage = (bytes: number) => { buffer: ArrayBuffer; bufferOffset: number };

const newStorage: GuestStorage = (bytes) => ({ buffer: new ArrayBuffer(bytes), bufferOffset: 0 });

/** Collects reservations and builds guest memory for them. */
export class GuestMemoryAllocator {
  readonly #regionCount: number;
  readonly #reservations: Reservation[] = [];

  /**
   * Starts without reservations.
   * @param regionCount in how many regions the memory is to lie, 1 or more
   */
  constructor(regionCount: number) {
    this.#regionCount = regionCount;
  }

  /**
   * Asks for `size` bytes, 1 or more, at a multiple of `alignment`, a power of two of at most 4096. What is
   * `contiguous` lies in one region; anything else may cross from one region to the next.
   */
  reserve(size: number, alignment: number, contiguous: boolean): Reservation {
    const reservation = { size, alignment, contiguous, address: -1 };
    this.#reservations.push(reservation);
    return reservation;
  }

  /**
   * Gives every reservation its address and makes the memory. HostError if that is more than
   * `MAX_GUEST_BYTES`.
   */
  build(storage: GuestStorage = newStorage): GuestMemory {
    let total = 0;
    let largest = 0;
    for (const { size, alignment } of this.#reservations) {
      total += size + alignment;
      largest = Math.max(largest, size + alignment);
    }
    if (total > MAX_GUEST_BYTES) {
      throw new HostError(
        `Cannot give the software guest ${Math.ceil(total / 2 ** 20)} MiB of memory, the limit is ` +
          `${MAX_GUEST_BYTES / 2 ** 20} MiB: lower queueSize, queuePairs or receiveBufferBytes`,
      );
    }
    const count = this.#regionCount;
    const slack = count > 1 ? largest : 0;
    const bytes = Math.ceil((total / count + slack) / PAGE) * PAGE || PAGE;
    const regions: MemoryRegion[] = [];
    // What touches in the guest's address space does not touch here.
    const distance = bytes + PAGE;
    const { buffer, bufferOffset } = storage(count * distance);
    for (let i = 0; i < count; i++) {
      const guestAddress = FIRST_ADDRESS + (i >> 1) * PAIR_DISTANCE + (i & 1) * bytes;
      regions.push({ guestAddress, size: bytes, buffer, bufferOffset: bufferOffset + i * distance });
    }
    this.#place(regions);
    return new GuestMemory(regions);
  }

  #place(regions: readonly MemoryRegion[]): void {
    let region = 0;
    let cursor = regions[0].guestAddress;
    for (const wanted of this.#reservations) {
      let at = alignUp(cursor, wanted.alignment);
      let end = regions[region].guestAddress + regions[region].size;
      const mayCross = !wanted.contiguous && (region & 1) === 0 && region + 1 < regions.length;
      if (at >= end || (at + wanted.size > end && !mayCross)) {
        region++;
        at = alignUp(regions[region].guestAddress, wanted.alignment);
        end = regions[region].guestAddress + regions[region].size;
      }
      wanted.address = at;
      cursor = at + wanted.size;
      if (cursor > end) region++;
    }
  }
}

function alignUp(address: number, alignment: number): number {
  return Math.ceil(address / alignment) * alignment;
}
