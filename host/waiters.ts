/**
 * How a reactor sleeps on this host: until a descriptor is ready, an alarm rings, or another part of the
 * program wakes it.
 *
 * Theory of operation. An `EpollWaiter` is for the main thread. One epoll set holds the watched descriptors,
 * an eventfd (`wake`) and a timerfd (the deadline). `wait` first asks without waiting; if nothing has
 * happened it sets the timer, and then there are two ways.
 *
 * An idle machine *sleeps*: it awaits one `epoll_wait` in another thread, so that signals, timers and
 * promises go on meanwhile and nothing is spent. But from there an event takes two changes of thread to get
 * here, each 50 to 100 microseconds.
 *
 * As long as there is traffic, and for 100 ms after it, it *naps* instead: it waits in this thread, 5 ms at
 * most, for an event or for the runtime to have something to do (`runtimePoll`), and lets the event loop turn
 * if none comes. Only timers have to wait for that, 20 ms at most. (Measured, a guest pinged every 10 ms: see
 * docs/performance.md.) Where the runtime does not show when it has something to do, naps are of 1 ms, two of
 * them.
 *
 * A `BlockingWaiter` is for a worker, which stands still as a whole: no timer, promise or message of that
 * thread is served while it sleeps. What wants something of it makes a watched descriptor ready.
 *
 * To be woken takes a sleeping processor of a virtual machine 30 to 100 microseconds. So the alarm of either
 * rings a little early, and the rest is spent awake, looking out for events: a reactor without a deadline
 * sleeps, and one that holds frames back for a while is not late.
 *
 * Everything is registered edge-triggered: an event says that something *became* ready. The reactor then
 * turns rounds until none of its parts does anything, which means that every reader has read until there was
 * no more. So nothing must be read here to arm an event again, not even the eventfd and the timer, and a
 * device that cannot take what is there does not keep the machine awake. An event that comes while the
 * reactor is busy stays in the set and ends the next `wait` at once.
 *
 * Invariants: one wait is under way at most; a set is not closed under a wait, but when that has ended.
 * `errno` of the awaited call is lost: a call that was broken off counts as an event, and what is wrong shows
 * in the next synchronous one.
 * @module
 */
import { CoarseWaiter, eventLoopTurn, type LookedFor, type Waiter } from "../core/reactor.ts";
import { Epoll, EPOLL_CTL_DEL, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, TimerFd } from "./epoll.ts";
import { EventFd } from "./event_fd.ts";
import { ENOENT, errno, libc } from "./libc.ts";

/** A nap, in ms: as long may the runtime's timers have to wait while there is traffic. */
const NAP_MS = 5;
/** How long naps go on after the last event, in ms. */
const RESTLESS_MS = 100;
/** The same where the runtime does not tell when it has something to do. */
const BLIND_NAP_MS = 1;
const BLIND_RESTLESS_MS = 2;
/**
 * The last stretch before a deadline, which is spent awake, in ns: about what a processor takes to wake in a
 * virtual machine.
 */
const AWAKE_NS = 50_000;
/** The same in a worker. */
const WORKER_AWAKE_NS = 100_000;
const NS_PER_MS = 1_000_000;
/**
 * When the event loop turns even if there is always something else to do. A turn takes 100 microseconds, and
 * right after an event they are the guest's, which has been woken on the same processor: a nap comes first,
 * as long as that is possible.
 */
const MAX_NS_BETWEEN_TURNS = 20 * NS_PER_MS;
/** The last descriptor that is looked at: the runtime makes its set before anything else. */
const MAX_RUNTIME_DESCRIPTOR = 31;

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
   * Ends waits whenever this descriptor becomes readable or writable, or its other side closes. Dispose of
   * the watch before the descriptor is closed. Throws SystemCallError if it cannot be watched.
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
    const isTurnDue = nowNs - this.#turnedNs >= MAX_NS_BETWEEN_TURNS;
    if (this.#hasEvent()) return isTurnDue ? this.#turn(nowNs) : undefined;
    const leftNs = untilNs - nowNs;
    if (leftNs <= 0) return this.#turn(nowNs);
    if (leftNs <= AWAKE_NS) return this.#stayAwake(leftNs);
    this.#arm(leftNs);
    if (!isTurnDue && this.#isRestless() && this.#nap()) return;
    this.#turnedNs = nowNs;
    return this.#rest();
  }

  /** Has something happened here or in the runtime? */
  look(): LookedFor {
    if (this.#closed) return "event";
    if (this.#naps.ready() === 0) return "nothing";
    return this.#hasEvent() ? "event" : "turn";
  }

  /** As long as a nap, in ns: timers of the runtime do not show. */
  get turnNs(): number {
    return this.#napMs * NS_PER_MS;
  }

  /** Ends a sleep. */
  wake(): void {
    if (this.#state === "awake" || this.#signalled) return;
    this.#signalled = true;
    if (this.#state === "asleep") this.#event.signal();
  }

  /** Closes everything, as soon as the sleep is over. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#state === "asleep") {
      this.#signalled = true;
      this.#event.signal();
    } else this.#owned.dispose();
  }

  /**
   * Lets the event loop turn, naps as long as there is hope, then sleeps; ends as soon as something happens.
   */
  async #rest(): Promise<void> {
    this.#signalled = false;
    do {
      this.#state = "turning";
      await eventLoopTurn();
      this.#state = "awake";
      // A `wake` or a close that came meanwhile has not found us asleep, and so has not signalled.
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

  /**
   * Waits a little in this thread. Has something happened, other than that the runtime has something to do?
   */
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

/** Sleeps in the kernel, with the whole thread. */
export class BlockingWaiter implements Waiter {
  readonly #epoll: Epoll;
  readonly #timer: TimerFd;
  readonly #owned: DisposableStack;
  #armed = false;

  /** Makes an empty set. Throws SystemCallError. */
  constructor() {
    using made = new DisposableStack();
    this.#epoll = made.use(new Epoll());
    this.#timer = made.use(new TimerFd());
    this.#epoll.add(this.#timer.fd.number, EPOLLIN | EPOLLET);
    this.#owned = made.move();
  }

  /**
   * The descriptor of its set, which is readable when something has happened: for another waiter to watch.
   */
  get number(): number {
    return this.#epoll.fd.number;
  }

  /**
   * Ends sleeps whenever this descriptor becomes readable or writable, or its other side closes. Dispose of
   * the watch before the descriptor is closed, and before it is watched anew. Throws SystemCallError if it
   * cannot be watched.
   */
  watch(number: number): Disposable {
    this.#epoll.add(number, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    let watched = true;
    return {
      [Symbol.dispose]: () => {
        if (watched && !this.#owned.disposed) this.#epoll.remove(number);
        watched = false;
      },
    };
  }

  /** Sleeps until something happens, or until `untilNs`. */
  wait(untilNs: number, nowNs: number): void {
    if (untilNs <= nowNs) return;
    const leftNs = untilNs - nowNs;
    const endMs = performance.now() + leftNs / NS_PER_MS;
    if (leftNs > WORKER_AWAKE_NS && !this.#sleepUntilAlarm(leftNs - WORKER_AWAKE_NS)) return;
    while (performance.now() < endMs && this.#epoll.ready() === 0);
  }

  /** Has something happened? */
  look(): LookedFor {
    return this.#epoll.ready() > 0 ? "event" : "nothing";
  }

  /** Is it nothing but the alarm that has ended the sleep? */
  #sleepUntilAlarm(inNs: number): boolean {
    if (inNs !== Infinity) this.#timer.arm(inNs);
    else if (this.#armed) this.#timer.disarm();
    this.#armed = inNs !== Infinity;
    return this.#epoll.block() === 1 && this.#epoll.readyNumber(0) === this.#timer.fd.number;
  }

  /** Does nothing: no code of this thread runs while it sleeps. */
  wake(): void {}

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** By thread, for every thread has a module of its own. */
let found: number | null | undefined;

/**
 * The descriptor of the epoll set in which the runtime's main thread waits for its sockets, signals, threads
 * and promises; null in other threads, whose sets cannot be told from each other, and where there is none. It
 * becomes readable when the event loop has something to do, timers excepted. It is the runtime's: only to be
 * watched.
 */
export function runtimePoll(): number | null {
  if (found === undefined) found = find();
  return found;
}

function find(): number | null {
  const c = libc();
  if (c.gettid?.() !== Deno.pid) return null;
  using event = EventFd.create();
  for (let number = 3; number <= MAX_RUNTIME_DESCRIPTOR; number++) {
    // A set answers that the descriptor is not in it; anything else, that it is no set.
    if (c.epoll_ctl(number, EPOLL_CTL_DEL, event.fd.number, null) < 0 && errno() === ENOENT) return number;
  }
  return null;
}

/** What sleeps by a waiter: a reactor. */
export interface Sleeper {
  /** How it sleeps. */
  waiter: Waiter;
}

/**
 * Watches descriptors for a reactor. The epoll set is made for the first watch and closed with the last: a
 * machine without host transports needs no right to call native functions, and no caller has to close it.
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
