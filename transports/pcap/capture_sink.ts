/**
 * A file of records that is written behind the data path: it never keeps the caller waiting.
 *
 * Theory of operation. Records are encoded into the current chunk: `reserve` finds room, `commit` keeps what
 * was encoded. `#flush` moves the chunk to the `#backlog`, and `#drain` writes that chunk by chunk and awaits
 * each write, so that the data path never waits for a disk. A timer calls `#flush`: at once for a full chunk
 * and for the beginning of the file, FLUSH_MS after the first record otherwise. Without records there is no
 * timer. So a program that is killed loses FLUSH_MS.
 *
 * The backlog is limited (MAX_BACKLOG_CHUNKS). If it is full because the disk is slow, a write is under way,
 * and `reserve` refuses until it is done: the caller counts a loss. If it is full because the program never
 * came back to its event loop (a replay in one go), no write is under way, and the backlog is written on the
 * spot, unless `neverWaits` forbids it. Chunks are written in order in both cases, and never two writes at
 * once.
 *
 * A disk without room is tried again every RETRY_MS, from the byte at which it stopped, so that the file is
 * whole but for the records refused meanwhile. Any other failure is kept in `failure`; from then on nothing
 * is written, `reserve` refuses, and `close` rejects. `trouble` tells of both, and of a disk that is too
 * slow, once each time it begins.
 *
 * A sink that is `held` touches its file only after `begin`: files are compared before one of them is
 * emptied.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { codeOf, OutputFile } from "../../host/output_file.ts";
import { reason } from "./byte_source.ts";

/** Encodes records of one format; allocates nothing per record. */
export interface RecordEncoder {
  /** The bytes with which the file begins. */
  fileHeader(): Uint8Array;
  /** Says anew which time is 0 in `timeNs`, in ns since 1970, for what follows. */
  setStart(startUnixNs: bigint): void;
  /** Bytes before a packet's own. */
  readonly headBytes: number;
  /** The most bytes after a packet's own. */
  readonly maxTailBytes: number;
  /**
   * Writes what stands before and after a packet of `length` bytes at `at`; returns the bytes of the whole
   * record.
   * @param flags the packet's `epb_flags`, its direction among them
   */
  encode(
    sink: CaptureSink,
    at: number,
    length: number,
    flags: number,
    timeNs: number,
    comment: string,
  ): number;
}

/** Where chunks go: the part of `Deno.FsFile` that is needed. */
export interface CaptureOutput {
  /** Writes the front of `bytes` and returns how many bytes that were. */
  write(bytes: Uint8Array): Promise<number>;
  /** The same at once. */
  writeSync(bytes: Uint8Array): number;
  /** Closes the file. */
  close(): void;
  /** Empties the file: called once, before the first write. Left out: it is empty. */
  begin?(): void;
  /** Closes the file instead, if it was never to be written to. Left out: as `close`. */
  discard?(): void;
}

/** How a sink is to work. */
export interface CaptureSinkOptions {
  /** Leave the file alone until `begin`. Default false. */
  readonly held?: boolean;
  /** Refuse records rather than ever wait for the file. Default false. */
  readonly neverWaits?: boolean;
  /** Told when records begin to be lost, and why, and when they are taken again, and how many were lost. */
  readonly trouble?: (why: string | null, lost: number) => void;
}

/** Bytes of a chunk; a record is never longer. */
export const CHUNK_BYTES: number = 512 * 1024;
/** The most full chunks that wait to be written. */
export const MAX_BACKLOG_CHUNKS = 32;
/** How long a record waits for others to be written with it, in ms. */
export const FLUSH_MS = 200;
/** From one attempt to write to a full disk to the next, in ms. */
const RETRY_MS = 1000;
/** How long `close` waits for a file that takes nothing, in ms. */
const MAX_CLOSE_WAIT_MS = 5000;
/** What is wrong with a disk that may have room later. */
const PASSING: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

interface Chunk {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  length: number;
  records: number;
}

function newChunk(): Chunk {
  const bytes = new Uint8Array(CHUNK_BYTES);
  return { bytes, view: new DataView(bytes.buffer), length: 0, records: 0 };
}

/** A file that takes records without ever keeping the caller waiting. */
export class CaptureSink implements Disposable {
  /**
   * Records that were committed and, because writing has failed, are not in the file, or not all of them are.
   */
  unwritten = 0;
  readonly #output: CaptureOutput;
  readonly #name: string;
  readonly #backlog: Chunk[] = [];
  readonly #spare: Chunk[] = [];
  readonly #neverWaits: boolean;
  readonly #trouble: (why: string | null, lost: number) => void;
  #chunk: Chunk = newChunk();
  /** Bytes of the first chunk of the backlog that are written. */
  #written = 0;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #isTimerUrgent = false;
  #draining: Promise<void> | null = null;
  #failure: HostError | null = null;
  #held: boolean;
  #closed = false;
  /** Ends the wait for room on the disk. */
  #retry: (() => void) | null = null;
  #isTroubled = false;
  #lost = 0;
  /** Counts writes that succeeded. */
  #progress = 0;

  /**
   * Writes to a file that is open.
   * @param output where to write, owned from now on; @param name what to call it in messages
   */
  constructor(output: CaptureOutput, name: string, options: CaptureSinkOptions = {}) {
    this.#output = output;
    this.#name = name;
    this.#neverWaits = options.neverWaits ?? false;
    this.#trouble = options.trouble ?? (() => {});
    this.#held = options.held ?? false;
    if (!this.#held) this.#output.begin?.();
  }

  /** Creates the file `path`, or empties it. Throws HostError if it cannot. */
  static open(path: string): CaptureSink {
    return new CaptureSink(OutputFile.open(path, "capture"), path);
  }

  /** Empties the file and lets writing begin, if it was held. Throws HostError. */
  begin(): void {
    if (!this.#held) return;
    this.#held = false;
    try {
      this.#output.begin?.();
    } catch (cause) {
      throw new HostError(`Cannot write "${this.#name}": ${reason(cause)}`, { cause });
    }
    if (this.#chunk.length > 0) this.#schedule(true);
  }

  /** Why nothing is written any more; null if all is well. */
  get failure(): HostError | null {
    return this.#failure;
  }

  /** The storage that `reserve` speaks of. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#chunk.bytes;
  }

  /** The same storage, to write numbers to. */
  get view(): DataView<ArrayBuffer> {
    return this.#chunk.view;
  }

  /**
   * Finds room for `length` bytes, at most CHUNK_BYTES: where in `bytes` to encode them, or -1 if not now.
   */
  reserve(length: number): number {
    if (this.#failure !== null || this.#closed) return -1;
    if (this.#chunk.length + length > CHUNK_BYTES && !this.#nextChunk()) {
      this.#lost++;
      this.#beginTrouble("the file takes less than is recorded");
      return -1;
    }
    return this.#chunk.length;
  }

  /**
   * Keeps the first `length` bytes of what was reserved last: a record, or several, or none if they belong to
   * the file.
   */
  commit(length: number, records = 1): void {
    // The header of a file is worth a write of its own.
    const isFirst = this.#progress === 0 && this.#chunk.length === 0 && this.#backlog.length === 0;
    this.#chunk.length += length;
    this.#chunk.records += records;
    if (this.#timer === null && this.#draining === null) this.#schedule(isFirst);
  }

  /** Writes all that was committed and closes the file. Rejects with HostError if a write failed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#end();
    if (this.#held) return this.#discard();
    await this.#whileItProgresses(this.#finish());
    this.#output.close();
    if (this.#failure !== null) throw this.#failure;
  }

  /** Closes the file if `close` has not; what can be written at once still is. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#end();
    if (this.#held) return this.#discard();
    const finish = () => {
      this.#writeBacklog();
      this.#output.close();
    };
    if (this.#draining === null) finish();
    else this.#draining.then(finish);
  }

  #end(): void {
    this.#closed = true;
    this.#clearTimer();
    this.#backlog.push(this.#chunk);
    this.#retry?.();
  }

  #discard(): void {
    if (this.#output.discard === undefined) this.#output.close();
    else this.#output.discard();
  }

  async #finish(): Promise<void> {
    await this.#draining;
    await this.#drain();
  }

  /** Waits for `done`, but gives up when nothing is written for a long time. */
  async #whileItProgresses(done: Promise<void>): Promise<void> {
    for (let seen = -1; seen !== this.#progress;) {
      seen = this.#progress;
      let timer;
      const late = new Promise<"late">((resolve) => {
        timer = setTimeout(() => resolve("late"), MAX_CLOSE_WAIT_MS);
      });
      const first = await Promise.race([done, late]);
      clearTimeout(timer);
      if (first !== "late") return;
    }
    this.#fail(new Error(`it has taken nothing for ${MAX_CLOSE_WAIT_MS / 1000} seconds`));
  }

  #nextChunk(): boolean {
    if (this.#backlog.length >= MAX_BACKLOG_CHUNKS) {
      if (this.#draining !== null || this.#neverWaits || this.#held) return false;
      this.#writeBacklog();
      if (this.#failure !== null) return false;
    }
    this.#moveChunk();
    if (this.#draining === null) this.#schedule(true);
    return true;
  }

  #moveChunk(): void {
    this.#backlog.push(this.#chunk);
    this.#chunk = this.#spare.pop() ?? newChunk();
  }

  #schedule(urgent: boolean): void {
    if (this.#held || this.#failure !== null || this.#closed) return;
    if (this.#timer !== null) {
      if (!urgent || this.#isTimerUrgent) return;
      clearTimeout(this.#timer);
    }
    this.#isTimerUrgent = urgent;
    this.#timer = setTimeout(this.#flush, urgent ? 0 : FLUSH_MS);
  }

  readonly #flush = (): void => {
    this.#timer = null;
    if (this.#draining !== null) return;
    if (this.#chunk.length > 0 && this.#backlog.length < MAX_BACKLOG_CHUNKS) this.#moveChunk();
    this.#draining = this.#drain().finally(() => {
      this.#draining = null;
      if (this.#chunk.length > 0) this.#schedule(false);
    });
  };

  async #drain(): Promise<void> {
    while (this.#backlog.length > 0 && this.#failure === null) {
      const chunk = this.#backlog[0];
      try {
        while (this.#written < chunk.length) {
          this.#written += await this.#output.write(chunk.bytes.subarray(this.#written, chunk.length));
          this.#progress++;
        }
        this.#recycle();
      } catch (cause) {
        if (this.#closed || !PASSING.has(codeOf(cause))) this.#fail(cause);
        else await this.#waitForRoom(cause);
      }
    }
  }

  #writeBacklog(): void {
    while (this.#backlog.length > 0 && this.#failure === null) {
      const chunk = this.#backlog[0];
      try {
        while (this.#written < chunk.length) {
          this.#written += this.#output.writeSync(chunk.bytes.subarray(this.#written, chunk.length));
          this.#progress++;
        }
        this.#recycle();
      } catch (cause) {
        this.#fail(cause);
      }
    }
  }

  #recycle(): void {
    const chunk = this.#backlog.shift()!;
    chunk.length = 0;
    chunk.records = 0;
    this.#written = 0;
    if (this.#spare.length < 2) this.#spare.push(chunk);
    this.#endTrouble();
  }

  async #waitForRoom(cause: unknown): Promise<void> {
    this.#beginTrouble(`${reason(cause)}; it is tried again every second`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, RETRY_MS);
      this.#retry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#retry = null;
  }

  #beginTrouble(why: string): void {
    if (this.#isTroubled) return;
    this.#isTroubled = true;
    this.#trouble(why, 0);
  }

  #endTrouble(): void {
    if (!this.#isTroubled) return;
    this.#isTroubled = false;
    this.#trouble(null, this.#lost);
    this.#lost = 0;
  }

  #fail(cause: unknown): void {
    // The first is the one to tell.
    if (this.#failure !== null) return;
    this.#failure = new HostError(
      `Cannot write capture "${this.#name}": ${reason(cause)}; the file is incomplete`,
      { cause },
    );
    if (!this.#closed) this.#backlog.push(this.#chunk);
    for (const { records } of this.#backlog) this.unwritten += records;
    this.#backlog.length = 0;
    this.#isTroubled = false;
    this.#beginTrouble(`${reason(cause)}; nothing more is written`);
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
