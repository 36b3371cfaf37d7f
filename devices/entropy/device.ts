/**
 * The virtio entropy device (virtio 1.2, section 5.4): a guest posts empty buffers, and gets them back with
 * random bytes.
 *
 * Theory of operation. There is one queue, no configuration space and no feature of its own. `QueueService`
 * takes requests and gives them back; here is only what a request gets: random bytes for its whole buffer,
 * but never more than 64 KiB, nor than the rate limit lets through at once. A device may use less of a buffer
 * than there is. What the rate limit does not let through now is put back until the moment at which it may be
 * served, and nothing is touched before that.
 *
 * Invariants: requests are answered at once or put back, so that none is ever in flight. A random byte is
 * given out once. The bucket of the rate limit is the device's, not the session's: resetting the device does
 * not refill it.
 *
 * Limits: one source of bytes for one guest; no state to migrate but the bucket, which starts full where the
 * guest arrives.
 *
 * @module
 */
import type { Device, Session } from "../../core/device.ts";
import type { DeviceContext } from "../../plugins/plugin.ts";
import { GuestError } from "../../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import { type QueueRequest, QueueService } from "../../core/queue_service.ts";
import { type EntropyOptions, MAX_REQUEST_BYTES } from "./options.ts";

/** Random bytes after which a round ends. */
const MAX_ROUND_BYTES = 262_144;

/** An entropy device. */
export class EntropyDevice implements Device {
  /** Device type 4 (virtio 1.2, section 5.4.1). */
  readonly type = 4;
  readonly name: string;
  readonly features: FeatureSet;
  /** The type has no feature bit of its own. */
  readonly featureNames: ReadonlyMap<number, string> = new Map();
  readonly queueSizes: readonly number[];
  wake: () => void = () => {};
  readonly #service: QueueService;
  readonly #reservoir: RandomReservoir;
  readonly #limit: RateLimit | null;
  readonly #burstBytes: number;
  readonly #counters: Record<"requests" | "bytes" | "shortened" | "limited" | "interrupts", number>;
  /** With how many bytes the request is served that the rate limit has put back; 0 if there is none. */
  #heldBytes = 0;

  /** Is served when polled. @param source where random bytes come from; by default the host's generator */
  constructor(
    context: Pick<DeviceContext, "name" | "publish">,
    options: EntropyOptions,
    source: RandomSource = (bytes) => void crypto.getRandomValues(bytes),
  ) {
    this.name = context.name;
    const features = FeatureSet.of(VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX);
    this.features = options.packedRing ? features.with(VIRTIO_F_RING_PACKED) : features;
    this.queueSizes = [options.queueSize];
    this.#reservoir = new RandomReservoir(source);
    const { rateLimitBytesPerS: rate, burstBytes } = options;
    this.#limit = rate === undefined ? null : new RateLimit(rate, burstBytes);
    this.#burstBytes = rate === undefined ? MAX_REQUEST_BYTES : Math.min(burstBytes, MAX_REQUEST_BYTES);
    this.#counters = context.publish({ requests: 0, bytes: 0, shortened: 0, limited: 0, interrupts: 0 });
    this.#service = new QueueService({
      handlers: [(request, nowNs) => this.#answer(request, nowNs)],
      wake: () => this.wake(),
      maxRoundBytes: MAX_ROUND_BYTES,
      counters: this.#counters,
    });
  }

  /** There is no configuration space: zeros. */
  readConfig(_offset: number, target: Uint8Array): void {
    target.fill(0);
  }

  /** There is nothing to write: GuestError `config-write-invalid`. */
  writeConfig(offset: number, _source: Uint8Array): void {
    throw new GuestError(
      "config-write-invalid",
      `Offset ${offset} was written; an entropy device has no configuration space, and a driver must not write there`,
    );
  }

  /** Any of the features offered may be accepted. */
  acceptFeatures(_features: FeatureSet): void {}

  /** The driver is ready. */
  activate(session: Session): void {
    this.#heldBytes = 0;
    this.#service.activate(session);
  }

  /** The driver takes everything back. */
  reset(): void {
    this.#service.reset();
  }

  /** The queue may be another one: nothing is known of the request that waited in the old one. */
  queuesChanged(): void {
    this.#heldBytes = 0;
    this.#service.queuesChanged();
  }

  /** Nothing is held: requests that wait are still in the driver's ring. */
  drain(_nowNs: number): void {}

  /** Are there requests of which nothing has told? */
  look(): boolean {
    return this.#service.look();
  }

  /** When the rate limit lets the next request through, in ns; Infinity if none waits. */
  deadlineNs(): number {
    return this.#service.deadlineNs();
  }

  /**
   * Serves requests. True if there were any. GuestError `buffers-wrong-direction` for one with bytes to read,
   * or a broken ring.
   */
  poll(nowNs: number): boolean {
    return this.#service.poll(nowNs);
  }

  /** Answers one request and returns with how many bytes, or puts it back. */
  #answer(request: QueueRequest, nowNs: number): number {
    const { readableBytes, writableBytes } = request;
    if (readableBytes > 0) throw notEmpty(readableBytes);
    // The driver may have made a request that was put back longer meanwhile: it gets what it waited for, and
    // no more.
    const count = Math.min(writableBytes, this.#heldBytes || this.#burstBytes);
    this.#heldBytes = 0;
    if (this.#limit !== null) {
      const earliestNs = this.#limit.earliestNs(count, nowNs);
      if (earliestNs > nowNs) {
        this.#heldBytes = count;
        this.#counters.limited++;
        return request.putBack(earliestNs);
      }
      this.#limit.take(count, nowNs);
    }
    this.#reservoir.pour(request, count);
    this.#counters.requests++;
    this.#counters.bytes += count;
    if (count < writableBytes) this.#counters.shortened++;
    return count;
  }
}

function notEmpty(bytes: number): GuestError {
  return new GuestError(
    "buffers-wrong-direction",
    `A request has ${bytes} device-readable bytes; a driver must only post device-writable ones`,
  );
}

/** Fills an array of at most 65536 bytes with random ones, as `crypto.getRandomValues` does. */
export type RandomSource = (bytes: Uint8Array<ArrayBuffer>) => void;

/**
 * Large enough that the call into the host costs little, small enough that a refill delays no request for
 * long.
 */
const RESERVOIR_BYTES = 8192;

/**
 * Holds random bytes for the next requests. What has been given out is wiped: it cannot be found here
 * afterwards.
 */
export class RandomReservoir {
  readonly #bytes: Uint8Array<ArrayBuffer> = new Uint8Array(RESERVOIR_BYTES);
  readonly #source: RandomSource;
  #at: number = RESERVOIR_BYTES;

  /** Draws nothing yet. @param source where random bytes come from */
  constructor(source: RandomSource) {
    this.#source = source;
  }

  /** Writes `count` random bytes into a request, which must have room for them. */
  pour(request: QueueRequest, count: number): void {
    const bytes = this.#bytes;
    for (let left = count; left > 0;) {
      if (this.#at === RESERVOIR_BYTES) {
        this.#source(bytes);
        this.#at = 0;
      }
      const part = Math.min(left, RESERVOIR_BYTES - this.#at);
      request.write(bytes, this.#at, part);
      bytes.fill(0, this.#at, this.#at + part);
      this.#at += part;
      left -= part;
    }
  }
}

/**
 * A token bucket: lets through so many bytes a second in the long run, and a burst after a pause.
 *
 * The bucket is kept as the one moment at which it will be full again. Taking bytes puts that moment off by
 * the time that they need to flow in, and they may be taken when it is then no further away than a whole
 * bucket takes to fill.
 */
export class RateLimit {
  readonly #nsPerByte: number;
  readonly #burstNs: number;
  #fullAtNs = 0;

  /**
   * Starts with a full bucket.
   * @param bytesPerS what flows in, above 0
   * @param burstBytes what the bucket holds, above 0
   */
  constructor(bytesPerS: number, burstBytes: number) {
    this.#nsPerByte = 1e9 / bytesPerS;
    this.#burstNs = burstBytes * this.#nsPerByte;
  }

  /** When so many bytes, 0 to the burst, may be taken, in ns: `nowNs` if that is now. */
  earliestNs(bytes: number, nowNs: number): number {
    // The difference first: it is never above 0, where a sum with a large time would be rounded up to more
    // than the burst.
    const missingNs = bytes * this.#nsPerByte - this.#burstNs;
    return Math.max(nowNs, Math.ceil(Math.max(this.#fullAtNs, nowNs) + missingNs));
  }

  /** Takes bytes that may be taken now. */
  take(bytes: number, nowNs: number): void {
    this.#fullAtNs = Math.max(this.#fullAtNs, nowNs) + bytes * this.#nsPerByte;
  }
}
