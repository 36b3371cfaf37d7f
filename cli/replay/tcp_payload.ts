/**
 * How much TCP payload a frame carries, for statistics: malformed frames carry none.
 * @module
 */
import { HeaderLocator } from "../../wire/headers.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS } from "../../wire/tcp.ts";

/** The frame is no TCP segment, or not a whole one. */
export const NO_TCP = -1;

const headers = new HeaderLocator();

/**
 * Bytes of TCP payload in a frame, behind whatever tags, options and extension headers; `NO_TCP` for a fragment, for another
 * protocol, and for a packet that is not wholly in the frame.
 * @param bytes where the frame is; @param at its first byte; @param length its bytes, or as many as it had if it was cut
 * @param there how many of its bytes are there; by default all
 */
export function tcpPayloadBytes(
  bytes: Uint8Array,
  at: number,
  length: number,
  there: number = length,
): number {
  headers.locate(bytes, at, there);
  const { version, transportAt, protocol } = headers;
  // A length of 0 ends with the frame, all of it.
  const packetEnd = headers.packetEnd === at + there
    ? Math.max(headers.packetEnd, at + length)
    : headers.packetEnd;
  if (version === 0 || transportAt < 0 || protocol !== PROTOCOL_TCP || packetEnd > at + length) return NO_TCP;
  if (transportAt + TCP_OFFSET_FLAGS >= at + there) return NO_TCP;
  const tcpBytes = (bytes[transportAt + TCP_OFFSET_FLAGS] >>> 4) * 4;
  const payloadBytes = packetEnd - transportAt - tcpBytes;
  return tcpBytes < TCP_HEADER_BYTES || payloadBytes < 0 ? NO_TCP : payloadBytes;
}
