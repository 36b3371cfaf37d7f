/**
 * The commands of the control queue: their numbers, and the layout of the longer ones (virtio 1.2, section 5.1.6.5).
 * The decoders check every length and value, and answer by name what is wrong.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import { MAC_BYTES } from "../../wire/ethernet.ts";
import { RSS_MAX_KEY_BYTES, RSS_MAX_TABLE_LENGTH, SUPPORTED_HASH_TYPES } from "./rss.ts";
import type { ReceiveMode } from "./receive_filter.ts";
import type { RssSettings } from "./steering.ts";

/** The answer to a command that was obeyed. */
export const VIRTIO_NET_OK = 0;
/** The answer to a command that was refused. */
export const VIRTIO_NET_ERR = 1;

/** Class: receive modes (virtio 1.2, section 5.1.6.5.1); the commands are those of {@linkcode RECEIVE_MODES}. */
export const VIRTIO_NET_CTRL_RX = 0;
/** Class: MAC addresses (section 5.1.6.5.2). */
export const VIRTIO_NET_CTRL_MAC = 1;
/** Replaces the MAC tables. */
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
/** Sets the device's own MAC address. */
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;
/** Class: VLAN table (section 5.1.6.5.3). */
export const VIRTIO_NET_CTRL_VLAN = 2;
/** Adds a VLAN to the table. */
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
/** Removes a VLAN from the table. */
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;
/** Class: announcing (section 5.1.6.5.4). */
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
/** The driver has seen the request to announce itself. */
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;
/** Class: several queue pairs (section 5.1.6.5.5). */
export const VIRTIO_NET_CTRL_MQ = 4;
/** Automatic receive steering over so many pairs. */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
/** Receive-side scaling. */
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;
/** Hash reports under automatic receive steering. */
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2;
/** Class: guest offloads (section 5.1.6.5.8). */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
/** Says which guest offloads are on. */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;

/** The receive modes by command number: PROMISC 0, ALLMULTI 1, ALLUNI 2, NOMULTI 3, NOUNI 4, NOBCAST 5. */
export const RECEIVE_MODES: readonly ReceiveMode[] = [
  "promisc",
  "allmulti",
  "alluni",
  "nomulti",
  "nouni",
  "nobcast",
];

/** A command as it comes: a descriptor chain, or whatever looks like one. */
export interface ControlRequest {
  /** Bytes that can be read in all. */
  readonly readableBytes: number;
  /** Bytes that can be written in all. */
  readonly writableBytes: number;
  /** Copies up to `length` bytes to `target[at]` on; returns how many. */
  read(target: Uint8Array, at: number, length: number): number;
  /** Copies up to `length` bytes from `source[at]` on; returns how many. */
  write(source: Uint8Array, at: number, length: number): number;
}

/** Why a command was refused. */
export type ControlRefusal =
  | "unknown_class"
  | "unknown_command"
  | "not_negotiated"
  | "data_short"
  | "data_long"
  | "value_invalid"
  | "queue_not_ready";

/** Commands seen, and refused by reason. `too_large`: longer than any honest command. */
export type ControlCounters = Record<"commands" | "too_large" | ControlRefusal, number>;

/** Counters of commands, all 0. */
export function newControlCounters(): ControlCounters {
  return {
    commands: 0,
    too_large: 0,
    unknown_class: 0,
    unknown_command: 0,
    not_negotiated: 0,
    data_short: 0,
    data_long: 0,
    value_invalid: 0,
    queue_not_ready: 0,
  };
}

/** Where the two lists of VIRTIO_NET_CTRL_MAC_TABLE_SET are. */
export interface MacTables {
  /** First byte of the unicast addresses. */
  readonly unicastAt: number;
  /** How many there are. */
  readonly unicastCount: number;
  /** First byte of the multicast addresses. */
  readonly multicastAt: number;
  /** How many there are. */
  readonly multicastCount: number;
}

/** What VIRTIO_NET_CTRL_MQ_HASH_CONFIG says. */
export interface HashSettings {
  /** Enabled hash types, a mask of VIRTIO_NET_HASH_TYPE_*. */
  readonly hashTypes: number;
  /** The Toeplitz key, up to 40 bytes. */
  readonly key: Uint8Array;
}

/** Are there exactly `wanted` bytes of data? Null if so. */
function refuseLength(length: number, wanted: number): ControlRefusal | null {
  return length === wanted ? null : length < wanted ? "data_short" : "data_long";
}

/**
 * What is wrong with a command of `end` bytes, class and command included, that needs `feature` and exactly `dataBytes` of
 * data; null if nothing.
 */
export function refuse(
  features: FeatureSet,
  feature: number,
  end: number,
  dataBytes: number,
): ControlRefusal | null {
  return features.has(feature) ? refuseLength(end - 2, dataBytes) : "not_negotiated";
}

/** Decodes VIRTIO_NET_CTRL_MAC_TABLE_SET from the bytes `at` to `end`. */
export function decodeMacTables(bytes: Uint8Array, at: number, end: number): MacTables | ControlRefusal {
  if (end - at < 4) return "data_short";
  const unicastAt = at + 4;
  const unicastCount = le32(bytes, at);
  const second = unicastAt + unicastCount * MAC_BYTES;
  if (second + 4 > end) return "data_short";
  const multicastAt = second + 4;
  const multicastCount = le32(bytes, second);
  return refuseLength(end, multicastAt + multicastCount * MAC_BYTES) ??
    { unicastAt, unicastCount, multicastAt, multicastCount };
}

/** Decodes VIRTIO_NET_CTRL_MQ_RSS_CONFIG (section 5.1.6.5.7.1) from the bytes `at` to `end`, for a device of `maxPairs`. */
export function decodeRssSettings(
  bytes: Uint8Array,
  at: number,
  end: number,
  maxPairs: number,
): RssSettings | ControlRefusal {
  if (end - at < 8) return "data_short";
  const hashTypes = le32(bytes, at);
  const tableLength = le16(bytes, at + 4) + 1;
  const unclassifiedPair = le16(bytes, at + 6);
  if ((tableLength & (tableLength - 1)) !== 0 || tableLength > RSS_MAX_TABLE_LENGTH) return "value_invalid";
  const tableAt = at + 8;
  const tail = tableAt + 2 * tableLength;
  if (tail + 3 > end) return "data_short";
  const transmitPairs = le16(bytes, tail);
  if (unclassifiedPair >= maxPairs || transmitPairs < 1 || transmitPairs > maxPairs) return "value_invalid";
  const table = new Uint16Array(tableLength);
  let pairs = Math.max(transmitPairs, unclassifiedPair + 1);
  for (let i = 0; i < tableLength; i++) {
    // The value is bits 1 to 16 of the index of a receive queue, which is the number of its pair.
    const pair = le16(bytes, tableAt + 2 * i);
    if (pair >= maxPairs) return "value_invalid";
    table[i] = pair;
    if (pair >= pairs) pairs = pair + 1;
  }
  const key = decodeKey(bytes, tail + 2, end, hashTypes);
  return typeof key === "string" ? key : { hashTypes, table, unclassifiedPair, pairs, key };
}

/** Decodes VIRTIO_NET_CTRL_MQ_HASH_CONFIG (section 5.1.6.5.6.4) from the bytes `at` to `end`. */
export function decodeHashSettings(
  bytes: Uint8Array,
  at: number,
  end: number,
): HashSettings | ControlRefusal {
  if (end - at < 13) return "data_short";
  const hashTypes = le32(bytes, at);
  const key = decodeKey(bytes, at + 12, end, hashTypes);
  return typeof key === "string" ? key : { hashTypes, key };
}

/** The 16-bit little-endian number at `at`. */
export function le16(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}

/** The 32-bit little-endian number at `at`, unsigned. */
export function le32(bytes: Uint8Array, at: number): number {
  return (bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24) >>> 0;
}

/** A copy of the key behind its length byte at `at`. Without a key no hash can be asked for. */
function decodeKey(
  bytes: Uint8Array,
  at: number,
  end: number,
  hashTypes: number,
): Uint8Array | ControlRefusal {
  const length = bytes[at];
  if (length > RSS_MAX_KEY_BYTES || (length === 0 && hashTypes !== 0)) return "value_invalid";
  if ((hashTypes & ~SUPPORTED_HASH_TYPES) !== 0) return "value_invalid";
  return refuseLength(end, at + 1 + length) ?? bytes.slice(at + 1, end);
}
