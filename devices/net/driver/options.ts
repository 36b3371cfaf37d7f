/**
 * What the driver of a network device is told: the options of the `loopback` driver transport beside `"use":
 * "net"`, as people write them and complete. Also: which features the driver accepts, and what that means for
 * its buffers.
 * @module
 */
import { z } from "zod";
import { HostError } from "../../../core/errors.ts";
import { FeatureSet } from "../../../core/features.ts";
import type { OptionsSchema } from "../../../plugins/plugin.ts";
import {
  chooseFeatures,
  completeGuestOptions,
  type SoftwareGuestOptions,
  softwareGuestOptions,
} from "../../../guest/options.ts";
import { MAC_PATTERN } from "../../../wire/ethernet.ts";
import * as net from "../../../wire/net_features.ts";
import { headerBytes } from "../../../wire/virtio_net_header.ts";

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

/** The complete options of a guest that drives a network device. */
export interface GuestOptions extends SoftwareGuestOptions {
  /** How many queue pairs to use. */
  queuePairs: number;
  /** Bytes of each receive buffer; chosen from the negotiated features if left out. */
  receiveBufferBytes?: number | undefined;
  /**
   * `all`: as many as the ring holds, refilled at once. A number: so many on each queue once, then no more.
   */
  receiveBuffers: "all" | number;
  /** Bytes of each transmit buffer; a longer frame takes several. */
  transmitBufferBytes: number;
  /**
   * Into how many descriptors each buffer is cut: header and data together, or the header and so many less
   * one.
   */
  descriptorsPerBuffer: number;
  /** Accept MRG_RXBUF if it is offered. */
  mergeable: boolean;
  /** What the guest does of itself. */
  behaviour: GuestBehaviour;
  /** Hand every received packet over in the same object, for benchmarks: it is only valid during the call. */
  reuse: boolean;
}

/** The options of such a guest as people write them: everything has a default. */
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

/** Validates and completes the options of a guest that drives a network device. */
export const guestOptionsSchema: OptionsSchema<GuestOptions> = softwareGuestOptions({
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
  behaviour: z.union([z.literal("sink"), z.literal("echo"), z.strictObject({ send: sendSchema })]).default(
    "sink",
  )
    .describe(
      '"sink" swallows what it receives, "echo" returns it to its sender, {"send": …} makes frames up and sends them',
    ),
  reuse: z.boolean().default(false).describe(
    "Hand every received packet over in the same object, which is only valid during the call: for benchmarks",
  ),
}, { bitOf: net.featureBit, nameOf: net.featureName });

/** The complete options that `input` makes. Throws RangeError that names every field that is wrong. */
export function guestOptions(input: GuestOptionsInput): GuestOptions {
  return completeGuestOptions(guestOptionsSchema, input);
}

/** The features that the driver understands, less those that an option decides. */
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
 * The features that a guest with these options accepts of `offered`. HostError, with the remedy, if the
 * device does not offer what the options ask for by name.
 */
export function chooseNetFeatures(offered: FeatureSet, options: GuestOptions): FeatureSet {
  const features = chooseFeatures(offered, options, {
    understood: UNDERSTOOD,
    byOption: [[net.VIRTIO_NET_F_MRG_RXBUF, options.mergeable]],
    bitOf: net.featureBit,
    nameOf: net.featureName,
  });
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
