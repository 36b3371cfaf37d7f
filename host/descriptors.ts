/**
 * File descriptors: owned and closed exactly once, asked what stands behind them; and what this process may
 * do with files.
 *
 * A descriptor that another program has passed needs two cares. To close the last one of a file may wait, as
 * long as that program has arranged, so it is closed in a thread of its own (`ReceivedDescriptor`). And
 * questions about the file must not wait for the program that serves it (FUSE, a network): `statx` is told to
 * do with what the kernel knows already, and the name of a descriptor is the kernel's own.
 * @module
 */
import { checked, cString, ENOENT, errno, lastCallError, libc } from "./libc.ts";

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

const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
const AT_EMPTY_PATH = 0x1000;
const AT_STATX_DONT_SYNC = 0x4000;
const STATX_BASIC_STATS = 0x7ff;
// struct statx.
const STAT_BYTES = 256;
const BLOCK_SIZE_AT = 4;
const MODE_AT = 28;
const INODE_AT = 32;
const SIZE_AT = 40;
const BLOCKS_AT = 48;
const BYTES_A_BLOCK = 512;
const MAJOR_AT = 136;
const MINOR_AT = 140;
const KIND_MASK = 0o170000;
const KIND_SOCKET = 0o140000;
const KIND_CHARACTER_DEVICE = 0o020000;
/** More than anything that is looked for here. */
const NAME_BYTES = 4096;
/** By the user and group that count for files, not those that started the process. */
const AT_EACCESS = 0x200;
const MODES: Readonly<Record<string, number>> = { r: 4, w: 2, x: 1 };
const CAPABILITY_VERSION_3 = 0x20080522;
const CAP_NET_ADMIN = 12;

/**
 * A number that stands for an open file, socket or the like. Closed numbers are given out anew, so none is
 * used twice.
 */
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

  /**
   * Opens what a descriptor of this process stands for once more. Throws SystemCallError.
   * @param what its name in messages
   */
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
    // Not repeated on EINTR: Linux has closed it then, and the number may stand for another file already.
    if (this.isOpen) libc().close(this.release());
  }
}

/**
 * A descriptor that another program has passed. Closing the last one of a file may wait: a socket for what it
 * has to send (SO_LINGER), a file for the program that serves it (FUSE), a Unix socket for the descriptors
 * that lie unread in it. It is closed in a thread of its own, unless it is of a kind that never waits.
 */
export class ReceivedDescriptor extends FileDescriptor {
  /** Closes it, without waiting; does nothing the second time. */
  override [Symbol.dispose](): void {
    if (!this.isOpen) return;
    if (closesAtOnce(this.number)) super[Symbol.dispose]();
    else closeElsewhere(this.release());
  }
}

/**
 * Memory, events and pipes: all that a well-behaved front-end passes, except the socket of its back channel.
 */
function closesAtOnce(number: number): boolean {
  if (libc().fcntl(number, F_GET_SEALS, 0) >= 0) return true;
  const name = nameOfDescriptor(number);
  return name === EVENTFD || name.startsWith("pipe:");
}

/**
 * What threads are made with: attributes, and the address of close(2); null until the first, or where there
 * are none.
 */
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

/** Facts about a file at one moment. */
export interface FileFacts {
  /** Its size in bytes. */
  readonly sizeBytes: number;
  /** How much of it there is: what was never written may have no place yet. */
  readonly allocatedBytes: number;
  /** The unit in which it is stored; on hugetlbfs the size of a page. */
  readonly blockBytes: number;
  /** Is it a socket? */
  readonly isSocket: boolean;
  /**
   * Is it a device, or does it lie on one? Otherwise it lies in memory, or a program or another host serves
   * it.
   */
  readonly isOnDevice: boolean;
  /** The lower bits of its mode: who may do what. */
  readonly permissions: number;
  /** Which file it is: device and inode. */
  readonly identity: string;
}

/** Facts about an open file. Throws SystemCallError. */
export function factsOfDescriptor(number: number): FileFacts {
  const stat = new Uint8Array(STAT_BYTES);
  const flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC;
  checked(
    libc().statx(number, cString(""), flags, STATX_BASIC_STATS, stat),
    `look at file descriptor ${number}`,
  );
  return factsFrom(stat);
}

/**
 * Facts about what stands at a path, symbolic links not followed; null if nothing does. Throws
 * SystemCallError.
 */
export function factsOfPath(path: string): FileFacts | null {
  const stat = new Uint8Array(STAT_BYTES);
  const flags = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC;
  if (libc().statx(AT_FDCWD, cString(path), flags, STATX_BASIC_STATS, stat) === 0) return factsFrom(stat);
  if (errno() === ENOENT) return null;
  throw lastCallError(`look at ${path}`);
}

/**
 * What the kernel calls what stands behind a descriptor: a path, or such as `socket:[4711]`, `pipe:[4712]`,
 * `anon_inode:[eventfd]`. Throws SystemCallError.
 */
export function nameOfDescriptor(number: number): string {
  const name = new Uint8Array(NAME_BYTES);
  const path = cString(`/proc/self/fd/${number}`);
  const length = checked(
    libc().readlink(path, name, BigInt(NAME_BYTES)),
    `look at file descriptor ${number}`,
    { ENOENT: "it is not open, or /proc is not mounted" },
  );
  return new TextDecoder().decode(name.subarray(0, length));
}

function factsFrom(stat: Uint8Array<ArrayBuffer>): FileFacts {
  const view = new DataView(stat.buffer);
  const mode = view.getUint16(MODE_AT, true);
  const major = view.getUint32(MAJOR_AT, true);
  return {
    sizeBytes: Number(view.getBigInt64(SIZE_AT, true)),
    allocatedBytes: Number(view.getBigUint64(BLOCKS_AT, true)) * BYTES_A_BLOCK,
    blockBytes: view.getUint32(BLOCK_SIZE_AT, true),
    isSocket: (mode & KIND_MASK) === KIND_SOCKET,
    isOnDevice: major !== 0 || (mode & KIND_MASK) === KIND_CHARACTER_DEVICE,
    permissions: mode & 0o7777,
    identity: `${major}:${view.getUint32(MINOR_AT, true)}:${view.getBigUint64(INODE_AT, true)}`,
  };
}

/**
 * May this process use the file or folder in these ways: any of the letters r, w, x; none asks whether it is
 * there.
 */
export function mayAccess(path: string, ways: string): boolean {
  const mode = [...ways].reduce((bits, letter) => bits | MODES[letter], 0);
  return libc().faccessat(AT_FDCWD, cString(path), mode, AT_EACCESS) === 0;
}

/** Has this process CAP_NET_ADMIN (capabilities(7)), with which interfaces are made? */
export function mayAdministerNetwork(): boolean {
  const header = Uint32Array.of(CAPABILITY_VERSION_3, 0);
  // Effective, permitted and inheritable, twice 32 bits each.
  const data = new Uint32Array(6);
  return libc().capget(header, data) === 0 && (data[0] & (1 << CAP_NET_ADMIN)) !== 0;
}
