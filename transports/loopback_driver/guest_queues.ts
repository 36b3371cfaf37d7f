/**
 * The queues of a software guest, laid out in its memory: what must be known before the first word with the device.
 * @module
 */
import type { Device, DeviceEvent } from "../../core/device.ts";
import { HostError } from "../../core/errors.ts";
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "../../core/features.ts";
import { GuestMemory, type MemoryRegion } from "../../core/memory.ts";
import type { DriverNotifications } from "../../core/session.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF } from "../../wire/net_features.ts";
import { HASH_NET_HEADER_BYTES, headerBytes as netHeaderBytes } from "../../wire/virtio_net_header.ts";
import { CONTROL_DESCRIPTORS, CONTROL_MEMORY_BYTES, ControlQueue, readMaxQueuePairs } from "./control.ts";
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
import { type GuestOptions, LARGEST_PACKET_BYTES, receiveBufferBytes } from "./options.ts";
import { PacketStorage, ReceiveQueue } from "./receive_queue.ts";
import type { GuestHooks, GuestRecord } from "./software_guest.ts";
import { TransmitQueue } from "./transmit_queue.ts";

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
}

/** All that a guest has in its memory. */
export interface GuestQueues {
  /** The memory. */
  readonly memory: GuestMemory;
  /** Every queue that the guest uses, by ascending index. */
  readonly placed: readonly PlacedQueue[];
  /** Receive queues by pair. */
  readonly receive: readonly ReceiveQueue[];
  /** Transmit queues by pair. */
  readonly transmit: readonly TransmitQueue[];
  /** The control queue, if CTRL_VQ was accepted. */
  readonly control: ControlQueue | null;
  /** The control queue's index; -1 if there is none. */
  readonly controlIndex: number;
  /** Where received packets are gathered. */
  readonly storage: PacketStorage;
}

/**
 * Lays out memory and queues for a guest that accepts these features. HostError if the device has too few queues or
 * the options do not fit its queue sizes.
 * @param report told about everything that a device must not do
 */
export function makeQueues(
  device: Device,
  options: GuestOptions,
  features: FeatureSet,
  report: (problem: string) => void,
): GuestQueues {
  const plan = new Plan(device, options, features);
  const headerBytes = netHeaderBytes(features);
  const bufferBytes = receiveBufferBytes(options, features);
  const { descriptorsPerBuffer: pieces, transmitBufferBytes: slotBytes, legacy } = options;
  const longest = Math.ceil((headerBytes + LARGEST_PACKET_BYTES) / slotBytes) + pieces;
  const maxPairs = readMaxQueuePairs(features, device);
  if (options.queuePairs > maxPairs) {
    throw new HostError(
      `Cannot use ${options.queuePairs} queue pairs, the device has ${maxPairs}: lower queuePairs`,
    );
  }
  for (let pair = 0; pair < options.queuePairs; pair++) {
    plan.addQueue(2 * pair, pieces, pieces, (size) => plan.buffers(size) * bufferBytes);
    plan.addQueue(2 * pair + 1, longest, pieces, (size) => size * slotBytes);
  }
  const controlIndex = features.has(VIRTIO_NET_F_CTRL_VQ) ? 2 * maxPairs : -1;
  if (controlIndex >= 0) plan.addQueue(controlIndex, CONTROL_DESCRIPTORS, 1, () => CONTROL_MEMORY_BYTES);
  const { memory, placed, buffers } = plan.build();

  const receive: ReceiveQueue[] = [];
  const transmit: TransmitQueue[] = [];
  const storage = new PacketStorage(LARGEST_PACKET_BYTES + HASH_NET_HEADER_BYTES);
  const mergeable = features.has(VIRTIO_NET_F_MRG_RXBUF);
  for (let pair = 0; pair < options.queuePairs; pair++) {
    const { ring: receiveRing } = placed[2 * pair];
    const { ring: transmitRing, place } = placed[2 * pair + 1];
    receive.push(
      new ReceiveQueue(
        receiveRing,
        memory,
        {
          address: buffers[2 * pair].address,
          bufferBytes,
          pieces,
          headerBytes,
          mergeable,
          buffers: plan.buffers(receiveRing.size),
        },
        storage,
        report,
      ),
    );
    transmit.push(
      new TransmitQueue(transmitRing, memory, {
        address: buffers[2 * pair + 1].address,
        slotBytes,
        slots: transmitRing.size,
        pieces,
        maxDescriptors: place.indirectUse === "never" ? place.size : Math.min(place.tableEntries, place.size),
        headerBytes,
      }, report),
    );
  }
  const last = placed.length - 1;
  const control = controlIndex < 0
    ? null
    : new ControlQueue(placed[last].ring, memory, buffers[last].address, legacy, report);
  return { memory, placed, receive, transmit, control, controlIndex, storage };
}

interface PlannedQueue {
  readonly index: number;
  readonly size: number;
  readonly tableEntries: number;
  readonly descriptors: Reservation;
  readonly driver: Reservation;
  readonly device: Reservation;
  readonly tables: Reservation | null;
  readonly buffers: Reservation;
}

/** Collects what the queues need until the memory can be made. */
class Plan {
  readonly #device: Device;
  readonly #options: GuestOptions;
  readonly #packed: boolean;
  readonly #eventIndex: boolean;
  readonly #use: IndirectUse;
  readonly #allocator: GuestMemoryAllocator;
  readonly #queues: PlannedQueue[] = [];

  constructor(device: Device, options: GuestOptions, features: FeatureSet) {
    this.#device = device;
    this.#options = options;
    this.#packed = features.has(VIRTIO_F_RING_PACKED);
    this.#eventIndex = features.has(VIRTIO_F_EVENT_IDX);
    const indirect = features.has(VIRTIO_F_INDIRECT_DESC);
    this.#use = !indirect ? "never" : options.indirect === "always" ? "always" : "chains";
    this.#allocator = new GuestMemoryAllocator(options.memoryRegions);
  }

  /** Receive buffers that a ring of `size` entries holds. */
  buffers(size: number): number {
    return chainCapacity(this.#use, size, this.#options.descriptorsPerBuffer);
  }

  /**
   * Reserves ring and buffers.
   * @param longest descriptors of its longest chain
   * @param least of its shortest
   */
  addQueue(index: number, longest: number, least: number, bufferBytes: (size: number) => number): void {
    const offered = this.#device.queueSizes[index] ?? 0;
    if (offered < 1) throw new HostError(`Cannot use queue ${index}, which the device does not have`);
    let size = Math.min(offered, this.#options.queueSize);
    if (!this.#packed) size = 2 ** Math.floor(Math.log2(size));
    if (least > size) {
      throw new HostError(
        `Cannot put a buffer of ${least} descriptors into queue ${index} of ${size} entries: lower ` +
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
      buffers: allocator.reserve(bufferBytes(size), PAGE, false),
    });
  }

  /** Makes the memory and the rings in it. */
  build(): { memory: GuestMemory; placed: PlacedQueue[]; buffers: Reservation[] } {
    const memory = this.#allocator.build();
    const placed = this.#queues.map((queue): PlacedQueue => {
      const place: RingPlacement = {
        size: queue.size,
        descriptors: queue.descriptors.address,
        driver: queue.driver.address,
        device: queue.device.address,
        eventIndex: this.#eventIndex,
        indirect: this.#use !== "never",
        tables: queue.tables?.address ?? 0,
        tableEntries: queue.tableEntries,
        indirectUse: this.#use,
      };
      const ring = this.#packed ? new PackedDriverRing(memory, place) : new SplitDriverRing(memory, place);
      return { index: queue.index, place, ring };
    });
    return { memory, placed, buffers: this.#queues.map((queue) => queue.buffers) };
  }
}

// Lays out the software guest's memory: first everything is reserved, then the regions are made.
//
// Theory of operation. A real guest's memory is not one piece: it begins somewhere, has a hole below 4 GiB, and its
// halves are mapped one by one. So the regions made here lie in pairs: the two regions of a pair touch each other in the
// guest's address space but not in ours, and a buffer may lie across that seam; between pairs there is a hole. Pair `p`
// starts at `FIRST_ADDRESS + p * PAIR_DISTANCE`, so that from the second pair on an address needs more than 32 bits.
//
// `reserve()` only notes what is wanted; `build()` chooses the size of the regions, gives every reservation its address
// in the order in which it was made, and makes the memory. What must be in one piece (a ring) is moved behind a seam
// instead of across it, which wastes less than the largest reservation at each seam: the regions are that much larger.

const FIRST_ADDRESS = 0x10_0000;
const PAIR_DISTANCE = 0x1_0000_0000;
/** All the memory that a software guest may have, in bytes. */
export const MAX_GUEST_BYTES: number = 2 ** 30;

/** A piece of guest memory that somebody has asked for. */
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

  /** Gives every reservation its address and makes the memory. HostError if that is more than `MAX_GUEST_BYTES`. */
  build(): GuestMemory {
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
    for (let i = 0; i < count; i++) {
      const guestAddress = FIRST_ADDRESS + (i >> 1) * PAIR_DISTANCE + (i & 1) * bytes;
      regions.push({ guestAddress, size: bytes, buffer: new ArrayBuffer(bytes), bufferOffset: 0 });
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

// Interrupts and kicks of all queues of a software guest: who may sleep, and who is told.
//
// Theory of operation. Two marks for each queue:
//
//     #pending[queue]   an interrupt has come, or the budget ran out before the work did
//     #quiet[queue]     interrupts are refused: while a queue is worked, and until it has been found empty
//
// A queue that `wants()` work is worked in three steps: `refuse()` interrupts; take what the device has used, up to a
// budget; if nothing is left, `rest()`: ask for interrupts again and look once more, since the device may have been
// faster. So the guest sleeps on every queue unless an interrupt came, and a device that forgets one is found out. A
// polling guest wants work on every queue at every turn and refuses interrupts throughout.
//
// The other way round, `publish()` kicks the device (`device.wake()`) only if the device asked for it at that place in
// the ring. A device that has switched kicks off must look by itself, or it will not hear of new buffers.

/** Interrupts and kicks of one attachment. */
export class QueueNotifications implements DriverNotifications {
  /** The driver's side of every queue by index; null where the guest has none. */
  readonly rings: readonly (DriverRing | null)[];
  /** Has an interrupt come since this was last set to false? */
  due = false;
  /** Is the attachment over? Then the device must not be heard of any more. */
  closed = false;

  readonly #device: Device;
  readonly #polling: boolean;
  readonly #hooks: GuestHooks;
  readonly #record: GuestRecord;
  readonly #pending: Uint8Array;
  readonly #quiet: Uint8Array;

  /**
   * Begins with all queues asleep.
   * @param placed the queues, at least one, by ascending index
   * @param polling never sleep
   */
  constructor(
    device: Device,
    placed: readonly PlacedQueue[],
    polling: boolean,
    hooks: GuestHooks,
    record: GuestRecord,
  ) {
    this.#device = device;
    this.#polling = polling;
    this.#hooks = hooks;
    this.#record = record;
    const rings = new Array<DriverRing | null>(placed[placed.length - 1].index + 1).fill(null);
    for (const { index, ring } of placed) rings[index] = ring;
    this.rings = rings;
    this.#pending = new Uint8Array(rings.length);
    this.#quiet = new Uint8Array(rings.length);
  }

  /** Tells the device, before it is started, on which queues the guest wants interrupts. */
  prepare(): void {
    for (let index = 0; index < this.rings.length; index++) {
      if (this.rings[index] === null) continue;
      if (this.#polling) this.refuse(index);
      else this.rings[index]!.enableInterrupts();
    }
  }

  /** The device says that queue `index` has used chains. */
  interrupt(index: number): void {
    this.#record.counters.interrupts++;
    if (this.closed || (this.rings[index] ?? null) === null) {
      this.#record.malformed(`interrupt of queue ${index}, which is not in use`);
      return;
    }
    if (this.#quiet[index] === 1) this.#record.counters.unwantedInterrupts++;
    this.#pending[index] = 1;
    this.due = true;
  }

  /** The device says that its configuration has changed. */
  configChanged(): void {
    this.#record.counters.configChanges++;
    this.#hooks.onConfigChanged?.();
  }

  /** Something has happened between guest and device. */
  event(event: DeviceEvent): void {
    this.#hooks.onEvent?.(event);
  }

  /** Shows the device what was added to queue `index`, and kicks it if it wants that. */
  publish(index: number): void {
    if (!this.rings[index]!.publish()) return;
    this.#record.counters.kicks++;
    this.#device.wake();
  }

  /** Is there work on queue `index`, as far as the guest can know? */
  wants(index: number): boolean {
    return !this.closed && (this.#polling || this.#pending[index] === 1);
  }

  /** Tells the device that interrupts of queue `index` are a waste for now. */
  refuse(index: number): void {
    this.#quiet[index] = 1;
    this.rings[index]!.disableInterrupts();
  }

  /** Queue `index` was found empty: sleep until the next interrupt. True if there is something after all. */
  rest(index: number): boolean {
    if (this.closed || this.#polling) return false;
    this.#quiet[index] = 0;
    if (this.rings[index]!.enableInterrupts()) return true;
    this.#pending[index] = 0;
    return false;
  }
}
