/**
 * Writes into a unit that is about to leave what merging has changed, under strict rules.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { storePartial } from "../../wire/checksum.ts";
import {
  TCP_ACK_NUMBER,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_ECE,
  TCP_OFFSET_FLAGS,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_VALUE,
  TCP_WINDOW,
} from "../../wire/tcp.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
} from "../../wire/virtio_net_header.ts";
import { storeFullChecksum } from "../frame_checksum.ts";
import type { RscFamily } from "./family.ts";
import type { Unit } from "./unit.ts";

/** Completes the headers of a unit into which something was merged. `rscInfo`: the guest accepted RSC_EXT. */
export function finishStrict(unit: Unit, frame: Frame, family: RscFamily, rscInfo: boolean): void {
  const { view, header } = frame;
  const tcp = unit.tcpAt;
  view.setUint16(tcp + TCP_OFFSET_FLAGS, unit.offsetFlags);
  view.setInt32(tcp + TCP_ACK_NUMBER, unit.ack);
  view.setUint16(tcp + TCP_WINDOW, unit.window);
  if (unit.hasTimestamp) {
    view.setInt32(tcp + TCP_TIMESTAMP_VALUE, unit.tsValue);
    view.setInt32(tcp + TCP_TIMESTAMP_ECHO, unit.tsEcho);
  }
  family.finish(view, unit, true);
  header.clear();
  const tcpBytes = unit.tcpHeaderBytes + unit.payloadBytes;
  const pseudo = family.pseudoSum(view, unit.ipAt, tcpBytes);
  if (unit.segments < 2) {
    storeFullChecksum(frame, tcp, tcp + TCP_CHECKSUM, pseudo);
    return;
  }
  storePartial(view, tcp + TCP_CHECKSUM, pseudo);
  const ecn = (unit.offsetFlags & (TCP_ECE | TCP_CWR)) !== 0 ? VIRTIO_NET_HDR_GSO_ECN : 0;
  header.gsoType = family.gsoType | ecn;
  header.gsoSize = unit.largestSegmentBytes;
  header.hdrLen = tcp + unit.tcpHeaderBytes - frame.start;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (rscInfo) {
    header.flags |= VIRTIO_NET_HDR_F_RSC_INFO;
    header.csumStart = unit.segments;
    // Duplicate ACKs are never merged here, so there are none to report.
    header.csumOffset = 0;
  } else {
    header.csumStart = tcp - frame.start;
    header.csumOffset = TCP_CHECKSUM;
  }
}
