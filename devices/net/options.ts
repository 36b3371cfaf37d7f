/**
 * The options of the network device: what stands beside `"use": "net"`.
 * @module
 */
import { z } from "zod";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { OptionsSchema } from "../../plugins/plugin.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import { parseMac } from "../../wire/ethernet.ts";
import {
  featureBit,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_SPEED_DUPLEX,
} from "../../wire/net_features.ts";
import { DUPLEX_FULL, DUPLEX_HALF, DUPLEX_UNKNOWN } from "./config_space.ts";

/** What a network device is made with, complete. */
export interface NetOptions {
  /** The guest's MAC address, six bytes. */
  readonly mac: Uint8Array;
  /**
   * `strict` is right; `qemu` repeats the reference in feature checks and control commands, and is the
   * stages' default.
   */
  readonly rules: RuleBook;
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
    'Offer receive-side scaling by the guest\'s own table (feature RSS). Not with "mode": "threads": there the network ' +
      "chooses the queue.",
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
