/**
 * What the guest takes, read once from what it accepted: the data path asks plain booleans.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import type { Negotiated, RuleBook } from "../../core/stage.ts";
import { ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
} from "../../wire/net_features.ts";
import {
  headerBytes,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";

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
  /** Longest frame that is not a large one, in bytes, without VLAN tags: by the MTU, if that was negotiated; or Infinity. */
  readonly mostFrameBytes: number;
}

/** What a guest that agreed to this takes. @param mtu the MTU that the device advises, in bytes, if it does */
export function guestTakes(
  { features, offloads }: Negotiated,
  rules: RuleBook,
  mtu: number | undefined,
): GuestTakes {
  return {
    headerBytes: headerBytes(features),
    mergeable: features.has(VIRTIO_NET_F_MRG_RXBUF),
    anything: rules === "qemu",
    checksum: offloads.has(VIRTIO_NET_F_GUEST_CSUM),
    tso4: offloads.has(VIRTIO_NET_F_GUEST_TSO4),
    tso6: offloads.has(VIRTIO_NET_F_GUEST_TSO6),
    ecn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    // The type of a large UDP frame does not tell IPv4 from IPv6, so that both must be welcome.
    uso: offloads.has(VIRTIO_NET_F_GUEST_USO4) && offloads.has(VIRTIO_NET_F_GUEST_USO6),
    mostFrameBytes: features.has(VIRTIO_NET_F_MTU) ? ETHERNET_HEADER_BYTES + (mtu ?? Infinity) : Infinity,
  };
}

/** Why a frame must not be delivered to a guest, which is also what counts it. */
export type Refusal = "dropped_large" | "dropped_partial_checksum" | "dropped_over_mtu";

/** Why this frame must not be delivered to a guest that takes this; null if it may be (virtio 1.2, 5.1.4.1 and 5.1.6.4). */
export function refusal(frame: Frame, takes: GuestTakes): Refusal | null {
  if (takes.anything) return null;
  const { flags, gsoType } = frame.header;
  const kind = gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  if (kind !== VIRTIO_NET_HDR_GSO_NONE) {
    const tcp = (kind === VIRTIO_NET_HDR_GSO_TCPV4 && takes.tso4) ||
      (kind === VIRTIO_NET_HDR_GSO_TCPV6 && takes.tso6);
    const welcome = kind === gsoType
      ? tcp || (kind === VIRTIO_NET_HDR_GSO_UDP_L4 && takes.uso)
      : tcp && takes.ecn;
    if (!welcome) return "dropped_large";
  } else if (frame.total > takes.mostFrameBytes && isOverMtu(frame, takes.mostFrameBytes)) {
    return "dropped_over_mtu";
  }
  return (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 && !takes.checksum ? "dropped_partial_checksum" : null;
}

const headers = new HeaderLocator();

/** The MTU is that of the payload: VLAN tags belong to the header. */
function isOverMtu(frame: Frame, mostFrameBytes: number): boolean {
  headers.locate(frame.bytes, frame.start, frame.length);
  return frame.total > mostFrameBytes + headers.vlanTags * VLAN_TAG_BYTES;
}
