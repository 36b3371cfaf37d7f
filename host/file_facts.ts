/**
 * What the kernel knows of a file: its size, its kind, which file it is.
 *
 * Nothing here waits for the program that serves the file (FUSE, a network): `statx` is told to do with what the kernel knows
 * already, and the name of a descriptor is the kernel's own.
 * @module
 */
import { checked, ENOENT, lastCallError } from "./errno.ts";
import { cString, errno, libc } from "./libc.ts";

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
  /** Is it a device, or does it lie on one? Otherwise it lies in memory, or a program or another host serves it. */
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

/** Facts about what stands at a path, symbolic links not followed; null if nothing does. Throws SystemCallError. */
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
