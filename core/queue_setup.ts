/**
 * From what a driver programs to a queue: the choice of layout and the checks before it.
 * @module
 */
import { GuestError } from "./errors.ts";
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "./features.ts";
import type { GuestMemory } from "./memory.ts";
import { PackedVirtqueue } from "./packed_virtqueue.ts";
import { SplitVirtqueue } from "./split_virtqueue.ts";
import type { RoundBudget, VirtqueueSetup } from "./virtqueue.ts";

/** What a driver programs of a queue; the rest of {@linkcode VirtqueueSetup} follows from the features. */
export type QueueAddresses = Omit<VirtqueueSetup, "eventIndex" | "indirect">;

/** A queue that a driver has asked for. */
export interface QueueRequest {
  /** Size and addresses. */
  readonly addresses: QueueAddresses;
  /** Where to go on, as the constructors of the queues take it; undefined for their own choice. */
  readonly base: number | undefined;
}

/** Judges a request by what is known at once: GuestError `queue-index-invalid` or `queue-size-invalid`. */
export function checkRequest(index: number, size: number, queueSizes: readonly number[]): void {
  if (!Number.isInteger(index) || index < 0 || index >= queueSizes.length) {
    throw new GuestError(
      "queue-index-invalid",
      `Queue index is ${index}; the device has queues 0 to ${queueSizes.length - 1}`,
    );
  }
  if (!Number.isInteger(size) || size < 1 || size > queueSizes[index]) {
    throw new GuestError(
      "queue-size-invalid",
      `Size of queue ${index} is ${size}; it must be from 1 to ${queueSizes[index]}`,
    );
  }
}

/** A queue as features have it used. */
export function queueSetup(
  addresses: QueueAddresses,
  features: FeatureSet,
): VirtqueueSetup & { readonly packed: boolean } {
  return {
    ...addresses,
    eventIndex: features.has(VIRTIO_F_EVENT_IDX),
    indirect: features.has(VIRTIO_F_INDIRECT_DESC),
    packed: features.has(VIRTIO_F_RING_PACKED),
  };
}

/** Builds the queue in the layout that `features` ask for. GuestError as thrown by the constructors. @param budget see there */
export function buildQueue(
  memory: GuestMemory,
  request: QueueRequest,
  features: FeatureSet,
  budget?: RoundBudget,
): SplitVirtqueue | PackedVirtqueue {
  const setup = queueSetup(request.addresses, features);
  return setup.packed
    ? new PackedVirtqueue(memory, setup, request.base, budget)
    : new SplitVirtqueue(memory, setup, request.base, budget);
}
