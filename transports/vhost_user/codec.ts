/**
 * Bytes to messages and back. Pure functions: no socket, no state.
 *
 * Every length is checked before it is used, every message has exactly the payload and the descriptors that its number
 * asks for, and an address of 2^53 or more is refused, so that addresses are plain numbers everywhere else. Numbers are
 * in the host's byte order, which is little-endian wherever this runs (core/memory.ts insists).
 * @module
 */
import { FeatureSet } from "../../core/features.ts";
import type { Descriptor } from "./host.ts";
import {
  checkDescriptors,
  CONFIG_HEADER_BYTES,
  decodePayload,
  FLAG_NEED_REPLY,
  FLAG_REPLY,
  HEADER_BYTES,
  type InFlightDescription,
  MAX_DESCRIPTORS,
  MAX_PAYLOAD_BYTES,
  MAX_TABLE_REGIONS,
  type Message,
  type Payload,
  PROTOCOL_VERSION,
  ProtocolError,
  Request,
  requestName,
} from "./messages.ts";

/** A message header. */
export interface Header {
  /** Number of the request. */
  readonly id: number;
  /** Flags as they came, the version among them. */
  readonly flags: number;
  /** Bytes of payload that follow. */
  readonly sizeBytes: number;
}

/** What each request carries, and how many descriptors it may bring. */
const SHAPES: ReadonlyMap<number, readonly [kind: Payload["kind"], least: number, most: number]> = new Map([
  [Request.GET_FEATURES, ["none", 0, 0]],
  [Request.SET_FEATURES, ["bits", 0, 0]],
  [Request.SET_OWNER, ["none", 0, 0]],
  [Request.RESET_OWNER, ["none", 0, 0]],
  [Request.SET_MEM_TABLE, ["regions", 0, MAX_TABLE_REGIONS]],
  [Request.SET_LOG_BASE, ["log", 0, 1]],
  [Request.SET_LOG_FD, ["none", 0, 1]],
  [Request.SET_VRING_NUM, ["ring", 0, 0]],
  [Request.SET_VRING_ADDR, ["ringAddress", 0, 0]],
  [Request.SET_VRING_BASE, ["ring", 0, 0]],
  [Request.GET_VRING_BASE, ["ring", 0, 0]],
  [Request.SET_VRING_KICK, ["ringEvent", 0, 1]],
  [Request.SET_VRING_CALL, ["ringEvent", 0, 1]],
  [Request.SET_VRING_ERR, ["ringEvent", 0, 1]],
  [Request.GET_PROTOCOL_FEATURES, ["none", 0, 0]],
  [Request.SET_PROTOCOL_FEATURES, ["bits", 0, 0]],
  [Request.GET_QUEUE_NUM, ["none", 0, 0]],
  [Request.SET_VRING_ENABLE, ["ring", 0, 0]],
  [Request.SEND_RARP, ["bits", 0, 0]],
  [Request.NET_SET_MTU, ["bits", 0, 0]],
  [Request.SET_BACKEND_REQ_FD, ["none", 1, 1]],
  [Request.GET_CONFIG, ["config", 0, 0]],
  [Request.SET_CONFIG, ["config", 0, 0]],
  [Request.GET_INFLIGHT_FD, ["inFlight", 0, 0]],
  [Request.SET_INFLIGHT_FD, ["inFlight", 1, 1]],
  [Request.RESET_DEVICE, ["none", 0, 0]],
  [Request.VRING_KICK, ["ring", 0, 0]],
  [Request.GET_MAX_MEM_SLOTS, ["none", 0, 0]],
  [Request.ADD_MEM_REG, ["region", 1, 1]],
  // Some front-ends send a descriptor along; it is closed unused.
  [Request.REM_MEM_REG, ["region", 0, 1]],
  [Request.SET_STATUS, ["bits", 0, 0]],
  [Request.GET_STATUS, ["none", 0, 0]],
  [Request.SET_DEVICE_STATE_FD, ["transfer", 1, 1]],
  [Request.CHECK_DEVICE_STATE, ["none", 0, 0]],
]);

/**
 * Decodes a header. Fatal ProtocolError `header-invalid` or `payload-too-long`: what follows cannot be told apart.
 * @param bytes at least twelve
 */
export function decodeHeader(bytes: Uint8Array): Header {
  const view = viewOf(bytes);
  const id = view.getUint32(0, true);
  const flags = view.getUint32(4, true);
  const sizeBytes = view.getUint32(8, true);
  if ((flags & 3) !== PROTOCOL_VERSION) {
    throw new ProtocolError(
      "header-invalid",
      `Version in the flags 0x${flags.toString(16)} of ${requestName(id)} is ${
        flags & 3
      }; it must be ${PROTOCOL_VERSION}`,
      true,
    );
  }
  if (sizeBytes > MAX_PAYLOAD_BYTES) {
    throw new ProtocolError(
      "payload-too-long",
      `Payload of ${requestName(id)} is ${sizeBytes} bytes long; at most ${MAX_PAYLOAD_BYTES} are accepted`,
      true,
    );
  }
  return { id, flags, sizeBytes };
}

/**
 * Decodes a request of a front-end: ProtocolError, never fatal, for an unknown one and for a payload or a number of
 * descriptors that do not belong to it.
 * @param payload exactly the bytes that the header announces; a copy is made of what is kept
 * @param descriptors how many came along
 */
export function decodeMessage(header: Header, payload: Uint8Array, descriptors: number): Message {
  const { id } = header;
  const name = requestName(id);
  const shape = SHAPES.get(id);
  if (shape === undefined) {
    throw new ProtocolError("message-unknown", `Request ${id} (${name}) is not one that this device serves`);
  }
  const [kind, least, most] = shape;
  if (descriptors < least || descriptors > most) {
    const wanted = least === most ? String(least) : `${least} to ${most}`;
    throw new ProtocolError(
      "descriptors-invalid",
      `${name} came with ${descriptors} descriptors; it must have ${wanted}`,
    );
  }
  const decoded = decodePayload(kind, name, payload);
  checkDescriptors(name, decoded, descriptors);
  return { id, name, needReply: (header.flags & FLAG_NEED_REPLY) !== 0, payload: decoded, descriptors };
}

/** A reply with 64 bits: a value, or 0 for success. Flags are exactly version and reply: front-ends insist. */
export function encodeBitsReply(id: number, bits: FeatureSet): Uint8Array<ArrayBuffer> {
  return encode(id, FLAG_REPLY, encodeBits(bits));
}

/** A reply with a small number, 0 to 2^32 - 1. */
export function encodeNumberReply(id: number, value: number): Uint8Array<ArrayBuffer> {
  return encodeBitsReply(id, FeatureSet.fromWords(value));
}

/** A reply with a ring and a number. */
export function encodeRingReply(id: number, index: number, num: number): Uint8Array<ArrayBuffer> {
  return encode(id, FLAG_REPLY, encodeRing(index, num));
}

/** A reply with bytes of configuration space; without any, it says that they could not be read. */
export function encodeConfigReply(offset: number, bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(CONFIG_HEADER_BYTES + bytes.length);
  const view = viewOf(payload);
  view.setUint32(0, offset, true);
  view.setUint32(4, bytes.length, true);
  payload.set(bytes, CONFIG_HEADER_BYTES);
  return encode(Request.GET_CONFIG, FLAG_REPLY, payload);
}

/** A reply that describes in-flight memory, whose descriptor goes along. Padded to 24 bytes: QEMU takes no other length. */
export function encodeInFlightReply(memory: InFlightDescription): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(24);
  const view = viewOf(payload);
  view.setBigUint64(0, BigInt(memory.sizeBytes), true);
  view.setBigUint64(8, BigInt(memory.offsetBytes), true);
  view.setUint16(16, memory.queues, true);
  view.setUint16(18, memory.queueSize, true);
  return encode(Request.GET_INFLIGHT_FD, FLAG_REPLY, payload);
}

/** A request of the back-end about a ring (VRING_CALL, VRING_ERR), or without payload (CONFIG_CHANGE_MSG). */
export function encodeBackendRequest(
  id: number,
  ring: number | null,
  needReply: boolean,
): Uint8Array<ArrayBuffer> {
  const payload = ring === null ? new Uint8Array(0) : encodeRing(ring, 0);
  return encode(id, needReply ? FLAG_NEED_REPLY : 0, payload);
}

/** Any message of these parts; for front-ends and tests. `flags` without the version. */
export function encode(id: number, flags: number, payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES + payload.length);
  const view = viewOf(bytes);
  view.setUint32(0, id, true);
  view.setUint32(4, flags | PROTOCOL_VERSION, true);
  view.setUint32(8, payload.length, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

function encodeBits(bits: FeatureSet): Uint8Array {
  const payload = new Uint8Array(8);
  const view = viewOf(payload);
  view.setUint32(0, bits.word(0), true);
  view.setUint32(4, bits.word(1), true);
  return payload;
}

function encodeRing(index: number, num: number): Uint8Array {
  const payload = new Uint8Array(8);
  const view = viewOf(payload);
  view.setUint32(0, index, true);
  view.setUint32(4, num, true);
  return payload;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// From a stream of bytes and descriptors to messages.
//
// Theory of operation. A header is read by itself, exactly twelve bytes, and then exactly the payload that it announces:
// descriptors arrive with the first byte of the message that they were sent with, and so never get to another one.
// Whatever has come so far is kept until the rest comes. A message keeps no more than 4096 bytes and 8 descriptors here.

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
