/**
 * What the guest may send, read once from what it accepted.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
} from "../../wire/net_features.ts";
import { headerBytes } from "../../wire/virtio_net_header.ts";

/** What may come from the guest. */
export interface GuestSends {
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  readonly headerBytes: number;
  /** NEEDS_CSUM. */
  readonly checksum: boolean;
  /** Large TCP frames over IPv4. */
  readonly tso4: boolean;
  /** Large TCP frames over IPv6. */
  readonly tso6: boolean;
  /** Large TCP frames with ECN. */
  readonly ecn: boolean;
  /** Large UDP frames. */
  readonly uso: boolean;
}

/** What a guest with these features may send. */
export function guestSends(features: FeatureSet): GuestSends {
  return {
    headerBytes: headerBytes(features),
    checksum: features.has(VIRTIO_NET_F_CSUM),
    tso4: features.has(VIRTIO_NET_F_HOST_TSO4),
    tso6: features.has(VIRTIO_NET_F_HOST_TSO6),
    ecn: features.has(VIRTIO_NET_F_HOST_ECN),
    uso: features.has(VIRTIO_NET_F_HOST_USO),
  };
}
