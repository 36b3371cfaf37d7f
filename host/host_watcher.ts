/**
 * Gives a reactor an {@linkcode EpollWaiter} as long as there is something to watch.
 * @module
 */
import { CoarseWaiter, type Waiter } from "../core/waiter.ts";
import { EpollWaiter } from "./epoll_waiter.ts";

/** What sleeps by a waiter: a reactor. */
export interface Sleeper {
  /** How it sleeps. */
  waiter: Waiter;
}

/**
 * Watches descriptors for a reactor. The epoll set is made for the first watch and closed with the last: a machine without
 * host transports needs no right to call native functions, and nobody has to remember to close it.
 */
export class HostWatcher {
  readonly #sleeper: Sleeper;
  #waiter: EpollWaiter | null = null;

  /** Watches nothing yet. @param sleeper the reactor that is to be woken */
  constructor(sleeper: Sleeper) {
    this.#sleeper = sleeper;
  }

  /** Watches a descriptor; see {@linkcode EpollWaiter.watch}. Throws HostError. */
  watch(number: number): Disposable {
    const waiter = this.#waiter ??= new EpollWaiter();
    try {
      const watch = waiter.watch(number);
      if (this.#sleeper.waiter !== waiter) this.#sleeper.waiter = waiter;
      return {
        [Symbol.dispose]: () => {
          watch[Symbol.dispose]();
          this.#closeIfIdle(waiter);
        },
      };
    } catch (cause) {
      this.#closeIfIdle(waiter);
      throw cause;
    }
  }

  #closeIfIdle(waiter: EpollWaiter): void {
    if (waiter.watches > 0 || this.#waiter !== waiter) return;
    this.#waiter = null;
    if (this.#sleeper.waiter === waiter) this.#sleeper.waiter = new CoarseWaiter();
    waiter[Symbol.dispose]();
  }
}
