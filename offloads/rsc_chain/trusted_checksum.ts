/**
 * May this segment's TCP checksum be trusted?
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { fold, isSumRight } from "../../wire/checksum.ts";
import { TCP_CHECKSUM } from "../../wire/tcp.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import type { RscFamily } from "./family.ts";
import type { Segment } from "./segment.ts";

/**
 * `right` if the network vouches for the data (DATA_VALID, or NEEDS_CSUM for the TCP checksum: then it never left this host)
 * or the checksum, computed here, is right. A partial checksum must be on top of the right pseudo-header sum, for a unit gets
 * a new one: what would become a wrong checksum must not become a right one.
 */
export function checksumVerdict(
  frame: Frame,
  segment: Segment,
  family: RscFamily,
): "right" | "bad_tcp_checksum" | "odd_partial_checksum" {
  const { flags, csumStart, csumOffset } = frame.header;
  const tcpBytes = segment.tcpHeaderBytes + segment.payloadBytes;
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    const isTcp = frame.start + csumStart === segment.tcpAt && csumOffset === TCP_CHECKSUM;
    if (!isTcp) return "odd_partial_checksum";
    const seed = frame.view.getUint16(segment.tcpAt + TCP_CHECKSUM, true);
    const pseudo = fold(family.pseudoSum(frame.view, segment.ipAt, tcpBytes));
    // 0 and 0xffff are the same sum.
    return (seed - pseudo) % 0xffff === 0 ? "right" : "odd_partial_checksum";
  }
  if ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return "right";
  return isSumRight(family.segmentSum(frame.view, segment.ipAt, tcpBytes)) ? "right" : "bad_tcp_checksum";
}
