/**
 * Finding what a large frame consists of, before it is cut: headers, payload, and whether they agree with each other.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { fold, isSumRight, sumOf16 } from "../../wire/checksum.ts";
import { TCP_OFFSET_FLAGS, TCP_RST, TCP_SYN } from "../../wire/tcp.ts";
import { type TransportFault, TransportHeader, UDP_CHECKSUM } from "../../wire/transport_header.ts";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
} from "../../wire/virtio_net_header.ts";
import { addFrameToSum } from "../frame_checksum.ts";

/** Why a large frame cannot be cut; the counter of this name is raised. */
export type LargeFault =
  /** `gso_size` is 0. */
  | "dropped_no_segment_size"
  /** The headers do not all lie in the first piece, or the frame ends in them. */
  | "dropped_cut_headers"
  /** It is not what `gso_type` says, or has headers behind which the transport header cannot be found. */
  | "dropped_wrong_kind"
  /** It is an IP fragment already. */
  | "dropped_fragment"
  /** The length of the frame, of the IP packet, of the UDP datagram or of the TCP header contradict each other. */
  | "dropped_bad_length"
  /** SYN or RST, which must not be repeated. */
  | "dropped_bad_flags"
  /** More segments than the options allow. */
  | "dropped_too_many"
  /** NEEDS_CSUM is for another place than the transport header's checksum, or for one outside the frame. */
  | "dropped_odd_checksum"
  /** Nobody vouches for the data, and the checksum over the whole is wrong: right ones must not be made of that. */
  | "dropped_bad_checksum";

const FAULTS: Readonly<Record<TransportFault, LargeFault>> = {
  cut: "dropped_cut_headers",
  not_ip: "dropped_wrong_kind",
  other_protocol: "dropped_wrong_kind",
  fragment: "dropped_fragment",
  bad_length: "dropped_bad_length",
  bad_transport: "dropped_bad_length",
};

/** A large frame taken apart. One object, refilled. Offsets count from the frame's first byte. */
export class LargeFrame {
  /** The frame. */
  frame!: Frame;
  /** IPv4, or else IPv6? */
  isV4 = false;
  /** TCP, or else UDP? */
  isTcp = false;
  /** Has it a transport checksum? UDP over IPv4 need not. */
  hasChecksum = false;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the TCP or UDP header. */
  transportAt = 0;
  /** Bytes of all headers: where the payload begins. */
  headerBytes = 0;
  /** Bytes of payload, of all segments. */
  payloadBytes = 0;
  /** Bytes of payload in each segment but the last. */
  segmentBytes = 0;
  /** How many segments that makes, 1 or more. */
  segments = 0;

  /** Where the checksum is in the transport header. */
  checksumOffset = 0;
  /** Must the IP length be written even if nothing is cut, because the sender left it at 0? */
  lacksIpLength = false;
  readonly #transport = new TransportHeader();
  /** The sum of the pseudo header of a segment without any byte. */
  #emptyPseudoSum = 0;

  /** Takes `frame`, whose `gso_type` is TCPV4, TCPV6 or UDP_L4, apart. Null if all is well, else why it cannot be cut. */
  locate(frame: Frame, mostSegments: number): LargeFault | null {
    this.frame = frame;
    this.segmentBytes = frame.header.gsoSize;
    if (this.segmentBytes === 0) return "dropped_no_segment_size";
    const transport = this.#transport;
    const fault = transport.locate(frame, true);
    if (fault !== null) return FAULTS[fault];
    const { isV4, isTcp, endAt, ipEndAt } = transport;
    if ((frame.header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) !== transport.gsoType) return "dropped_wrong_kind";
    // Padding is cut off; it cannot be where the frame is in pieces.
    frame.trim(ipEndAt - frame.start);
    if (frame.start + frame.total !== ipEndAt || endAt !== ipEndAt) return "dropped_bad_length";
    this.isV4 = isV4;
    this.isTcp = isTcp;
    this.checksumOffset = transport.checksumOffset;
    this.lacksIpLength = transport.lacksIpLength;
    this.ipAt = transport.ipAt - frame.start;
    this.transportAt = transport.at - frame.start;
    this.headerBytes = this.transportAt + transport.headerBytes;
    this.payloadBytes = frame.total - this.headerBytes;
    this.segments = Math.max(1, Math.ceil(this.payloadBytes / this.segmentBytes));
    const offsetFlags = isTcp ? frame.view.getUint16(transport.at + TCP_OFFSET_FLAGS) : 0;
    if (this.segments > 1 && (offsetFlags & (TCP_SYN | TCP_RST)) !== 0) return "dropped_bad_flags";
    return this.segments > mostSegments ? "dropped_too_many" : this.#judgeChecksum();
  }

  /** The sum of the pseudo header of a segment with `transportBytes` from the transport header on. */
  pseudoSum(transportBytes: number): number {
    return fold(this.#emptyPseudoSum + sumOf16(transportBytes) + sumOf16(transportBytes >>> 16));
  }

  #judgeChecksum(): LargeFault | null {
    const { frame: { view, start, header, total }, transportAt } = this;
    const transport = this.#transport;
    this.hasChecksum = true;
    if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      // Beside RSC_INFO the two fields count segments and duplicate ACKs.
      const isHere = (header.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0 ||
        (header.csumStart === transportAt && header.csumOffset === this.checksumOffset);
      if (!isHere) return "dropped_odd_checksum";
      // The field holds the sum of the whole frame's pseudo header (virtio 1.2, section 5.1.6.2). Whose addresses are in
      // it, the sender knows best: with source routes they are not those of the IP header.
      const whole = total - transportAt;
      const withoutLength = ~fold(sumOf16(whole) + sumOf16(whole >>> 16)) & 0xffff;
      this.#emptyPseudoSum = view.getUint16(transport.at + this.checksumOffset, true) + withoutLength;
      return null;
    }
    this.hasChecksum = this.isTcp || !this.isV4 || view.getUint16(transport.at + UDP_CHECKSUM) !== 0;
    if (!this.hasChecksum) return null;
    this.#emptyPseudoSum = transport.pseudoSum(view, 0);
    if ((header.flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return null;
    const sum = addFrameToSum(this.frame, start + transportAt, this.pseudoSum(total - transportAt));
    return isSumRight(sum) ? null : "dropped_bad_checksum";
  }
}
