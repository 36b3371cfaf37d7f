/**
 * How the reactor sleeps on this host: until a descriptor is ready, an alarm rings, or somebody wakes it.
 *
 * Theory of operation. One epoll set holds the watched descriptors, an eventfd (`wake`) and a timerfd (the deadline). `wait`
 * first asks without waiting; if nothing has happened it sets the timer and sleeps.
 *
 * A *sleep* awaits one `epoll_wait` in another thread, so that signals, timers and other promises go on meanwhile: an idle
 * machine costs nothing. But from there an event takes two changes of thread to get here. So before a sleep there are two
 * *naps*, in case that there is traffic: one turn of the event loop, and a wait of up to a millisecond in
 * this thread. (Measured with a guest's ping and its TCP: there and back 330 µs by naps, 430 by sleep alone; TCP out of
 * the guest 1.7 times as fast.) Signals and promises are late by a millisecond at most.
 *
 * Everything is registered edge-triggered: an event says that something *became* ready. The reactor then turns rounds until
 * nobody does anything, which means that every reader has read until there was no more; so nothing must be read here to
 * arm an event again, not even the eventfd and the timer, and a device that cannot take what is there does not keep the
 * machine awake. An event that comes while the reactor is busy stays in the set and ends the next `wait` at once.
 *
 * Invariants: one wait is under way at most; a set is not closed under a wait, but when that has ended. `errno` of the
 * awaited call is lost: a call that was broken off counts as an event, and what is wrong shows in the next synchronous one.
 *
 * @module
 */
import { eventLoopTurn, type Waiter } from "../../core/waiter.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "./epoll.ts";
import { EventFd } from "./event_fd.ts";
import { TimerFd } from "./timer_fd.ts";

/** A nap, in ms: as long may signals and promises have to wait while there is traffic. */
const NAP_MS = 1;
/** Naps before a sleep. */
const NAPS = 2;

/** Sleeps in the kernel. */
export class EpollWaiter implements Waiter {
  readonly #epoll: Epoll;
  readonly #event: EventFd;
  readonly #timer: TimerFd;
  readonly #owned: DisposableStack;
  readonly #watches = new Map<number, object>();
  #armed = false;
  #state: "awake" | "napping" | "asleep" = "awake";
  #signalled = false;
  #closed = false;

  /** Makes an empty set. Throws SystemCallError. */
  constructor() {
    using made = new DisposableStack();
    this.#epoll = made.use(new Epoll());
    this.#event = made.use(EventFd.create());
    this.#timer = made.use(new TimerFd());
    this.#epoll.add(this.#event.fd.number, EPOLLIN | EPOLLET);
    this.#epoll.add(this.#timer.fd.number, EPOLLIN | EPOLLET);
    this.#owned = made.move();
  }

  /** How many descriptors are watched. */
  get watches(): number {
    return this.#watches.size;
  }

  /**
   * Ends waits whenever this descriptor becomes readable or writable, or its other side closes. Dispose of the watch before
   * the descriptor is closed. Throws SystemCallError if it cannot be watched.
   */
  watch(number: number): Disposable {
    this.#epoll.add(number, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    const watch = {
      [Symbol.dispose]: () => {
        // A watch that is disposed of late must not end that of another file which has got the same number.
        if (this.#watches.get(number) !== watch) return;
        this.#watches.delete(number);
        if (!this.#closed) this.#epoll.remove(number);
      },
    };
    this.#watches.set(number, watch);
    return watch;
  }

  /** Sleeps until something happens, or until `untilNs`. Returns at once if something has happened. */
  wait(untilNs: number, nowNs: number): Promise<void> | void {
    if (this.#closed || this.#epoll.ready() > 0) return;
    if (untilNs <= nowNs) return eventLoopTurn();
    this.#arm(untilNs, nowNs);
    return this.#rest();
  }

  /** Ends a sleep. */
  wake(): void {
    if (this.#state === "awake" || this.#signalled) return;
    this.#signalled = true;
    if (this.#state === "asleep") this.#event.signal();
  }

  /** Closes everything, as soon as nobody sleeps any more. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#state === "asleep") {
      this.#signalled = true;
      this.#event.signal();
    } else this.#owned.dispose();
  }

  /** Two naps, then a sleep; ends as soon as something happens. */
  async #rest(): Promise<void> {
    this.#signalled = false;
    for (let naps = 0; naps < NAPS; naps++) {
      this.#state = "napping";
      await eventLoopTurn();
      this.#state = "awake";
      // Whoever has woken or closed us meanwhile has not found us asleep.
      if (this.#closed || this.#signalled || this.#epoll.ready(NAP_MS) > 0) return;
    }
    this.#state = "asleep";
    await this.#epoll.wait();
    this.#state = "awake";
    if (this.#closed) this.#owned.dispose();
  }

  #arm(untilNs: number, nowNs: number): void {
    if (untilNs !== Infinity) this.#timer.arm(untilNs - nowNs);
    else if (this.#armed) this.#timer.disarm();
    this.#armed = untilNs !== Infinity;
  }
}
