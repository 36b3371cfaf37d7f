/**
 * IPv4 (RFC 791) and IPv6 headers (RFC 8200): offsets from the first byte of the header, and sums.
 * @module
 */
import { addToSum, storeChecksum, sumOf16 } from "./checksum.ts";

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

/** Computes and stores the checksum of a header without options. */
export function storeIpv4Checksum(view: DataView, at: number): void {
  view.setUint16(at + IPV4_CHECKSUM, 0);
  storeChecksum(view, at + IPV4_CHECKSUM, plainHeaderSum(view, at));
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
