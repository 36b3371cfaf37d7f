/**
 * How the reactor of a worker sleeps: the thread stands still until a descriptor is ready or an alarm rings.
 *
 * As {@linkcode EpollWaiter}, but without another thread that waits: nothing else happens in this one meanwhile, no timer,
 * no promise, no message. Whoever wants something of it makes a watched descriptor ready.
 *
 * To be woken takes a processor 30 to 100 microseconds that has fallen asleep in a virtual machine. So the alarm rings a little
 * early, and the rest is spent awake, looking out for events: who waits for nothing sleeps, and who holds frames back for a
 * while is not late.
 * @module
 */
import type { Waiter } from "../core/waiter.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "./epoll.ts";
import { TimerFd } from "./timer_fd.ts";

/** The last stretch before a deadline, which is spent awake, in ns. */
const AWAKE_NS = 100_000;

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
   * Ends sleeps whenever this descriptor becomes readable or writable, or its other side closes. Dispose of the watch
   * before the descriptor is closed, and before it is watched anew. Throws SystemCallError if it cannot be watched.
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
    const endMs = performance.now() + leftNs / 1e6;
    if (leftNs > AWAKE_NS && !this.#sleepUntilAlarm(leftNs - AWAKE_NS)) return;
    while (performance.now() < endMs && this.#epoll.ready() === 0);
  }

  /** Is it nothing but the alarm that has ended the sleep? */
  #sleepUntilAlarm(inNs: number): boolean {
    if (inNs !== Infinity) this.#timer.arm(inNs);
    else if (this.#armed) this.#timer.disarm();
    this.#armed = inNs !== Infinity;
    return this.#epoll.block() === 1 && this.#epoll.readyNumber(0) === this.#timer.fd.number;
  }

  /** Nobody in this thread can call it while it sleeps. */
  wake(): void {}

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
