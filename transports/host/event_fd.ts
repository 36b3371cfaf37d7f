/**
 * An eventfd: a counter that wakes whoever waits for it. Kicks and interrupts of vhost-user are such.
 * @module
 */
import { checked } from "./errno.ts";
import { FileDescriptor, O_CLOEXEC, O_NONBLOCK } from "./file_descriptor.ts";
import { libc, type LibcSymbols } from "./libc.ts";

/** A counter in the kernel. Neither signalling nor draining ever waits. */
export class EventFd implements Disposable {
  /** The descriptor, owned. */
  readonly fd: FileDescriptor;
  readonly #c: LibcSymbols = libc();
  readonly #number: number;
  readonly #count = new BigUint64Array(1);

  /** Owns an eventfd that was received; it is made non-blocking. @param fd the descriptor */
  constructor(fd: FileDescriptor) {
    fd.makeNonBlocking();
    this.fd = fd;
    this.#number = fd.number;
  }

  /** Makes a new one, at 0. Throws SystemCallError. */
  static create(): EventFd {
    const number = checked(libc().eventfd(0, O_NONBLOCK | O_CLOEXEC), "make an eventfd");
    return new EventFd(new FileDescriptor(number));
  }

  /** Adds 1 and so wakes whoever waits. False if it was closed, or is no eventfd, or full: then it wakes anyway. */
  signal(): boolean {
    return this.fd.isOpen && this.#c.eventfd_write(this.#number, 1n) === 0;
  }

  /** Sets it to 0. True if it was not 0. */
  drain(): boolean {
    return this.fd.isOpen && this.#c.eventfd_read(this.#number, this.#count) === 0;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.fd[Symbol.dispose]();
  }
}
