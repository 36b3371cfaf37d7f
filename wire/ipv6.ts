/**
 * IPv6 headers (RFC 8200): offsets from the first byte of the header, and sums.
 * @module
 */
import { addToSum, sumOf16 } from "./checksum.ts";

/** Bytes of the fixed header. */
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

/** Is this protocol number an extension header, behind which the transport header hides (IANA, IPv6 extension headers)? */
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
