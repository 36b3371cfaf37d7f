/**
 * A file to be written: opened without waiting and without being emptied, so that it can be compared with
 * others first.
 *
 * Theory of operation. A file is opened with O_NONBLOCK: a FIFO that nothing reads is refused at once instead
 * of holding the program up. A regular file is then written by the runtime's pool of threads. What is no
 * regular file (a FIFO, a terminal, a device) is written without waiting, again and again while it takes
 * nothing, so that no thread of the pool is ever stuck in it. `begin` empties the file; before that nothing
 * of it is touched, and one that `open` has made is removed by `discard`.
 * @module
 */
import * as fs from "node:fs";
import { HostError } from "../core/errors.ts";
import { type FileIdentity, identityOfPath } from "./file_identity.ts";

const { O_WRONLY, O_CREAT, O_EXCL, O_NONBLOCK } = fs.constants;
const MODE = 0o666;
/** Waits between two attempts at a file that takes nothing, in ms: the first and the longest. */
const RETRY_MS = 5;
const MAX_RETRY_MS = 250;
/** How long `writeSync` waits for a file that takes nothing, in ms. */
const MAX_SYNC_WAIT_MS = 1000;

/** A file that is open to be written. */
export class OutputFile implements Disposable {
  /** Which file it is; null for a device, such as /dev/null, which any number of writers may share. */
  readonly identity: FileIdentity | null;
  readonly #path: string;
  readonly #file: Deno.FsFile | null;
  readonly #number: number;
  readonly #waits: boolean;
  readonly #isNew: boolean;
  #isOpen = true;

  private constructor(path: string, waits: boolean, number: number, isNew: boolean) {
    this.#path = path;
    this.#waits = waits;
    this.#number = number;
    this.#isNew = isNew;
    const stat = fs.fstatSync(number, { bigint: true });
    this.identity = stat.isCharacterDevice() ? null : `${stat.dev}:${stat.ino}`;
    if (!stat.isFile()) {
      this.#file = null;
      return;
    }
    this.#file = Deno.openSync(path, { write: true });
    const { dev, ino } = this.#file.statSync();
    fs.closeSync(number);
    if (dev === Number(stat.dev) && ino === Number(stat.ino)) return;
    this.#file.close();
    throw new Error("it was replaced while it was opened");
  }

  /**
   * Opens the file `path`, and makes it if it is not there. Needs permission to write it. Throws HostError.
   * @param what what it is called in messages; may be empty
   * @param waits are writes to be done at once, in this thread? For programs that have no guest to keep
   * waiting
   */
  static open(path: string, what: string, waits = false): OutputFile {
    let number = -1;
    let isNew = true;
    try {
      try {
        number = fs.openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NONBLOCK, MODE);
      } catch (cause) {
        if (codeOf(cause) !== "EEXIST") throw cause;
        // A symbolic link may lead to a file that is not there yet.
        isNew = isAbsent(identityOfPath(path));
        number = fs.openSync(path, O_WRONLY | O_CREAT | O_NONBLOCK, MODE);
      }
      return new OutputFile(path, waits, number, isNew);
    } catch (cause) {
      const why = codeOf(cause) === "ENXIO"
        ? "nothing reads this FIFO or socket; start its reader first"
        : `${(cause as Error).message}; check the path and the permission to write it`;
      throw new HostError(`Cannot write ${what === "" ? "" : `${what} `}"${path}": ${why}`, { cause });
    }
  }

  /** Empties the file. */
  begin(): void {
    this.#file?.truncateSync(0);
  }

  /** Writes the front of `bytes` behind what was written, and resolves to how many bytes that were. */
  async write(bytes: Uint8Array): Promise<number> {
    if (this.#waits) return this.writeSync(bytes);
    if (this.#file !== null) return await this.#file.write(bytes);
    for (let waitMs = RETRY_MS;; waitMs = Math.min(2 * waitMs, MAX_RETRY_MS)) {
      const count = this.#attempt(bytes);
      if (count > 0) return count;
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }

  /** The same at once. Throws Error if what is no regular file takes nothing for a second. */
  writeSync(bytes: Uint8Array): number {
    if (this.#file !== null) return this.#file.writeSync(bytes);
    const nothing = new Int32Array(new SharedArrayBuffer(4));
    for (let waitedMs = 0; waitedMs < MAX_SYNC_WAIT_MS; waitedMs += RETRY_MS) {
      const count = this.#attempt(bytes);
      if (count > 0) return count;
      Atomics.wait(nothing, 0, 0, RETRY_MS);
    }
    throw new Error("its reader takes nothing");
  }

  /** Empties the file and writes all of `bytes`. Throws Error. */
  writeWhole(bytes: Uint8Array): void {
    this.begin();
    for (let at = 0; at < bytes.length;) at += this.writeSync(bytes.subarray(at));
  }

  /** Closes it; does nothing the second time. */
  close(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    if (this.#file === null) fs.closeSync(this.#number);
    else this.#file.close();
  }

  /** Closes it without ever having written to it. One that `open` has made is removed. */
  discard(): void {
    if (!this.#isOpen) return;
    const made = this.#isNew && this.#file?.statSync().size === 0;
    this.close();
    if (made && identityOfPath(this.#path) === this.identity) Deno.removeSync(fs.realpathSync(this.#path));
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** 0 if the file takes nothing now. */
  #attempt(bytes: Uint8Array): number {
    if (!this.#isOpen) throw new Error("it was closed");
    try {
      return fs.writeSync(this.#number, bytes);
    } catch (cause) {
      if (codeOf(cause) === "EAGAIN") return 0;
      throw cause;
    }
  }
}

function isAbsent(identity: FileIdentity | null): boolean {
  return identity?.includes("/") === true;
}

/** The name of a system error, such as `ENOSPC`; empty if it has none. */
export function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : "";
}
