/**
 * The configuration space of the network device (virtio 1.2, section 5.1.4).
 * @module
 */
import { GuestError } from "../../rings/guest_error.ts";
import { type FeatureSet, VIRTIO_F_VERSION_1 } from "../../core/features.ts";
import { MAX_QUEUE_PAIRS } from "../../pipeline/frame.ts";
import { MAC_BYTES } from "../../wire/ethernet.ts";
import {
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
} from "../../wire/net_features.ts";
import { RSS_MAX_KEY_BYTES, RSS_MAX_TABLE_LENGTH, SUPPORTED_HASH_TYPES } from "./steering.ts";

/** In `status`: the link is up. */
export const VIRTIO_NET_S_LINK_UP = 1;
/** In `status`: the driver shall announce itself to the network. */
export const VIRTIO_NET_S_ANNOUNCE = 2;

/** Speed that is not known, in the field `speed`. */
export const SPEED_UNKNOWN = 0xffffffff;
/** Half duplex, in the field `duplex`. */
export const DUPLEX_HALF = 0;
/** Full duplex. */
export const DUPLEX_FULL = 1;
/** Duplex that is not known. */
export const DUPLEX_UNKNOWN = 0xff;

/** Bytes of the configuration space, up to and with `supported_hash_types`. */
export const NET_CONFIG_BYTES = 24;

const MAC = 0;
const STATUS = 6;
const MAX_VIRTQUEUE_PAIRS = 8;
const MTU = 10;
const SPEED = 12;
const DUPLEX = 16;
const RSS_MAX_KEY_SIZE = 17;
const RSS_MAX_INDIRECTION_TABLE_LENGTH = 18;
const SUPPORTED_HASH_TYPES_FIELD = 20;

/** What the fields say; which of them are there depends on the features offered. */
export interface NetConfigValues {
  /** The configured MAC address, six bytes. */
  readonly mac: Uint8Array;
  /** Queue pairs, 1 to 32768. */
  readonly queuePairs: number;
  /** Largest MTU in bytes, 68 to 65535; for MTU. */
  readonly mtu?: number | undefined;
  /** Megabits per second, 0 to 0x7fffffff, or SPEED_UNKNOWN, which is the default; for SPEED_DUPLEX. */
  readonly speedMbps?: number | undefined;
  /** DUPLEX_HALF, DUPLEX_FULL or DUPLEX_UNKNOWN, which is the default; for SPEED_DUPLEX. */
  readonly duplex?: number | undefined;
}

/** The configuration space as bytes; fields whose features are not offered read as zeros. */
export class NetConfigSpace {
  readonly #bytes = new Uint8Array(NET_CONFIG_BYTES);
  readonly #configuredMac: Uint8Array;
  readonly #hasStatus: boolean;
  #negotiated: FeatureSet | null = null;

  /**
   * The link is up at first. Throws RangeError for a value out of range.
   * @param offered the features offered
   * @param values what the fields say
   */
  constructor(offered: FeatureSet, values: NetConfigValues) {
    const view = new DataView(this.#bytes.buffer);
    if (values.mac.length !== MAC_BYTES) {
      throw new RangeError(
        `Cannot use a MAC address of ${values.mac.length} bytes: it must have ${MAC_BYTES}`,
      );
    }
    this.#configuredMac = values.mac.slice();
    this.#bytes.set(values.mac, MAC);
    this.#hasStatus = offered.has(VIRTIO_NET_F_STATUS);
    if (this.#hasStatus) view.setUint16(STATUS, VIRTIO_NET_S_LINK_UP, true);
    if (offered.has(VIRTIO_NET_F_MQ) || offered.has(VIRTIO_NET_F_RSS)) {
      view.setUint16(MAX_VIRTQUEUE_PAIRS, inRange("queuePairs", values.queuePairs, 1, MAX_QUEUE_PAIRS), true);
    }
    if (offered.has(VIRTIO_NET_F_MTU)) view.setUint16(MTU, inRange("mtu", values.mtu, 68, 0xffff), true);
    if (offered.has(VIRTIO_NET_F_SPEED_DUPLEX)) {
      const speed = values.speedMbps ?? SPEED_UNKNOWN;
      view.setUint32(
        SPEED,
        speed === SPEED_UNKNOWN ? speed : inRange("speedMbps", speed, 0, 0x7fffffff),
        true,
      );
      this.#bytes[DUPLEX] = inRange("duplex", values.duplex ?? DUPLEX_UNKNOWN, 0, 0xff);
    }
    const rss = offered.has(VIRTIO_NET_F_RSS);
    if (rss || offered.has(VIRTIO_NET_F_HASH_REPORT)) {
      this.#bytes[RSS_MAX_KEY_SIZE] = RSS_MAX_KEY_BYTES;
      view.setUint32(SUPPORTED_HASH_TYPES_FIELD, SUPPORTED_HASH_TYPES, true);
    }
    if (rss) view.setUint16(RSS_MAX_INDIRECTION_TABLE_LENGTH, RSS_MAX_TABLE_LENGTH, true);
  }

  /** A copy of the MAC address that the space shows now. */
  get mac(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(MAC, MAC + MAC_BYTES);
  }

  /** Is the link up? */
  get linkUp(): boolean {
    return !this.#hasStatus || (this.#bytes[STATUS] & VIRTIO_NET_S_LINK_UP) !== 0;
  }

  /** Is the driver asked to announce itself, and has not acknowledged it? */
  get announcing(): boolean {
    return (this.#bytes[STATUS] & VIRTIO_NET_S_ANNOUNCE) !== 0;
  }

  /** What driver and device have agreed on: it decides what may be written and announced. */
  negotiated(features: FeatureSet): void {
    this.#negotiated = features;
  }

  /**
   * The driver is gone: the configured MAC address is back, nothing is to be announced. The link stays as it
   * is.
   */
  reset(): void {
    this.#negotiated = null;
    this.#bytes.set(this.#configuredMac, MAC);
    this.#bytes[STATUS] &= ~VIRTIO_NET_S_ANNOUNCE;
  }

  /** Copies `target.length` bytes from `offset` on; beyond the end of the space there are zeros. */
  read(offset: number, target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = this.#bytes[offset + i] ?? 0;
  }

  /**
   * Takes a write at `offset`. Only a legacy driver without CTRL_MAC_ADDR may write, and only the MAC address
   * (virtio 1.2, section 5.1.4.3); anything else is a GuestError `config-write-invalid`.
   */
  write(offset: number, source: Uint8Array): void {
    const features = this.#negotiated;
    const legacy = features !== null && !features.has(VIRTIO_F_VERSION_1);
    if (!legacy || features.has(VIRTIO_NET_F_CTRL_MAC_ADDR)) {
      throw new GuestError(
        "config-write-invalid",
        `Cannot write ${source.length} bytes at ${offset}: the configuration is read-only; use the control queue`,
      );
    }
    if (!(offset >= MAC && offset + source.length <= MAC + MAC_BYTES)) {
      throw new GuestError(
        "config-write-invalid",
        `${source.length} bytes at ${offset}; a legacy driver may only write mac, bytes 0 to ${
          MAC_BYTES - 1
        }`,
      );
    }
    this.#bytes.set(source, offset);
  }

  /** Shows another MAC address: the driver has set it by command. */
  setMac(mac: Uint8Array): void {
    this.#bytes.set(mac.subarray(0, MAC_BYTES), MAC);
  }

  /**
   * Sets the link up or down. True if that is news, and a driver has to be told that the configuration has
   * changed.
   */
  setLink(up: boolean): boolean {
    if (!this.#hasStatus || up === this.linkUp) return false;
    this.#bytes[STATUS] ^= VIRTIO_NET_S_LINK_UP;
    return true;
  }

  /**
   * Asks the driver to announce itself. True if it can (STATUS is offered, GUEST_ANNOUNCE negotiated): it
   * then has to be told that the configuration has changed. If false, the announcement must come from
   * elsewhere.
   */
  requestAnnounce(): boolean {
    if (!this.#hasStatus || !this.#negotiated?.has(VIRTIO_NET_F_GUEST_ANNOUNCE)) return false;
    this.#bytes[STATUS] |= VIRTIO_NET_S_ANNOUNCE;
    return true;
  }

  /** The driver has seen the request (VIRTIO_NET_CTRL_ANNOUNCE_ACK). */
  announceAcked(): void {
    this.#bytes[STATUS] &= ~VIRTIO_NET_S_ANNOUNCE;
  }
}

function inRange(field: string, value: number | undefined, least: number, most: number): number {
  if (value === undefined || !Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`Cannot use ${field} ${value}: it must be an integer from ${least} to ${most}`);
  }
  return value;
}
