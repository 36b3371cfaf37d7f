/**
 * One connection: messages in, replies out, and the back-end that serves them.
 *
 * A header is read by itself, exactly twelve bytes, and then exactly the payload that it announces:
 * descriptors arrive with the first byte of the message that they were sent with, and so never get to another
 * one. What has come of a message is kept until the rest comes: no more than 4096 bytes and 8 descriptors.
 *
 * A reply that the socket does not take now is kept, and nothing more is read until it is gone: a front-end
 * that does not read its replies cannot make this program keep more than one. A message that must wait for
 * requests in flight is kept likewise: messages are answered in order.
 *
 * The end of a connection is seen when every descriptor of its other end is closed. One that the front-end
 * has sent along is kept open by this program: in the socket while a reply keeps it from reading on, here as
 * part of a message whose rest does not come. Both have a limit of ten seconds. Descriptors in whole messages
 * are used or closed at once, and none that is used can be such an end (`host.ts`).
 *
 * While the device has work the socket is looked at in every eighth round only, which is some tenths of a
 * millisecond.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { Pollable } from "../../core/reactor.ts";
import type { Backend } from "./backend.ts";
import type { Descriptor, SharedFile } from "./host.ts";
import {
  decodeHeader,
  type Header,
  HEADER_BYTES,
  MAX_DESCRIPTORS,
  MAX_PAYLOAD_BYTES,
  ProtocolError,
  requestName,
} from "./messages.ts";

/**
 * What is carried out in one round, in units of a quarter of the cost of a message; each descriptor costs as
 * much as a message, for it is mapped or watched. So a round has room for eight messages, for four with one
 * descriptor, or for one whole memory table.
 */
const BURST_UNITS = 32;
const MESSAGE_UNITS = 4;
/** Rounds from one look at the socket to the next while the device has work: a look is a system call. */
const BUSY_ROUNDS_PER_LOOK = 8;
/** How long a reply may wait to be taken, and a message with descriptors for its rest, in ns. */
const MAX_STALL_NS = 10_000_000_000;

/** Where messages come from. */
export interface MessageSource<D extends Descriptor> {
  /**
   * Receives up to `lengthBytes` to `target[at]` on and appends descriptors. Returns how many bytes; 0 if
   * there are none now; -1 at the end. Throws HostError.
   */
  receive(target: Uint8Array<ArrayBuffer>, at: number, lengthBytes: number, descriptors: D[]): number;
}

/** A socket that messages come from and replies go to. */
export interface MessageSocket<D extends Descriptor> extends MessageSource<D>, Disposable {
  /**
   * Sends up to `lengthBytes`, and descriptors with the first of them; returns how many went out, 0 for none
   * now, -1 if the other side is gone.
   */
  send(
    source: Uint8Array<ArrayBuffer>,
    from: number,
    lengthBytes: number,
    descriptors: readonly number[],
  ): number;
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
   * The next message; null if it has not come completely; "end" behind the last. Fatal ProtocolError for a
   * broken header, for too many descriptors, and for an end in the midst of a message.
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

/** What a connection counts. */
export interface ConnectionCounters {
  /** Messages carried out or refused. */
  messages: number;
}

/** Serves one front-end until it goes. */
export class Connection<D extends Descriptor> implements Pollable, Disposable {
  readonly #socket: MessageSocket<D>;
  readonly #reader: MessageReader<D>;
  readonly #backend: Backend;
  readonly #counters: ConnectionCounters;
  #unsent: Uint8Array<ArrayBuffer> | null = null;
  /** What goes along with its first byte. */
  #unsentFile: SharedFile | null = null;
  /** Waits for requests in flight. */
  #waiting: RawMessage<D> | null = null;
  #endedBecause: string | null = null;
  /** Rounds in which the device had work since the last look at the socket. */
  #busyRounds = 0;
  /** Did the last look end before there was nothing more to read? */
  #isCut = false;
  /** When to give the front-end up, unless it goes on; Infinity while nothing is owed. */
  #giveUpAtNs = Infinity;

  /** Owns socket and back-end. */
  constructor(socket: MessageSocket<D>, backend: Backend, counters: ConnectionCounters) {
    this.#socket = socket;
    this.#reader = new MessageReader(socket);
    this.#backend = backend;
    this.#counters = counters;
  }

  /** Why it is over; null while it is not. It is to be disposed of then. */
  get endedBecause(): string | null {
    return this.#endedBecause;
  }

  /** The back-end. */
  get backend(): Backend {
    return this.#backend;
  }

  /** Carries out what has come, then turns the device. True if anything moved. */
  poll(nowNs: number): boolean {
    if (this.#endedBecause !== null) return false;
    const looks = this.#busyRounds === 0;
    const messages = looks && this.#look(nowNs);
    if (this.#endedBecause !== null) return true;
    if (this.#backend.poll(nowNs)) {
      if (!this.#isCut && ++this.#busyRounds === BUSY_ROUNDS_PER_LOOK) this.#busyRounds = 0;
      return true;
    }
    this.#busyRounds = 0;
    // The reactor may only sleep after a look.
    return messages || !looks;
  }

  /** Does the guest's memory show work for the device? Says nothing of messages. */
  look(): boolean {
    return this.#endedBecause === null && this.#backend.look();
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    return Math.min(this.#backend.deadlineNs(), this.#giveUpAtNs);
  }

  /** Forgets everything about the front-end. */
  [Symbol.dispose](): void {
    for (const descriptor of this.#waiting?.descriptors ?? []) descriptor[Symbol.dispose]();
    this.#waiting = null;
    this.#unsentFile?.[Symbol.dispose]();
    this.#unsentFile = null;
    this.#backend[Symbol.dispose]();
    this.#reader[Symbol.dispose]();
    this.#socket[Symbol.dispose]();
  }

  #look(nowNs: number): boolean {
    const did = this.#serve();
    if (this.#endedBecause !== null) return true;
    const isOwed = this.#unsent !== null || this.#reader.holdsDescriptors;
    if (!isOwed || did) this.#giveUpAtNs = Infinity;
    if (isOwed && this.#giveUpAtNs === Infinity) this.#giveUpAtNs = nowNs + MAX_STALL_NS;
    if (nowNs >= this.#giveUpAtNs) {
      this.#endedBecause = this.#unsent !== null
        ? "the front-end has not taken an answer for 10 s"
        : "the front-end has not sent the rest of a message for 10 s";
      return true;
    }
    return this.#backend.hear() || did;
  }

  /** Carries out what has come. True if anything moved. */
  #serve(): boolean {
    this.#isCut = false;
    try {
      let units = 0;
      const unsent = this.#unsent;
      while (this.#flush()) {
        if (units >= BURST_UNITS) {
          this.#isCut = true;
          break;
        }
        const message = this.#waiting ?? this.#reader.read();
        if (message === null) break;
        if (message === "end") {
          this.#endedBecause = "the front-end has closed it";
          break;
        }
        this.#waiting = this.#backend.isReadyFor(message.header, message.payload) ? null : message;
        if (this.#waiting !== null) break;
        units += MESSAGE_UNITS * (1 + message.descriptors.length);
        this.#counters.messages++;
        this.#unsent = this.#backend.receive(message.header, message.payload, message.descriptors);
        this.#unsentFile = this.#backend.takeSharedFile();
      }
      this.#flush();
      return units > 0 || this.#unsent !== unsent;
    } catch (error) {
      const ours = !(error instanceof HostError || error instanceof ProtocolError && error.fatal);
      if (ours) throw error;
      this.#endedBecause = (error as Error).message;
      return true;
    }
  }

  /** Sends the reply that waits. True if none is left. */
  #flush(): boolean {
    const unsent = this.#unsent;
    if (unsent === null) return true;
    const file = this.#unsentFile;
    const sent = this.#socket.send(unsent, 0, unsent.length, file === null ? [] : [file.number]);
    if (sent < 0) {
      this.#endedBecause = "the front-end has closed it";
      this.#unsent = null;
      return false;
    }
    if (sent > 0) {
      this.#unsent = sent === unsent.length ? null : unsent.slice(sent);
      file?.[Symbol.dispose]();
      this.#unsentFile = null;
    }
    return this.#unsent === null;
  }
}
