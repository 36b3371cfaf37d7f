/**
 * One connection: messages in, answers out, and the back-end that serves them.
 *
 * An answer that the socket does not take now is kept, and nothing more is read until it is gone: a front-end that does not
 * read its answers cannot make this program keep more than one.
 *
 * The end of a connection is seen when every descriptor of its other end is closed. One that the front-end has sent along is
 * kept open by this program: in the socket while an answer keeps it from reading on, here as part of a message whose rest does not
 * come. Both have a limit of ten seconds. Descriptors in whole messages are used or closed at once, and none that is used can
 * be such an end (`system_host.ts`).
 *
 * While the device has work the socket is looked at in every eighth round only, which is some tenths of a millisecond.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { Pollable } from "../../core/transport.ts";
import type { Backend } from "./backend.ts";
import type { Descriptor } from "./host.ts";
import { MessageReader, type MessageSource } from "./message_reader.ts";
import { ProtocolError } from "./protocol_error.ts";

/**
 * What is carried out in one round, in units of a quarter of the cost of a message; each descriptor costs as much as a message, for
 * it is mapped or watched. So a round has room for eight messages, for four with one descriptor, or for one whole memory table.
 */
const BURST_UNITS = 32;
const MESSAGE_UNITS = 4;
/** Rounds from one look at the socket to the next while the device has work: a look is a system call. */
const BUSY_ROUNDS_PER_LOOK = 8;
/** How long an answer may wait to be taken, and a message with descriptors for its rest, in ns. */
const MAX_STALL_NS = 10_000_000_000;

/** A socket that messages come from and answers go to. */
export interface MessageSocket<D extends Descriptor> extends MessageSource<D>, Disposable {
  /** Sends up to `lengthBytes`; returns how many went out, 0 for none now, -1 if the other side is gone. */
  send(source: Uint8Array<ArrayBuffer>, from: number, lengthBytes: number): number;
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
    // Nobody may sleep who has not looked.
    return messages || !looks;
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    return Math.min(this.#backend.deadlineNs(), this.#giveUpAtNs);
  }

  /** Forgets everything about the front-end. */
  [Symbol.dispose](): void {
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
        const message = this.#reader.read();
        if (message === null) break;
        if (message === "end") {
          this.#endedBecause = "the front-end has closed it";
          break;
        }
        units += MESSAGE_UNITS * (1 + message.descriptors.length);
        this.#counters.messages++;
        this.#unsent = this.#backend.receive(message.header, message.payload, message.descriptors);
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

  /** Sends the answer that waits. True if none is left. */
  #flush(): boolean {
    const unsent = this.#unsent;
    if (unsent === null) return true;
    const sent = this.#socket.send(unsent, 0, unsent.length);
    if (sent < 0) {
      this.#endedBecause = "the front-end has closed it";
      this.#unsent = null;
      return false;
    }
    if (sent > 0) this.#unsent = sent === unsent.length ? null : unsent.slice(sent);
    return this.#unsent === null;
  }
}
