/**
 * A device of a type of its own with two queues that threads may serve, and one in the main thread. A request
 * says how it is to be answered: by which byte, and after how many milliseconds. So requests are answered
 * late, out of order, or never.
 * @module
 */
import { z } from "zod";
import {
  defineDevice,
  type Device,
  type DeviceContext,
  type DevicePlugin,
  FeatureSet,
  KEEP,
  type QueueRequest,
  QueueService,
  type Session,
} from "../../../plugin.ts";

/** A request that is answered when the device is paused, or never if it does not cancel. */
export const NEVER = 255;

interface LateOptions {
  limitMs: number;
  cancels: boolean;
}

class LateQueues implements Device {
  readonly type = 0x70;
  readonly name: string;
  readonly features: FeatureSet = FeatureSet.of(32, 28, 29, 34);
  readonly featureNames: ReadonlyMap<number, string> = new Map();
  readonly queueSizes: readonly number[] = [16, 16, 16];
  readonly workers = { queueSets: [[0], [1]] };
  readonly inflight: QueueService;
  wake: () => void = () => {};
  readonly #never = new Set<QueueRequest>();
  readonly #bytes = new Uint8Array(2);
  readonly #counters: { requests: number; answered: number; given_up: number };
  #session: Session | null = null;

  constructor(context: DeviceContext, { limitMs, cancels }: LateOptions) {
    this.name = context.name;
    this.#counters = context.publish({ requests: 0, answered: 0, given_up: 0 });
    const late = (request: QueueRequest) => this.#take(request);
    const command = () => {
      this.#session?.detachWorkers?.();
      return 0;
    };
    const handlers = context.role === "control" ? [null, null, command] : [late, late, null];
    this.inflight = new QueueService({
      handlers,
      wake: () => this.wake(),
      quiesceLimitNs: limitMs * 1e6,
      onPause: () => {
        if (cancels) { for (const request of this.#never) this.#answer(request, 0xee); }
        this.#never.clear();
      },
    });
  }

  readConfig(_offset: number, target: Uint8Array): void {
    target.fill(0);
  }

  writeConfig(): void {}

  acceptFeatures(): void {}

  activate(session: Session): void {
    this.#session = session;
    this.inflight.activate(session);
  }

  queuesChanged(): void {
    this.inflight.queuesChanged();
  }

  reset(): void {
    this.#session = null;
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

  #take(request: QueueRequest): number {
    this.#counters.requests++;
    request.read(this.#bytes, 0, 2);
    const [value, delayMs] = this.#bytes;
    if (delayMs === NEVER) this.#never.add(request);
    else setTimeout(() => this.#answer(request, value), 10 * delayMs);
    return KEEP;
  }

  /** As the end of a system call: it may come after a reset. */
  #answer(request: QueueRequest, value: number): void {
    const written = request.write(Uint8Array.of(value, request.queue), 0, 2);
    if (this.inflight.complete(request, written)) this.#counters.answered++;
    else this.#counters.given_up++;
  }
}

const lateQueues: DevicePlugin<LateOptions> = defineDevice({
  name: "late-queues",
  worksInThreads: true,
  options: z.strictObject({ limitMs: z.int().default(10_000), cancels: z.boolean().default(false) }),
  create: (context, options) => new LateQueues(context, options),
});

export default lateQueues;
