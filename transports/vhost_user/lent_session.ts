/**
 * What the device is lent: the rings that run and are enabled.
 * @module
 */
import type { Session } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";

/** A session whose queues come and go, and whose memory may be replaced, between two rounds of the device. */
export class LentSession implements Session {
  /** Queues come and go. */
  readonly startsQueues = true;
  /** What was agreed on. */
  readonly features: FeatureSet;
  /** The guest's memory, as of now. */
  memory: GuestMemory;
  /** The queues by index; null where there is none now. */
  readonly queues: (Virtqueue | null)[];
  readonly #interrupt: (index: number) => void;
  readonly #configChanged: () => void;
  readonly #recall: () => void;

  /** Begins without queues. @param interrupt told which ring has news; @param configChanged told of configuration space; @param recall takes queues back from other threads */
  constructor(
    features: FeatureSet,
    memory: GuestMemory,
    queues: number,
    interrupt: (index: number) => void,
    configChanged: () => void,
    recall: () => void = () => {},
  ) {
    this.features = features;
    this.memory = memory;
    this.queues = new Array<Virtqueue | null>(queues).fill(null);
    this.#interrupt = interrupt;
    this.#configChanged = configChanged;
    this.#recall = recall;
  }

  /** For the device: ring `index` has used buffers. */
  interrupt(index: number): void {
    this.#interrupt(index);
  }

  /** For the device: takes back what other threads have. */
  recall(): void {
    this.#recall();
  }

  /** For the device: configuration space has changed. */
  configChanged(): void {
    this.#configChanged();
  }
}
