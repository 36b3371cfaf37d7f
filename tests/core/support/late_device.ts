/**
 * A device that answers late, out of order, or never: what is in flight is in the hands of the test.
 * @module
 */
import type { Device, Session } from "../../../core/device.ts";
import { FeatureSet } from "../../../core/features.ts";
import { KEEP, type QueueRequest, QueueService } from "../../../core/queue_service.ts";

/** How a late device is made. */
export interface LateSettings {
  readonly queues?: number;
  readonly queueSize?: number;
  readonly maxInFlight?: number;
  readonly features?: readonly number[];
  readonly limitNs?: number;
}

/** Keeps every request until the test answers it. */
export class LateDevice implements Device {
  readonly type = 0x70;
  readonly featureNames = new Map<number, string>();
  readonly name = "late0";
  readonly features: FeatureSet;
  readonly queueSizes: readonly number[];
  /** Requests in flight, in order of arrival. */
  readonly held: QueueRequest[] = [];
  readonly inflight: QueueService;
  wakes = 0;
  resets = 0;
  pauses = 0;
  /** What it answers by at once while this is set. */
  atOnce: ((request: QueueRequest, nowNs: number) => number) | null = null;
  wake: () => void = () => void this.wakes++;
  readonly #first = new Uint8Array(1);

  constructor(settings: LateSettings = {}) {
    const { queues = 1, queueSize = 16, maxInFlight = 256, features = [32, 28, 29, 34] } = settings;
    this.features = FeatureSet.from(features);
    this.queueSizes = new Array<number>(queues).fill(queueSize);
    this.inflight = new QueueService({
      handlers: this.queueSizes.map(() => (request, nowNs) => this.#take(request, nowNs)),
      wake: () => this.wake(),
      maxInFlight,
      quiesceLimitNs: settings.limitNs ?? 1_000_000,
      onPause: () => void this.pauses++,
    });
  }

  /** Writes `value` into a request and completes it: what a host does that is done. */
  answer(request: QueueRequest, value: number): { written: number; taken: boolean } {
    const index = this.held.indexOf(request);
    if (index >= 0) this.held.splice(index, 1);
    this.#first[0] = value;
    const written = request.write(this.#first, 0, 1);
    return { written, taken: this.inflight.complete(request, written) };
  }

  readConfig(_offset: number, target: Uint8Array): void {
    target.fill(0);
  }

  writeConfig(): void {}

  acceptFeatures(): void {}

  activate(session: Session): void {
    this.inflight.activate(session);
  }

  queuesChanged(): void {
    this.inflight.queuesChanged();
  }

  reset(): void {
    this.resets++;
    this.inflight.reset();
  }

  drain(): void {
    this.inflight.drain();
  }

  deadlineNs(): number {
    return this.inflight.deadlineNs();
  }

  poll(nowNs: number): boolean {
    return this.inflight.poll(nowNs);
  }

  #take(request: QueueRequest, nowNs: number): number {
    if (this.atOnce !== null) return this.atOnce(request, nowNs);
    this.held.push(request);
    return KEEP;
  }
}
