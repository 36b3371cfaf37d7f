/**
 * How much TCP payload a frame carries, for statistics: malformed frames carry none.
 * @module
 */
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_TYPE,
  etherType,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from "../../wire/ethernet.ts";
import { IPV4_FRAGMENT, IPV4_MF_OR_OFFSET, IPV4_PROTOCOL, IPV4_TOTAL_LENGTH } from "../../wire/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH } from "../../wire/ipv6.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS } from "../../wire/tcp.ts";

/** The frame is no TCP segment, or not a whole one. */
export const NO_TCP = -1;

/**
 * Bytes of TCP payload in a frame without VLAN tag, IPv4 fragmentation or IPv6 extension headers; else `NO_TCP`.
 * @param bytes where the frame is; @param at its first byte; @param length its bytes
 */
export function tcpPayloadBytes(bytes: Uint8Array, at: number, length: number): number {
  if (length < ETHERNET_HEADER_BYTES + 40) return NO_TCP;
  const ip = at + ETHERNET_HEADER_BYTES;
  const room = length - ETHERNET_HEADER_BYTES;
  let headerBytes: number;
  let ipBytes: number;
  switch (etherType(bytes, at + ETHERNET_TYPE)) {
    case ETHERTYPE_IPV4: {
      headerBytes = (bytes[ip] & 15) * 4;
      ipBytes = be16(bytes, ip + IPV4_TOTAL_LENGTH);
      const isFragment = (be16(bytes, ip + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0;
      if (headerBytes < 20 || bytes[ip + IPV4_PROTOCOL] !== PROTOCOL_TCP || isFragment) return NO_TCP;
      break;
    }
    case ETHERTYPE_IPV6:
      headerBytes = IPV6_HEADER_BYTES;
      ipBytes = IPV6_HEADER_BYTES + be16(bytes, ip + IPV6_PAYLOAD_LENGTH);
      if (bytes[ip + IPV6_NEXT_HEADER] !== PROTOCOL_TCP) return NO_TCP;
      break;
    default:
      return NO_TCP;
  }
  if (ipBytes > room || headerBytes + TCP_HEADER_BYTES > ipBytes) return NO_TCP;
  const tcpBytes = (bytes[ip + headerBytes + TCP_OFFSET_FLAGS] >>> 4) * 4;
  const payloadBytes = ipBytes - headerBytes - tcpBytes;
  return tcpBytes < TCP_HEADER_BYTES || payloadBytes < 0 ? NO_TCP : payloadBytes;
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}
