/**
 * Finding the TCP or UDP header of any frame, and how far its checksum reaches.
 *
 * A packet states its length up to four times: by the frame, the IP header, the UDP header or the data offset of TCP.
 * What is promised of a packet must rest on all of them, so that they are compared here, in one place.
 *
 * @module
 */
import { addToSum, storeChecksum, sumOf16 } from "./checksum.ts";
import { ETHERTYPE_IPV4, ETHERTYPE_IPV6, payloadTypeAt } from "./ethernet.ts";
import {
  IPV4_CHECKSUM,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
  ipv4HeaderSum,
} from "./ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, IPV6_SOURCE } from "./ipv6.ts";
import { PROTOCOL_TCP, TCP_CHECKSUM, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS, tcpHeaderBytes } from "./tcp.ts";

/** The protocol number of UDP (RFC 768). */
export const PROTOCOL_UDP = 17;
/** Bytes of a UDP header. */
export const UDP_HEADER_BYTES = 8;
/** Bytes of UDP header and data, from the first byte of the header. */
export const UDP_LENGTH = 4;
/** The UDP checksum, from the first byte of the header. */
export const UDP_CHECKSUM = 6;

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
/** No honest packet has more of them; an endless chain must not cost time. */
const MAX_EXTENSION_HEADERS = 4;
/** IPv4 options: loose and strict source route (RFC 791, section 3.1). */
const LOOSE_SOURCE_ROUTE = 131;
const STRICT_SOURCE_ROUTE = 137;
/** The destination option that carries a mobile node's home address (RFC 6275, section 6.3). */
const HOME_ADDRESS = 201;
/** `destinationAt` where the final destination cannot be told. */
const UNKNOWN = -1;

/** Why no transport header was found. */
export type TransportFault =
  /** The headers do not all lie in the first piece, or the frame ends in them. */
  | "cut"
  /** Neither IPv4 nor IPv6, or a version or header length that cannot be. */
  | "not_ip"
  /** Neither TCP nor UDP, or behind a header that is not looked behind. */
  | "other_protocol"
  /** An IP fragment. */
  | "fragment"
  /** The IP length is larger than the frame or too small for the headers, or that of a jumbogram. */
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
 * A transport header; one object, refilled. Offsets are absolute, in the storage of the frame's first piece; those behind it
 * are as if the frame were in one piece. After a fault the fields mean nothing.
 */
export class TransportHeader {
  /** IPv4, or else IPv6? */
  isV4 = false;
  /** PROTOCOL_TCP or PROTOCOL_UDP. */
  protocol = 0;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the transport header. */
  at = 0;
  /** Bytes of the transport header. */
  headerBytes = 0;
  /** Behind the last byte of the IP packet; what follows is padding. */
  ipEndAt = 0;
  /** Behind the last byte that the transport checksum covers. For UDP that is what the datagram's own length says. */
  endAt = 0;
  /** Is the IP length field of a large frame 0, so that the frame's end is the packet's? */
  lacksIpLength = false;
  #sourceAt = 0;
  #destinationAt = 0;

  /**
   * Finds an unfragmented TCP or UDP header behind VLAN tags, IPv4 options, hop-by-hop and destination options, and routing
   * headers. Null if all lengths agree.
   * @param isLarge the frame is yet to be segmented, so that its IP length may be left at 0
   */
  locate(frame: FrameBytes, isLarge: boolean): TransportFault | null {
    const typeAt = payloadTypeAt(frame.bytes, frame.start, frame.length);
    if (typeAt < 0) return "cut";
    const etherType = frame.view.getUint16(typeAt);
    this.ipAt = typeAt + 2;
    this.isV4 = etherType === ETHERTYPE_IPV4;
    if (!this.isV4 && etherType !== ETHERTYPE_IPV6) return "not_ip";
    return (this.isV4 ? this.#locateIpv4(frame, isLarge) : this.#locateIpv6(frame, isLarge)) ??
      this.#measure(frame);
  }

  /** TCP, or else UDP? */
  get isTcp(): boolean {
    return this.protocol === PROTOCOL_TCP;
  }

  /** Where the checksum is in the transport header. */
  get checksumOffset(): number {
    return this.protocol === PROTOCOL_TCP ? TCP_CHECKSUM : UDP_CHECKSUM;
  }

  /** Are the addresses of the pseudo header known? They are not behind routing headers of an unknown type. */
  get hasPseudoHeader(): boolean {
    return this.#destinationAt !== UNKNOWN;
  }

  /**
   * The sum of the pseudo header of `transportBytes`, up to 131071. Its destination is the final one, though a source route
   * still has others before it (RFC 8200, section 8.1), its source a mobile node's home address (RFC 6275, section 6.3.1).
   */
  pseudoSum(view: DataView, transportBytes: number): number {
    const rest = sumOf16(this.protocol) + sumOf16(transportBytes) + sumOf16(transportBytes >>> 16);
    const addressBytes = this.isV4 ? 4 : 16;
    const sourceAt = this.#sourceAt;
    if (this.#destinationAt === sourceAt + addressBytes) {
      return addToSum(view, sourceAt, 2 * addressBytes, rest);
    }
    return addToSum(view, this.#destinationAt, addressBytes, addToSum(view, sourceAt, addressBytes, rest));
  }

  /** Writes the IP length that the frame lacks, if the field can hold it, and the checksum of an IPv4 header with it. */
  fillIpLength(view: DataView): void {
    const { ipAt, isV4 } = this;
    const ipBytes = this.ipEndAt - ipAt - (isV4 ? 0 : IPV6_HEADER_BYTES);
    if (!this.lacksIpLength || ipBytes > 0xffff) return;
    view.setUint16(ipAt + (isV4 ? IPV4_TOTAL_LENGTH : IPV6_PAYLOAD_LENGTH), ipBytes);
    if (!isV4) return;
    view.setUint16(ipAt + IPV4_CHECKSUM, 0);
    storeChecksum(view, ipAt + IPV4_CHECKSUM, ipv4HeaderSum(view, ipAt, this.at - ipAt));
  }

  #locateIpv4(frame: FrameBytes, isLarge: boolean): TransportFault | null {
    const { view } = frame;
    const ip = this.ipAt;
    const end = frame.start + frame.length;
    if (end < ip + IPV4_HEADER_BYTES) return "cut";
    const versionIhl = view.getUint8(ip);
    const headerBytes = (versionIhl & 15) << 2;
    if (versionIhl >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return "not_ip";
    if ((view.getUint16(ip + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0) return "fragment";
    this.protocol = view.getUint8(ip + IPV4_PROTOCOL);
    this.at = ip + headerBytes;
    this.#sourceAt = ip + IPV4_SOURCE;
    this.#destinationAt = ip + IPV4_SOURCE + 4;
    if (headerBytes !== IPV4_HEADER_BYTES) {
      if (end < this.at) return "cut";
      this.#followSourceRoute(view);
    }
    const ipLength = view.getUint16(ip + IPV4_TOTAL_LENGTH);
    return this.#endIp(frame, ip + ipLength, isLarge && ipLength === 0);
  }

  #locateIpv6(frame: FrameBytes, isLarge: boolean): TransportFault | null {
    const { view } = frame;
    const ip = this.ipAt;
    const end = frame.start + frame.length;
    let at = ip + IPV6_HEADER_BYTES;
    if (end < at) return "cut";
    if (view.getUint8(ip) >>> 4 !== 6) return "not_ip";
    const payloadLength = view.getUint16(ip + IPV6_PAYLOAD_LENGTH);
    this.#sourceAt = ip + IPV6_SOURCE;
    this.#destinationAt = ip + IPV6_SOURCE + 16;
    let next = view.getUint8(ip + IPV6_NEXT_HEADER);
    // A jumbogram has its length in an option there (RFC 2675), which its segments must not have.
    if (payloadLength === 0 && next === HOP_BY_HOP) return "bad_length";
    for (let i = 0; i < MAX_EXTENSION_HEADERS && isLookedBehind(next); i++) {
      if (end < at + 8) return "cut";
      const bytes = view.getUint8(at + 1) + 1 << 3;
      if (end < at + bytes) return "cut";
      if (next === ROUTING) this.#followRouting(view, at, bytes);
      else if (next === DESTINATION_OPTIONS) this.#seekHomeAddress(view, at, at + bytes);
      next = view.getUint8(at);
      at += bytes;
    }
    if (next === FRAGMENT) return "fragment";
    this.protocol = next;
    this.at = at;
    return this.#endIp(frame, ip + IPV6_HEADER_BYTES + payloadLength, isLarge && payloadLength === 0);
  }

  #endIp(frame: FrameBytes, endAt: number, lacksIpLength: boolean): TransportFault | null {
    if (this.protocol !== PROTOCOL_TCP && this.protocol !== PROTOCOL_UDP) return "other_protocol";
    const frameEnd = frame.start + frame.total;
    this.lacksIpLength = lacksIpLength;
    this.ipEndAt = lacksIpLength ? frameEnd : endAt;
    return this.ipEndAt > frameEnd ? "bad_length" : null;
  }

  /** The lengths that the transport header itself states. */
  #measure({ view, start, length }: FrameBytes): TransportFault | null {
    const { at, ipEndAt, isTcp } = this;
    const end = start + length;
    const leastBytes = isTcp ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
    if (ipEndAt < at + leastBytes) return "bad_length";
    if (end < at + leastBytes) return "cut";
    this.headerBytes = isTcp ? tcpHeaderBytes(view.getUint16(at + TCP_OFFSET_FLAGS)) : UDP_HEADER_BYTES;
    this.endAt = isTcp ? ipEndAt : at + view.getUint16(at + UDP_LENGTH);
    const headerEnd = at + this.headerBytes;
    if (this.headerBytes < leastBytes || headerEnd > this.endAt || this.endAt > ipEndAt) {
      return "bad_transport";
    }
    return end < headerEnd ? "cut" : null;
  }

  /** IPv4: the last address of a source route that has not been gone to its end. */
  #followSourceRoute(view: DataView): void {
    for (let at = this.ipAt + IPV4_HEADER_BYTES; at < this.at;) {
      const type = view.getUint8(at);
      if (type === 0) return;
      const bytes = type === 1 ? 1 : at + 1 < this.at ? view.getUint8(at + 1) : 0;
      const isRoute = type === LOOSE_SOURCE_ROUTE || type === STRICT_SOURCE_ROUTE;
      if (bytes === 0 || (bytes < 3 && isRoute) || at + bytes > this.at) {
        this.#destinationAt = UNKNOWN;
        return;
      }
      // The pointer counts from 1, and is larger than the length when no address is left (RFC 791, section 3.1).
      if (isRoute && view.getUint8(at + 2) <= bytes) {
        this.#destinationAt = bytes < 7 ? UNKNOWN : at + bytes - 4;
        return;
      }
      at += bytes;
    }
  }

  /** IPv6: the last address of a routing header with segments left. */
  #followRouting(view: DataView, at: number, bytes: number): void {
    if (view.getUint8(at + 3) === 0) return;
    const type = view.getUint8(at + 2);
    const addresses = bytes - 8 >>> 4;
    if (addresses === 0) this.#destinationAt = UNKNOWN;
    // RFC 2460, section 4.4, and RFC 6275, section 6.4; RFC 8754, section 2: that list is in reverse order.
    else if (type === 0 || type === 2) this.#destinationAt = at + 8 + 16 * (addresses - 1);
    else this.#destinationAt = type === 4 ? at + 8 : UNKNOWN;
  }

  #seekHomeAddress(view: DataView, headerAt: number, end: number): void {
    for (let at = headerAt + 2; at < end;) {
      const type = view.getUint8(at);
      const bytes = type === 0 ? 1 : at + 1 < end ? 2 + view.getUint8(at + 1) : 2;
      if (type === HOME_ADDRESS && bytes === 18 && at + bytes <= end) this.#sourceAt = at + 2;
      at += bytes;
    }
  }
}

function isLookedBehind(nextHeader: number): boolean {
  return nextHeader === HOP_BY_HOP || nextHeader === DESTINATION_OPTIONS || nextHeader === ROUTING;
}
