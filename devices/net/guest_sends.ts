/**
 * What the guest may send, read once from what it accepted.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import type { Frame } from "../../core/frame.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
} from "../../wire/net_features.ts";
import { TransportHeader } from "../../wire/transport_header.ts";
import {
  headerBytes,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";

const transport = new TransportHeader();

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

/**
 * Is the header of this frame in keeping with the frame and with what was negotiated (virtio 1.2, section 5.1.6.2)? What
 * has no meaning is taken off: flags that are not the driver's, fields that do not belong to what is asked for.
 */
export function isHeaderSound(frame: Frame, sends: GuestSends): boolean {
  const { header } = frame;
  header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (header.flags !== 0) {
    if (!sends.checksum || header.csumStart + header.csumOffset + 2 > frame.length) return false;
  } else {
    header.csumStart = 0;
    header.csumOffset = 0;
  }
  const kind = header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  switch (kind) {
    case VIRTIO_NET_HDR_GSO_NONE:
      header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
      header.gsoSize = 0;
      header.hdrLen = 0;
      return true;
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return sends.tso4 && (kind === header.gsoType || sends.ecn) && isLargeSound(frame, kind);
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return sends.tso6 && (kind === header.gsoType || sends.ecn) && isLargeSound(frame, kind);
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return sends.uso && kind === header.gsoType && isLargeSound(frame, kind);
    default:
      return false;
  }
}

/**
 * A frame to be segmented must say how large the segments are and leave the checksum to us (virtio 1.2, 5.1.6.2). It must be
 * of the kind that it claims to be, with lengths that agree: its receiver relies on that.
 */
function isLargeSound(frame: Frame, kind: number): boolean {
  const { header, view, start } = frame;
  if (header.gsoSize === 0 || header.flags !== VIRTIO_NET_HDR_F_NEEDS_CSUM) return false;
  if (transport.locate(frame, true) !== null) return false;
  const { at, endAt, ipEndAt } = transport;
  if (kind !== transport.gsoType || endAt !== ipEndAt) return false;
  if (header.csumStart !== at - start || header.csumOffset !== transport.checksumOffset) return false;
  // A receiver that cuts the frame, such as the kernel behind a TAP, takes what is behind the packet for payload.
  frame.trim(ipEndAt - start);
  // The length of the headers is a hint, which must not be relied upon: one that cannot be is no hint.
  const headerBytes = at - start + transport.headerBytes;
  if (header.hdrLen > frame.length || header.hdrLen < headerBytes) header.hdrLen = 0;
  // TSO needs no IP length. The receivers of frames that are passed on as they are need one.
  if (transport.lacksIpLength) transport.fillIpLength(view);
  return true;
}
