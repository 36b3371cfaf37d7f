/**
 * Finding the TCP or UDP header of any frame, for stages that work on checksums.
 * @module
 */
import type { Frame } from "../core/frame.ts";
import {
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  ipv4PseudoSum,
} from "../wire/ipv4.ts";
import { IPV6_HEADER_BYTES, IPV6_NEXT_HEADER, IPV6_PAYLOAD_LENGTH, ipv6PseudoSum } from "../wire/ipv6.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES } from "../wire/tcp.ts";

const PROTOCOL_UDP = 17;
const UDP_HEADER_BYTES = 8;
const ETHERNET_BYTES = 14;

/** Where a transport header is; one object, refilled. Offsets are absolute, in the storage of the frame's first piece. */
export class Transport {
  /** First byte of the header. */
  at = 0;
  /** Behind the last byte of the IP packet, as if the frame were in one piece. */
  endAt = 0;
  /** The sum of the pseudo header. */
  pseudoSum = 0;
  /** Has the sender computed a checksum at all? UDP over IPv4 need not. */
  hasChecksum = false;
}

/**
 * Finds an unfragmented TCP or UDP header right behind the IP header and fills `transport`. False for anything else, and for
 * frames whose lengths are not right. Padding behind the IP packet is left out of `endAt`.
 */
export function locateTransport(frame: Frame, transport: Transport): boolean {
  const { view } = frame;
  const ip = frame.start + ETHERNET_BYTES;
  const pieceEnd = frame.start + frame.length;
  const frameEnd = frame.start + frame.total;
  if (pieceEnd < ip + IPV4_HEADER_BYTES) return false;
  const etherType = view.getUint16(ip - 2);
  let protocol = 0;
  if (etherType === 0x0800) {
    const versionIhl = view.getUint8(ip);
    const headerBytes = (versionIhl & 15) << 2;
    if (versionIhl >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return false;
    if ((view.getUint16(ip + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0) return false;
    protocol = view.getUint8(ip + IPV4_PROTOCOL);
    transport.at = ip + headerBytes;
    transport.endAt = ip + view.getUint16(ip + IPV4_TOTAL_LENGTH);
  } else if (etherType === 0x86dd) {
    if (pieceEnd < ip + IPV6_HEADER_BYTES || view.getUint8(ip) >>> 4 !== 6) return false;
    protocol = view.getUint8(ip + IPV6_NEXT_HEADER);
    transport.at = ip + IPV6_HEADER_BYTES;
    transport.endAt = transport.at + view.getUint16(ip + IPV6_PAYLOAD_LENGTH);
  } else {
    return false;
  }
  if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return false;
  const headerBytes = protocol === PROTOCOL_TCP ? TCP_HEADER_BYTES : UDP_HEADER_BYTES;
  const header = transport.at + headerBytes;
  if (header > transport.endAt || header > pieceEnd || transport.endAt > frameEnd) return false;
  const bytes = transport.endAt - transport.at;
  transport.hasChecksum = protocol === PROTOCOL_TCP || view.getUint16(transport.at + 6) !== 0;
  transport.pseudoSum = etherType === 0x0800
    ? ipv4PseudoSum(view, ip, protocol, bytes)
    : ipv6PseudoSum(view, ip, protocol, bytes);
  return true;
}
