/**
 * Requests that a device keeps over rounds, and how those who take memory or rings away from it wait for
 * them.
 *
 * A device that answers some requests later has the capability `Device.inflight`. Before a reset, a stop, or
 * a change of rings or memory it is paused, and works on until nothing is in flight; that has a time limit,
 * after which the device has failed. Memory stays mapped until `count` is 0, whatever else happens: the host
 * may still write to it.
 *
 * @module
 */
import { GuestError } from "../rings/guest_error.ts";

/** How long to wait for requests in flight unless the device says otherwise, in ns: 10 s. */
export const DEFAULT_QUIESCE_LIMIT_NS = 10_000_000_000;

/** Requests that a device has taken and not given back: its capability `inflight`. `QueueService` is one. */
export interface RequestsInFlight {
  /** Requests that are not over: kept, completed but not published, or given up but not completed. */
  readonly count: number;
  /** How long to wait for them, in ns. */
  readonly limitNs: number;
  /** Takes no further requests; finishes those in flight, or cancels them. May be called again. */
  pause(): void;
  /** Takes requests again. A reset does so too. */
  resume(): void;
}

/** Waits for the requests in flight of one device. */
export class Quiescence {
  readonly #requests: RequestsInFlight | null;
  #isWaiting = false;
  #untilNs = Infinity;

  /** Waits for nothing yet. @param requests those of the device; undefined if it keeps none */
  constructor(requests: RequestsInFlight | undefined) {
    this.#requests = requests ?? null;
  }

  /** Is nothing in flight? */
  get isQuiet(): boolean {
    return this.#requests === null || this.#requests.count === 0;
  }

  /**
   * Pauses the device, and says how it stands: ask again after its next round while it is "waiting". "late"
   * is said once, when the time is over; after that the device must be reset, and is waited for without
   * limit.
   */
  check(nowNs: number): "quiet" | "waiting" | "late" {
    if (this.isQuiet) return "quiet";
    if (!this.#isWaiting) {
      this.#isWaiting = true;
      this.#untilNs = nowNs + this.#requests!.limitNs;
    }
    if (this.#untilNs !== Infinity) {
      // Each time: something else may have had it take requests again.
      this.#requests!.pause();
      if (this.isQuiet) return "quiet";
    }
    if (nowNs < this.#untilNs) return "waiting";
    const isFirst = this.#untilNs !== Infinity;
    this.#untilNs = Infinity;
    return isFirst ? "late" : "waiting";
  }

  /** Is the device paused for this, so that nothing may be given to it? */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  /** When "late" will be said, in ns; Infinity while nothing is waited for. */
  deadlineNs(): number {
    return this.#untilNs;
  }

  /** The device may take requests again. */
  end(): void {
    if (!this.#isWaiting) return;
    this.#isWaiting = false;
    this.#untilNs = Infinity;
    this.#requests!.resume();
  }

  /** What a device has failed with whose requests take too long. */
  error(): GuestError {
    const { count, limitNs } = this.#requests!;
    return new GuestError(
      "quiesce-timeout",
      `${count} requests are in flight after ${
        limitNs / 1e9
      } s; the device has failed, and serves again when they are over`,
    );
  }
}
