/**
 * The control queue: commands of the driver, judged and carried out (virtio 1.2, section 5.1.6.5).
 *
 * Theory of operation. `handle` takes one chain. Its readable bytes are a class, a command and data; they are
 * copied once into `#scratch`, of fixed size, and only the copy is looked at, since the guest can change its
 * memory meanwhile. The first writable byte takes the answer. A command is checked completely before anything
 * changes: class, command, feature, length, values; then it is carried out at once, so that it is in force
 * before the driver sees the answer. What is refused changes nothing and is counted under the name of the
 * reason. Behind `ControlQueue` come the numbers of the commands and the decoders of the longer ones.
 *
 * One exception is deliberate: `offloadsRequested` is told of a well-formed GUEST_OFFLOADS_SET before it is
 * judged, because the reference acts on it too early, and stages that follow the rule book `qemu` repeat
 * that.
 *
 * Invariants: every chain with room for the answer gets one; a chain without is the only GuestError of this
 * room (reading guest memory may throw others). Limits: commands of up to MAX_COMMAND_BYTES, that is 10,920
 * MAC addresses.
 *
 * @module
 */
import { GuestError } from "../../rings/guest_error.ts";
import { FeatureSet } from "../../core/features.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import { isMulticast, MAC_BYTES } from "../../wire/ethernet.ts";
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_RSC_EXT,
  VIRTIO_NET_F_RSS,
} from "../../wire/net_features.ts";
import { guestOffloads } from "./features.ts";
import { type ReceiveFilter, type ReceiveMode, VLAN_IDS } from "./receive_filter.ts";
import {
  RSS_MAX_KEY_BYTES,
  RSS_MAX_TABLE_LENGTH,
  type RssSettings,
  type Steering,
  SUPPORTED_HASH_TYPES,
} from "./steering.ts";

/** Longest command that is read, class and command included. */
export const MAX_COMMAND_BYTES = 65_536;

/**
 * What commands do to the device beyond filter and steering. Made once, called while a command is carried
 * out.
 */
export interface ControlHooks {
  /** The driver asks for these guest offloads, and has not been judged yet. */
  offloadsRequested(mask: FeatureSet): void;
  /**
   * These guest offloads, and no others, are on from now on. Under `qemu` rules RSC_EXT is never among them.
   */
  setGuestOffloads(offloads: FeatureSet): void;
  /**
   * The first `pairs` queue pairs are in use from now on. False if the driver has not set one of them up:
   * refused.
   */
  setQueuePairs(pairs: number): boolean;
  /** The driver has seen the request to announce itself. */
  announceAcked(): void;
  /**
   * The device's own address is now this one, six bytes, valid during the call. The receive filter knows
   * already.
   */
  macChanged(mac: Uint8Array): void;
}

/** What the control queue is made of. */
export interface ControlQueueParts {
  /** The receive filter, which commands program. */
  readonly filter: ReceiveFilter;
  /** The receive steering, which commands program. */
  readonly steering: Steering;
  /** The rest of the device. */
  readonly hooks: ControlHooks;
  /** Queue pairs of the device. */
  readonly maxPairs: number;
  /** The rule book, which differs in what it makes of RSC_EXT among the guest offloads. */
  readonly rules: RuleBook;
}

/** Answers the commands of one device's driver. */
export class ControlQueue {
  /** Commands seen, and refused by reason. */
  readonly counters: ControlCounters = newControlCounters();
  readonly #parts: ControlQueueParts;
  readonly #scratch = new Uint8Array(MAX_COMMAND_BYTES);
  readonly #answer = new Uint8Array(1);
  #features: FeatureSet = FeatureSet.none;

  /** Refuses every command until features are negotiated. @param parts what commands program */
  constructor(parts: ControlQueueParts) {
    this.#parts = parts;
  }

  /**
   * What driver and device have agreed on; until then, and after `FeatureSet.none`, every command is refused.
   */
  negotiated(features: FeatureSet): void {
    this.#features = features;
  }

  /**
   * Answers one command and returns the number of bytes written, for the used ring. GuestError
   * `buffer-too-small` if there is no room for the answer.
   */
  handle(request: ControlRequest): number {
    if (request.writableBytes < 1) {
      throw new GuestError(
        "buffer-too-small",
        `A control command of ${request.readableBytes} bytes has no writable byte; the driver must add one for ack`,
      );
    }
    this.counters.commands++;
    const refusal = this.#obey(request);
    if (refusal !== null) this.counters[refusal]++;
    this.#answer[0] = refusal === null ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
    return request.write(this.#answer, 0, 1);
  }

  /** Null if the command was carried out. */
  #obey(request: ControlRequest): ControlRefusal | "too_large" | null {
    if (request.readableBytes > MAX_COMMAND_BYTES) return "too_large";
    const end = request.read(this.#scratch, 0, request.readableBytes);
    if (end < 2) return "data_short";
    const command = this.#scratch[1];
    switch (this.#scratch[0]) {
      case VIRTIO_NET_CTRL_RX:
        return this.#setReceiveMode(command, end);
      case VIRTIO_NET_CTRL_MAC:
        if (command === VIRTIO_NET_CTRL_MAC_TABLE_SET) return this.#setTables(end);
        return command === VIRTIO_NET_CTRL_MAC_ADDR_SET ? this.#setMac(end) : "unknown_command";
      case VIRTIO_NET_CTRL_VLAN:
        return this.#setVlan(command, end);
      case VIRTIO_NET_CTRL_ANNOUNCE:
        return command === VIRTIO_NET_CTRL_ANNOUNCE_ACK ? this.#announceAck(end) : "unknown_command";
      case VIRTIO_NET_CTRL_MQ:
        if (command === VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) return this.#setPairs(end);
        if (command === VIRTIO_NET_CTRL_MQ_RSS_CONFIG) return this.#configureRss(end);
        return command === VIRTIO_NET_CTRL_MQ_HASH_CONFIG ? this.#configureHash(end) : "unknown_command";
      case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return command === VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ? this.#setOffloads(end) : "unknown_command";
      default:
        return "unknown_class";
    }
  }

  /**
   * What is wrong with a command of `end` bytes, class and command included, that needs `feature` and exactly
   * `dataBytes` of data; null if nothing.
   */
  #refuse(feature: number, end: number, dataBytes: number): ControlRefusal | null {
    return this.#features.has(feature) ? refuseLength(end - 2, dataBytes) : "not_negotiated";
  }

  #setReceiveMode(command: number, end: number): ControlRefusal | null {
    if (command >= RECEIVE_MODES.length) return "unknown_command";
    const mode = RECEIVE_MODES[command];
    const extra = mode !== "promisc" && mode !== "allmulti";
    const refusal = this.#refuse(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX, end, 1);
    if (refusal !== null) return refusal;
    const on = this.#scratch[2];
    if (on > 1) return "value_invalid";
    this.#parts.filter.setMode(mode, on === 1);
    return null;
  }

  #setTables(end: number): ControlRefusal | null {
    if (!this.#features.has(VIRTIO_NET_F_CTRL_RX)) return "not_negotiated";
    const tables = decodeMacTables(this.#scratch, 2, end);
    if (typeof tables === "string") return tables;
    const { unicastAt, unicastCount, multicastAt, multicastCount } = tables;
    this.#parts.filter.setTables(this.#scratch, unicastAt, unicastCount, multicastAt, multicastCount);
    return null;
  }

  #setMac(end: number): ControlRefusal | null {
    // Either feature brings the command: the specification names CTRL_RX, drivers go by CTRL_MAC_ADDR.
    const hasRx = this.#features.has(VIRTIO_NET_F_CTRL_RX);
    const refusal = this.#refuse(hasRx ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_MAC_ADDR, end, MAC_BYTES);
    if (refusal !== null) return refusal;
    if (isMulticast(this.#scratch, 2)) return "value_invalid";
    const mac = this.#scratch.subarray(2, end);
    this.#parts.filter.setMac(mac);
    this.#parts.hooks.macChanged(mac);
    return null;
  }

  #setVlan(command: number, end: number): ControlRefusal | null {
    if (command !== VIRTIO_NET_CTRL_VLAN_ADD && command !== VIRTIO_NET_CTRL_VLAN_DEL) {
      return "unknown_command";
    }
    const refusal = this.#refuse(VIRTIO_NET_F_CTRL_VLAN, end, 2);
    if (refusal !== null) return refusal;
    const id = le16(this.#scratch, 2);
    if (id >= VLAN_IDS) return "value_invalid";
    this.#parts.filter.setVlan(id, command === VIRTIO_NET_CTRL_VLAN_ADD);
    return null;
  }

  #announceAck(end: number): ControlRefusal | null {
    const refusal = this.#refuse(VIRTIO_NET_F_GUEST_ANNOUNCE, end, 0);
    if (refusal === null) this.#parts.hooks.announceAcked();
    return refusal;
  }

  #setPairs(end: number): ControlRefusal | null {
    const refusal = this.#refuse(VIRTIO_NET_F_MQ, end, 2);
    if (refusal !== null) return refusal;
    const pairs = le16(this.#scratch, 2);
    if (pairs < 1 || pairs > this.#parts.maxPairs) return "value_invalid";
    if (!this.#parts.hooks.setQueuePairs(pairs)) return "queue_not_ready";
    this.#parts.steering.useAutomatic(pairs);
    return null;
  }

  #configureRss(end: number): ControlRefusal | null {
    if (!this.#features.has(VIRTIO_NET_F_RSS)) return "not_negotiated";
    const settings = decodeRssSettings(this.#scratch, 2, end, this.#parts.maxPairs);
    if (typeof settings === "string") return settings;
    if (!this.#parts.hooks.setQueuePairs(settings.pairs)) return "queue_not_ready";
    this.#parts.steering.useRss(settings);
    return null;
  }

  #configureHash(end: number): ControlRefusal | null {
    if (!this.#features.has(VIRTIO_NET_F_HASH_REPORT)) return "not_negotiated";
    const settings = decodeHashSettings(this.#scratch, 2, end);
    if (typeof settings === "string") return settings;
    const { steering } = this.#parts;
    steering.useAutomatic(steering.pairs);
    steering.packetHash.configure(settings.hashTypes, settings.key);
    return null;
  }

  #setOffloads(end: number): ControlRefusal | null {
    const refusal = this.#refuse(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, end, 8);
    if (refusal !== null) return refusal;
    const { hooks, rules } = this.#parts;
    const requested = FeatureSet.fromWords(le32(this.#scratch, 2), le32(this.#scratch, 6));
    hooks.offloadsRequested(requested);
    // The reference takes RSC_EXT out before it looks whether the rest was negotiated.
    const judged = rules === "qemu" ? requested.without(VIRTIO_NET_F_RSC_EXT) : requested;
    if (!judged.minus(guestOffloads(this.#features)).isEmpty) return "not_negotiated";
    hooks.setGuestOffloads(judged);
    return null;
  }
}

// Numbers, and the layout of the longer commands (virtio 1.2, section 5.1.6.5). Decoders check every length
// and value, and answer by name what is wrong.

/** The answer to a command that was obeyed. */
export const VIRTIO_NET_OK = 0;
/** The answer to a command that was refused. */
export const VIRTIO_NET_ERR = 1;

/**
 * Class: receive modes (virtio 1.2, section 5.1.6.5.1); the commands are those of {@linkcode RECEIVE_MODES}.
 */
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

/**
 * Decodes VIRTIO_NET_CTRL_MQ_RSS_CONFIG (section 5.1.6.5.7.1) from the bytes `at` to `end`, for a device of
 * `maxPairs`.
 */
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
