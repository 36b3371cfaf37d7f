/**
 * The queues of a software guest, laid out in its memory: what must be known before the first word with the device.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { HostError } from "../../core/errors.ts";
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF } from "../../wire/net_features.ts";
import { HASH_NET_HEADER_BYTES, headerBytes as netHeaderBytes } from "../../wire/virtio_net_header.ts";
import { CONTROL_DESCRIPTORS, CONTROL_MEMORY_BYTES, ControlQueue } from "./control_queue.ts";
import {
  chainCapacity,
  DESC_BYTES,
  type DriverRing,
  type IndirectUse,
  type RingPlacement,
} from "./driver_ring.ts";
import { GuestMemoryAllocator, type Reservation } from "./guest_memory_allocator.ts";
import { LARGEST_PACKET_BYTES, receiveBufferBytes } from "./negotiation.ts";
import { readMaxQueuePairs } from "./net_control.ts";
import type { GuestOptions } from "./options.ts";
import { PackedDriverRing } from "./packed_driver_ring.ts";
import { PacketStorage } from "./received_packet.ts";
import { ReceiveQueue } from "./receive_queue.ts";
import { splitAvailableBytes, SplitDriverRing, splitUsedBytes } from "./split_driver_ring.ts";
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
