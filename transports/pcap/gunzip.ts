/**
 * Unpacks gzip (RFC 1952) as it is read; anything else passes as it is.
 *
 * Theory of operation. Captures are read within a round of the reactor, which cannot wait for the promises of the
 * runtime's DecompressionStream. pako is zlib in JavaScript: it unpacks as much as the reader has room for, keeps
 * its place where the input has no bytes at the moment, and checks each member's checksum and length. Members that
 * follow each other are one stream; zeros behind one are padding, anything else there ends the stream, as for gzip.
 * What was unpacked before a damaged place is delivered before the error is thrown.
 * @module
 */
import * as pako from "pako";
import { type ByteSource, CutOffError, NOT_YET } from "./byte_source.ts";

const INPUT_BYTES = 64 * 1024;
/** The most bytes of one read: a small input may become a thousand times as long. */
const MAX_OUTPUT_BYTES = 64 * 1024;
const GZIP_MAGIC = [0x1f, 0x8b];
const METHOD_DEFLATE = 8;
/** `windowBits` of zlib: a window of 32 KiB, wrapped as gzip. */
const GZIP_WINDOW_BITS = 15 + 16;

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
