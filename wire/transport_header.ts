/**
 * The TCP or UDP header of a frame, and how far its checksum reaches.
 *
 * A packet states its length up to four times: by the frame, the IP header, the UDP header or the data offset
 * of TCP. What is promised of a packet must rest on all of them, so that they are compared here, in one
 * place.
 *
 * @module
 */
import { addToSum, sumOf16 } from "./checksum.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "./ethernet.ts";
import { HeaderLocator } from "./headers.ts";
import {
  IPV4_HEADER_BYTES,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  isExtensionHeader,
  PROTOCOL_ESP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  storeIpv4Checksum,
  TCP_CHECKSUM,
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  tcpHeaderBytes,
  UDP_CHECKSUM,
  UDP_HEADER_BYTES,
  UDP_LENGTH,
} from "./tcp_ip.ts";
import {
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "./virtio_net_header.ts";

const HOP_BY_HOP = 0;

/** Why no transport header was found. */
export type TransportFault =
  /** The headers do not all lie in the first piece, or the frame ends in them. */
  | "cut"
  /**
   * Neither IPv4 nor IPv6 right behind the Ethernet header and its tags, or a version or header length that
   * cannot be.
   */
  | "not_ip"
  /** Neither TCP nor UDP, or encrypted. */
  | "other_protocol"
  /** An IP fragment. */
  | "fragment"
  /**
   * The IP length is larger than the frame or too small for the headers, or that of a jumbogram (RFC 2675).
   */
  | "bad_length"
  /** The length of the UDP datagram or the data offset of TCP is larger than the IP packet or too small. */
  | "bad_transport";

/** Where a frame lies: its first piece, and the bytes of all pieces. */
export interface FrameBytes {
  /** The storage of the first piece. */
  readonly bytes: Uint8Array;
  /** The same storage. */
  readonly view: DataView;
  /** First byte of the frame. */
  readonly start: number;
  /** Bytes in the first piece. */
  readonly length: number;
  /** Bytes in all pieces. */
  readonly total: number;
}

/**
 * A transport header; one object, refilled. Offsets are absolute, in the storage of the frame's first piece;
 * those behind it are as if the frame were in one piece. After a fault the fields mean nothing.
 */
export class TransportHeader {
  /** IPv4, or else IPv6? */
  isV4 = false;
  /** TCP, or else UDP? */
  isTcp = false;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the transport header. */
  at = 0;
  /** Bytes of the transport header. */
  headerBytes = 0;
  /** Behind the last byte of the IP packet; what follows is padding. */
  ipEndAt = 0;
  /**
   * Behind the last byte that the transport checksum covers. For UDP that is what the datagram's own length
   * says.
   */
  endAt = 0;
  /** Is the IP length field of a large frame 0, so that the frame's end is the packet's? */
  lacksIpLength = false;
  readonly #headers = new HeaderLocator();

  /**
   * Finds an unfragmented TCP or UDP header whose lengths all agree; null if there is one.
   * @param isLarge the frame is yet to be segmented, so that its IP length may be left at 0
   */
  locate(frame: FrameBytes, isLarge: boolean): TransportFault | null {
    const headers = this.#headers;
    const { view, start, length } = frame;
    headers.locate(frame.bytes, start, length);
    if (headers.version === 0) return isCutInIp(view, headers.etherTypeAt, start + length) ? "cut" : "not_ip";
    if (headers.isEncapsulated) return "not_ip";
    if (headers.isFragment) return "fragment";
    const { protocol, ipAt, transportAt } = headers;
    this.isTcp = protocol === PROTOCOL_TCP;
    if (!this.isTcp && protocol !== PROTOCOL_UDP) {
      return isExtensionHeader(protocol) && protocol !== PROTOCOL_ESP ? "cut" : "other_protocol";
    }
    const isV4 = headers.version === 4;
    const ipLength = view.getUint16(ipAt + (isV4 ? IPV4_TOTAL_LENGTH : IPV6_PAYLOAD_LENGTH));
    const frameEnd = start + frame.total;
    this.isV4 = isV4;
    this.ipAt = ipAt;
    this.at = transportAt;
    this.lacksIpLength = isLarge && ipLength === 0;
    this.ipEndAt = this.lacksIpLength ? frameEnd : ipAt + (isV4 ? 0 : IPV6_HEADER_BYTES) + ipLength;
    if (this.ipEndAt > frameEnd) return "bad_length";
    // The segments of a jumbogram must not have the option in which its length is (RFC 2675, section 3).
    if (!isV4 && ipLength === 0 && view.getUint8(ipAt + IPV6_NEXT_HEADER) === HOP_BY_HOP) return "bad_length";
    if (transportAt < 0) return this.ipEndAt < start + length ? "bad_length" : "cut";
    return this.#measure(view, start + length);
  }

  /** Where the checksum is in the transport header. */
  get checksumOffset(): number {
    return this.isTcp ? TCP_CHECKSUM : UDP_CHECKSUM;
  }

  /** The `gso_type` of a large frame with these headers, without GSO_ECN. */
  get gsoType(): number {
    if (!this.isTcp) return VIRTIO_NET_HDR_GSO_UDP_L4;
    return this.isV4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
  }

  /**
   * The sum of the pseudo header of `transportBytes`, up to 131071, between the addresses that the sender has
   * put into it.
   */
  pseudoSum(view: DataView, transportBytes: number): number {
    const { sourceAt, destinationAt, protocol, addressBytes } = this.#headers;
    const rest = sumOf16(protocol) + sumOf16(transportBytes) + sumOf16(transportBytes >>> 16);
    if (destinationAt === sourceAt + addressBytes) return addToSum(view, sourceAt, 2 * addressBytes, rest);
    return addToSum(view, destinationAt, addressBytes, addToSum(view, sourceAt, addressBytes, rest));
  }

  /**
   * Writes the IP length that the frame lacks, if the field can hold it, and the checksum of an IPv4 header
   * with it.
   */
  fillIpLength(view: DataView): void {
    const { ipAt, isV4 } = this;
    const ipBytes = this.ipEndAt - ipAt - (isV4 ? 0 : IPV6_HEADER_BYTES);
    if (!this.lacksIpLength || ipBytes > 0xffff) return;
    view.setUint16(ipAt + (isV4 ? IPV4_TOTAL_LENGTH : IPV6_PAYLOAD_LENGTH), ipBytes);
    if (isV4) storeIpv4Checksum(view, ipAt, this.at - ipAt);
  }

  /** The lengths that the transport header itself states. `end` is that of the first piece. */
  #measure(view: DataView, end: number): TransportFault | null {
    const { at, ipEndAt, isTcp } = this;
    const minBytes = isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
    if (ipEndAt < at + minBytes) return "bad_length";
    if (end < at + minBytes) return "cut";
    this.headerBytes = isTcp ? tcpHeaderBytes(view.getUint16(at + TCP_OFFSET_FLAGS)) : UDP_HEADER_BYTES;
    this.endAt = isTcp ? ipEndAt : at + view.getUint16(at + UDP_LENGTH);
    const headerEnd = at + this.headerBytes;
    if (this.headerBytes < minBytes || headerEnd > this.endAt || this.endAt > ipEndAt) {
      return "bad_transport";
    }
    return end < headerEnd ? "cut" : null;
  }
}

/** No IP header was found: because the frame, or its first piece, ends too early? */
function isCutInIp(view: DataView, typeAt: number, end: number): boolean {
  if (typeAt < 0) return true;
  const type = view.getUint16(typeAt);
  if (type !== ETHERTYPE_IPV4 && type !== ETHERTYPE_IPV6) return false;
  return end < typeAt + 2 + (type === ETHERTYPE_IPV4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES);
}
