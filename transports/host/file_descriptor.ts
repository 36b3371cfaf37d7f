/**
 * A file descriptor with one owner, who closes it exactly once.
 * @module
 */
import { checked } from "./errno.ts";
import { libc } from "./libc.ts";

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const POLLIN = 1;
/** Calls on the descriptor do not wait. */
export const O_NONBLOCK = 0o4000;
/** The descriptor is not passed on to programs that are started. */
export const O_CLOEXEC = 0o2000000;
/** For reading and writing. */
export const O_RDWR = 2;

/** A number that stands for an open file, socket or the like. Closed numbers are given out anew, so none is used twice. */
export class FileDescriptor implements Disposable {
  static #live = 0;
  #number: number;

  /** Owns an open descriptor from now on. @param number what a system call has returned */
  constructor(number: number) {
    this.#number = number;
    FileDescriptor.#live++;
  }

  /** How many are open: for tests that look for leaks. */
  static get live(): number {
    return FileDescriptor.#live;
  }

  /** Opens a file. Throws SystemCallError with these remedies. */
  static open(path: Uint8Array<ArrayBuffer>, flags: number, attempt: string, remedies = {}): FileDescriptor {
    return new FileDescriptor(checked(libc().open(path, flags | O_CLOEXEC, 0), attempt, remedies));
  }

  /** Opens what stands behind a descriptor of this process once more. Throws SystemCallError. @param what what it is called in messages */
  static duplicate(number: number, what: string): FileDescriptor {
    const attempt = `duplicate file descriptor ${number}, ${what}`;
    return new FileDescriptor(checked(libc().fcntl(number, F_DUPFD_CLOEXEC, 0), attempt));
  }

  /** The number. Throws Error if it has been closed. */
  get number(): number {
    if (this.#number < 0) throw new Error("Cannot use a file descriptor that has been closed");
    return this.#number;
  }

  /** Has it not been closed yet? */
  get isOpen(): boolean {
    return this.#number >= 0;
  }

  /** Lets calls return at once instead of waiting, and keeps programs that are started from inheriting it. */
  makeNonBlocking(): void {
    const c = libc();
    const attempt = `make file descriptor ${this.number} non-blocking`;
    const status = checked(c.fcntl(this.number, F_GETFL, 0), attempt);
    checked(c.fcntl(this.number, F_SETFL, status | O_NONBLOCK), attempt);
    const flags = checked(c.fcntl(this.number, F_GETFD, 0), attempt);
    checked(c.fcntl(this.number, F_SETFD, flags | FD_CLOEXEC), attempt);
  }

  /** Hands the number over: this object no longer owns it. */
  release(): number {
    const number = this.number;
    this.#number = -1;
    FileDescriptor.#live--;
    return number;
  }

  /** Closes it; does nothing the second time. */
  [Symbol.dispose](): void {
    // Not repeated on EINTR: Linux has closed it then, and the number may be somebody else's already.
    if (this.isOpen) libc().close(this.release());
  }
}

/** Is there something to read, or to accept, or the end? Does not wait. */
export function isReadable(number: number): boolean {
  const request = new Int32Array([number, POLLIN]);
  return libc().poll(new Uint8Array(request.buffer), 1n, 0) === 1;
}
