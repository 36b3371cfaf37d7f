/**
 * A timerfd: an alarm of the kernel, exact to some 50 microseconds, where timers of the runtime are to 2 milliseconds.
 * @module
 */
import { checked } from "./errno.ts";
import { FileDescriptor, O_CLOEXEC, O_NONBLOCK } from "./file_descriptor.ts";
import { addressOf, libc, type LibcSymbols } from "./libc.ts";

const CLOCK_MONOTONIC = 1;
const NS_A_SECOND = 1_000_000_000;
/** Longer alarms are cut to this, in s; whoever is woken too early looks at the clock anyway. */
const LONGEST_S = 1_000_000;

/** One alarm, rung once. */
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
    const seconds = Math.min(Math.floor(inNs / NS_A_SECOND), LONGEST_S);
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
