/**
 * What a thread waits for: an epoll set, which tells when something happens to any of many descriptors, and
 * an alarm.
 * @module
 */
import { FileDescriptor, O_CLOEXEC, O_NONBLOCK } from "./descriptors.ts";
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
/** Takes a descriptor out of a set. */
export const EPOLL_CTL_DEL = 2;
const MAX_EVENTS = 64;
/** struct epoll_event is packed on x86-64 only. */
const EVENT_BYTES = Deno.build.arch === "x86_64" ? 12 : 16;
const DATA_AT = EVENT_BYTES - 8;

const CLOCK_MONOTONIC = 1;
const NS_A_SECOND = 1_000_000_000;
/** Longer alarms are cut to this, in s: a reactor that is woken too early looks at the clock anyway. */
const MAX_ALARM_S = 1_000_000;

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

  /**
   * Adds a descriptor. Throws SystemCallError: for one that is there already, or cannot be waited for, as a
   * file.
   */
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
   * How many events there are, up to 64; if there is none, waits for one in this thread, at most `maxMs`.
   * Throws SystemCallError if the set was closed.
   */
  ready(maxMs = 0): number {
    const count = this.#c.epoll_wait(this.#number, this.#eventsAddress, MAX_EVENTS, maxMs);
    if (count >= 0) return count;
    if (errno() === EINTR) return 0;
    throw lastCallError("wait for events");
  }

  /** The descriptor of event `index`, below what `ready` or `block` returned last. */
  readyNumber(index: number): number {
    return this.#events.getUint32(index * EVENT_BYTES + DATA_AT, true);
  }

  /**
   * Waits for an event in this thread, which does nothing else meanwhile. Returns how many there are; 0 if a
   * signal has ended it. Throws as `ready`.
   */
  block(): number {
    return this.ready(-1);
  }

  /**
   * Waits for an event in another thread. Resolves to something below 0 if the wait was broken off, the
   * reason of which is lost. Not to be called again before it has resolved.
   */
  wait(): Promise<number> {
    return this.#c.epollWaitAwaited(this.#number, this.#eventsAddress, MAX_EVENTS, -1);
  }

  /** Closes the set. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}

/**
 * One alarm of the kernel (timerfd), rung once: exact to some 50 microseconds, where timers of the runtime
 * are to 2 milliseconds.
 */
export class TimerFd implements Disposable {
  /** The descriptor, owned: readable once the alarm has rung. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  /** struct itimerspec: interval and value, each in seconds and nanoseconds of 64 bits. */
  readonly #setting = new Uint32Array(8);
  readonly #settingAddress = addressOf(this.#setting);

  /** Makes an alarm that is not set. Throws SystemCallError. */
  constructor() {
    const number = this.#c.timerfd_create(CLOCK_MONOTONIC, O_NONBLOCK | O_CLOEXEC);
    this.fd = new FileDescriptor(checked(number, "make a timer"));
  }

  /** Sets the alarm to ring in `inNs`, at least 1; an earlier setting is forgotten. */
  arm(inNs: number): void {
    const seconds = Math.min(Math.floor(inNs / NS_A_SECOND), MAX_ALARM_S);
    const nanoseconds = Math.min(Math.max(Math.ceil(inNs - seconds * NS_A_SECOND), 0), NS_A_SECOND - 1);
    this.#set(seconds, seconds === 0 && nanoseconds === 0 ? 1 : nanoseconds);
  }

  /** Forgets the alarm. */
  disarm(): void {
    this.#set(0, 0);
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }

  #set(seconds: number, nanoseconds: number): void {
    this.#setting[4] = seconds;
    this.#setting[6] = nanoseconds;
    checked(this.#c.timerfd_settime(this.fd.number, 0, this.#settingAddress, 0n), "set a timer");
  }
}
