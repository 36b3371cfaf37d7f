/**
 * Where the bytes of a capture come from, and a window over them that moves forward only.
 * @module
 */
import { HostError } from "../../core/errors.ts";

/** A stream of bytes, read in order and at once: a file, a pipe, or memory. */
export interface ByteSource extends Disposable {
  /** Fills the front of `into` and returns how many bytes that were; 0 at the end. May return fewer than fit. */
  read(into: Uint8Array): number;
}

/** A file as a {@linkcode ByteSource}. Needs permission to read it. */
export class FileSource implements ByteSource {
  readonly #file: Deno.FsFile;

  /** Opens `path`. Throws HostError if it cannot be opened or is a directory. */
  constructor(path: string) {
    try {
      this.#file = Deno.openSync(path, { read: true });
    } catch (cause) {
      throw new HostError(
        `Cannot open capture "${path}": ${reason(cause)}; check the path and the permission to read it`,
        { cause },
      );
    }
  }

  /** Reads the next bytes of the file. */
  read(into: Uint8Array): number {
    return this.#file.readSync(into) ?? 0;
  }

  /** Closes the file. */
  [Symbol.dispose](): void {
    this.#file.close();
  }
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

/** Bytes of the window: the largest block that is ever held whole, and room to read ahead. */
export const WINDOW_BYTES: number = 512 * 1024;

/**
 * A window over a source. `ensure(n)` brings the next `n` bytes together at `position` in `bytes` and `view`;
 * `advance(n)` steps over them. Whatever the file says, no more than the window is ever in memory.
 */
export class ByteWindow {
  /** The storage; valid from `position`, as far as `ensure` has said. Its content moves with every `ensure`. */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(WINDOW_BYTES);
  /** The same storage, to read numbers from. */
  readonly view: DataView<ArrayBuffer> = new DataView(this.bytes.buffer);
  /** The next byte in `bytes`. */
  position = 0;
  readonly #source: ByteSource;
  readonly #name: string;
  #end = 0;
  #startOffset = 0;
  #exhausted = false;

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

  /** Makes the next `length` bytes available; false if the file ends before. `length` is at most WINDOW_BYTES. */
  ensure(length: number): boolean {
    if (this.#end - this.position >= length) return true;
    if (length > WINDOW_BYTES) {
      throw new RangeError(`Cannot hold ${length} bytes: the window has ${WINDOW_BYTES}`);
    }
    this.bytes.copyWithin(0, this.position, this.#end);
    this.#startOffset += this.position;
    this.#end -= this.position;
    this.position = 0;
    while (this.#end < length && !this.#exhausted) this.#fill();
    return this.#end >= length;
  }

  /** Steps over `length` bytes that `ensure` has made available. */
  advance(length: number): void {
    this.position += length;
  }

  /** Steps over `length` bytes, however many; false if the file ends before. */
  skip(length: number): boolean {
    let left = length;
    while (left > this.#end - this.position) {
      left -= this.#end - this.position;
      this.position = this.#end;
      if (!this.ensure(1)) return false;
    }
    this.position += left;
    return true;
  }

  /** The error that the file is wrong in this way at `offset`. */
  error(offset: number, text: string): HostError {
    return new HostError(`Cannot read capture "${this.#name}" at byte ${offset}: ${text}`);
  }

  #fill(): void {
    let count: number;
    try {
      count = this.#source.read(new Uint8Array(this.bytes.buffer, this.#end));
    } catch (cause) {
      throw this.error(this.#startOffset + this.#end, reason(cause));
    }
    this.#exhausted = count === 0;
    this.#end += count;
  }
}

/** What an unknown thrown value says. */
export function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
