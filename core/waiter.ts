/**
 * How the reactor sleeps. This one needs nothing but the runtime; `host` has one that also hears of the host's
 * events.
 * @module
 */
import { setImmediate } from "node:timers";

/** Deadlines closer than this are waited for awake: timers of the runtime are late by as much. */
const COARSE_TIMER_NS = 2_500_000;
/** Longest sleep, in ms: setTimeout takes 31 bits. */
const LONGEST_SLEEP_MS = 60_000;

/** Lets the reactor sleep. */
export interface Waiter extends Disposable {
  /**
   * Sleeps until the time is `untilNs` (Infinity: for ever), `wake` is called, or something has happened that the reactor
   * should look at. It may end earlier. Returns nothing if there is no reason to sleep; the caller then turns another round.
   * Not called again before it has resolved.
   * @param untilNs when to be back; in the past: at once, but let the event loop turn
   * @param nowNs the present time
   */
  wait(untilNs: number, nowNs: number): Promise<void> | void;
  /** Ends the sleep, if there is one. */
  wake(): void;
}

/** One turn of the event loop: signals, timers and promises of others get their chance. */
export function eventLoopTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/**
 * Sleeps by the runtime's timers. They are coarse (2 ms), so the last stretch before a deadline is spent turning over the
 * event loop; signals and console keep working.
 */
export class CoarseWaiter implements Waiter {
  #wakeUp: (() => void) | null = null;

  /** Sleeps until shortly before `untilNs`, and turns the event loop from then on. */
  wait(untilNs: number, nowNs: number): Promise<void> {
    const leftNs = untilNs - nowNs;
    if (leftNs < COARSE_TIMER_NS) return eventLoopTurn();
    return new Promise((resolve) => {
      const sleepMs = Math.min((leftNs - COARSE_TIMER_NS) / 1e6, LONGEST_SLEEP_MS);
      const timer = setTimeout(() => this.wake(), sleepMs);
      this.#wakeUp = () => {
        this.#wakeUp = null;
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Ends the sleep. */
  wake(): void {
    this.#wakeUp?.();
  }

  /** Ends the sleep; there is nothing to close. */
  [Symbol.dispose](): void {
    this.wake();
  }
}
