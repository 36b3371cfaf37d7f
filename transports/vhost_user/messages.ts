/**
 * The messages of the vhost-user protocol: numbers, names, shapes.
 * The names are those of the specification (QEMU, docs/interop/vhost-user).
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
/** In the payload of VRING_KICK, CALL and ERR, and in replies of SET_DEVICE_STATE_FD: no descriptor comes along. */
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

/** Requests of a front-end, by number. */
export const Request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

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

// Payloads of the front-end's requests, from bytes to values. Every length is checked before it is used.

/** Bytes in front of the contents of configuration space: offset, size, flags. */
export const CONFIG_HEADER_BYTES = 12;
const REGION_BYTES = 32;
/** Bytes of a description of in-flight memory, without padding. */
const IN_FLIGHT_BYTES = 20;

/** Decodes a payload of this kind. ProtocolError, never fatal, with the message's name in it. */
export function decodePayload(kind: Payload["kind"], name: string, bytes: Uint8Array): Payload {
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
export function checkDescriptors(name: string, payload: Payload, descriptors: number): void {
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

// What a front-end says against the rules of the vhost-user protocol.

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
 * A message that breaks a rule. It is counted by its fault and refused; the connection goes on unless it is `fatal`.
 */
export class ProtocolError extends Error {
  /** `ProtocolError`. */
  override readonly name = "ProtocolError";
  /** Which rule was broken. */
  readonly fault: ProtocolFault;
  /** Nothing that follows can be understood: the connection must be closed. */
  readonly fatal: boolean;

  /** Says what is wrong. @param fault the rule; @param message what was found, with the values; @param fatal close the connection */
  constructor(fault: ProtocolFault, message: string, fatal = false) {
    super(`${fault}: ${message}`);
    this.fault = fault;
    this.fatal = fatal;
  }
}
