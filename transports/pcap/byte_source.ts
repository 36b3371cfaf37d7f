/**
 * Where the bytes of a capture come from (a file, a pipe, memory, gzip around one of them), and a window over
 * them that moves forward only.
 *
 * Captures are read within a round of the reactor, so nothing here waits: a pipe is read in the background,
 * and gzip (RFC 1952) is not unpacked by the runtime's DecompressionStream, which has promises. pako is zlib
 * in JavaScript: it unpacks as much as the reader has room for, keeps its place where the input has no bytes
 * at the moment, and checks each member's checksum and length. Members that follow each other are one stream;
 * zeros behind one are padding, anything else there ends the stream, as for gzip. What was unpacked before a
 * damaged place is delivered before the error is thrown.
 * @module
 */
import * as pako from "pako";
import type { ManualClock } from "../../core/clock.ts";
import { HostError } from "../../core/errors.ts";

/** What {@linkcode ByteSource.read} returns if more bytes may come, but none are there now. */
export const NOT_YET = -1;

/** Bytes of one read of a {@linkcode PipeSource}. */
const PIPE_CHUNK_BYTES = 64 * 1024;
/** Bytes in front of the window's content, so that a header can be put before any packet. */
const HEADROOM_BYTES = 16;
/** Bytes of the window: the largest block that is ever held whole, and room to read ahead. */
export const WINDOW_BYTES: number = 512 * 1024;
const INPUT_BYTES = 64 * 1024;
/** The most bytes of one read: a small input may become a thousand times as long. */
const MAX_OUTPUT_BYTES = 64 * 1024;
const GZIP_MAGIC = [0x1f, 0x8b];
const METHOD_DEFLATE = 8;
/** `windowBits` of zlib: a window of 32 KiB, wrapped as gzip. */
const GZIP_WINDOW_BITS = 15 + 16;

/** What {@linkcode ByteSource.read} throws if the source ends within something that it unpacks. */
class CutOffError extends Error {}

/** A stream of bytes, read in order and without waiting: a file, a pipe, or memory. */
export interface ByteSource extends Disposable {
  /**
   * Fills the front of `into` and returns how many bytes that were; 0 at the end, NOT_YET if none are there
   * now. May return fewer than fit.
   */
  read(into: Uint8Array): number;
}

/** Does the name stand for standard input? The runtime does not open `/dev/stdin` without all permissions. */
export function isStandardInput(path: string): boolean {
  return path === "-" || path === "/dev/stdin";
}

/**
 * A file as a {@linkcode ByteSource}; one that is no regular file, such as a pipe, keeps its reader waiting.
 * Needs permission.
 */
export class FileSource implements ByteSource {
  readonly #file: { readSync(into: Uint8Array): number | null; close(): void };

  /**
   * Opens `path`, or takes standard input if it is `-`. Throws HostError if it cannot be opened or is a
   * directory.
   */
  constructor(path: string) {
    try {
      this.#file = isStandardInput(path) ? Deno.stdin : Deno.openSync(path, { read: true });
    } catch (cause) {
      throw openError(path, cause);
    }
  }

  /** Reads the next bytes of the file. */
  read(into: Uint8Array): number {
    return this.#file.readSync(into) ?? 0;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    if (this.#file !== Deno.stdin) this.#file.close();
  }
}

/**
 * A pipe, a FIFO, a terminal or standard input as a {@linkcode ByteSource} that never keeps its reader
 * waiting: one read is under way in the background, and `wake` is called when it has brought something.
 * Opening a FIFO, which waits for a writer, is part of that. A manual clock is held from a read that finds
 * nothing until there is something.
 */
export class PipeSource implements ByteSource {
  readonly #path: string;
  readonly #wake: () => void;
  readonly #clock: ManualClock | null;
  readonly #chunk = new Uint8Array(PIPE_CHUNK_BYTES);
  #file: Deno.FsFile | typeof Deno.stdin | null = null;
  #at = 0;
  #end = 0;
  #isOver = false;
  #isClosed = false;
  #holdsClock = false;
  #failure: unknown = null;

  /**
   * Begins to open and to read.
   * @param path the file, or `-`; @param wake called when there is something to read, the end included;
   * @param clock what to hold
   */
  constructor(path: string, wake: () => void, clock: ManualClock | null = null) {
    this.#path = path;
    this.#wake = wake;
    this.#clock = clock;
    this.#fill();
  }

  /** Takes what is there; NOT_YET if that is nothing. Throws what opening or reading threw. */
  read(into: Uint8Array): number {
    if (this.#at === this.#end) {
      if (this.#failure !== null) throw this.#failure;
      if (this.#isOver) return 0;
      this.#hold(true);
      return NOT_YET;
    }
    const length = Math.min(into.length, this.#end - this.#at);
    into.set(this.#chunk.subarray(this.#at, this.#at + length));
    this.#at += length;
    if (this.#at === this.#end) this.#fill();
    return length;
  }

  /** Closes the file. A read that waits for a writer ends when the writer does. */
  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#hold(false);
    this.#close();
  }

  async #fill(): Promise<void> {
    try {
      this.#file ??= isStandardInput(this.#path) ? Deno.stdin : await Deno.open(this.#path, { read: true });
      if (this.#isClosed) return this.#close();
      const count = await this.#file.read(this.#chunk);
      this.#at = 0;
      this.#end = count ?? 0;
      this.#isOver = count === null;
    } catch (cause) {
      this.#failure = this.#file === null ? openError(this.#path, cause) : cause;
    }
    if (this.#isClosed) return;
    this.#hold(false);
    this.#wake();
  }

  #hold(holds: boolean): void {
    if (this.#holdsClock === holds) return;
    this.#holdsClock = holds;
    if (holds) this.#clock?.hold();
    else this.#clock?.release();
  }

  #close(): void {
    if (this.#file !== null && this.#file !== Deno.stdin) this.#file.close();
    this.#file = null;
  }
}

/**
 * Does reading `path` possibly wait for another program: is it standard input, a pipe, or anything else that
 * is neither a regular file nor missing?
 */
export function isPipe(path: string): boolean {
  if (isStandardInput(path)) return true;
  try {
    const { isFile, isDirectory } = Deno.statSync(path);
    return !isFile && !isDirectory;
  } catch {
    // Opening it says what is wrong.
    return false;
  }
}

function openError(path: string, cause: unknown): HostError {
  return new HostError(
    `Cannot open capture "${path}": ${reason(cause)}; check the path and the permission to read it`,
    { cause },
  );
}

/** Bytes in memory as a {@linkcode ByteSource}. */
export class MemorySource implements ByteSource {
  readonly #bytes: Uint8Array;
  #at = 0;

  /**
   * Reads from memory.
   * @param bytes the whole capture
   */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Copies the next bytes. */
  read(into: Uint8Array): number {
    const length = Math.min(into.length, this.#bytes.length - this.#at);
    into.set(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return length;
  }

  /** Nothing to give back. */
  [Symbol.dispose](): void {}
}

/**
 * A window over a source. `ensure(n)` brings the next `n` bytes together at `position` in `bytes` and `view`;
 * `advance(n)` steps over them. No more than the window is ever in memory, whichever lengths the file states.
 */
export class ByteWindow {
  /**
   * The storage; valid from `position`, as far as `ensure` has said. Its content moves with every `ensure`.
   */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(HEADROOM_BYTES + WINDOW_BYTES);
  /** The same storage, to read numbers from. */
  readonly view: DataView<ArrayBuffer> = new DataView(this.bytes.buffer);
  /** The next byte in `bytes`. */
  position = HEADROOM_BYTES;
  readonly #source: ByteSource;
  readonly #name: string;
  #end = HEADROOM_BYTES;
  #startOffset = -HEADROOM_BYTES;
  #exhausted = false;
  #waits = false;
  #isCutOff = false;

  /**
   * Opens a window at the start of a source.
   * @param source where to read; @param name what to call it in messages
   */
  constructor(source: ByteSource, name: string) {
    this.#source = source;
    this.#name = name;
  }

  /** Offset of the next byte from the start of the file. */
  get offset(): number {
    return this.#startOffset + this.position;
  }

  /** Bytes at `position` that are there already. */
  get available(): number {
    return this.#end - this.position;
  }

  /** Did the last `ensure` fail because the bytes are not there yet, and not because the file ends? */
  get waits(): boolean {
    return this.#waits;
  }

  /** Does the file end within something: has `cutOff` been called, or the source said so? */
  get isCutOff(): boolean {
    return this.#isCutOff;
  }

  /**
   * Makes the next `length` bytes available; false if the file ends before, or has no more at the moment
   * (`waits`). `length` is at most WINDOW_BYTES.
   */
  ensure(length: number): boolean {
    if (this.#end - this.position >= length) return true;
    if (length > WINDOW_BYTES) {
      throw new RangeError(`Cannot hold ${length} bytes: the window has ${WINDOW_BYTES}`);
    }
    const moved = this.position - HEADROOM_BYTES;
    this.bytes.copyWithin(HEADROOM_BYTES, this.position, this.#end);
    this.#startOffset += moved;
    this.#end -= moved;
    this.position = HEADROOM_BYTES;
    this.#waits = false;
    while (this.#end - this.position < length && !this.#exhausted && !this.#waits) this.#fill();
    return this.#end - this.position >= length;
  }

  /** Steps over `length` bytes that `ensure` has made available. */
  advance(length: number): void {
    this.position += length;
  }

  /**
   * Steps over at most `length` of the bytes that are there, or that one look at the source brings; returns
   * how many.
   */
  skip(length: number): number {
    if (length > 0 && this.#end === this.position) this.ensure(1);
    const skipped = Math.min(length, this.#end - this.position);
    this.position += skipped;
    return skipped;
  }

  /** The error that the file is wrong in this way at `offset`. */
  error(offset: number, text: string): HostError {
    return new HostError(`Cannot read capture "${this.#name}" at byte ${offset}: ${text}`);
  }

  /** The error that the file ends within something that begins at `offset`. */
  cutOff(offset: number, text: string): HostError {
    this.#isCutOff = true;
    return this.error(offset, text);
  }

  #fill(): void {
    let count: number;
    try {
      count = this.#source.read(new Uint8Array(this.bytes.buffer, this.#end));
    } catch (cause) {
      this.#isCutOff ||= cause instanceof CutOffError;
      throw this.error(this.#startOffset + this.#end, reason(cause));
    }
    this.#exhausted = count === 0;
    this.#waits = count === NOT_YET;
    if (count > 0) this.#end += count;
  }
}

/** What an unknown thrown value says. */
export function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

/** Reads a source, unpacking what it gives if that is gzip. */
export class GunzipSource implements ByteSource {
  readonly #source: ByteSource;
  readonly #stream = new pako.ZStream();
  #state: "detect" | "plain" | "member" | "between" | "end" = "detect";
  #failure: Error | null = null;

  /**
   * Looks at what a source gives when it is read.
   * @param source the bytes, owned from now on
   */
  constructor(source: ByteSource) {
    this.#source = source;
    this.#stream.input = new Uint8Array(INPUT_BYTES);
  }

  /** Reads the next bytes, unpacked. Throws Error where the stream is damaged or cut off. */
  read(into: Uint8Array): number {
    if (this.#state === "detect" && !this.#detect()) return NOT_YET;
    if (this.#state === "plain") return this.#readPlain(into);
    const stream = this.#stream;
    stream.output = into as Uint8Array<ArrayBuffer>;
    stream.next_out = 0;
    stream.avail_out = Math.min(into.length, MAX_OUTPUT_BYTES);
    while (stream.next_out === 0) {
      if (this.#failure !== null) throw this.#failure;
      if (this.#state === "member") this.#inflate();
      else if (this.#state === "between") this.#seekMember();
      else return 0;
      if (stream.next_out > 0 || stream.avail_in > 0 || this.#failure !== null) continue;
      const count = this.#source.read(stream.input);
      if (count === 0 && this.#state === "member") throw new CutOffError("the gzip stream is cut off");
      if (count === 0 || count === NOT_YET) return count;
      stream.next_in = 0;
      stream.avail_in = count;
    }
    return stream.next_out;
  }

  /** Closes the source. */
  [Symbol.dispose](): void {
    this.#source[Symbol.dispose]();
  }

  /** Reads the first bytes, which say whether this is gzip; false if they are not there yet. */
  #detect(): boolean {
    const stream = this.#stream;
    const { input } = stream;
    while (stream.avail_in < 3) {
      const count = this.#source.read(input.subarray(stream.avail_in));
      if (count === NOT_YET) return false;
      if (count === 0) break;
      stream.avail_in += count;
    }
    const isGzip = stream.avail_in >= 2 && input[0] === GZIP_MAGIC[0] && input[1] === GZIP_MAGIC[1];
    this.#state = isGzip ? "member" : "plain";
    if (!isGzip) return true;
    pako.zlibInflateInit2(stream, GZIP_WINDOW_BITS);
    if (stream.avail_in > 2 && input[2] !== METHOD_DEFLATE) {
      this.#failure = new Error(
        `the gzip stream is packed by method ${input[2]}, and only deflate can be read`,
      );
    }
    return true;
  }

  #readPlain(into: Uint8Array): number {
    const stream = this.#stream;
    if (stream.avail_in === 0) return this.#source.read(into);
    const length = Math.min(into.length, stream.avail_in);
    into.set(stream.input.subarray(stream.next_in, stream.next_in += length));
    stream.avail_in -= length;
    return length;
  }

  /** Unpacks what there is and has room. */
  #inflate(): void {
    const status = pako.zlibInflate(this.#stream, pako.Z_NO_FLUSH);
    if (status === pako.Z_STREAM_END) {
      this.#state = "between";
    } else if (status !== pako.Z_OK && status !== pako.Z_BUF_ERROR) {
      const { msg } = this.#stream;
      // The first header was looked at, so this is what follows a member.
      if (msg === "incorrect header check") this.#state = "end";
      else {
        const what = msg.endsWith(" check") ? "its checksum or its length is wrong" : msg;
        this.#failure = new Error(`the gzip stream is damaged: ${what}`);
      }
    }
  }

  /** Behind a member: steps over padding to the next one, or to the end. */
  #seekMember(): void {
    const stream = this.#stream;
    for (; stream.avail_in > 0 && stream.input[stream.next_in] === 0; stream.avail_in--) stream.next_in++;
    if (stream.avail_in === 0) return;
    this.#state = stream.input[stream.next_in] === GZIP_MAGIC[0] ? "member" : "end";
    if (this.#state === "member") pako.zlibInflateReset(stream);
  }
}
