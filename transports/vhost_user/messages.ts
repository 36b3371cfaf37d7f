/**
 * The messages of the vhost-user protocol: numbers, names, shapes, and from bytes to messages and back.
 *
 * The names are those of the specification (QEMU, docs/interop/vhost-user). Pure functions: no socket, no
 * state. Every length is checked before it is used, every message has exactly the payload and the descriptors
 * that its number asks for, and an address of 2^53 or more is refused, so that addresses are plain numbers
 * everywhere else. Numbers are in the host's byte order, which is little-endian wherever this runs
 * (rings/memory.ts insists).
 * @module
 */
import { FeatureSet } from "../../core/features.ts";

/** The virtio feature bit that stands for protocol features; no device offers it to a driver. */
export const VHOST_USER_F_PROTOCOL_FEATURES = 30;
/** The virtio feature bit by which a front-end has writes to guest memory logged. */
export const VHOST_F_LOG_ALL = 26;
/** Flag of a ring address: writes to the used ring are to be logged. */
const VHOST_VRING_F_LOG = 1;

/** Version in the two lowest bits of the header flags. */
export const PROTOCOL_VERSION = 1;
/** Header flag: this is a reply. */
export const FLAG_REPLY = 4;
/** Header flag: a reply is wanted even if the message has none by itself. */
export const FLAG_NEED_REPLY = 8;
/**
 * In the payload of VRING_KICK, CALL and ERR, and in replies of SET_DEVICE_STATE_FD: no descriptor comes
 * along.
 */
export const FLAG_NO_DESCRIPTOR = 0x100;

/** Bytes of a message header. */
export const HEADER_BYTES = 12;
/** Longest payload that is accepted, whatever the message: the longest one with a meaning has 268 bytes. */
export const MAX_PAYLOAD_BYTES = 4096;
/** Most descriptors that come with one message. */
export const MAX_DESCRIPTORS = 8;
/** Most regions in one memory table: each needs a descriptor. */
export const MAX_TABLE_REGIONS = 8;
/** Most memory regions added one by one; told to front-ends, which must never see it shrink. */
export const MAX_MEMORY_SLOTS = 509;
/** Most bytes of configuration space. */
const MAX_CONFIG_BYTES = 256;

/** Protocol feature bits (VHOST_USER_PROTOCOL_F_*). */
export const ProtocolFeature = {
  MQ: 0,
  LOG_SHMFD: 1,
  RARP: 2,
  REPLY_ACK: 3,
  MTU: 4,
  BACKEND_REQ: 5,
  CROSS_ENDIAN: 6,
  CRYPTO_SESSION: 7,
  PAGEFAULT: 8,
  CONFIG: 9,
  BACKEND_SEND_FD: 10,
  HOST_NOTIFIER: 11,
  INFLIGHT_SHMFD: 12,
  RESET_DEVICE: 13,
  INBAND_NOTIFICATIONS: 14,
  CONFIGURE_MEM_SLOTS: 15,
  STATUS: 16,
  XEN_MMAP: 17,
  SHARED_OBJECT: 18,
  DEVICE_STATE: 19,
  GET_VRING_BASE_INFLIGHT: 20,
} as const;

/** Bytes in front of the contents of configuration space: offset, size, flags. */
const CONFIG_HEADER_BYTES = 12;
const REGION_BYTES = 32;
/** Bytes of a description of in-flight memory, without padding. */
const IN_FLIGHT_BYTES = 20;

/**
 * A request: its number, what it carries, how many descriptors it may bring, and the protocol feature that it
 * comes with.
 */
type RequestRow = readonly [
  id: number,
  kind: Payload["kind"],
  descriptors?: readonly [number, number],
  feature?: number,
];

const NO_DESCRIPTOR = [0, 0] as const;
const MAYBE_ONE = [0, 1] as const;
const ONE = [1, 1] as const;

/** The requests of a front-end that are served. */
const REQUESTS = {
  GET_FEATURES: [1, "none"],
  SET_FEATURES: [2, "bits"],
  SET_OWNER: [3, "none"],
  RESET_OWNER: [4, "none"],
  SET_MEM_TABLE: [5, "regions", [0, MAX_TABLE_REGIONS]],
  SET_LOG_BASE: [6, "log", MAYBE_ONE],
  SET_LOG_FD: [7, "none", MAYBE_ONE],
  SET_VRING_NUM: [8, "ring"],
  SET_VRING_ADDR: [9, "ringAddress"],
  SET_VRING_BASE: [10, "ring"],
  GET_VRING_BASE: [11, "ring"],
  SET_VRING_KICK: [12, "ringEvent", MAYBE_ONE],
  SET_VRING_CALL: [13, "ringEvent", MAYBE_ONE],
  SET_VRING_ERR: [14, "ringEvent", MAYBE_ONE],
  GET_PROTOCOL_FEATURES: [15, "none"],
  SET_PROTOCOL_FEATURES: [16, "bits"],
  GET_QUEUE_NUM: [17, "none", NO_DESCRIPTOR, ProtocolFeature.MQ],
  SET_VRING_ENABLE: [18, "ring"],
  SEND_RARP: [19, "bits", NO_DESCRIPTOR, ProtocolFeature.RARP],
  NET_SET_MTU: [20, "bits", NO_DESCRIPTOR, ProtocolFeature.MTU],
  SET_BACKEND_REQ_FD: [21, "none", ONE, ProtocolFeature.BACKEND_REQ],
  GET_CONFIG: [24, "config", NO_DESCRIPTOR, ProtocolFeature.CONFIG],
  SET_CONFIG: [25, "config", NO_DESCRIPTOR, ProtocolFeature.CONFIG],
  GET_INFLIGHT_FD: [31, "inFlight", NO_DESCRIPTOR, ProtocolFeature.INFLIGHT_SHMFD],
  SET_INFLIGHT_FD: [32, "inFlight", ONE, ProtocolFeature.INFLIGHT_SHMFD],
  RESET_DEVICE: [34, "none", NO_DESCRIPTOR, ProtocolFeature.RESET_DEVICE],
  VRING_KICK: [35, "ring", NO_DESCRIPTOR, ProtocolFeature.INBAND_NOTIFICATIONS],
  GET_MAX_MEM_SLOTS: [36, "none", NO_DESCRIPTOR, ProtocolFeature.CONFIGURE_MEM_SLOTS],
  ADD_MEM_REG: [37, "region", ONE, ProtocolFeature.CONFIGURE_MEM_SLOTS],
  // Some front-ends send a descriptor along; it is closed unused.
  REM_MEM_REG: [38, "region", MAYBE_ONE, ProtocolFeature.CONFIGURE_MEM_SLOTS],
  SET_STATUS: [39, "bits", NO_DESCRIPTOR, ProtocolFeature.STATUS],
  GET_STATUS: [40, "none", NO_DESCRIPTOR, ProtocolFeature.STATUS],
  SET_DEVICE_STATE_FD: [42, "transfer", ONE, ProtocolFeature.DEVICE_STATE],
  CHECK_DEVICE_STATE: [43, "none", NO_DESCRIPTOR, ProtocolFeature.DEVICE_STATE],
} as const satisfies Record<string, RequestRow>;

const ROWS: ReadonlyMap<number, RequestRow> = new Map(Object.values(REQUESTS).map((row) => [row[0], row]));

/** Requests of a front-end, by number. */
export const Request = Object.fromEntries(Object.entries(REQUESTS).map(([name, [id]]) => [name, id])) as {
  readonly [Name in keyof typeof REQUESTS]: typeof REQUESTS[Name][0];
};

/** Requests that are known by name but belong to features that are never offered. */
const OTHER_NAMES: ReadonlyMap<number, string> = new Map([
  [22, "IOTLB_MSG"],
  [23, "SET_VRING_ENDIAN"],
  [26, "CREATE_CRYPTO_SESSION"],
  [27, "CLOSE_CRYPTO_SESSION"],
  [28, "POSTCOPY_ADVISE"],
  [29, "POSTCOPY_LISTEN"],
  [30, "POSTCOPY_END"],
  [33, "GPU_SET_SOCKET"],
  [41, "GET_SHARED_OBJECT"],
  [44, "GET_SHMEM_CONFIG"],
]);

/** Requests of a back-end, by number. */
export const BackendRequest = {
  CONFIG_CHANGE_MSG: 2,
  VRING_CALL: 4,
  VRING_ERR: 5,
} as const;

const REQUEST_NAMES: ReadonlyMap<number, string> = new Map([
  ...Object.entries(Request).map(([name, id]): [number, string] => [id, name]),
  ...OTHER_NAMES,
]);
const BACKEND_REQUEST_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(BackendRequest).map(([name, id]) => [id, name]),
);
const PROTOCOL_FEATURE_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(ProtocolFeature).map(([name, bit]) => [bit, name]),
);

/** The name of a front-end's request, such as `SET_VRING_NUM`; `message 77` for one that has none. */
export function requestName(id: number): string {
  return REQUEST_NAMES.get(id) ?? `message ${id}`;
}

/** The name of a back-end's request. */
export function backendRequestName(id: number): string {
  return BACKEND_REQUEST_NAMES.get(id) ?? `back-end message ${id}`;
}

/** The protocol feature that a request comes with; undefined if it needs none. */
export function featureNeededBy(id: number): number | undefined {
  return ROWS.get(id)?.[3];
}

/** The name of a protocol feature bit, such as `REPLY_ACK`; `bit 63` for one that has none. */
export function protocolFeatureName(bit: number): string {
  return PROTOCOL_FEATURE_NAMES.get(bit) ?? `bit ${bit}`;
}

/** A region of guest memory as a front-end describes it. All numbers are bytes, below 2^53. */
export interface RegionDescription {
  /** Guest physical address. */
  readonly guestAddress: number;
  /** Size. */
  readonly size: number;
  /** Address in the front-end's own process: rings are given by these. */
  readonly userAddress: number;
  /** Where the region starts in the memory behind the descriptor. */
  readonly mapOffset: number;
}

/** In-flight memory as a front-end describes it. */
export interface InFlightDescription {
  /** Bytes of it. */
  readonly sizeBytes: number;
  /** Where it starts in the memory behind the descriptor. */
  readonly offsetBytes: number;
  /** Queues that it is for. */
  readonly queues: number;
  /** Most entries that each of them may have. */
  readonly queueSize: number;
}

/** The payload of a message. Addresses are plain numbers. */
export type Payload =
  | { readonly kind: "none" }
  /** 64 bits that are no address: features, status, MTU, MAC. */
  | { readonly kind: "bits"; readonly bits: FeatureSet }
  /** A ring and a number: size, base, on or off. */
  | { readonly kind: "ring"; readonly index: number; readonly num: number }
  /** Where a ring lies, by user addresses; `log` is null unless the flag asks for logging. */
  | {
    readonly kind: "ringAddress";
    readonly index: number;
    readonly flags: number;
    readonly descriptors: number;
    readonly used: number;
    readonly available: number;
    readonly log: number | null;
  }
  /** A ring whose event descriptor comes along, or does not. */
  | { readonly kind: "ringEvent"; readonly index: number; readonly hasDescriptor: boolean }
  | { readonly kind: "regions"; readonly regions: readonly RegionDescription[] }
  | { readonly kind: "region"; readonly region: RegionDescription }
  | { readonly kind: "log"; readonly sizeBytes: number; readonly offsetBytes: number }
  | {
    readonly kind: "config";
    readonly offset: number;
    readonly size: number;
    readonly flags: number;
    readonly bytes: Uint8Array;
  }
  | { readonly kind: "inFlight"; readonly memory: InFlightDescription }
  /** `direction`: 0 save, 1 load. `phase`: 0, everything is stopped. */
  | { readonly kind: "transfer"; readonly direction: number; readonly phase: number };

/** A decoded request of a front-end. */
export interface Message {
  /** Its number. */
  readonly id: number;
  /** Its name. */
  readonly name: string;
  /** A reply is wanted. */
  readonly needReply: boolean;
  /** What it says. */
  readonly payload: Payload;
  /** How many descriptors came with it. */
  readonly descriptors: number;
}
/** A message header. */
export interface Header {
  /** Number of the request. */
  readonly id: number;
  /** Flags as they came, the version among them. */
  readonly flags: number;
  /** Bytes of payload that follow. */
  readonly sizeBytes: number;
}
/** Which rule a message broke: the key under which it is counted. */
export type ProtocolFault =
  | "header-invalid"
  | "payload-too-long"
  | "payload-size-invalid"
  | "descriptors-invalid"
  | "address-too-large"
  | "value-invalid"
  | "ring-index-invalid"
  | "not-negotiated"
  | "message-unknown"
  | "memory-table-invalid"
  | "log-invalid"
  | "state-transfer-invalid"
  | "connection-cut-short";

/**
 * A message that breaks a rule. It is counted by its fault and refused; the connection goes on unless it is
 * `fatal`.
 */
export class ProtocolError extends Error {
  /** `ProtocolError`. */
  override readonly name = "ProtocolError";
  /** Which rule was broken. */
  readonly fault: ProtocolFault;
  /** Nothing that follows can be understood: the connection must be closed. */
  readonly fatal: boolean;

  /**
   * Says what is wrong.
   * @param fault the rule;
   * @param message what was found, with the values;
   * @param fatal close the connection
   */
  constructor(fault: ProtocolFault, message: string, fatal = false) {
    super(`${fault}: ${message}`);
    this.fault = fault;
    this.fatal = fatal;
  }
}

/**
 * Decodes a header. Fatal ProtocolError `header-invalid` or `payload-too-long`: what follows cannot be told
 * apart.
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
 * Decodes a request of a front-end: ProtocolError, never fatal, for an unknown one and for a payload or a
 * number of descriptors that do not belong to it.
 * @param payload exactly the bytes that the header announces; a copy is made of what is kept
 * @param descriptors how many came along
 */
export function decodeMessage(header: Header, payload: Uint8Array, descriptors: number): Message {
  const { id } = header;
  const name = requestName(id);
  const row = ROWS.get(id);
  if (row === undefined) {
    throw new ProtocolError("message-unknown", `Request ${id} (${name}) is not one that this device serves`);
  }
  const [, kind, [least, most] = NO_DESCRIPTOR] = row;
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
/** Decodes a payload of this kind. ProtocolError, never fatal, with the message's name in it. */
function decodePayload(kind: Payload["kind"], name: string, bytes: Uint8Array): Payload {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (kind) {
    case "none":
      // Nothing is expected and nothing is looked at: some front-ends pad.
      return { kind };
    case "bits":
      checkSize(name, bytes, 8);
      return { kind, bits: FeatureSet.fromWords(view.getUint32(0, true), view.getUint32(4, true)) };
    case "ring":
      checkSize(name, bytes, 8);
      return { kind, index: view.getUint32(0, true), num: view.getUint32(4, true) };
    case "ringEvent": {
      checkSize(name, bytes, 8);
      const word = view.getUint32(0, true);
      return { kind, index: word & 0xff, hasDescriptor: (word & FLAG_NO_DESCRIPTOR) === 0 };
    }
    case "ringAddress":
      checkSize(name, bytes, 40);
      return decodeRingAddress(name, view);
    case "regions":
      return decodeRegions(name, bytes, view);
    case "region":
      checkSize(name, bytes, 8 + REGION_BYTES);
      return { kind, region: decodeRegion(name, view, 8) };
    case "log":
      // Before LOG_SHMFD the payload was one address, which means nothing without its memory.
      if (bytes.length === 8) return { kind, sizeBytes: 0, offsetBytes: 0 };
      checkSize(name, bytes, 16);
      return {
        kind,
        sizeBytes: le64(name, "log size", view, 0),
        offsetBytes: le64(name, "log offset", view, 8),
      };
    case "config":
      return decodeConfig(name, bytes, view);
    case "inFlight":
      // QEMU sends its structure with the padding at its end.
      if (bytes.length !== IN_FLIGHT_BYTES + 4) checkSize(name, bytes, IN_FLIGHT_BYTES);
      return {
        kind,
        memory: {
          sizeBytes: le64(name, "mmap size", view, 0),
          offsetBytes: le64(name, "mmap offset", view, 8),
          queues: view.getUint16(16, true),
          queueSize: view.getUint16(18, true),
        },
      };
    case "transfer":
      checkSize(name, bytes, 8);
      return { kind, direction: view.getUint32(0, true), phase: view.getUint32(4, true) };
  }
}

function decodeRingAddress(name: string, view: DataView): Payload {
  const flags = view.getUint32(4, true);
  return {
    kind: "ringAddress",
    index: view.getUint32(0, true),
    flags,
    descriptors: le64(name, "descriptor", view, 8),
    used: le64(name, "used", view, 16),
    available: le64(name, "available", view, 24),
    // Without the flag the field may be anything.
    log: (flags & VHOST_VRING_F_LOG) === 0 ? null : le64(name, "log", view, 32),
  };
}

function decodeRegions(name: string, bytes: Uint8Array, view: DataView): Payload {
  if (bytes.length < 8) checkSize(name, bytes, 8);
  const count = view.getUint32(0, true);
  if (count > MAX_TABLE_REGIONS) {
    throw new ProtocolError(
      "memory-table-invalid",
      `${name} has ${count} regions; at most ${MAX_TABLE_REGIONS} fit, more must be added one by one`,
    );
  }
  // Some front-ends always send room for eight.
  if (bytes.length < 8 + count * REGION_BYTES || bytes.length > 8 + MAX_TABLE_REGIONS * REGION_BYTES) {
    checkSize(name, bytes, 8 + count * REGION_BYTES);
  }
  const regions = Array.from({ length: count }, (_, i) => decodeRegion(name, view, 8 + i * REGION_BYTES));
  return { kind: "regions", regions };
}

function decodeRegion(name: string, view: DataView, at: number): RegionDescription {
  return {
    guestAddress: le64(name, "guest address", view, at),
    size: le64(name, "size", view, at + 8),
    userAddress: le64(name, "user address", view, at + 16),
    mapOffset: le64(name, "mmap offset", view, at + 24),
  };
}

function decodeConfig(name: string, bytes: Uint8Array, view: DataView): Payload {
  if (bytes.length < CONFIG_HEADER_BYTES) checkSize(name, bytes, CONFIG_HEADER_BYTES);
  const offset = view.getUint32(0, true);
  const size = view.getUint32(4, true);
  if (size > MAX_CONFIG_BYTES || offset > MAX_CONFIG_BYTES - size) {
    throw new ProtocolError(
      "value-invalid",
      `${name} asks for ${size} bytes at ${offset}; configuration space has at most ${MAX_CONFIG_BYTES}`,
    );
  }
  checkSize(name, bytes, CONFIG_HEADER_BYTES + size);
  const kept = bytes.slice(CONFIG_HEADER_BYTES);
  return { kind: "config", offset, size, flags: view.getUint32(8, true), bytes: kept };
}

/** Checks that as many descriptors came as the payload speaks of. ProtocolError `descriptors-invalid`. */
function checkDescriptors(name: string, payload: Payload, descriptors: number): void {
  let wanted = descriptors;
  if (payload.kind === "regions") wanted = payload.regions.length;
  if (payload.kind === "ringEvent") wanted = payload.hasDescriptor ? 1 : 0;
  if (wanted !== descriptors) {
    throw new ProtocolError(
      "descriptors-invalid",
      `${name} came with ${descriptors} descriptors; its payload asks for ${wanted}`,
    );
  }
}

function checkSize(name: string, bytes: Uint8Array, wanted: number): void {
  if (bytes.length !== wanted) {
    throw new ProtocolError(
      "payload-size-invalid",
      `Payload of ${name} is ${bytes.length} bytes long; it must be ${wanted}`,
    );
  }
}

function le64(name: string, field: string, view: DataView, at: number): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  if (high >= 0x200000) {
    throw new ProtocolError(
      "address-too-large",
      `${field} of ${name} is 0x${high.toString(16)}${
        low.toString(16).padStart(8, "0")
      }; it must be below 2^53`,
    );
  }
  return high * 0x100000000 + low;
}
/**
 * A reply with 64 bits: a value, or 0 for success. Flags are exactly version and reply: front-ends insist.
 */
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

/**
 * A reply that describes in-flight memory, whose descriptor goes along. Padded to 24 bytes: QEMU takes no
 * other length.
 */
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
