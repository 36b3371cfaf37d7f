/**
 * Which of the offered features the software guest accepts, and what that means for its queues and buffers.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import * as net from "../../wire/net_features.ts";
import { headerBytes } from "../../wire/virtio_net_header.ts";
import type { GuestOptions } from "./options.ts";

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
