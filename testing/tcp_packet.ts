/**
 * Builders of TCP and UDP packets.
 * @module
 */
import { internetSum, pseudoHeaderSum } from "./internet_sum.ts";
import { addressesOf, type IpFields, ipFrame } from "./ip_packet.ts";

/** TCP flags by name (RFC 9293, section 3.1; AE: RFC 9768). */
export const TCP_FLAGS = {
  FIN: 0x001,
  SYN: 0x002,
  RST: 0x004,
  PSH: 0x008,
  ACK: 0x010,
  URG: 0x020,
  ECE: 0x040,
  CWR: 0x080,
  AE: 0x100,
} as const;

/** The name of a TCP flag. */
export type TcpFlag = keyof typeof TCP_FLAGS;

/** What both transport protocols have. */
export interface TransportFields extends IpFields {
  /** Source port; default 1111. */
  readonly sourcePort?: number;
  /** Destination port; default 80. */
  readonly destinationPort?: number;
  /** Data: the bytes, or how many of a pattern that only depends on their sequence number. Default none. */
  readonly payload?: number | Uint8Array;
  /**
   * Checksum. `partial` is the sum of the pseudo header alone, as goes with NEEDS_CSUM; a number is stored as it is.
   * Default `right`.
   */
  readonly checksum?: "right" | "wrong" | "partial" | number;
}

/** A TCP packet. What is left out makes the packet of an ordinary connection. */
export interface TcpFields extends TransportFields {
  /** Sequence number; default 1000. */
  readonly seq?: number;
  /** Acknowledgment number; default 1. */
  readonly ack?: number;
  /** Flags; default `["ACK"]`. */
  readonly flags?: readonly TcpFlag[];
  /** The three reserved bits, 0 to 7; default 0. */
  readonly reserved?: number;
  /** Window; default 500. */
  readonly window?: number;
  /** Urgent pointer; default 0. */
  readonly urgentPointer?: number;
  /** Options, a multiple of 4 bytes, 40 at most; default none, or the timestamp block. */
  readonly options?: Uint8Array;
  /** TSval and TSecr: makes the options NOP, NOP, timestamp (RFC 7323, appendix A). */
  readonly timestamp?: readonly [value: number, echo: number];
  /** Header length in words, as the header claims; by default right. */
  readonly dataOffset?: number;
}

/**
 * The byte that {@linkcode tcp} puts at a sequence number when only the length of the payload is given. Retransmissions
 * therefore repeat what was sent, and data in the wrong place is seen to be wrong.
 */
export function streamByte(seq: number): number {
  return Math.imul(seq, 0x9e3779b1) >>> 21 & 0xff;
}

/** `length` bytes of that pattern from sequence number `seq` on. */
export function streamBytes(seq: number, length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => streamByte(seq + i | 0));
}

/**
 * A frame with a TCP segment, over IPv4 or, if `source` is an IPv6 address, over IPv6.
 *
 * @example
 * ```ts
 * import { tcp } from "./tcp_packet.ts";
 * const first = tcp({ payload: 100 });
 * const next = tcp({ seq: 1100, payload: 100, flags: ["ACK", "PSH"] });
 * const v6 = tcp({ source: "fd00::1", payload: 100, timestamp: [7, 3] });
 * if (first.length !== 154 || next.length !== 154 || v6.length !== 186) throw new Error("unreachable");
 * ```
 */
export function tcp(fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  const { seq = 1000, flags = ["ACK"] } = fields;
  const options = fields.options ?? timestampBlock(fields.timestamp);
  const payload = payloadOf(fields, seq);
  const headerBytes = 20 + options.length;
  const segment = new Uint8Array(headerBytes + payload.length);
  const view = new DataView(segment.buffer);
  const bits = flags.reduce((sum, flag) => sum | TCP_FLAGS[flag], 0);
  view.setUint16(0, fields.sourcePort ?? 1111);
  view.setUint16(2, fields.destinationPort ?? 80);
  view.setUint32(4, seq);
  view.setUint32(8, fields.ack ?? 1);
  view.setUint16(12, (fields.dataOffset ?? headerBytes / 4) << 12 | (fields.reserved ?? 0) << 9 | bits);
  view.setUint16(14, fields.window ?? 500);
  view.setUint16(18, fields.urgentPointer ?? 0);
  segment.set(options, 20);
  segment.set(payload, headerBytes);
  view.setUint16(16, checksumOf(fields, 6, segment));
  return ipFrame(fields, 6, segment);
}

/** A frame with a UDP datagram; see {@linkcode tcp}. A checksum of 0 is sent as 0xffff, unless it is given as 0. */
export function udp(fields: TransportFields = {}): Uint8Array<ArrayBuffer> {
  const payload = payloadOf(fields, 0);
  const segment = new Uint8Array(8 + payload.length);
  const view = new DataView(segment.buffer);
  view.setUint16(0, fields.sourcePort ?? 1111);
  view.setUint16(2, fields.destinationPort ?? 80);
  view.setUint16(4, segment.length);
  segment.set(payload, 8);
  const checksum = checksumOf(fields, 17, segment);
  view.setUint16(6, checksum === 0 && fields.checksum === undefined ? 0xffff : checksum);
  return ipFrame(fields, 17, segment);
}

function payloadOf({ payload = 0 }: TransportFields, seq: number): Uint8Array {
  return typeof payload === "number" ? streamBytes(seq, payload) : payload;
}

function timestampBlock(timestamp: readonly [number, number] | undefined): Uint8Array {
  if (timestamp === undefined) return new Uint8Array(0);
  const block = new Uint8Array(12);
  block.set([1, 1, 8, 10]);
  new DataView(block.buffer).setUint32(4, timestamp[0]);
  new DataView(block.buffer).setUint32(8, timestamp[1]);
  return block;
}

/** The checksum of a segment whose checksum field is still 0. */
function checksumOf(fields: TransportFields, protocol: number, segment: Uint8Array): number {
  const { checksum = "right" } = fields;
  if (typeof checksum === "number") return checksum;
  const [source, destination] = addressesOf(fields);
  const pseudo = pseudoHeaderSum(source, destination, protocol, segment.length);
  if (checksum === "partial") return pseudo;
  const right = 0xffff - internetSum(segment, 0, segment.length, pseudo);
  return checksum === "right" ? right : right ^ 0x5555;
}
