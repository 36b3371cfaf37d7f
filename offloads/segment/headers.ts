/**
 * Writing the headers of a segment: what differs from those of the large frame that it was cut from.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { storeChecksum, storePartial } from "../../wire/checksum.ts";
import { IPV4_CHECKSUM, IPV4_ID, IPV4_TOTAL_LENGTH, ipv4HeaderSum } from "../../wire/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_PAYLOAD_LENGTH } from "../../wire/ipv6.ts";
import { TCP_CWR, TCP_FIN, TCP_OFFSET_FLAGS, TCP_PSH, TCP_SEQ, TCP_URG } from "../../wire/tcp.ts";
import { UDP_LENGTH } from "../../wire/transport_header.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import { avoidNoChecksum, storeFullChecksum } from "../frame_checksum.ts";
import type { LargeFrame } from "./large_frame.ts";

const TCP_URGENT = 18;

/**
 * Makes the headers of segment `index`, which are a copy of the large frame's, its own.
 * @param segment the segment, payload and all
 * @param payloadAt bytes of payload in the segments before it
 */
export function writeSegmentHeaders(
  segment: Frame,
  large: LargeFrame,
  index: number,
  payloadAt: number,
): void {
  const { view, start } = segment;
  const ip = start + large.ipAt;
  const ipBytes = segment.total - large.ipAt;
  if (large.isV4) {
    view.setUint16(ip + IPV4_TOTAL_LENGTH, ipBytes);
    view.setUint16(ip + IPV4_ID, view.getUint16(ip + IPV4_ID) + index);
    view.setUint16(ip + IPV4_CHECKSUM, 0);
    storeChecksum(view, ip + IPV4_CHECKSUM, ipv4HeaderSum(view, ip, large.transportAt - large.ipAt));
  } else {
    view.setUint16(ip + IPV6_PAYLOAD_LENGTH, ipBytes - IPV6_HEADER_BYTES);
  }
  const transport = start + large.transportAt;
  if (large.isTcp) writeTcp(view, transport, index === 0, index === large.segments - 1, payloadAt);
  else view.setUint16(transport + UDP_LENGTH, segment.total - large.transportAt);
}

/** FIN and PSH are the last segment's, CWR the first one's (RFC 3168, section 6.1.2); URG ends with the urgent data. */
function writeTcp(view: DataView, tcp: number, isFirst: boolean, isLast: boolean, payloadAt: number): void {
  view.setInt32(tcp + TCP_SEQ, view.getInt32(tcp + TCP_SEQ) + payloadAt | 0);
  let offsetFlags = view.getUint16(tcp + TCP_OFFSET_FLAGS);
  if (!isFirst) offsetFlags &= ~TCP_CWR;
  if (!isLast) offsetFlags &= ~(TCP_FIN | TCP_PSH);
  if (!isFirst && (offsetFlags & TCP_URG) !== 0) {
    // The pointer counts from the segment's own sequence number (RFC 9293, section 3.1).
    const left = view.getUint16(tcp + TCP_URGENT) - payloadAt;
    view.setUint16(tcp + TCP_URGENT, left > 0 ? left : 0);
    if (left <= 0) offsetFlags &= ~TCP_URG;
  }
  view.setUint16(tcp + TCP_OFFSET_FLAGS, offsetFlags);
}

/**
 * Gives a segment, in one piece or several, the transport checksum that its receiver wants, and a header that says so: to be
 * segmented no more.
 * @param partial the receiver completes checksums itself
 */
export function finishChecksum(segment: Frame, large: LargeFrame, partial: boolean): void {
  const { view, start, header } = segment;
  header.clear();
  if (!large.hasChecksum) return;
  const transport = start + large.transportAt;
  const checksumAt = transport + large.checksumOffset;
  const pseudo = large.pseudoSum(segment.total - large.transportAt);
  if (partial) {
    storePartial(view, checksumAt, pseudo);
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csumStart = large.transportAt;
    header.csumOffset = large.checksumOffset;
    return;
  }
  storeFullChecksum(segment, transport, checksumAt, pseudo);
  if (!large.isTcp) avoidNoChecksum(view, checksumAt);
}
