/**
 * Errors of system calls by name, as a HostError that says what to do.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { errno } from "./libc.ts";

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
/** Nobody listens. */
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
  [ECONNREFUSED, ["ECONNREFUSED", "nobody listens"]],
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
