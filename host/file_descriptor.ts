/**
 * A file descriptor with one owner, who closes it exactly once.
 * @module
 */
import { checked } from "./errno.ts";
import { nameOfDescriptor } from "./file_facts.ts";
import { cString, libc } from "./libc.ts";

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const POLLIN = 1;
const F_GET_SEALS = 1034;
const PTHREAD_CREATE_DETACHED = 1;
/** No less than sizeof(pthread_attr_t). */
const ATTRIBUTE_BYTES = 64;
const STACK_BYTES = 65_536n;
/** What the kernel calls an eventfd. */
export const EVENTFD = "anon_inode:[eventfd]";
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

/**
 * A descriptor that another program has passed. To close the last one of a file may wait, as long as that program has arranged:
 * a socket for what it has to send (SO_LINGER), a file for the program that serves it (FUSE), a Unix socket for the descriptors that
 * lie unread in it. So it is closed in a thread of its own, unless it is of a kind of which none waits.
 */
export class ReceivedDescriptor extends FileDescriptor {
  /** Closes it, without waiting; does nothing the second time. */
  override [Symbol.dispose](): void {
    if (!this.isOpen) return;
    if (closesAtOnce(this.number)) super[Symbol.dispose]();
    else closeElsewhere(this.release());
  }
}

/** Memory, events and pipes: what a front-end that means well passes, but for the socket of its back channel. */
function closesAtOnce(number: number): boolean {
  if (libc().fcntl(number, F_GET_SEALS, 0) >= 0) return true;
  const name = nameOfDescriptor(number);
  return name === EVENTFD || name.startsWith("pipe:");
}

/** What threads are made with: attributes, and the address of close(2); null until the first, or where there are none. */
let closer: { readonly attributes: Uint8Array<ArrayBuffer>; readonly close: bigint } | null = null;
/** Descriptors for which there was no thread. */
let unclosed: number[] = [];

/** Closes a descriptor, which the caller has released, without waiting for it. */
export function closeElsewhere(number: number): void {
  const c = libc();
  const { dlsym, pthread_create } = c;
  if (dlsym === null || pthread_create === null) {
    c.close(number);
    return;
  }
  if (closer === null) {
    const attributes = new Uint8Array(ATTRIBUTE_BYTES);
    c.pthread_attr_init(attributes);
    c.pthread_attr_setdetachstate(attributes, PTHREAD_CREATE_DETACHED);
    c.pthread_attr_setstacksize?.(attributes, STACK_BYTES);
    closer = { attributes, close: dlsym(0n, cString("close")) };
  }
  const { attributes, close } = closer;
  const numbers = [...unclosed, number];
  // Threads are limited: what gets none stays open until the next time.
  unclosed = numbers.filter((one) => pthread_create(new Uint8Array(8), attributes, close, BigInt(one)) !== 0);
}

/** Is there something to read, or to accept, or the end? Does not wait. */
export function isReadable(number: number): boolean {
  const request = new Int32Array([number, POLLIN]);
  return libc().poll(new Uint8Array(request.buffer), 1n, 0) === 1;
}
