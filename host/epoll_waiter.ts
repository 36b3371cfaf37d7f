/**
 * How the reactor sleeps on this host: until a descriptor is ready, an alarm rings, or somebody wakes it.
 *
 * Theory of operation. One epoll set holds the watched descriptors, an eventfd (`wake`) and a timerfd (the deadline). `wait`
 * first asks without waiting; if nothing has happened it sets the timer, and then there are two ways.
 *
 * An idle machine *sleeps*: it awaits one `epoll_wait` in another thread, so that signals, timers and promises go on meanwhile
 * and nothing is spent. But from there an event takes two changes of thread to get here, each 50 to 100 microseconds.
 *
 * As long as there is traffic, and for 100 ms after it, it *naps* instead: it waits in this thread, 5 ms at most, for an event
 * or for the runtime to have something to do (`runtime_poll.ts`), and lets the event loop turn if none comes. Only timers have
 * to wait for that, 20 ms at most. (Measured, a guest pinged every 10 ms: see docs/performance.md.) Where the runtime does not show
 * when it has something to do, naps are of 1 ms, two of them. To wake takes a while, too, so the alarm rings early, and the rest is
 * spent awake.
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
import { eventLoopTurn, type Waiter } from "../core/waiter.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "./epoll.ts";
import { EventFd } from "./event_fd.ts";
import { runtimePoll } from "./runtime_poll.ts";
import { TimerFd } from "./timer_fd.ts";

/** A nap, in ms: as long may the runtime's timers have to wait while there is traffic. */
const NAP_MS = 5;
/** How long naps go on after the last event, in ms. */
const RESTLESS_MS = 100;
/** The same where nobody tells when the runtime has something to do. */
const BLIND_NAP_MS = 1;
const BLIND_RESTLESS_MS = 2;
/**
 * The last stretch before a deadline, which is spent awake, in ns: about what a processor takes to wake in a virtual machine.
 */
const AWAKE_NS = 50_000;
const NS_PER_MS = 1_000_000;
/**
 * When the event loop turns even if there is always something else to do. A turn takes 100 microseconds, and right after an
 * event they are the guest's, which has been woken on the same processor: a nap comes first, as long as that is possible.
 */
const MOST_NS_BETWEEN_TURNS = 20 * NS_PER_MS;

/** Sleeps in the kernel. */
export class EpollWaiter implements Waiter {
  readonly #epoll: Epoll;
  readonly #event: EventFd;
  readonly #timer: TimerFd;
  readonly #owned: DisposableStack;
  readonly #watches = new Map<number, object>();
  /** The set, and the runtime's beside it: what ends a nap. */
  readonly #naps: Epoll;
  readonly #napMs: number;
  readonly #restlessMs: number;
  /** Has something happened since the last nap began? */
  #eventful = false;
  #restlessUntilMs = 0;
  /** When the event loop was last let turn. */
  #turnedNs = 0;
  #armed = false;
  #state: "awake" | "turning" | "asleep" = "awake";
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
    this.#naps = made.use(new Epoll());
    this.#naps.add(this.#epoll.fd.number, EPOLLIN);
    const runtime = runtimePoll();
    if (runtime !== null) this.#naps.add(runtime, EPOLLIN);
    this.#napMs = runtime === null ? BLIND_NAP_MS : NAP_MS;
    this.#restlessMs = runtime === null ? BLIND_RESTLESS_MS : RESTLESS_MS;
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
    if (this.#closed) return;
    const isTurnDue = nowNs - this.#turnedNs >= MOST_NS_BETWEEN_TURNS;
    if (this.#hasEvent()) return isTurnDue ? this.#turn(nowNs) : undefined;
    const leftNs = untilNs - nowNs;
    if (leftNs <= 0) return this.#turn(nowNs);
    if (leftNs <= AWAKE_NS) return this.#stayAwake(leftNs);
    this.#arm(leftNs);
    if (!isTurnDue && this.#isRestless() && this.#nap()) return;
    this.#turnedNs = nowNs;
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

  /** Lets the event loop turn, naps as long as there is hope, then sleeps; ends as soon as something happens. */
  async #rest(): Promise<void> {
    this.#signalled = false;
    do {
      this.#state = "turning";
      await eventLoopTurn();
      this.#state = "awake";
      // Whoever has woken or closed us meanwhile has not found us asleep.
      if (this.#closed || this.#signalled || this.#hasEvent()) return;
    } while (this.#isRestless() && !this.#nap());
    if (this.#eventful) return;
    this.#state = "asleep";
    await this.#epoll.wait();
    this.#eventful = true;
    this.#state = "awake";
    if (this.#closed) this.#owned.dispose();
  }

  #turn(nowNs: number): Promise<void> {
    this.#turnedNs = nowNs;
    return eventLoopTurn();
  }

  #hasEvent(): boolean {
    if (this.#epoll.ready() === 0) return false;
    this.#eventful = true;
    return true;
  }

  /** Is there traffic, or was there lately? */
  #isRestless(): boolean {
    const nowMs = performance.now();
    if (this.#eventful) this.#restlessUntilMs = nowMs + this.#restlessMs;
    this.#eventful = false;
    return nowMs < this.#restlessUntilMs;
  }

  /** Waits a little in this thread. Has something happened, other than that the runtime has something to do? */
  #nap(): boolean {
    return this.#naps.ready(this.#napMs) > 0 && this.#hasEvent();
  }

  /** Looks out for events until the deadline. */
  #stayAwake(leftNs: number): void {
    const endMs = performance.now() + leftNs / NS_PER_MS;
    while (performance.now() < endMs && !this.#hasEvent());
  }

  /** Rings a little before the deadline, or not at all. */
  #arm(leftNs: number): void {
    if (leftNs !== Infinity) this.#timer.arm(leftNs - AWAKE_NS);
    else if (this.#armed) this.#timer.disarm();
    this.#armed = leftNs !== Infinity;
  }
}
