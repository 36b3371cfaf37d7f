/**
 * Finding what a large frame consists of, before it is cut: headers, payload, and whether they agree with each other.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { isSumRight } from "../../wire/checksum.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, payloadTypeAt } from "../../wire/ethernet.ts";
import {
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  ipv4PseudoSum,
} from "../../wire/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, ipv6PseudoSum } from "../../wire/ipv6.ts";
import {
  PROTOCOL_TCP,
  TCP_CHECKSUM,
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  TCP_RST,
  TCP_SYN,
  tcpHeaderBytes,
} from "../../wire/tcp.ts";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../wire/virtio_net_header.ts";
import { addFrameToSum, UDP_CHECKSUM } from "../frame_checksum.ts";

/** The protocol number of UDP (RFC 768). */
const PROTOCOL_UDP = 17;
const UDP_HEADER_BYTES = 8;
const UDP_LENGTH = 4;

const HOP_BY_HOP = 0;
const DESTINATION_OPTIONS = 60;
const FRAGMENT = 44;
/** No honest packet has more of them; an endless chain must not cost time. */
const MOST_EXTENSIONS = 4;

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
  get checksumOffset(): number {
    return this.isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  }

  /** Takes `frame`, whose `gso_type` is TCPV4, TCPV6 or UDP_L4, apart. Null if all is well, else why it cannot be cut. */
  locate(frame: Frame, mostSegments: number): LargeFault | null {
    this.frame = frame;
    this.segmentBytes = frame.header.gsoSize;
    if (this.segmentBytes === 0) return "dropped_no_segment_size";
    const typeAt = payloadTypeAt(frame.bytes, frame.start, frame.length);
    if (typeAt < 0) return "dropped_cut_headers";
    const kind = frame.header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
    const etherType = frame.view.getUint16(typeAt);
    this.isV4 = etherType === ETHERTYPE_IPV4;
    this.isTcp = kind !== VIRTIO_NET_HDR_GSO_UDP_L4;
    this.ipAt = typeAt + 2 - frame.start;
    const family = this.isV4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    if ((this.isTcp && kind !== family) || (!this.isV4 && etherType !== ETHERTYPE_IPV6)) {
      return "dropped_wrong_kind";
    }
    return (this.isV4 ? this.#locateIpv4() : this.#locateIpv6()) ?? this.#locateTransport(mostSegments) ??
      this.#judgeChecksum();
  }

  /** The sum of the pseudo header for `transportBytes` from the transport header on, with the addresses in `view`. */
  pseudoSum(view: DataView, start: number, transportBytes: number): number {
    const protocol = this.isTcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    return this.isV4
      ? ipv4PseudoSum(view, start + this.ipAt, protocol, transportBytes)
      : ipv6PseudoSum(view, start + this.ipAt, protocol, transportBytes);
  }

  #locateIpv4(): LargeFault | null {
    const { frame: { view, start, length }, ipAt } = this;
    if (length < ipAt + IPV4_HEADER_BYTES) return "dropped_cut_headers";
    const ip = start + ipAt;
    const versionIhl = view.getUint8(ip);
    const headerBytes = (versionIhl & 15) << 2;
    if (versionIhl >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return "dropped_wrong_kind";
    if ((view.getUint16(ip + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0) return "dropped_fragment";
    if (!this.#isProtocol(view.getUint8(ip + IPV4_PROTOCOL))) return "dropped_wrong_kind";
    this.transportAt = ipAt + headerBytes;
    return this.#endsAt(ipAt + view.getUint16(ip + IPV4_TOTAL_LENGTH));
  }

  #locateIpv6(): LargeFault | null {
    const { frame: { view, start, length }, ipAt } = this;
    let at = ipAt + IPV6_HEADER_BYTES;
    if (length < at) return "dropped_cut_headers";
    const ip = start + ipAt;
    if (view.getUint8(ip) >>> 4 !== 6) return "dropped_wrong_kind";
    let next = view.getUint8(ip + IPV6_NEXT_HEADER);
    for (let i = 0; i < MOST_EXTENSIONS && (next === HOP_BY_HOP || next === DESTINATION_OPTIONS); i++) {
      if (length < at + 8) return "dropped_cut_headers";
      next = view.getUint8(start + at);
      at += view.getUint8(start + at + 1) + 1 << 3;
    }
    if (next === FRAGMENT) return "dropped_fragment";
    if (!this.#isProtocol(next)) return "dropped_wrong_kind";
    this.transportAt = at;
    return this.#endsAt(ipAt + IPV6_HEADER_BYTES + view.getUint16(ip + IPV6_PAYLOAD_LENGTH));
  }

  #isProtocol(protocol: number): boolean {
    return protocol === (this.isTcp ? PROTOCOL_TCP : PROTOCOL_UDP);
  }

  /** The IP packet ends `end` bytes from the frame's first. Padding is cut off. */
  #endsAt(end: number): LargeFault | null {
    this.frame.trim(end);
    return this.frame.total === end ? null : "dropped_bad_length";
  }

  #locateTransport(mostSegments: number): LargeFault | null {
    const { frame: { view, start, length, total }, transportAt, isTcp } = this;
    const least = isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
    if (total < transportAt + least) return "dropped_bad_length";
    if (length < transportAt + least) return "dropped_cut_headers";
    const at = start + transportAt;
    const offsetFlags = isTcp ? view.getUint16(at + TCP_OFFSET_FLAGS) : 0;
    const bytes = isTcp ? tcpHeaderBytes(offsetFlags) : UDP_HEADER_BYTES;
    this.headerBytes = transportAt + bytes;
    if (bytes < least || total < this.headerBytes) return "dropped_bad_length";
    if (length < this.headerBytes) return "dropped_cut_headers";
    if (!isTcp && view.getUint16(at + UDP_LENGTH) !== total - transportAt) return "dropped_bad_length";
    this.payloadBytes = total - this.headerBytes;
    this.segments = Math.max(1, Math.ceil(this.payloadBytes / this.segmentBytes));
    if (this.segments > 1 && (offsetFlags & (TCP_SYN | TCP_RST)) !== 0) return "dropped_bad_flags";
    return this.segments > mostSegments ? "dropped_too_many" : null;
  }

  #judgeChecksum(): LargeFault | null {
    const { frame: { view, start, header, total }, transportAt } = this;
    this.hasChecksum = true;
    if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      // Beside RSC_INFO the two fields count segments and duplicate ACKs.
      if ((header.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) return null;
      const isHere = header.csumStart === transportAt && header.csumOffset === this.checksumOffset;
      return isHere ? null : "dropped_odd_checksum";
    }
    const at = start + transportAt;
    this.hasChecksum = this.isTcp || !this.isV4 || view.getUint16(at + UDP_CHECKSUM) !== 0;
    if (!this.hasChecksum || (header.flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return null;
    const pseudo = this.pseudoSum(view, start, total - transportAt);
    return isSumRight(addFrameToSum(this.frame, at, pseudo)) ? null : "dropped_bad_checksum";
  }
}
