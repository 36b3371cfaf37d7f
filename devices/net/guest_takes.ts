/**
 * What the guest takes, read once from what it accepted: the data path asks plain booleans.
 * @module
 */
import type { Negotiated, RuleBook } from "../../core/stage.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_MRG_RXBUF,
} from "../../wire/net_features.ts";
import { headerBytes } from "../../wire/virtio_net_header.ts";

/** What may be delivered to the guest. */
export interface GuestTakes {
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  readonly headerBytes: number;
  /** Frames over several receive buffers. */
  readonly mergeable: boolean;
  /** The rule book is the reference's, which delivers whatever it has. */
  readonly anything: boolean;
  /** NEEDS_CSUM and DATA_VALID. */
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

/** What a guest that agreed to this takes. */
export function guestTakes({ features, offloads }: Negotiated, rules: RuleBook): GuestTakes {
  return {
    headerBytes: headerBytes(features),
    mergeable: features.has(VIRTIO_NET_F_MRG_RXBUF),
    anything: rules === "qemu",
    checksum: offloads.has(VIRTIO_NET_F_GUEST_CSUM),
    tso4: offloads.has(VIRTIO_NET_F_GUEST_TSO4),
    tso6: offloads.has(VIRTIO_NET_F_GUEST_TSO6),
    ecn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    uso: offloads.has(VIRTIO_NET_F_GUEST_USO4) && offloads.has(VIRTIO_NET_F_GUEST_USO6),
  };
}
