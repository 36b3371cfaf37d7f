/**
 * What a packet must be, said in sentences: `assertTcp(bytes, hasSeq(1000), hasFlags("ACK"), hasRightChecksums())`.
 * @module
 */
import { AssertionError } from "@std/assert";
import { type ParsedTcp, parseTcp } from "./parse_tcp.ts";
import type { TcpFlag } from "./tcp_packet.ts";

/** Something that must hold for a TCP packet: null if it does, or else what is wrong, in words. */
export type TcpMatcher = (packet: ParsedTcp) => string | null;

/**
 * Asserts that a frame is a TCP packet for which all matchers hold. The error names everything that is wrong.
 *
 * @example
 * ```ts
 * import { assertTcp, hasFlags, hasRightChecksums, hasSeq } from "./matchers.ts";
 * import { tcp } from "./tcp_packet.ts";
 * assertTcp(tcp({ seq: 7, flags: ["ACK", "PSH"] }), hasSeq(7), hasFlags("PSH", "ACK"), hasRightChecksums());
 * ```
 */
export function assertTcp(frame: Uint8Array, ...matchers: readonly TcpMatcher[]): void {
  const packet = parseTcp(frame);
  const problems = matchers.map((matcher) => matcher(packet)).filter((problem) => problem !== null);
  if (problems.length > 0) throw new AssertionError(`The packet is wrong: ${problems.join("; ")}`);
}

/** Its sequence number is `seq`. */
export function hasSeq(seq: number): TcpMatcher {
  return (packet) => same("sequence number", packet.seq, seq);
}

/** Its acknowledgment number is `ack`. */
export function hasAck(ack: number): TcpMatcher {
  return (packet) => same("acknowledgment number", packet.ack, ack);
}

/** Its window is `window`. */
export function hasWindow(window: number): TcpMatcher {
  return (packet) => same("window", packet.window, window);
}

/** It has exactly these flags, in whatever order. */
export function hasFlags(...flags: readonly TcpFlag[]): TcpMatcher {
  return (packet) => same("flags", [...packet.flags].sort().join(" "), [...flags].sort().join(" "));
}

/** Its data is exactly this. */
export function hasPayload(payload: Uint8Array): TcpMatcher {
  return (packet) => {
    if (packet.payload.length !== payload.length) {
      return same("payload length", packet.payload.length, payload.length);
    }
    const at = payload.findIndex((byte, i) => byte !== packet.payload[i]);
    return at < 0 ? null : same(`payload byte ${at}`, packet.payload[at], payload[at]);
  };
}

/** Its length field is `ipLength`: total length (v4) or payload length (v6). */
export function hasIpLength(ipLength: number): TcpMatcher {
  return (packet) => same("IP length", packet.ipLength, ipLength);
}

/** Both its checksums are right. */
export function hasRightChecksums(): TcpMatcher {
  return (packet) => {
    if (!packet.ipChecksumRight) return "the IP header checksum is wrong";
    return packet.checksumRight ? null : "the TCP checksum is wrong";
  };
}

/** Its IP header checksum is right and its TCP checksum is the pseudo header's sum, as goes with NEEDS_CSUM. */
export function hasPartialChecksum(): TcpMatcher {
  return (packet) => {
    if (!packet.ipChecksumRight) return "the IP header checksum is wrong";
    return packet.checksumPartial ? null : "the TCP checksum is not the sum of the pseudo header";
  };
}

function same(what: string, got: number | string, wanted: number | string): string | null {
  return got === wanted ? null : `${what} is ${got}, not ${wanted}`;
}
