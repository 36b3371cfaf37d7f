/**
 * Which flow a frame belongs to: where its addresses and ports are, and a hash that is the same in both directions.
 * @module
 */
import {
  ETHERNET_DESTINATION,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  etherType,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  payloadTypeAt,
} from "../../wire/ethernet.ts";
import {
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOTAL_LENGTH,
} from "../../wire/ipv4.ts";
import {
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  isExtensionHeader,
} from "../../wire/ipv6.ts";
import { PROTOCOL_TCP } from "../../wire/tcp.ts";

/** The protocol number of UDP (RFC 768). */
export const PROTOCOL_UDP = 17;

const EXTENSION_FRAGMENT = 44;
const EXTENSION_ESP = 50;
const EXTENSION_AUTHENTICATION = 51;
/** No honest packet chains more extension headers; an endless chain must not cost time. */
const MAX_EXTENSION_HEADERS = 8;
const PORTS_BYTES = 4;

/**
 * Finds a frame's addresses and ports. One object, refilled for each frame; nothing in a frame makes it throw.
 * Fragments count as having no ports, the first one too, so that all parts of a datagram are one flow.
 */
export class FlowLocator {
  /** IP version, 4 or 6; 0 if the frame is neither or cut short. */
  version = 0;
  /** Transport protocol behind all extension headers; only meaningful with a version. */
  protocol = 0;
  /** Where the source address is in the bytes, the destination address right behind; only with a version. */
  addressesAt = 0;
  /** Where the two TCP or UDP ports are; -1 if there are none to be seen. */
  portsAt: number = -1;

  /** Looks at the frame of `length` bytes from `start` on. */
  locate(bytes: Uint8Array, start: number, length: number): void {
    this.version = 0;
    this.portsAt = -1;
    const typeAt = payloadTypeAt(bytes, start, length);
    if (typeAt < 0) return;
    const type = etherType(bytes, typeAt);
    if (type === ETHERTYPE_IPV4) this.#locateIpv4(bytes, typeAt + 2, start + length);
    else if (type === ETHERTYPE_IPV6) this.#locateIpv6(bytes, typeAt + 2, start + length);
  }

  /**
   * A hash of 32 bits, signed, over addresses and ports, or over the MAC addresses of a frame that is not IP. It is the
   * same for both directions of a flow. Of the frame that was located last.
   */
  symmetricHash(bytes: Uint8Array, start: number, length: number): number {
    if (this.version === 0) return length < ETHERNET_HEADER_BYTES ? 0 : hashOfMacs(bytes, start);
    const addressBytes = this.version === 4 ? 4 : 16;
    const source = this.addressesAt;
    const destination = source + addressBytes;
    let hash = this.protocol;
    for (let i = 0; i < addressBytes; i += 4) {
      hash = mixPair(hash, be32(bytes, source + i), be32(bytes, destination + i));
    }
    const ports = this.portsAt;
    if (ports >= 0) hash = mixPair(hash, etherType(bytes, ports), etherType(bytes, ports + 2));
    return finish(hash);
  }

  #locateIpv4(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV4_HEADER_BYTES || bytes[at] >>> 4 !== 4) return;
    const headerBytes = (bytes[at] & 15) << 2;
    if (headerBytes < IPV4_HEADER_BYTES) return;
    this.version = 4;
    this.protocol = bytes[at + IPV4_PROTOCOL];
    this.addressesAt = at + IPV4_SOURCE;
    const fragment = (be16(bytes, at + IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET) !== 0;
    if (!fragment) this.#locatePorts(at + headerBytes, end, at + be16(bytes, at + IPV4_TOTAL_LENGTH));
  }

  #locateIpv6(bytes: Uint8Array, at: number, end: number): void {
    if (end - at < IPV6_HEADER_BYTES || bytes[at] >>> 4 !== 6) return;
    this.version = 6;
    this.addressesAt = at + IPV6_SOURCE;
    const packetEnd = at + IPV6_HEADER_BYTES + be16(bytes, at + IPV6_PAYLOAD_LENGTH);
    let protocol = bytes[at + IPV6_NEXT_HEADER];
    let header = at + IPV6_HEADER_BYTES;
    for (let count = 0; isExtensionHeader(protocol); count++) {
      const hidden = count === MAX_EXTENSION_HEADERS || protocol === EXTENSION_ESP || header + 8 > end ||
        protocol === EXTENSION_FRAGMENT && (be16(bytes, header + 2) & 0xfff9) !== 0;
      if (hidden) {
        this.protocol = protocol;
        return;
      }
      const next = bytes[header];
      const units = bytes[header + 1];
      if (protocol === EXTENSION_FRAGMENT) header += 8;
      else if (protocol === EXTENSION_AUTHENTICATION) header += units + 2 << 2;
      else header += units + 1 << 3;
      protocol = next;
    }
    this.protocol = protocol;
    this.#locatePorts(header, end, packetEnd);
  }

  /** Ports count only inside the frame and inside the packet: what lies behind its end is padding. */
  #locatePorts(at: number, end: number, packetEnd: number): void {
    if (this.protocol !== PROTOCOL_TCP && this.protocol !== PROTOCOL_UDP) return;
    if (at + PORTS_BYTES <= end && at + PORTS_BYTES <= packetEnd) this.portsAt = at;
  }
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
}

function hashOfMacs(bytes: Uint8Array, start: number): number {
  const destination = start + ETHERNET_DESTINATION;
  const source = start + ETHERNET_SOURCE;
  const high = mixPair(0, be16(bytes, destination), be16(bytes, source));
  return finish(mixPair(high, be32(bytes, destination + 2), be32(bytes, source + 2)));
}

/** Both the difference and the sum of a pair go in: neither alone tells 10.0.0.1 and .2 from 10.0.0.5 and .6. */
function mixPair(hash: number, a: number, b: number): number {
  const mixed = Math.imul(hash ^ a ^ b, 0x9e3779b1);
  return Math.imul((mixed ^ mixed >>> 15) + (a + b | 0) | 0, 0x85ebca77);
}

/**
 * Lets every bit of the input reach the low bits, which choose the slot and the queue. Signed: the engine would allocate
 * for a number of 2^31 or more.
 */
function finish(hash: number): number {
  let mixed = Math.imul(hash ^ hash >>> 16, 0x7feb352d);
  mixed = Math.imul(mixed ^ mixed >>> 15, 0x846ca68b);
  return mixed ^ mixed >>> 16;
}
