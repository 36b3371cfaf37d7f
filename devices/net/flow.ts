/**
 * Which flow a frame belongs to: a hash of its addresses and ports that is the same in both directions.
 * @module
 */
import {
  ETHERNET_DESTINATION,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  etherType,
} from "../../wire/ethernet.ts";
import type { HeaderLocator } from "../../wire/headers.ts";

/**
 * A hash of 32 bits, signed, over addresses and ports, or over the MAC addresses of a frame that is not IP. It is the
 * same for both directions of a flow and for every form of its frames. Fragments have no ports, the first one neither, so
 * that all parts of a datagram are one flow.
 * @param headers where the headers of this frame were found
 */
export function symmetricHash(
  headers: HeaderLocator,
  bytes: Uint8Array,
  start: number,
  length: number,
): number {
  if (headers.version === 0) return length < ETHERNET_HEADER_BYTES ? 0 : hashOfMacs(bytes, start);
  const { addressBytes, addressesAt: source, portsAt: ports } = headers;
  const destination = source + addressBytes;
  let hash = headers.protocol;
  for (let i = 0; i < addressBytes; i += 4) {
    hash = mixPair(hash, be32(bytes, source + i), be32(bytes, destination + i));
  }
  if (ports >= 0) hash = mixPair(hash, etherType(bytes, ports), etherType(bytes, ports + 2));
  return finish(hash);
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
