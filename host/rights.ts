/**
 * What this process may do, without doing it.
 * @module
 */
import { cString, libc } from "./libc.ts";

const AT_FDCWD = -100;
/** By the user and group that count for files, not those that started the process. */
const AT_EACCESS = 0x200;
const MODES: Readonly<Record<string, number>> = { r: 4, w: 2, x: 1 };
const CAPABILITY_VERSION_3 = 0x20080522;
const CAP_NET_ADMIN = 12;

/** May this process use the file or folder in these ways: any of the letters r, w, x; none asks whether it is there. */
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
