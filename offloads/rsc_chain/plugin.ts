/**
 * What `rsc-v4` and `rsc-v6` are made of: their options, and what an IP version does differently
 * (`RscFamily`).
 * @module
 */
import { z } from "zod";
import type { Frame } from "../../pipeline/frame.ts";
import { defineOffload, type OffloadPlugin } from "../../pipeline/plugin.ts";
import type { OptionsSchema } from "../../core/plugin.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Stage, StageContext } from "../../pipeline/stage.ts";
import { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import { QemuChain } from "./qemu_chain.ts";
import type { ParsedSegment } from "./parsed_segment.ts";
import { StrictChain } from "./strict_chain.ts";
import type { CoalescedSegment } from "./coalesced_segment.ts";

/** Declares the plugin that coalesces TCP over one IP version. */
export function defineRsc(family: RscFamily): OffloadPlugin<RscOptions> {
  return defineOffload<RscOptions>({
    name: `rsc-${family.name}`,
    summary:
      `Receive segment coalescing of TCP over IP${family.name}: many segments in, one large packet out.`,
    direction: "toGuest",
    options: rscOptions,
    inherits: ["rules"],
    renamedOptions: { mostFlows: "maxFlows", mostSegments: "maxSegments" },
    offers: [VIRTIO_NET_F_RSC_EXT],
    needs: [VIRTIO_NET_F_GUEST_CSUM, family.guestTso],
    create(context: StageContext, options: RscOptions): Stage {
      return options.rules === "qemu"
        ? new QemuChain(family, context, options)
        : new StrictChain(family, context, options);
    },
  });
}

/** What `rsc-v4` and `rsc-v6` can be told. */
export interface RscOptions {
  /** Longest time a segment is held, in µs; default 300, 0 merges only what arrives together. */
  intervalUs: number;
  /** Rule book; default the device's own. */
  rules?: RuleBook | undefined;
  /** Most flows held at once, as many again for each further queue pair; default 4096. */
  maxFlows: number;
  /** Most segments merged into one; default 1024. Strict rules only. */
  maxSegments: number;
  /** Flush a flow as soon as a segment with PSH is held of it; default false. Strict rules only. */
  flushOnPush: boolean;
  /** Merge segments with the TCP timestamp option; default true. Strict rules only. */
  timestamps: boolean;
}

/** The schema of {@linkcode RscOptions}. */
export const rscOptions: OptionsSchema<RscOptions> = z.strictObject({
  intervalUs: z.number().min(0).max(10_000_000).default(300)
    .describe("Longest time a segment is held, in µs; 0 merges only what arrives together."),
  rules: z.enum(["strict", "qemu"]).optional()
    .describe(
      'Rule book: "strict" is right, "qemu" repeats the reference bit for bit. Default: the device\'s own.',
    ),
  maxFlows: z.int().min(1).max(65_536).default(4096)
    .describe("Most flows held at once, for each queue pair; the oldest leaves early to make room."),
  maxSegments: z.int().min(2).max(65_535).default(1024)
    .describe("Most segments merged into one. Strict rules only."),
  flushOnPush: z.boolean().default(false)
    .describe(
      "Flush a flow as soon as a segment with PSH is held of it: less delay, less coalescing. Strict rules only.",
    ),
  timestamps: z.boolean().default(true)
    .describe("Merge segments that carry the TCP timestamp option, as Linux sends them. Strict rules only."),
});

/** Why a frame is no segment that could be merged, under strict rules; `segment` if it is one. */
export type Located =
  | "segment"
  | "not_tcp"
  | "too_short"
  | "bad_version"
  | "ip_options"
  | "extension_header"
  | "fragment"
  | "bad_length"
  | "bad_ip_checksum"
  | "bad_data_offset";

/** What the reference's own checks say: `candidate`, or the counter under which the frame passes. */
export type QemuLocated =
  | "candidate"
  | "bypass_not_tcp"
  | "ip_option"
  | "ip_frag"
  | "ip_ecn"
  | "ip_hacked"
  | "uncounted";

/**
 * One IP version. The chain decides; a family locates headers, tells what must be equal, and writes lengths.
 */
export interface RscFamily {
  /** `v4` or `v6`. */
  readonly name: "v4" | "v6";
  /** IP version. */
  readonly version: 4 | 6;
  /** EtherType of its frames. */
  readonly etherType: number;
  /** gso_type of a merged packet: TCPV4 1 or TCPV6 4. */
  readonly gsoType: number;
  /** Feature bit without which the guest takes no merged packet of this family: GUEST_TSO4 or GUEST_TSO6. */
  readonly guestTso: number;
  /** 32-bit words of a flow's key; the last holds the ports. */
  readonly keyWords: number;
  /** Bytes of IP header. */
  readonly ipHeaderBytes: number;
  /** Bytes of IP header that the IP length field does not count. */
  readonly ipHeaderUncounted: number;
  /** Largest value of the IP length field under strict rules. */
  readonly maxIpLength: number;
  /** Largest value of the IP length field under the reference's rules. */
  readonly maxIpLengthQemu: number;

  /**
   * Finds the segment behind the link header in the first piece of a frame, from `segment.ipAt` on, checking
   * every length, and fills `segment`: all of it where the answer is `segment`.
   */
  locate(frame: Frame, segment: ParsedSegment): Located;
  /** Fills the addresses of the key from where they are. */
  fillAddresses(view: DataView, segment: ParsedSegment, sourceAt: number, destinationAt: number): void;
  /**
   * The reference's checks, in its order; fills all fields of `segment` that its rules need if it is a
   * candidate.
   */
  locateQemu(frame: Frame, segment: ParsedSegment): QemuLocated;
  /** The sum of the pseudo header for a TCP segment of `tcpBytes`, from the addresses at `ipAt`. */
  pseudoSum(view: DataView, ipAt: number, tcpBytes: number): number;
  /**
   * The sum over pseudo header and segment of a TCP segment of `tcpBytes` in one piece, behind an IP header
   * without options.
   */
  segmentSum(view: DataView, ipAt: number, tcpBytes: number): number;
  /**
   * Writes the IP length of a merged packet, and under strict rules (`renew`) hop limit and header checksum
   * as well.
   */
  finish(view: DataView, held: CoalescedSegment, renew: boolean): void;
}
