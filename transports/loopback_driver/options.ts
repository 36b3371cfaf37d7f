/**
 * What a software guest is told: the options of the `loopback` driver transport, as people write them and complete.
 * @module
 */
import { z } from "zod";
import { HostError } from "../../core/errors.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import type { OptionsSchema } from "../../core/plugin.ts";
import { MAC_PATTERN } from "../../wire/ethernet.ts";
import * as net from "../../wire/net_features.ts";
import { featureBit } from "../../wire/net_features.ts";
import { headerBytes } from "../../wire/virtio_net_header.ts";

/** Frames that the guest makes up and sends. */
export interface SendOptions {
  /** How many; 0 for no end. */
  count: number;
  /** Bytes of each, Ethernet header included, 60 to 65535. */
  frameBytes: number;
  /** Time between two frames in microseconds; 0 for as fast as the ring takes them. */
  intervalUs: number;
  /** Destination address, `aa:bb:cc:dd:ee:ff`. */
  destination: string;
}

/** What the guest does of itself. */
export type GuestBehaviour = "sink" | "echo" | { send: SendOptions };

/** The complete options of a software guest. */
export interface GuestOptions {
  /** Layout of the virtqueues. */
  ring: "split" | "packed";
  /** Entries of each queue, at most: fewer if the device offers fewer. */
  queueSize: number;
  /** How many queue pairs to use. */
  queuePairs: number;
  /** Bytes of each receive buffer; chosen from the negotiated features if left out. */
  receiveBufferBytes?: number | undefined;
  /** `all`: as many as the ring holds, refilled at once. A number: so many on each queue once, then no more. */
  receiveBuffers: "all" | number;
  /** Bytes of each transmit buffer; a longer frame takes several. */
  transmitBufferBytes: number;
  /** Into how many descriptors each buffer is cut: header and data together, or the header and so many less one. */
  descriptorsPerBuffer: number;
  /** Accept MRG_RXBUF if it is offered. */
  mergeable: boolean;
  /** Accept INDIRECT_DESC: `true` for chains of two descriptors or more, `always` for single ones too. */
  indirect: boolean | "always";
  /** Accept EVENT_IDX if it is offered. */
  eventIndex: boolean;
  /** Features to accept, by name or bit; `all` for all that are offered and understood. */
  accept: "all" | (string | number)[];
  /** Behave like a driver from before virtio 1.0: without VERSION_1 and FEATURES_OK. */
  legacy: boolean;
  /** What the guest does of itself. */
  behaviour: GuestBehaviour;
  /** In how many regions the guest's memory lies. */
  memoryRegions: number;
  /** Look at all queues at every turn and refuse interrupts, instead of waiting for one. */
  polling: boolean;
  /** Hand every received packet over in the same object, for benchmarks: it is only valid during the call. */
  reuse: boolean;
}

/** The options of a software guest as people write them: everything has a default. */
export type GuestOptionsInput =
  & { [K in Exclude<keyof GuestOptions, "behaviour">]?: GuestOptions[K] | undefined }
  & {
    behaviour?:
      | "sink"
      | "echo"
      | { send: { [K in keyof SendOptions]?: SendOptions[K] | undefined } }
      | undefined;
  };

const sendSchema = z.strictObject({
  count: z.int().min(0).default(1).describe("How many frames to send; 0 for no end"),
  frameBytes: z.int().min(60).max(65535).default(60).describe(
    "Bytes of each frame, Ethernet header included",
  ),
  intervalUs: z.number().min(0).max(1e9).default(1000)
    .describe("Time between two frames in microseconds; 0 for as fast as the ring takes them"),
  destination: z.string().regex(MAC_PATTERN, "write six bytes such as 52:54:00:00:00:01")
    .default("ff:ff:ff:ff:ff:ff").describe("Destination MAC address of the frames"),
});

const acceptEntry = z.union([
  z.int().min(0).max(127),
  z.string().refine((name) => featureBit(name) !== undefined, {
    error:
      "no such feature; write a name of the specification without its prefix, such as GUEST_TSO4, or a bit number",
  }),
]);

const schema = z.strictObject({
  ring: z.enum(["split", "packed"]).default("split").describe("Layout of the virtqueues"),
  queueSize: z.int().min(1).max(32768).default(256)
    .describe(
      "Entries of each queue, at most; fewer if the device offers fewer. A power of two for split rings",
    ),
  queuePairs: z.int().min(1).max(256).default(1)
    .describe("How many queue pairs to use; more than one needs a device that offers MQ"),
  receiveBufferBytes: z.int().min(1).max(2 ** 20).optional().describe(
    "Bytes of each receive buffer, header included. Default: 2048 if buffers are mergeable, else enough for the " +
      "largest packet that the negotiated features allow",
  ),
  receiveBuffers: z.union([z.literal("all"), z.int().min(0).max(32768)]).default("all").describe(
    '"all": as many receive buffers as the ring holds, refilled at once. A number: so many on each queue once, ' +
      "and then no more",
  ),
  transmitBufferBytes: z.int().min(64).max(2 ** 20).default(2048)
    .describe("Bytes of each transmit buffer, header included; a longer frame takes several"),
  descriptorsPerBuffer: z.int().min(1).max(64).default(1).describe(
    "Into how many descriptors each buffer is cut: 1 for header and data together, more for the header alone and " +
      "the data in one piece less",
  ),
  mergeable: z.boolean().default(true).describe("Accept MRG_RXBUF if it is offered"),
  indirect: z.union([z.boolean(), z.literal("always")]).default(true).describe(
    'Accept INDIRECT_DESC if it is offered: true puts chains of two descriptors or more into a table, "always" ' +
      "single ones too",
  ),
  eventIndex: z.boolean().default(true).describe("Accept EVENT_IDX if it is offered"),
  accept: z.union([z.literal("all"), z.array(acceptEntry)]).default("all").describe(
    'Which other features to accept: names of the specification without prefix, such as "GUEST_TSO4", or bit ' +
      'numbers; "all" for everything that is offered and understood',
  ),
  legacy: z.boolean().default(false)
    .describe(
      "Behave like a driver from before virtio 1.0: no VERSION_1, no FEATURES_OK, a header of ten bytes",
    ),
  behaviour: z.union([z.literal("sink"), z.literal("echo"), z.strictObject({ send: sendSchema })]).default(
    "sink",
  )
    .describe(
      '"sink" swallows what it receives, "echo" returns it to its sender, {"send": …} makes frames up and sends them',
    ),
  memoryRegions: z.int().min(1).max(8).default(1)
    .describe(
      "In how many regions the guest's memory lies; pairs of them touch, and there are holes between pairs",
    ),
  polling: z.boolean().default(false)
    .describe("Look at all queues at every turn and refuse interrupts, instead of waiting for one"),
  reuse: z.boolean().default(false).describe(
    "Hand every received packet over in the same object, which is only valid during the call: for benchmarks",
  ),
}).check((context) => {
  const { ring, queueSize, legacy } = context.value;
  if (ring === "split" && (queueSize & (queueSize - 1)) !== 0) {
    context.issues.push({
      code: "custom",
      input: queueSize,
      path: ["queueSize"],
      message: 'must be a power of two for split rings; write one, or "ring": "packed"',
    });
  }
  if (ring === "packed" && legacy) {
    context.issues.push({
      code: "custom",
      input: legacy,
      path: ["legacy"],
      message: 'packed rings need VERSION_1; write "ring": "split", or leave "legacy" out',
    });
  }
});

/** Validates and completes the options of a software guest. */
export const guestOptionsSchema: OptionsSchema<GuestOptions> = schema;

/** The complete options that `input` makes. Throws RangeError that names every field that is wrong. */
export function guestOptions(input: GuestOptionsInput): GuestOptions {
  const result = schema.safeParse(input);
  if (!result.success) {
    const problems = result.error.issues.map((issue) =>
      `${issue.path.join(".") || "options"}: ${issue.message}`
    );
    throw new RangeError(`Cannot make a software guest: ${problems.join("; ")}`);
  }
  return result.data;
}

// Which of the offered features the software guest accepts, and what that means for its queues and buffers.

/** The features that an option of their own decides, whatever `accept` says. */
const BY_OPTION: FeatureSet = FeatureSet.of(
  net.VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_VERSION_1,
  VIRTIO_F_RING_PACKED,
);

/** The features that the guest understands, less those that an option decides. */
const UNDERSTOOD: FeatureSet = FeatureSet.of(
  net.VIRTIO_NET_F_CSUM,
  net.VIRTIO_NET_F_GUEST_CSUM,
  net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  net.VIRTIO_NET_F_MTU,
  net.VIRTIO_NET_F_MAC,
  net.VIRTIO_NET_F_GUEST_TSO4,
  net.VIRTIO_NET_F_GUEST_TSO6,
  net.VIRTIO_NET_F_GUEST_ECN,
  net.VIRTIO_NET_F_GUEST_UFO,
  net.VIRTIO_NET_F_HOST_TSO4,
  net.VIRTIO_NET_F_HOST_TSO6,
  net.VIRTIO_NET_F_HOST_ECN,
  net.VIRTIO_NET_F_HOST_UFO,
  net.VIRTIO_NET_F_STATUS,
  net.VIRTIO_NET_F_CTRL_VQ,
  net.VIRTIO_NET_F_CTRL_RX,
  net.VIRTIO_NET_F_CTRL_VLAN,
  net.VIRTIO_NET_F_CTRL_RX_EXTRA,
  net.VIRTIO_NET_F_GUEST_ANNOUNCE,
  net.VIRTIO_NET_F_MQ,
  net.VIRTIO_NET_F_CTRL_MAC_ADDR,
  net.VIRTIO_NET_F_GUEST_USO4,
  net.VIRTIO_NET_F_GUEST_USO6,
  net.VIRTIO_NET_F_HOST_USO,
  net.VIRTIO_NET_F_HASH_REPORT,
  net.VIRTIO_NET_F_GUEST_HDRLEN,
  net.VIRTIO_NET_F_RSS,
  net.VIRTIO_NET_F_RSC_EXT,
  net.VIRTIO_NET_F_SPEED_DUPLEX,
);

const LARGE_PACKETS: readonly number[] = [
  net.VIRTIO_NET_F_GUEST_TSO4,
  net.VIRTIO_NET_F_GUEST_TSO6,
  net.VIRTIO_NET_F_GUEST_UFO,
  net.VIRTIO_NET_F_GUEST_USO4,
  net.VIRTIO_NET_F_GUEST_USO6,
];

/** The longest packet that a device may hand over: an IPv6 payload of 65535 bytes and its headers. */
export const LARGEST_PACKET_BYTES = 65589;
const ORDINARY_PACKET_BYTES = 1514;
const MERGEABLE_BUFFER_BYTES = 2048;

/**
 * The features that a guest with these options accepts of `offered`. HostError, with the remedy, if the device does not
 * offer what the options ask for by name.
 */
export function chooseFeatures(offered: FeatureSet, options: GuestOptions): FeatureSet {
  const chosen = options.accept === "all" ? UNDERSTOOD.intersect(offered) : named(options.accept, offered);
  const bits: number[] = [];
  if (options.mergeable) bits.push(net.VIRTIO_NET_F_MRG_RXBUF);
  if (options.indirect !== false) bits.push(VIRTIO_F_INDIRECT_DESC);
  if (options.eventIndex) bits.push(VIRTIO_F_EVENT_IDX);
  if (!options.legacy) {
    if (!offered.has(VIRTIO_F_VERSION_1)) {
      throw new HostError('Cannot drive a device that does not offer VERSION_1: write "legacy": true');
    }
    bits.push(VIRTIO_F_VERSION_1);
  }
  if (options.ring === "packed") {
    if (!offered.has(VIRTIO_F_RING_PACKED)) {
      throw new HostError(
        'Cannot use packed rings, the device does not offer RING_PACKED: write "ring": "split"',
      );
    }
    bits.push(VIRTIO_F_RING_PACKED);
  }
  const features = chosen.minus(BY_OPTION).union(FeatureSet.from(bits).intersect(offered));
  if (options.queuePairs > 1 && !features.has(net.VIRTIO_NET_F_MQ)) {
    throw new HostError(
      `Cannot use ${options.queuePairs} queue pairs without feature MQ: write "queuePairs": 1, accept MQ, or give ` +
        "the device more queues",
    );
  }
  return features;
}

/** Bytes of each receive buffer for these options and features (virtio 1.2, section 5.1.6.3). */
export function receiveBufferBytes(options: GuestOptions, features: FeatureSet): number {
  if (options.receiveBufferBytes !== undefined) return options.receiveBufferBytes;
  if (features.has(net.VIRTIO_NET_F_MRG_RXBUF)) return MERGEABLE_BUFFER_BYTES;
  const large = LARGE_PACKETS.some((bit) => features.has(bit));
  return headerBytes(features) + (large ? LARGEST_PACKET_BYTES : ORDINARY_PACKET_BYTES);
}

function named(accept: readonly (string | number)[], offered: FeatureSet): FeatureSet {
  const bits = accept.map((entry) => typeof entry === "number" ? entry : net.featureBit(entry)!);
  const wanted = FeatureSet.from(bits);
  const missing = wanted.minus(offered).minus(BY_OPTION);
  if (!missing.isEmpty) {
    const names = Array.from(missing, net.featureName).join(", ");
    throw new HostError(`Cannot accept ${names}, which the device does not offer: take it out of "accept"`);
  }
  return wanted;
}
