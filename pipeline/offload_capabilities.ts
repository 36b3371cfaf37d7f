/**
 * What a receiver takes unfinished: frames that are still to be checksummed, or still to be segmented.
 * @module
 */
import type { FeatureSet } from "../core/features.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
} from "../wire/net_features.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../wire/virtio_net_header.ts";
import type { NetHeader } from "./frame.ts";

/** The name of one capability. */
export type OffloadCapability = "csum" | "tso4" | "tso6" | "ecn" | "uso4" | "uso6";

/** The names of all capabilities. */
export const OFFLOAD_CAPABILITIES: readonly OffloadCapability[] = [
  "csum",
  "tso4",
  "tso6",
  "ecn",
  "uso4",
  "uso6",
];

/**
 * What a receiver takes unfinished: a guest, by the features that it accepted; the device, by those that it
 * offered to the guest; or a network. Does not change.
 *
 * @example
 * ```ts
 * import { OffloadCapabilities } from "./offload_capabilities.ts";
 * const capabilities = OffloadCapabilities.of("csum", "tso4", "tso6");
 * ```
 */
export class OffloadCapabilities {
  /** A receiver of ordinary frames only. */
  static readonly none: OffloadCapabilities = OffloadCapabilities.of();
  /** A receiver of everything. */
  static readonly all: OffloadCapabilities = OffloadCapabilities.of(...OFFLOAD_CAPABILITIES);

  /** Frames with a partial checksum (NEEDS_CSUM). */
  readonly csum: boolean;
  /** Large TCP frames over IPv4 (gso TCPV4). */
  readonly tso4: boolean;
  /** Large TCP frames over IPv6 (gso TCPV6). */
  readonly tso6: boolean;
  /** Large TCP frames with ECN. */
  readonly ecn: boolean;
  /** Large UDP frames over IPv4 (gso UDP_L4). */
  readonly uso4: boolean;
  /** Large UDP frames over IPv6 (gso UDP_L4). */
  readonly uso6: boolean;

  private constructor(has: (name: OffloadCapability) => boolean) {
    this.csum = has("csum");
    this.tso4 = has("tso4");
    this.tso6 = has("tso6");
    this.ecn = has("ecn");
    this.uso4 = has("uso4");
    this.uso6 = has("uso6");
  }

  /** These, and no others. */
  static of(...names: readonly OffloadCapability[]): OffloadCapabilities {
    return new OffloadCapabilities((name) => names.includes(name));
  }

  /** As a plain object says it. */
  static from(flags: Readonly<Record<OffloadCapability, boolean>>): OffloadCapabilities {
    return new OffloadCapabilities((name) => flags[name]);
  }

  /** What a guest takes whose guest offloads are on as given (virtio 1.2, section 5.1.6.4). */
  static ofGuest(offloads: FeatureSet): OffloadCapabilities {
    return new OffloadCapabilities((name) => offloads.has(GUEST_BITS[name]));
  }

  /**
   * What a device takes from a guest with which it agreed on these features (virtio 1.2, section 5.1.6.2).
   */
  static ofHost(features: FeatureSet): OffloadCapabilities {
    return new OffloadCapabilities((name) => features.has(HOST_BITS[name]));
  }

  /** Does the receiver take a frame with this header as it is? */
  admits(header: NetHeader): boolean {
    return (this.csum || (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) &&
      this.admitsGso(header.gsoType);
  }

  /** Does the receiver take large frames of this type? It takes ordinary ones. */
  admitsGso(gsoType: number): boolean {
    const hasEcn = (gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0;
    switch (gsoType & ~VIRTIO_NET_HDR_GSO_ECN) {
      case VIRTIO_NET_HDR_GSO_NONE:
        return true;
      case VIRTIO_NET_HDR_GSO_TCPV4:
        return this.tso4 && (this.ecn || !hasEcn);
      case VIRTIO_NET_HDR_GSO_TCPV6:
        return this.tso6 && (this.ecn || !hasEcn);
      case VIRTIO_NET_HDR_GSO_UDP_L4:
        // The type does not tell IPv4 from IPv6.
        return this.uso4 && this.uso6 && !hasEcn;
      default:
        return false;
    }
  }
}

const GUEST_BITS: Readonly<Record<OffloadCapability, number>> = {
  csum: VIRTIO_NET_F_GUEST_CSUM,
  tso4: VIRTIO_NET_F_GUEST_TSO4,
  tso6: VIRTIO_NET_F_GUEST_TSO6,
  ecn: VIRTIO_NET_F_GUEST_ECN,
  uso4: VIRTIO_NET_F_GUEST_USO4,
  uso6: VIRTIO_NET_F_GUEST_USO6,
};

const HOST_BITS: Readonly<Record<OffloadCapability, number>> = {
  csum: VIRTIO_NET_F_CSUM,
  tso4: VIRTIO_NET_F_HOST_TSO4,
  tso6: VIRTIO_NET_F_HOST_TSO6,
  ecn: VIRTIO_NET_F_HOST_ECN,
  uso4: VIRTIO_NET_F_HOST_USO,
  uso6: VIRTIO_NET_F_HOST_USO,
};
