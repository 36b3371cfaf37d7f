/**
 * What a receiver takes as it is, read once from what it agreed to: the data path asks plain booleans.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import type { NetHeader } from "../../core/frame.ts";
import type { NetworkAbilities } from "../../core/stage.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import {
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";

/** What the receiver of frames takes. */
export interface Takes {
  /** Frames with a partial checksum. */
  readonly partialChecksum: boolean;
  /** Large TCP frames over IPv4. */
  readonly tso4: boolean;
  /** Large TCP frames over IPv6. */
  readonly tso6: boolean;
  /** Large TCP frames with ECN. */
  readonly ecn: boolean;
  /** Large UDP frames. */
  readonly uso: boolean;
  /** Packets that this device has coalesced, as such. */
  readonly rsc: boolean;
}

/** A receiver that takes ordinary frames only. */
export const NOTHING_TAKEN: Takes = {
  partialChecksum: false,
  tso4: false,
  tso6: false,
  ecn: false,
  uso: false,
  rsc: false,
};

/** What a guest takes whose guest offloads are on as given (virtio 1.2, section 5.1.6.4). */
export function takenByGuest(offloads: FeatureSet): Takes {
  const partialChecksum = offloads.has(VIRTIO_NET_F_GUEST_CSUM);
  return {
    partialChecksum,
    // A large frame has a partial checksum, so that the one is no use without the other.
    tso4: partialChecksum && offloads.has(VIRTIO_NET_F_GUEST_TSO4),
    tso6: partialChecksum && offloads.has(VIRTIO_NET_F_GUEST_TSO6),
    ecn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    // The type of a large UDP frame does not tell IPv4 from IPv6, so that both must be welcome.
    uso: partialChecksum && offloads.has(VIRTIO_NET_F_GUEST_USO4) && offloads.has(VIRTIO_NET_F_GUEST_USO6),
    rsc: offloads.has(VIRTIO_NET_F_RSC_EXT),
  };
}

/** What a network with these abilities takes. */
export function takenByNetwork(network: NetworkAbilities): Takes {
  const { partialChecksum, largeTcp, largeUdp } = network;
  return { partialChecksum, tso4: largeTcp, tso6: largeTcp, ecn: largeTcp, uso: largeUdp, rsc: false };
}

/** May the receiver have this large frame? So it may one of a kind that cannot be cut: it is for others to judge. */
export function isWelcome(header: NetHeader, takes: Takes): boolean {
  // Made by a stage of this device for a guest that has asked for it, whatever else it takes.
  if (takes.rsc && (header.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) return true;
  const hasEcn = (header.gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0;
  switch (header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return takes.tso4 && (takes.ecn || !hasEcn);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return takes.tso6 && (takes.ecn || !hasEcn);
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return takes.uso && !hasEcn;
    default:
      return true;
  }
}
