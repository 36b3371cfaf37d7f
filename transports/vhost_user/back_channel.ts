/**
 * Requests of the back-end: the configuration has changed; with kicks by message, also interrupts and errors of rings.
 *
 * None of them waits for its answer: whatever is said is thrown away when the connection is looked at. A change of configuration that cannot
 * be sent now is sent later, once; an interrupt likewise, once for each ring.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import { encodeBackendRequest } from "./codec.ts";
import type { Channel } from "./host.ts";
import { BackendRequest, backendRequestName, ProtocolFeature } from "./messages.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";

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

  /** Throws away some of what the other end has said, answers or not. True if there may be more. */
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
