/**
 * An epoll set: tells when something happens to any of many descriptors.
 * @module
 */
import { FileDescriptor, O_CLOEXEC } from "./descriptors.ts";
import { addressOf, checked, EINTR, errno, lastCallError, libc, type LibcSymbols } from "./libc.ts";

/** There is something to read. */
export const EPOLLIN = 1;
/** There is room to write. */
export const EPOLLOUT = 4;
/** The other side has closed its half. */
export const EPOLLRDHUP = 0x2000;
/** Told once when it becomes so, not as long as it is so. */
export const EPOLLET = 0x8000_0000;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const MAX_EVENTS = 64;
/** struct epoll_event is packed on x86-64 only. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_AT = EVENT_BYTES - 8;

/** A set of descriptors to wait for. */
export class Epoll implements Disposable {
  /** The descriptor, owned. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  readonly #number: number;
  readonly #events = new DataView(new ArrayBuffer(MAX_EVENTS * EVENT_BYTES));
  readonly #eventsAddress = addressOf(this.#events);

  /** Makes an empty set. Throws SystemCallError. */
  constructor() {
    this.#number = checked(this.#c.epoll_create1(O_CLOEXEC), "make an epoll set");
    this.fd = new FileDescriptor(this.#number);
  }

  /** Adds a descriptor. Throws SystemCallError: for one that is there already, or cannot be waited for, as a file. */
  add(number: number, events: number): void {
    const event = new DataView(new ArrayBuffer(EVENT_BYTES));
    event.setUint32(0, events, true);
    event.setUint32(DATA_AT, number, true);
    checked(
      this.#c.epoll_ctl(this.#number, EPOLL_CTL_ADD, number, new Uint8Array(event.buffer)),
      `wait for file descriptor ${number}`,
      {
        EPERM: "a file cannot be waited for: pass a socket, a TAP queue or an event",
        EEXIST: "it is waited for already",
        ENOSPC: "raise the limit of watches (sysctl fs.epoll.max_user_watches)",
      },
    );
  }

  /** Takes a descriptor out. One that is not there, or closed, is no error. */
  remove(number: number): void {
    this.#c.epoll_ctl(this.#number, EPOLL_CTL_DEL, number, null);
  }

  /**
   * How many events there are, up to 64; waits for one in this thread, if there is none, `mostMs` at most. Throws
   * SystemCallError if the set was closed.
   */
  ready(mostMs = 0): number {
    const count = this.#c.epoll_wait(this.#number, this.#eventsAddress, MAX_EVENTS, mostMs);
    if (count >= 0) return count;
    if (errno() === EINTR) return 0;
    throw lastCallError("wait for events");
  }

  /** The descriptor of event `index`, below what `ready` or `block` returned last. */
  readyNumber(index: number): number {
    return this.#events.getUint32(index * EVENT_BYTES + DATA_AT, true);
  }

  /**
   * Waits for an event in this thread, which does nothing else meanwhile. Returns how many there are; 0 if a signal has ended
   * it. Throws as `ready`.
   */
  block(): number {
    const count = this.#c.epoll_wait(this.#number, this.#eventsAddress, MAX_EVENTS, -1);
    if (count >= 0) return count;
    if (errno() === EINTR) return 0;
    throw lastCallError("wait for events");
  }

  /**
   * Waits for an event in another thread. Resolves to something below 0 if the wait was broken off, the reason of which
   * is lost. Not to be called again before it has resolved.
   */
  wait(): Promise<number> {
    return this.#c.epollWaitAwaited(this.#number, this.#eventsAddress, MAX_EVENTS, -1);
  }

  /** Closes the set. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}
