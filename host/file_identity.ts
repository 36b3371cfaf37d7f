/**
 * Which file a path leads to: names do not tell, for links, bind mounts and descriptors lead to one file by
 * many.
 * @module
 */
import * as fs from "node:fs";
import { basename, dirname } from "node:path";

/** Symbolic links that lead to a file which is not there yet, at most. */
const MAX_LINKS = 40;

/**
 * What can be compared of a file: device and inode; of one that is not there yet, those of its folder, and
 * its name.
 */
export type FileIdentity = string;

/**
 * Which file a path leads to, symbolic links followed. Null for a device, if there is not even a folder, or
 * if it may not be looked at.
 */
export function identityOfPath(path: string): FileIdentity | null {
  let at = path;
  try {
    for (let links = 0; links < MAX_LINKS; links++) {
      const stat = fs.statSync(at, { bigint: true, throwIfNoEntry: false });
      if (stat !== undefined) return stat.isCharacterDevice() ? null : `${stat.dev}:${stat.ino}`;
      const link = fs.lstatSync(at, { throwIfNoEntry: false });
      const folder = fs.realpathSync(dirname(at));
      if (link?.isSymbolicLink() !== true) {
        const { dev, ino } = fs.statSync(folder, { bigint: true });
        return `${dev}:${ino}/${basename(at)}`;
      }
      const target = fs.readlinkSync(at);
      at = target.startsWith("/") ? target : `${folder}/${target}`;
    }
  } catch {
    // What may not be looked at is compared when it is opened.
  }
  return null;
}

/** Which file standard input is; null for a terminal, and if that cannot be told. */
export function identityOfStandardInput(): FileIdentity | null {
  try {
    const stat = fs.fstatSync(0, { bigint: true });
    return stat.isCharacterDevice() ? null : `${stat.dev}:${stat.ino}`;
  } catch {
    return null;
  }
}
