/**
 * How the reactor of a worker sleeps: the thread stands still until a descriptor is ready or an alarm rings.
 *
 * As {@linkcode EpollWaiter}, but without another thread that waits: nothing else happens in this one meanwhile, no timer,
 * no promise, no message. Whoever wants something of it makes a watched descriptor ready.
 * @module
 */
import type { Waiter } from "../../core/waiter.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP } from "./epoll.ts";
import { TimerFd } from "./timer_fd.ts";

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
    if (untilNs !== Infinity) this.#timer.arm(untilNs - nowNs);
    else if (this.#armed) this.#timer.disarm();
    this.#armed = untilNs !== Infinity;
    this.#epoll.block();
  }

  /** Nobody in this thread can call it while it sleeps. */
  wake(): void {}

  /** Closes everything. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}
