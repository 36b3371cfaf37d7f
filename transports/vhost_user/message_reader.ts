/**
 * From a stream of bytes and descriptors to messages.
 *
 * Theory of operation. A header is read by itself, exactly twelve bytes, and then exactly the payload that it announces:
 * descriptors arrive with the first byte of the message that they were sent with, and so never get to another one.
 * Whatever has come so far is kept until the rest comes. A message keeps no more than 4096 bytes and 8 descriptors here.
 * @module
 */
import { decodeHeader, type Header } from "./codec.ts";
import type { Descriptor } from "./host.ts";
import { HEADER_BYTES, MAX_DESCRIPTORS, MAX_PAYLOAD_BYTES, requestName } from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";

/** Where messages come from. */
export interface MessageSource<D extends Descriptor> {
  /**
   * Receives up to `lengthBytes` to `target[at]` on and appends descriptors. Returns how many bytes; 0 if there are none now;
   * -1 at the end. Throws HostError.
   */
  receive(target: Uint8Array<ArrayBuffer>, at: number, lengthBytes: number, descriptors: D[]): number;
}

/** A message as it came. */
export interface RawMessage<D extends Descriptor> {
  /** Its header, checked. */
  readonly header: Header;
  /** Its payload; valid until the next one is read. */
  readonly payload: Uint8Array;
  /** What came along; the caller's from now on. */
  readonly descriptors: readonly D[];
}

/** Reads messages of one connection. */
export class MessageReader<D extends Descriptor> implements Disposable {
  readonly #source: MessageSource<D>;
  readonly #bytes = new Uint8Array(HEADER_BYTES + MAX_PAYLOAD_BYTES);
  #descriptors: D[] = [];
  #received = 0;
  #header: Header | null = null;

  /** Reads from the start of a message. */
  constructor(source: MessageSource<D>) {
    this.#source = source;
  }

  /**
   * The next message; null if it has not come completely; "end" behind the last. Fatal ProtocolError for a broken header,
   * for too many descriptors, and for an end in the midst of a message.
   */
  read(): RawMessage<D> | null | "end" {
    for (;;) {
      const wanted = HEADER_BYTES + (this.#header?.sizeBytes ?? 0);
      if (this.#received < wanted) {
        const left = wanted - this.#received;
        const count = this.#source.receive(this.#bytes, this.#received, left, this.#descriptors);
        if (this.#descriptors.length > MAX_DESCRIPTORS) throw this.#tooMany();
        if (count === 0) return null;
        if (count < 0) return this.#end();
        this.#received += count;
        if (count < left) continue;
      }
      if (this.#header !== null) return this.#message(this.#header);
      this.#header = decodeHeader(this.#bytes);
    }
  }

  /** Has a message that is not complete brought descriptors? */
  get holdsDescriptors(): boolean {
    return this.#descriptors.length > 0;
  }

  /** Closes what came with a message that is not complete. */
  [Symbol.dispose](): void {
    for (const descriptor of this.#descriptors.splice(0)) descriptor[Symbol.dispose]();
  }

  #message(header: Header): RawMessage<D> {
    const payload = this.#bytes.subarray(HEADER_BYTES, HEADER_BYTES + header.sizeBytes);
    const descriptors = this.#descriptors;
    this.#descriptors = [];
    this.#received = 0;
    this.#header = null;
    return { header, payload, descriptors };
  }

  #end(): "end" {
    if (this.#received === 0) return "end";
    const of = this.#header === null ? "a header" : requestName(this.#header.id);
    throw new ProtocolError(
      "connection-cut-short",
      `The connection ended after ${this.#received} bytes of ${of}; a message must be sent whole`,
      true,
    );
  }

  #tooMany(): ProtocolError {
    return new ProtocolError(
      "descriptors-invalid",
      `A message came with ${this.#descriptors.length} descriptors; at most ${MAX_DESCRIPTORS} are accepted`,
      true,
    );
  }
}
