/**
 * What the kernel knows of a file: its size, its kind, which file it is.
 * @module
 */
import { checked, ENOENT, lastCallError } from "./errno.ts";
import { cString, errno, libc } from "./libc.ts";

const STAT_BYTES = 256;
const INODE_AT = 8;
// The two architectures disagree on the order of these; they agree on the rest that is used here.
const MODE_AT = Deno.build.arch === "x86_64" ? 24 : 16;
const SIZE_AT = 48;
const BLOCK_SIZE_AT = 56;
const KIND_MASK = 0o170000;
const KIND_SOCKET = 0o140000;

/** Facts about a file at one moment. */
export interface FileFacts {
  /** Its size in bytes. */
  readonly sizeBytes: number;
  /** The unit in which it is stored; on hugetlbfs the size of a page. */
  readonly blockBytes: number;
  /** Is it a socket? */
  readonly isSocket: boolean;
  /** The lower bits of its mode: who may do what. */
  readonly permissions: number;
  /** Which file it is: device and inode. */
  readonly identity: string;
}

/** Facts about an open file. Throws SystemCallError. */
export function factsOfDescriptor(number: number): FileFacts {
  const stat = new Uint8Array(STAT_BYTES);
  checked(libc().fstat(number, stat), `look at file descriptor ${number}`);
  return factsFrom(stat);
}

/** Facts about what stands at a path, symbolic links not followed; null if nothing does. Throws SystemCallError. */
export function factsOfPath(path: string): FileFacts | null {
  const stat = new Uint8Array(STAT_BYTES);
  if (libc().lstat(cString(path), stat) === 0) return factsFrom(stat);
  if (errno() === ENOENT) return null;
  throw lastCallError(`look at ${path}`);
}

function factsFrom(stat: Uint8Array<ArrayBuffer>): FileFacts {
  const view = new DataView(stat.buffer);
  const mode = view.getUint32(MODE_AT, true);
  return {
    sizeBytes: Number(view.getBigInt64(SIZE_AT, true)),
    blockBytes: view.getUint32(BLOCK_SIZE_AT, true),
    isSocket: (mode & KIND_MASK) === KIND_SOCKET,
    permissions: mode & 0o7777,
    identity: `${view.getBigUint64(0, true)}:${view.getBigUint64(INODE_AT, true)}`,
  };
}
