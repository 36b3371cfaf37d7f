/**
 * The C library of this host: its functions, what they take, and their errors.
 *
 * It is opened when it is first needed, so that a machine without native transports needs no right to it.
 * This folder is the only room with foreign functions. A worker has its own copy of this module, and so its
 * own `errno`.
 *
 * The table below declares functions as Deno's foreign function interface wants them. Addresses are `u64` and
 * passed as bigint: a number there costs fifteen times as much. Sizes that are `size_t` in C are bigint as
 * well, and results that fit are `i32`. A function that takes different third arguments stands there twice.
 * @module
 */
import { HostError } from "../core/errors.ts";

const LIBRARY = "libc.so.6";

/** Name, parameters and result of every function used. */
const LIBC_SYMBOLS = {
  // Files.
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "u64", "u64"], result: "i32" },
  write: { parameters: ["i32", "u64", "u64"], result: "i32" },
  readv: { parameters: ["i32", "u64", "i32"], result: "i32" },
  writev: { parameters: ["i32", "u64", "i32"], result: "i32" },
  preadv2: { parameters: ["i32", "u64", "i32", "i64", "i32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  splice: { parameters: ["i32", "u64", "i32", "u64", "u64", "u32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctlValue: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" },
  readlink: { parameters: ["buffer", "buffer", "u64"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  unlink: { parameters: ["buffer"], result: "i32" },
  chmod: { parameters: ["buffer", "u32"], result: "i32" },
  fchmod: { parameters: ["i32", "u32"], result: "i32" },
  faccessat: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  lchown: { parameters: ["buffer", "u32", "u32"], result: "i32" },
  // Memory.
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "pointer" },
  memcpy: { parameters: ["u64", "u64", "u64"], result: "void" },
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  // Sockets.
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "u64", "u64", "i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  sendmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  recvmsg: { parameters: ["i32", "u64", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  // Waiting.
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
  eventfd_read: { parameters: ["i32", "buffer"], result: "i32" },
  timerfd_create: { parameters: ["i32", "i32"], result: "i32" },
  timerfd_settime: { parameters: ["i32", "i32", "u64", "u64"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "u64", "i32", "i32"], result: "i32" },
  epollWaitAwaited: {
    name: "epoll_wait",
    parameters: ["i32", "u64", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  // Asynchronous requests, for which the C library has no functions: the first parameter is the call's
  // number.
  io_setup: { name: "syscall", parameters: ["u64", "u64", "buffer"], result: "i32" },
  io_destroy: { name: "syscall", parameters: ["u64", "u64"], result: "i32" },
  io_submit: { name: "syscall", parameters: ["u64", "u64", "u64", "u64"], result: "i32" },
  io_getevents: { name: "syscall", parameters: ["u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  io_uring_setup: { name: "syscall", parameters: ["u64", "u64", "buffer"], result: "i32" },
  io_uring_enter: {
    name: "syscall",
    // The kernel looks at 32 bits of the numbers in the middle, and not at the size of a mask that is none.
    parameters: ["u64", "i32", "u32", "u32", "u32", "u64"],
    result: "i32",
  },
  // Threads of the C library, since glibc 2.34 in libc.so.6.
  dlsym: { parameters: ["u64", "buffer"], result: "u64", optional: true },
  pthread_create: { parameters: ["buffer", "buffer", "u64", "u64"], result: "i32", optional: true },
  pthread_attr_init: { parameters: ["buffer"], result: "i32" },
  pthread_attr_setdetachstate: { parameters: ["buffer", "i32"], result: "i32" },
  pthread_attr_setstacksize: { parameters: ["buffer", "u64"], result: "i32", optional: true },
  // The rest. gettid is there since glibc 2.30.
  gettid: { parameters: [], result: "i32", optional: true },
  capget: { parameters: ["buffer", "buffer"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

/** The functions, ready to be called. */
export type LibcSymbols = Deno.StaticForeignLibraryInterface<typeof LIBC_SYMBOLS>;

let opened: LibcSymbols | null = null;
let lastError: Int32Array | null = null;

/**
 * The C library's functions. Throws HostError if this host has none that we know, or Deno may not call it.
 */
export function libc(): LibcSymbols {
  return opened ??= openLibc();
}

/** Opens the C library, whether it was opened before or not. Throws HostError. */
export function openLibc(): LibcSymbols {
  if (Deno.build.os !== "linux") {
    throw new HostError(
      `Cannot call the C library on ${Deno.build.os}: native transports need Linux; use "loopback" or "pcap" here`,
    );
  }
  try {
    return Deno.dlopen(LIBRARY, LIBC_SYMBOLS).symbols;
  } catch (cause) {
    const message = cause instanceof Deno.errors.NotCapable
      ? `Cannot call ${LIBRARY}: Deno may not call native functions; add --allow-ffi, which is the right to do anything`
      : `Cannot call ${LIBRARY}: ${cause instanceof Error ? cause.message : cause}; native transports need ` +
        `Linux with the GNU C library 2.33 or later`;
    throw new HostError(message, { cause });
  }
}

/**
 * Why the last call failed, as a number. Only right after a synchronous call: an awaited one runs in another
 * thread, and its `errno` is lost.
 */
export function errno(): number {
  if (lastError === null) {
    const address = libc().__errno_location()!;
    // The address belongs to this thread and stays the same as long as it lives.
    lastError = new Int32Array(new Deno.UnsafePointerView(address).getArrayBuffer(4));
  }
  return lastError[0];
}

/** The text as C wants it: UTF-8 with a zero byte behind it. Throws HostError if there is one within. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new HostError(`Cannot pass ${JSON.stringify(text)} on: it must contain no zero byte`);
  }
  return new TextEncoder().encode(`${text}\0`);
}

/** The address of a buffer's first byte; right as long as the buffer is reachable and not transferred. */
export function addressOf(buffer: ArrayBufferView<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** Numbers of 32 bits in a struct iovec: address and length, of 64 bits each. */
const IOVEC_WORDS = 4;
const TWO_32 = 2 ** 32;

/**
 * A list of memory ranges for `readv` and `writev` (an array of struct iovec), made once and filled anew for
 * each call.
 */
export class IoVector {
  /** How many ranges it has room for. */
  readonly capacity: number;
  /** Where it lies, for the system call. */
  readonly address: bigint;
  readonly #words: Uint32Array<ArrayBuffer>;

  /** Makes room. @param capacity the most ranges */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#words = new Uint32Array(capacity * IOVEC_WORDS);
    this.address = addressOf(this.#words);
  }

  /**
   * Fills place `index`, below `capacity`.
   * @param address an address below 2^53
   * @param lengthBytes below 2^32
   */
  set(index: number, address: number, lengthBytes: number): void {
    const at = index * IOVEC_WORDS;
    // An address has less than 53 bits, so that its upper part is a small integer.
    const high = address / TWO_32 | 0;
    this.#words[at] = address - high * TWO_32;
    this.#words[at + 1] = high;
    this.#words[at + 2] = lengthBytes;
  }
}

/** Not permitted. */
export const EPERM = 1;
/** No such file. */
export const ENOENT = 2;
/** A signal came in between: try again. */
export const EINTR = 4;
/** Input or output failed; on a TAP: the interface is down. */
export const EIO = 5;
/** Not an open descriptor. */
export const EBADF = 9;
/** Not now: the call would have to wait. */
export const EAGAIN = 11;
/** The descriptor has lost what it stood for; on a TAP: the interface was deleted. */
export const EBADFD = 77;
/** No program listens. */
export const ECONNREFUSED = 111;

/** Names and meanings by number, of Linux on x86-64 and AArch64. */
const ERRORS: ReadonlyMap<number, readonly [name: string, meaning: string]> = new Map([
  [EPERM, ["EPERM", "operation not permitted"]],
  [ENOENT, ["ENOENT", "no such file or directory"]],
  [EINTR, ["EINTR", "interrupted by a signal"]],
  [EIO, ["EIO", "input/output error"]],
  [6, ["ENXIO", "no such device or address"]],
  [7, ["E2BIG", "too many"]],
  [EBADF, ["EBADF", "not an open file descriptor"]],
  [EAGAIN, ["EAGAIN", "not ready"]],
  [12, ["ENOMEM", "out of memory"]],
  [13, ["EACCES", "permission denied"]],
  [14, ["EFAULT", "bad address"]],
  [16, ["EBUSY", "in use"]],
  [17, ["EEXIST", "exists already"]],
  [19, ["ENODEV", "no such device"]],
  [20, ["ENOTDIR", "not a directory"]],
  [21, ["EISDIR", "is a directory"]],
  [22, ["EINVAL", "invalid argument"]],
  [23, ["ENFILE", "too many open files in the system"]],
  [24, ["EMFILE", "too many open files"]],
  [25, ["ENOTTY", "not a device of this kind"]],
  [27, ["EFBIG", "file too large"]],
  [28, ["ENOSPC", "no space left"]],
  [30, ["EROFS", "read-only file system"]],
  [32, ["EPIPE", "the other side has closed"]],
  [34, ["ERANGE", "out of range"]],
  [36, ["ENAMETOOLONG", "name too long"]],
  [40, ["ELOOP", "too many symbolic links"]],
  [EBADFD, ["EBADFD", "the device is gone"]],
  [88, ["ENOTSOCK", "not a socket"]],
  [90, ["EMSGSIZE", "message too long"]],
  [91, ["EPROTOTYPE", "wrong type of socket"]],
  [95, ["EOPNOTSUPP", "not supported"]],
  [97, ["EAFNOSUPPORT", "address family not supported"]],
  [98, ["EADDRINUSE", "address in use"]],
  [99, ["EADDRNOTAVAIL", "address not available"]],
  [100, ["ENETDOWN", "network is down"]],
  [104, ["ECONNRESET", "connection reset"]],
  [105, ["ENOBUFS", "no buffer space"]],
  [106, ["EISCONN", "connected already"]],
  [107, ["ENOTCONN", "not connected"]],
  [103, ["ECONNABORTED", "connection aborted"]],
  [109, ["ETOOMANYREFS", "too many descriptors under way"]],
  [110, ["ETIMEDOUT", "timed out"]],
  [ECONNREFUSED, ["ECONNREFUSED", "no program listens"]],
]);

const REMEDIES: Readonly<Record<string, string>> = {
  EMFILE: 'raise the limit of open files ("ulimit -n")',
  ENFILE: "raise the system's limit of open files (sysctl fs.file-max)",
  ENOMEM: "free memory, or use less of it",
  EPERM: "run with the rights that this needs",
  EACCES: "run as a user who may do this",
};

/** The name of an error such as `EPERM`; `E` and the number for one that is not known. */
export function errnoName(error: number): string {
  return ERRORS.get(error)?.[0] ?? `E${error}`;
}

/** A system call failed; the message says what was attempted, how it failed, and what to do. */
export class SystemCallError extends HostError {
  /** The error's name, such as `EPERM`. */
  readonly code: string;

  /**
   * Describes a failure.
   * @param attempt what was attempted, to stand behind "Cannot", with the path or interface
   * @param error the error's number
   * @param remedies what to do, by name of the error; `else` stands for all others
   */
  constructor(attempt: string, error: number, remedies: Readonly<Record<string, string>> = {}) {
    const [name, meaning] = ERRORS.get(error) ?? [errnoName(error), "unknown error"];
    const remedy = remedies[name] ?? REMEDIES[name] ?? remedies.else;
    super(`Cannot ${attempt}: ${name} (${meaning})${remedy === undefined ? "" : `; ${remedy}`}`);
    this.code = name;
  }
}

/** The error for the synchronous call that failed last; see {@linkcode SystemCallError}. */
export function lastCallError(
  attempt: string,
  remedies: Readonly<Record<string, string>> = {},
): SystemCallError {
  return new SystemCallError(attempt, errno(), remedies);
}

/** Passes a result on, unless it is negative: then throws {@linkcode SystemCallError}. */
export function checked(
  result: number,
  attempt: string,
  remedies: Readonly<Record<string, string>> = {},
): number {
  if (result < 0) throw lastCallError(attempt, remedies);
  return result;
}
