/**
 * What the data paths of a device see whose queue pairs other threads work: a session with the control queue alone.
 * @module
 */
import type { Session } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";

/** A session less its data queues. */
export class ControlSession implements Session {
  /** Queues come and go, as far as anybody here can see. */
  readonly startsQueues = true;
  /** The queues by index: the control queue, once it is there. */
  readonly queues: (Virtqueue | null)[];
  readonly #whole: Session;
  readonly #controlIndex: number;

  /** Shows only queue `controlIndex` of `whole`. */
  constructor(whole: Session, controlIndex: number) {
    this.#whole = whole;
    this.#controlIndex = controlIndex;
    this.queues = new Array<Virtqueue | null>(whole.queues.length).fill(null);
    this.update();
  }

  /** The guest's memory. */
  get memory(): GuestMemory {
    return this.#whole.memory;
  }

  /** What was agreed on. */
  get features(): FeatureSet {
    return this.#whole.features;
  }

  /** Queues have come or gone. */
  update(): void {
    this.queues[this.#controlIndex] = this.#whole.queues[this.#controlIndex] ?? null;
  }

  /** Tells the driver that queue `index` has used buffers. */
  interrupt(index: number): void {
    this.#whole.interrupt(index);
  }

  /** Tells the driver that configuration space has changed. */
  configChanged(): void {
    this.#whole.configChanged();
  }

  /** Takes back what other threads were lent. */
  recall(): void {
    this.#whole.recall?.();
  }
}
