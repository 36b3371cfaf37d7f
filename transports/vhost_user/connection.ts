/**
 * One connection: messages in, replies out, and the back-end that serves them.
 *
 * A reply that the socket does not take now is kept, and nothing more is read until it is gone: a front-end that does not
 * read its replies cannot make this program keep more than one.
 *
 * The end of a connection is seen when every descriptor of its other end is closed. One that the front-end has sent along is
 * kept open by this program: in the socket while a reply keeps it from reading on, here as part of a message whose rest does not
 * come. Both have a limit of ten seconds. Descriptors in whole messages are used or closed at once, and none that is used can
 * be such an end (`host.ts`).
 *
 * A message that must wait for requests in flight is kept, and nothing more is read until it was carried out: messages are
 * answered in order.
 *
 * While the device has work the socket is looked at in every eighth round only, which is some tenths of a millisecond.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { GuestError, HostError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { Pollable } from "../../core/reactor.ts";
import type { Backend } from "./backend.ts";
import { encodeBackendRequest, MessageReader, type MessageSource, type RawMessage } from "./codec.ts";
import type { Channel, Descriptor, SharedFile, Transfer } from "./host.ts";
import { BackendRequest, backendRequestName, ProtocolError, ProtocolFeature } from "./messages.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";

/**
 * What is carried out in one round, in units of a quarter of the cost of a message; each descriptor costs as much as a message, for
 * it is mapped or watched. So a round has room for eight messages, for four with one descriptor, or for one whole memory table.
 */
const BURST_UNITS = 32;
const MESSAGE_UNITS = 4;
/** Rounds from one look at the socket to the next while the device has work: a look is a system call. */
const BUSY_ROUNDS_PER_LOOK = 8;
/** How long a reply may wait to be taken, and a message with descriptors for its rest, in ns. */
const MAX_STALL_NS = 10_000_000_000;

/** A socket that messages come from and replies go to. */
export interface MessageSocket<D extends Descriptor> extends MessageSource<D>, Disposable {
  /**
   * Sends up to `lengthBytes`, and descriptors with the first of them; returns how many went out, 0 for none now, -1 if the
   * other side is gone.
   */
  send(
    source: Uint8Array<ArrayBuffer>,
    from: number,
    lengthBytes: number,
    descriptors: readonly number[],
  ): number;
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

// Requests of the back-end: the configuration has changed; with kicks by message, also interrupts and errors of rings.
//
// None of them waits for its reply: whatever is said is thrown away when the connection is looked at. A change of configuration that cannot
// be sent now is sent later, once; an interrupt likewise, once for each ring.

/** What waits: a request of this kind about this ring. */
interface Pending {
  readonly id: number;
  readonly ring: number | null;
}

/** The socket of SET_BACKEND_REQ_FD, and what is to go through it. */
export class BackChannel implements Disposable {
  readonly #trace: ProtocolTrace | null;
  readonly #negotiated: () => FeatureSet;
  #channel: Channel | null = null;
  #pending: Pending[] = [];

  /** There is no socket yet. @param negotiated tells the protocol features that were agreed on */
  constructor(negotiated: () => FeatureSet, trace: ProtocolTrace | null) {
    this.#negotiated = negotiated;
    this.#trace = trace;
  }

  /** Takes a socket over, in place of the one before. */
  use(channel: Channel): void {
    this.#channel?.[Symbol.dispose]();
    this.#channel = channel;
    this.#pending = [];
  }

  /** Configuration space has changed. */
  configChanged(): void {
    if (this.#negotiated().has(ProtocolFeature.CONFIG)) this.#post(BackendRequest.CONFIG_CHANGE_MSG, null);
  }

  /** A ring without an event has used buffers. */
  interrupt(ring: number): void {
    if (this.#negotiated().has(ProtocolFeature.INBAND_NOTIFICATIONS)) {
      this.#post(BackendRequest.VRING_CALL, ring);
    }
  }

  /** A ring without an event is broken. */
  error(ring: number): void {
    if (this.#negotiated().has(ProtocolFeature.INBAND_NOTIFICATIONS)) {
      this.#post(BackendRequest.VRING_ERR, ring);
    }
  }

  /** Sends what could not be sent before. */
  poll(): void {
    while (this.#pending.length > 0 && this.#send(this.#pending[0])) this.#pending.shift();
  }

  /** Throws away some of what the other end has said, replies or not. True if there may be more. */
  hear(): boolean {
    return this.#channel?.discardReplies() === true;
  }

  /** Closes the socket. */
  [Symbol.dispose](): void {
    this.#channel?.[Symbol.dispose]();
    this.#channel = null;
    this.#pending = [];
  }

  #post(id: number, ring: number | null): void {
    if (this.#channel === null || !this.#negotiated().has(ProtocolFeature.BACKEND_REQ)) return;
    if (this.#pending.some((pending) => pending.id === id && pending.ring === ring)) return;
    const request = { id, ring };
    if (this.#pending.length > 0 || !this.#send(request)) this.#pending.push(request);
  }

  #send({ id, ring }: Pending): boolean {
    // A simulator's clock stands still until the interrupt is answered; a hypervisor need not answer a change.
    const needReply = ring !== null && this.#negotiated().has(ProtocolFeature.REPLY_ACK);
    if (!this.#channel!.send(encodeBackendRequest(id, ring, needReply))) return false;
    this.#trace?.note({ event: "back-end request", name: backendRequestName(id), ring });
    return true;
  }
}

// The state of a device through a pipe: SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE.
//
// Theory of operation. To save, everything is written at once and the pipe closed: the state is far smaller than a pipe's
// buffer, and one that does not fit is an error that CHECK_DEVICE_STATE tells. To load, whatever has come is read with
// every round, so that a long state does not block the front-end, and CHECK_DEVICE_STATE, which the front-end sends after it
// has closed its end, reads the rest and hands it to the device. The state is JSON: a kind, a version, and what the
// device itself has to say.

/** Most bytes of a state: no front-end can make this program keep more. */
export const MAX_STATE_BYTES = 1024 * 1024;

const KIND = "virtio-device-state";
const VERSION = 1;

/** One transfer at a time. */
export class StateTransfer implements Disposable {
  readonly #device: Device;
  #loading:
    | { readonly transfer: Transfer; readonly parts: Uint8Array[]; bytes: number; ended: boolean }
    | null = null;
  #failure: Error | null = null;

  /** Nothing is transferred yet. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** Is there something to read? */
  get isLoading(): boolean {
    return this.#loading !== null && !this.#loading.ended;
  }

  /** Writes the device's state and closes the pipe. */
  save(transfer: Transfer): void {
    this[Symbol.dispose]();
    const state = this.#device.migration?.save();
    const text = JSON.stringify({ kind: KIND, version: VERSION, id: this.#device.type, state });
    const bytes = new TextEncoder().encode(text);
    const written = transfer.write(bytes);
    transfer[Symbol.dispose]();
    if (!written) this.#failure = broken(`its ${bytes.length} bytes must fit into the pipe at once`);
  }

  /** Begins to read a state. */
  load(transfer: Transfer): void {
    this[Symbol.dispose]();
    this.#loading = { transfer, parts: [], bytes: 0, ended: false };
  }

  /** Reads what has come. True if there was anything. */
  poll(): boolean {
    const loading = this.#loading;
    if (loading === null || loading.ended) return false;
    const part = loading.transfer.read();
    if (part === null) return false;
    loading.ended = part.length === 0;
    loading.bytes += part.length;
    if (loading.bytes > MAX_STATE_BYTES) {
      this[Symbol.dispose]();
      this.#failure = broken(`it has more than ${MAX_STATE_BYTES} bytes`);
    } else loading.parts.push(part);
    return true;
  }

  /** Completes a transfer. ProtocolError or GuestError if the state did not get across, or cannot be taken over. */
  check(): void {
    while (this.poll());
    const loading = this.#loading;
    const failure = this.#failure;
    this[Symbol.dispose]();
    if (failure !== null) throw failure;
    if (loading === null) return;
    if (!loading.ended) throw broken("its end has not come; the front-end must close its end of the pipe");
    const state = parse(loading.parts);
    if (state.kind !== KIND || state.version !== VERSION || state.id !== this.#device.type) {
      throw new GuestError(
        "device-state-invalid",
        `The state is of kind ${state.kind}, version ${state.version}, device ${state.id}; ` +
          `it must be ${KIND}, ${VERSION}, ${this.#device.type}`,
      );
    }
    this.#device.migration?.restore(state.state);
  }

  /** Breaks off what is under way. */
  [Symbol.dispose](): void {
    this.#loading?.transfer[Symbol.dispose]();
    this.#loading = null;
    this.#failure = null;
  }
}

function parse(parts: readonly Uint8Array[]): Record<string, unknown> {
  const decoder = new TextDecoder();
  const text = parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) return parsed as Record<string, unknown>;
  } catch {
    // Told below, as for other values that are no object.
  }
  throw broken("it must be a JSON object");
}

function broken(remedy: string): ProtocolError {
  return new ProtocolError("state-transfer-invalid", `The state of the device did not get across: ${remedy}`);
}
