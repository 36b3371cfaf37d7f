/**
 * What becomes of an offer on its way to the driver: which features each front-end passes on.
 *
 * A front-end agrees on some features with the back-end, in the driver's name; others it answers for itself, whatever the
 * back-end offers; the rest never reaches the driver. What follows is what their sources say, or what they did here.
 * @module
 */
import type { Device } from "../../core/device.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import * as net from "../../wire/net_features.ts";
import { offerFor, type ProfileName } from "./profiles.ts";

/** The front-ends of which it is known. */
export const FRONT_ENDS = ["qemu", "virtio-user", "cloud-hypervisor", "crosvm"] as const;

/** A front-end by the name of its profile. */
export type FrontEnd = typeof FRONT_ENDS[number];

/**
 * `agreed`: driver and device agree on it. `own`: the front-end answers for it, the device never hears of it. `newer`: as
 * `agreed`, but only newer versions of the front-end know it. `lost`: the driver does not get it.
 */
export type Passage = "agreed" | "own" | "newer" | "lost";

interface FrontEndFilter {
  readonly agreed: FeatureSet;
  readonly own: FeatureSet;
  readonly newer: FeatureSet;
}

const OFFLOADS = [
  net.VIRTIO_NET_F_CSUM,
  net.VIRTIO_NET_F_GUEST_CSUM,
  net.VIRTIO_NET_F_GUEST_TSO4,
  net.VIRTIO_NET_F_GUEST_TSO6,
  net.VIRTIO_NET_F_HOST_TSO4,
  net.VIRTIO_NET_F_HOST_TSO6,
  net.VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_F_VERSION_1,
];
const ECN = [net.VIRTIO_NET_F_GUEST_ECN, net.VIRTIO_NET_F_HOST_ECN];
const USO = [net.VIRTIO_NET_F_GUEST_USO4, net.VIRTIO_NET_F_GUEST_USO6, net.VIRTIO_NET_F_HOST_USO];
const CONTROL = [
  net.VIRTIO_NET_F_MAC,
  net.VIRTIO_NET_F_CTRL_VQ,
  net.VIRTIO_NET_F_CTRL_RX,
  net.VIRTIO_NET_F_CTRL_VLAN,
];

const FILTERS: Readonly<Record<FrontEnd, FrontEndFilter>> = {
  "qemu": {
    agreed: FeatureSet.of(
      ...OFFLOADS,
      ...ECN,
      net.VIRTIO_NET_F_MTU,
      net.VIRTIO_NET_F_GUEST_ANNOUNCE,
      net.VIRTIO_NET_F_MQ,
      net.VIRTIO_NET_F_HASH_REPORT,
      net.VIRTIO_NET_F_RSS,
      VIRTIO_F_INDIRECT_DESC,
      VIRTIO_F_EVENT_IDX,
      VIRTIO_F_RING_PACKED,
    ),
    own: FeatureSet.of(
      ...CONTROL,
      net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
      net.VIRTIO_NET_F_STATUS,
      net.VIRTIO_NET_F_CTRL_RX_EXTRA,
      net.VIRTIO_NET_F_CTRL_MAC_ADDR,
      net.VIRTIO_NET_F_SPEED_DUPLEX,
    ),
    newer: FeatureSet.of(...USO, net.VIRTIO_NET_F_RSC_EXT, VIRTIO_F_IN_ORDER),
  },
  "virtio-user": {
    agreed: FeatureSet.of(
      ...OFFLOADS,
      net.VIRTIO_NET_F_MQ,
      VIRTIO_F_INDIRECT_DESC,
      VIRTIO_F_RING_PACKED,
      VIRTIO_F_IN_ORDER,
    ),
    own: FeatureSet.of(...CONTROL, net.VIRTIO_NET_F_STATUS, net.VIRTIO_NET_F_CTRL_MAC_ADDR),
    newer: FeatureSet.none,
  },
  "cloud-hypervisor": {
    agreed: FeatureSet.of(
      ...OFFLOADS,
      ...ECN,
      net.VIRTIO_NET_F_MTU,
      net.VIRTIO_NET_F_MQ,
      VIRTIO_F_EVENT_IDX,
    ),
    own: FeatureSet.of(net.VIRTIO_NET_F_MAC, net.VIRTIO_NET_F_CTRL_VQ),
    newer: FeatureSet.of(
      VIRTIO_F_INDIRECT_DESC,
      VIRTIO_F_IN_ORDER,
      net.VIRTIO_NET_F_STATUS,
      net.VIRTIO_NET_F_GUEST_ANNOUNCE,
    ),
  },
  // Passes on whole ranges, commands included.
  "crosvm": {
    agreed: FeatureSet.from([...range(0, 23), ...range(50, 63), VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1]),
    own: FeatureSet.none,
    newer: FeatureSet.none,
  },
};

/** The front-ends that can be expected at a device with this profile: all that know its type, or the one that was named. */
export function frontEndsOf(device: Pick<Device, "id">, profile: ProfileName): readonly FrontEnd[] {
  const named = FRONT_ENDS.filter((frontEnd) => profile === "auto" || profile === frontEnd);
  // Of the others none has a front-end for entropy.
  return device.id === 1 ? named : named.filter((frontEnd) => frontEnd === "qemu");
}

/** What becomes of each feature of the device, by bit, with a profile, at a front-end. */
export function passagesTo(
  frontEnd: FrontEnd,
  device: Device,
  profile: ProfileName,
): ReadonlyMap<number, Passage> {
  const { features: offered } = offerFor(device, profile);
  const { agreed, own, newer } = FILTERS[frontEnd];
  return new Map(Array.from(device.features, (bit): [number, Passage] => {
    if (own.has(bit)) return [bit, "own"];
    if (!offered.has(bit)) return [bit, "lost"];
    return [bit, agreed.has(bit) ? "agreed" : newer.has(bit) ? "newer" : "lost"];
  }));
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}
