/**
 * A file that is written behind the back of the data path.
 *
 * Theory of operation. Records are encoded into the current chunk: `reserve` finds room, `commit` keeps what was
 * encoded. A full chunk joins the `#backlog`; a timer of 0 ms then starts `#drain`, which writes the backlog chunk by
 * chunk and awaits each write, so that the data path never waits for a disk.
 *
 * The backlog is limited (MAX_BACKLOG_CHUNKS). If it is full because the disk is slow, a write is under way, and
 * `reserve` refuses until it is done: the caller holds its frames back or counts a loss. If it is full because the
 * program never came back to its event loop (a replay in one go), no write is under way, and the backlog is written on
 * the spot. Chunks are written in order in both cases, and never two writes at once.
 *
 * The first failure is kept in `failure`; from then on nothing is written, `reserve` refuses, and `close` rejects.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { reason } from "./byte_source.ts";

/** Where chunks go: the part of `Deno.FsFile` that is needed. */
export interface CaptureOutput {
  /** Writes the front of `bytes` and returns how many bytes that were. */
  write(bytes: Uint8Array): Promise<number>;
  /** The same at once. */
  writeSync(bytes: Uint8Array): number;
  /** Closes the file. */
  close(): void;
}

/** Bytes of a chunk; a record is never longer. */
export const CHUNK_BYTES: number = 512 * 1024;
/** The most full chunks that wait to be written. */
export const MAX_BACKLOG_CHUNKS = 32;

interface Chunk {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  length: number;
}

function newChunk(): Chunk {
  const bytes = new Uint8Array(CHUNK_BYTES);
  return { bytes, view: new DataView(bytes.buffer), length: 0 };
}

/** A file that takes records without ever keeping the caller waiting. */
export class CaptureSink implements Disposable {
  readonly #output: CaptureOutput;
  readonly #name: string;
  readonly #backlog: Chunk[] = [];
  readonly #spare: Chunk[] = [];
  #chunk: Chunk = newChunk();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #draining: Promise<void> | null = null;
  #failure: HostError | null = null;
  #closed = false;

  /**
   * Writes to a file that is open and empty.
   * @param output where to write, owned from now on; @param name what to call it in messages
   */
  constructor(output: CaptureOutput, name: string) {
    this.#output = output;
    this.#name = name;
  }

  /** Creates the file `path`, or empties it. Throws HostError if it cannot. */
  static open(path: string): CaptureSink {
    try {
      return new CaptureSink(Deno.openSync(path, { write: true, create: true, truncate: true }), path);
    } catch (cause) {
      throw new HostError(
        `Cannot write capture "${path}": ${reason(cause)}; check the path and the permission to write it`,
        { cause },
      );
    }
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

  /** Finds room for `length` bytes, at most CHUNK_BYTES: where in `bytes` to encode them, or -1 if not now. */
  reserve(length: number): number {
    if (this.#failure !== null || this.#closed) return -1;
    if (this.#chunk.length + length > CHUNK_BYTES && !this.#nextChunk()) return -1;
    return this.#chunk.length;
  }

  /** Keeps the first `length` bytes of what was reserved last. */
  commit(length: number): void {
    this.#chunk.length += length;
  }

  /** Writes all that was committed and closes the file. Rejects with HostError if a write failed. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#clearTimer();
    this.#backlog.push(this.#chunk);
    await (this.#draining ?? Promise.resolve());
    await this.#drain();
    this.#output.close();
    if (this.#failure !== null) throw this.#failure;
  }

  /** Closes the file if `close` has not; what can be written at once still is. */
  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#clearTimer();
    this.#backlog.push(this.#chunk);
    const finish = () => {
      this.#writeBacklog();
      this.#output.close();
    };
    if (this.#draining === null) finish();
    else this.#draining.then(finish);
  }

  #nextChunk(): boolean {
    if (this.#backlog.length >= MAX_BACKLOG_CHUNKS) {
      if (this.#draining !== null) return false;
      this.#writeBacklog();
      if (this.#failure !== null) return false;
    }
    this.#backlog.push(this.#chunk);
    this.#chunk = this.#spare.pop() ?? newChunk();
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#draining ??= this.#drain().finally(() => this.#draining = null);
    }, 0);
    return true;
  }

  async #drain(): Promise<void> {
    while (this.#backlog.length > 0 && this.#failure === null) {
      const chunk = this.#backlog[0];
      try {
        for (let at = 0; at < chunk.length;) {
          at += await this.#output.write(chunk.bytes.subarray(at, chunk.length));
        }
        this.#recycle();
      } catch (cause) {
        this.#fail(cause);
      }
    }
  }

  #writeBacklog(): void {
    while (this.#backlog.length > 0 && this.#failure === null) {
      const chunk = this.#backlog[0];
      try {
        for (let at = 0; at < chunk.length;) {
          at += this.#output.writeSync(chunk.bytes.subarray(at, chunk.length));
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
    if (this.#spare.length < 2) this.#spare.push(chunk);
  }

  #fail(cause: unknown): void {
    this.#failure = new HostError(
      `Cannot write capture "${this.#name}": ${reason(cause)}; the file is incomplete`,
      { cause },
    );
    this.#backlog.length = 0;
  }

  #clearTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
