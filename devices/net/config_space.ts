/**
 * The configuration space of the network device (virtio 1.2, section 5.1.4).
 * @module
 */
import { z } from "zod";
import { GuestError } from "../../core/errors.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "../../core/features.ts";
import type { OptionsSchema } from "../../core/plugin.ts";
import { MAC_BYTES, parseMac } from "../../wire/ethernet.ts";
import {
  featureBit,
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
      view.setUint16(MAX_VIRTQUEUE_PAIRS, inRange("queuePairs", values.queuePairs, 1, 0x8000), true);
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

  /** The driver is gone: the configured MAC address is back, nothing is to be announced. The link stays as it is. */
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
   * Takes a write at `offset`. Only a legacy driver without CTRL_MAC_ADDR may write, and only the MAC address (virtio
   * 1.2, section 5.1.4.3); anything else is a GuestError `config-write-invalid`.
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

  /** Sets the link up or down. True if that is news, and a driver has to be told that the configuration has changed. */
  setLink(up: boolean): boolean {
    if (!this.#hasStatus || up === this.linkUp) return false;
    this.#bytes[STATUS] ^= VIRTIO_NET_S_LINK_UP;
    return true;
  }

  /**
   * Asks the driver to announce itself. True if it can (STATUS is offered, GUEST_ANNOUNCE negotiated): it then has to be
   * told that the configuration has changed. If false, somebody else must announce.
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

// The options of the network device.

/** What a network device is made with, complete. */
export interface NetOptions {
  /** The guest's MAC address, six bytes. */
  readonly mac: Uint8Array;
  /** `strict` is right; `qemu` repeats the reference in feature checks and control commands, and is the stages' default. */
  readonly rules: "strict" | "qemu";
  /** Pairs of receive and transmit queues. */
  readonly queuePairs: number;
  /** Most entries of each of them. */
  readonly queueSize: number;
  /** Advised MTU in bytes, if any is to be advised. */
  readonly mtu?: number | undefined;
  /** Link speed in Mb/s, if it is to be told. */
  readonly speedMbps?: number | undefined;
  /** 0 half, 1 full, 255 unknown. */
  readonly duplex: number;
  /** Feature bits to offer that depend on options. */
  readonly extraFeatures: readonly number[];
  /** Feature bits not to offer. */
  readonly withheldFeatures: readonly number[];
}

const mac = z.string().default("52:54:00:12:34:56")
  .refine(isMac, {
    error: 'Write six bytes such as "52:54:00:00:00:01", the first one even, not all of them 0',
  })
  .describe("MAC address of the guest, such as 52:54:00:00:00:01.");

const feature = z.string().refine((name) => featureBit(name) !== undefined, {
  error: 'Write the name of a feature bit without its prefix, such as "RSC_EXT" or "MRG_RXBUF"',
});

/** What is written in the configuration, turned into {@linkcode NetOptions}. */
export const netOptions: OptionsSchema<NetOptions> = z.strictObject({
  mac,
  rules: z.enum(["strict", "qemu"]).default("strict")
    .describe(
      'Rule book of the device and of its RSC stages: "strict" is right, "qemu" repeats the reference.',
    ),
  queuePairs: z.int().min(1).max(256).default(1).describe("Pairs of receive and transmit queues."),
  queueSize: z.int().min(1).max(32_768).default(1024)
    .refine((size) => (size & (size - 1)) === 0, { error: "Write a power of two" })
    .describe("Most entries of each receive and transmit queue; a power of two."),
  mtu: z.int().min(68).max(65_535).optional().describe("MTU to advise to the guest, in bytes (feature MTU)."),
  speedMbps: z.int().min(0).max(0x7fff_ffff).optional()
    .describe("Link speed to tell the guest, in Mb/s (feature SPEED_DUPLEX)."),
  duplex: z.enum(["half", "full", "unknown"]).default("unknown")
    .describe("Link duplex to tell the guest (feature SPEED_DUPLEX)."),
  packedRing: z.boolean().default(true).describe("Offer the packed ring layout (feature RING_PACKED)."),
  rss: z.boolean().default(false).describe(
    "Offer receive-side scaling by the guest's own table (feature RSS).",
  ),
  hashReport: z.boolean().default(false)
    .describe("Offer to report each frame's hash in a 20-byte header (feature HASH_REPORT)."),
  withhold: z.array(feature).default([])
    .describe('Features not to offer, by name without prefix, such as ["MRG_RXBUF"].'),
}).transform((written): NetOptions => {
  const extra: number[] = [];
  if (written.mtu !== undefined) extra.push(VIRTIO_NET_F_MTU);
  if (written.speedMbps !== undefined || written.duplex !== "unknown") extra.push(VIRTIO_NET_F_SPEED_DUPLEX);
  if (written.packedRing) extra.push(VIRTIO_F_RING_PACKED);
  if (written.rss) extra.push(VIRTIO_NET_F_RSS);
  if (written.hashReport) extra.push(VIRTIO_NET_F_HASH_REPORT);
  return {
    mac: parseMac(written.mac),
    rules: written.rules,
    queuePairs: written.queuePairs,
    queueSize: written.queueSize,
    mtu: written.mtu,
    speedMbps: written.speedMbps,
    duplex: { half: DUPLEX_HALF, full: DUPLEX_FULL, unknown: DUPLEX_UNKNOWN }[written.duplex],
    extraFeatures: extra,
    withheldFeatures: written.withhold.map((name) => featureBit(name)!),
  };
});

function isMac(text: string): boolean {
  try {
    const bytes = parseMac(text);
    return (bytes[0] & 1) === 0 && bytes.some((byte) => byte !== 0);
  } catch {
    return false;
  }
}
