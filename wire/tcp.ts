/**
 * TCP headers (RFC 9293): offsets from the first byte of the header, flags, the timestamp option (RFC 7323).
 * @module
 */

/** The protocol number. */
export const PROTOCOL_TCP = 6;
/** Bytes of a header without options. */
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
