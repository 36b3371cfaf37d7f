/**
 * IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293) and UDP headers (RFC 768): offsets from the first byte of
 * each, protocol numbers, flags, sums, and the timestamp option of TCP (RFC 7323).
 * @module
 */
import { addToSum, storeChecksum, sumOf16 } from "./checksum.ts";

/** The protocol number of TCP. */
export const PROTOCOL_TCP = 6;
/** The protocol number of UDP (RFC 768). */
export const PROTOCOL_UDP = 17;
/** The protocol number of ESP (RFC 4303): what is behind it is not to be seen. */
export const PROTOCOL_ESP = 50;
/** The protocol number of AH (RFC 4302). */
export const PROTOCOL_AH = 51;

/** Bytes of an IPv4 header without options. */
export const IPV4_HEADER_BYTES = 20;
/** Version and header length. */
export const IPV4_VERSION_IHL = 0;
/** DSCP and ECN. */
export const IPV4_TOS = 1;
/** Bytes of header and payload. */
export const IPV4_TOTAL_LENGTH = 2;
/** Identification. */
export const IPV4_ID = 4;
/** Flags and fragment offset. */
export const IPV4_FRAGMENT = 6;
/** Time to live. */
export const IPV4_TTL = 8;
/** Protocol number. */
export const IPV4_PROTOCOL = 9;
/** Header checksum. */
export const IPV4_CHECKSUM = 10;
/** Source address; the destination follows. */
export const IPV4_SOURCE = 12;
/** Don't fragment, in the 16-bit word at IPV4_FRAGMENT. */
export const IPV4_DF = 0x4000;
/** More fragments, and the fragment offset: not 0 in any fragment. */
export const IPV4_MF_OR_OFFSET = 0x3fff;

/** The sum of a header of `headerBytes`, its checksum included. */
export function ipv4HeaderSum(view: DataView, at: number, headerBytes: number): number {
  return headerBytes === IPV4_HEADER_BYTES ? plainHeaderSum(view, at) : addToSum(view, at, headerBytes, 0);
}

/** The sum of a header without options: ten numbers, for which a loop is a detour. */
function plainHeaderSum(view: DataView, at: number): number {
  return view.getUint16(at, true) + view.getUint16(at + 2, true) + view.getUint16(at + 4, true) +
    view.getUint16(at + 6, true) + view.getUint16(at + 8, true) + view.getUint16(at + 10, true) +
    view.getUint16(at + 12, true) + view.getUint16(at + 14, true) + view.getUint16(at + 16, true) +
    view.getUint16(at + 18, true);
}

/** Computes and stores the checksum of a header of `headerBytes`. */
export function storeIpv4Checksum(view: DataView, at: number, headerBytes = IPV4_HEADER_BYTES): void {
  view.setUint16(at + IPV4_CHECKSUM, 0);
  storeChecksum(view, at + IPV4_CHECKSUM, ipv4HeaderSum(view, at, headerBytes));
}

/** The sum of the pseudo header of a transport segment of `segmentBytes` (RFC 9293, section 3.1). */
export function ipv4PseudoSum(view: DataView, at: number, protocol: number, segmentBytes: number): number {
  return addToSum(view, at + IPV4_SOURCE, 8, sumOf16(protocol) + sumOf16(segmentBytes));
}

/** Bytes of the fixed header of IPv6. */
export const IPV6_HEADER_BYTES = 40;
/** Version, traffic class and flow label: 32 bits. */
export const IPV6_FLOW = 0;
/** Bytes behind the fixed header. */
export const IPV6_PAYLOAD_LENGTH = 4;
/** The protocol number of what follows. */
export const IPV6_NEXT_HEADER = 6;
/** Hop limit. */
export const IPV6_HOP_LIMIT = 7;
/** Source address; the destination follows. */
export const IPV6_SOURCE = 8;

/**
 * Is this protocol number an extension header, behind which the transport header hides (IANA, IPv6 extension
 * headers)?
 */
export function isExtensionHeader(nextHeader: number): boolean {
  switch (nextHeader) {
    case 0: // hop-by-hop options
    case 43: // routing
    case 44: // fragment
    case 50: // encapsulating security payload
    case 51: // authentication
    case 60: // destination options
    case 135: // mobility
    case 139: // host identity
    case 140: // shim6
      return true;
    default:
      return false;
  }
}

/** The sum of the pseudo header of a transport segment of up to 65535 bytes (RFC 8200, section 8.1). */
export function ipv6PseudoSum(view: DataView, at: number, protocol: number, segmentBytes: number): number {
  return addToSum(view, at + IPV6_SOURCE, 32, sumOf16(protocol) + sumOf16(segmentBytes));
}

/** Bytes of a TCP header without options. */
export const TCP_HEADER_BYTES = 20;
/** Source and destination port: 32 bits. */
export const TCP_PORTS = 0;
/** Sequence number. */
export const TCP_SEQ = 4;
/** Acknowledgment number. */
export const TCP_ACK_NUMBER = 8;
/** Data offset (4 bits), reserved, and flags: 16 bits. */
export const TCP_OFFSET_FLAGS = 12;
/** Window. */
export const TCP_WINDOW = 14;
/** Checksum. */
export const TCP_CHECKSUM = 16;
/** Urgent pointer. */
export const TCP_URGENT = 18;

/** No more data from the sender. */
export const TCP_FIN = 0x001;
/** Synchronize sequence numbers. */
export const TCP_SYN = 0x002;
/** Reset the connection. */
export const TCP_RST = 0x004;
/** Push function. */
export const TCP_PSH = 0x008;
/** The acknowledgment number is significant. */
export const TCP_ACK = 0x010;
/** The urgent pointer is significant. */
export const TCP_URG = 0x020;
/** ECN echo (RFC 3168). */
export const TCP_ECE = 0x040;
/** Congestion window reduced (RFC 3168). */
export const TCP_CWR = 0x080;
/** Accurate ECN, once nonce sum (RFC 9768). */
export const TCP_AE = 0x100;

/** The usual timestamp block: NOP, NOP, kind 8, length 10; TSval and TSecr follow (RFC 7323, appendix A). */
export const TCP_TIMESTAMP_BLOCK = 0x0101080a;
/** Header bytes with that block and nothing else. */
export const TCP_TIMESTAMP_HEADER_BYTES = 32;
/** TSval, from the first byte of the header, in such a header. */
export const TCP_TIMESTAMP_VALUE = 24;
/** TSecr, likewise. */
export const TCP_TIMESTAMP_ECHO = 28;

/** Header bytes that the data offset of this 16-bit word tells: 0 to 60. */
export function tcpHeaderBytes(offsetFlags: number): number {
  return offsetFlags >>> 12 << 2;
}

/** Is sequence number `a` before `b`, modulo 2^32 (RFC 9293, section 3.4)? */
export function seqBefore(a: number, b: number): boolean {
  return (a - b | 0) < 0;
}

/** Bytes of a UDP header. */
export const UDP_HEADER_BYTES = 8;
/** Bytes of UDP header and data, from the first byte of the header. */
export const UDP_LENGTH = 4;
/** The UDP checksum, from the first byte of the header. */
export const UDP_CHECKSUM = 6;
