/**
 * Builders of Ethernet frames, ARP, IP, TCP and UDP packets, right by default and wrong where a field says
 * so.
 *
 * Checksums and addresses are computed here by code of its own, as plain as it can be: tests must not check
 * the code of devices with itself.
 *
 * @module
 */

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
   * Checksum. `partial` is the sum of the pseudo header alone, as goes with NEEDS_CSUM; a number is stored as
   * it is. Default `right`.
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
 * The byte that {@linkcode tcp} puts at a sequence number when only the length of the payload is given.
 * Retransmissions therefore repeat what was sent, and data in the wrong place is seen to be wrong.
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
 * import { tcp } from "./packets.ts";
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

/**
 * A frame with a UDP datagram; see {@linkcode tcp}. A checksum of 0 is sent as 0xffff, unless it is given as
 * 0.
 */
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

/**
 * Makes the segments of a flow: each begins where the one before it ended.
 *
 * @example
 * ```ts
 * import { parseTcp } from "./parse_tcp.ts";
 * import { TcpStream } from "./packets.ts";
 * const stream = new TcpStream({ sourcePort: 5001, seq: 0xffffffc0 });
 * stream.next(100);
 * if (parseTcp(stream.next(100)).seq !== 0x24) throw new Error("unreachable");
 * ```
 */
export class TcpStream {
  readonly #fields: TcpFields;
  #seq: number;

  /**
   * Starts at the first sequence number. @param fields what all segments have in common, and the first
   * sequence number (default 1000)
   */
  constructor(fields: TcpFields = {}) {
    this.#fields = fields;
    this.#seq = fields.seq ?? 1000;
  }

  /** The sequence number of the next segment. */
  get seq(): number {
    return this.#seq;
  }

  /** The next segment, with this payload. @param changes what only this segment has */
  next(payload: number | Uint8Array, changes: TcpFields = {}): Uint8Array<ArrayBuffer> {
    const frame = tcp({ ...this.#fields, ...changes, seq: this.#seq, payload });
    this.#seq = (this.#seq + (typeof payload === "number" ? payload : payload.length)) >>> 0;
    return frame;
  }
}

/** The IP part of a packet. The source address decides between IPv4 and IPv6. */
export interface IpFields extends LinkFields {
  /** Source address; default 10.0.0.1. */
  readonly source?: string;
  /**
   * Destination address, of the same family; default 10.0.0.2, or fd00::2 if the source is an IPv6 address.
   */
  readonly destination?: string;
  /** TOS or traffic class, 0 to 255: DSCP and ECN; default 0. */
  readonly tos?: number;
  /** TTL or hop limit; default 64. */
  readonly ttl?: number;
  /** Protocol number or next header; by default what the packet is. */
  readonly protocol?: number;
  /** Version number in the header; by default that of the addresses. */
  readonly ipVersion?: number;
  /** The length field: total length (v4) or payload length (v6); by default right. */
  readonly ipLength?: number;
  /** IPv4: identification; default 1. */
  readonly id?: number;
  /** IPv4: may routers not fragment it? Default true. */
  readonly dontFragment?: boolean;
  /** IPv4: do fragments follow? Default false. */
  readonly moreFragments?: boolean;
  /** IPv4: fragment offset in units of 8 bytes; default 0. */
  readonly fragmentOffset?: number;
  /** IPv4: options, a multiple of 4 bytes, 40 at most; default none. */
  readonly ipOptions?: Uint8Array;
  /** IPv4: header length in words, as the header claims; by default right. */
  readonly ipHeaderWords?: number;
  /** IPv4: header checksum; default `right`. */
  readonly ipChecksum?: "right" | "wrong" | number;
  /** IPv6: flow label; default 0. */
  readonly flowLabel?: number;
  /**
   * IPv6: an extension header between the IPv6 header and the segment; `bytes` is a multiple of 8. Default
   * none.
   */
  readonly extension?: { readonly type: number; readonly bytes: Uint8Array };
}

/** The addresses of a packet, in bytes: `[source, destination]`. */
export function addressesOf(fields: IpFields): [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>] {
  const { source = "10.0.0.1" } = fields;
  const destination = fields.destination ?? (isIpv6Text(source) ? "fd00::2" : "10.0.0.2");
  const addresses: [Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>] = [
    ipBytes(source),
    ipBytes(destination),
  ];
  if (addresses[0].length !== addresses[1].length) {
    throw new RangeError(`Cannot send from ${source} to ${destination}: both must be of one family`);
  }
  return addresses;
}

/** A frame that carries this transport segment. */
export function ipFrame(fields: IpFields, protocol: number, segment: Uint8Array): Uint8Array<ArrayBuffer> {
  const [source, destination] = addressesOf(fields);
  const isV4 = source.length === 4;
  const header = isV4
    ? ipv4Header(fields, source, destination, protocol, segment.length)
    : ipv6Header(fields, source, destination, protocol, segment.length);
  const payload = new Uint8Array(header.length + segment.length);
  payload.set(header, 0);
  payload.set(segment, header.length);
  return ethernet({ ...fields, etherType: fields.etherType ?? (isV4 ? 0x0800 : 0x86dd), payload });
}

function ipv4Header(
  fields: IpFields,
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  segmentBytes: number,
): Uint8Array {
  const { ipOptions = new Uint8Array(0), ipChecksum = "right" } = fields;
  const headerBytes = 20 + ipOptions.length;
  const header = new Uint8Array(headerBytes);
  const view = new DataView(header.buffer);
  const flags = (fields.dontFragment === false ? 0 : 2) | (fields.moreFragments === true ? 1 : 0);
  view.setUint8(0, (fields.ipVersion ?? 4) << 4 | (fields.ipHeaderWords ?? headerBytes / 4));
  view.setUint8(1, fields.tos ?? 0);
  view.setUint16(2, fields.ipLength ?? headerBytes + segmentBytes);
  view.setUint16(4, fields.id ?? 1);
  view.setUint16(6, flags << 13 | (fields.fragmentOffset ?? 0));
  view.setUint8(8, fields.ttl ?? 64);
  view.setUint8(9, fields.protocol ?? protocol);
  header.set(source, 12);
  header.set(destination, 16);
  header.set(ipOptions, 20);
  const right = internetChecksum(header);
  view.setUint16(10, ipChecksum === "right" ? right : ipChecksum === "wrong" ? right ^ 0x5555 : ipChecksum);
  return header;
}

function ipv6Header(
  fields: IpFields,
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  segmentBytes: number,
): Uint8Array {
  const { extension } = fields;
  const extensionBytes = extension?.bytes ?? new Uint8Array(0);
  const header = new Uint8Array(40 + extensionBytes.length);
  const view = new DataView(header.buffer);
  view.setUint32(0, (fields.ipVersion ?? 6) << 28 | (fields.tos ?? 0) << 20 | (fields.flowLabel ?? 0));
  view.setUint16(4, fields.ipLength ?? extensionBytes.length + segmentBytes);
  view.setUint8(6, extension?.type ?? fields.protocol ?? protocol);
  view.setUint8(7, fields.ttl ?? 64);
  header.set(source, 8);
  header.set(destination, 24);
  header.set(extensionBytes, 40);
  if (extension !== undefined) view.setUint8(40, fields.protocol ?? protocol);
  return header;
}

/** The address that frames to the guest have unless told otherwise: the default of the `net` device. */
export const GUEST_MAC = "52:54:00:12:34:56";
/** The address that frames from the network have unless told otherwise. */
export const PEER_MAC = "02:aa:bb:cc:dd:ee";

/** A VLAN tag (IEEE 802.1Q). */
export interface VlanTag {
  /** VLAN id, 0 to 4095. */
  readonly id: number;
  /** Priority, 0 to 7; default 0. */
  readonly priority?: number;
  /** EtherType of the tag; default 0x8100. */
  readonly type?: number;
}

/** The Ethernet part of any frame. */
export interface LinkFields {
  /** Destination address; default {@linkcode GUEST_MAC}. */
  readonly destinationMac?: string;
  /** Source address; default {@linkcode PEER_MAC}. */
  readonly sourceMac?: string;
  /** Tags in front of the EtherType, the outermost first; default none. */
  readonly vlans?: readonly VlanTag[];
  /** EtherType; by default that of the payload. */
  readonly etherType?: number;
  /** Bytes behind the payload that belong to no packet; a number makes so many of 0xee. Default none. */
  readonly padding?: number | Uint8Array;
}

/** A frame of any kind. */
export interface EthernetFields extends LinkFields {
  /** What follows the EtherType; default none. */
  readonly payload?: Uint8Array;
}

/**
 * An Ethernet frame without FCS. The EtherType is by default one for local experiments, 0x88b5.
 *
 * @example
 * ```ts
 * import { ethernet } from "./packets.ts";
 * const frame = ethernet({ etherType: 0x88b5, payload: new Uint8Array(46) });
 * if (frame.length !== 60) throw new Error("unreachable");
 * ```
 */
export function ethernet(fields: EthernetFields = {}): Uint8Array<ArrayBuffer> {
  const { vlans = [], payload = new Uint8Array(0), padding = 0 } = fields;
  const behind = typeof padding === "number" ? new Uint8Array(padding).fill(0xee) : padding;
  const headerBytes = 14 + 4 * vlans.length;
  const frame = new Uint8Array(headerBytes + payload.length + behind.length);
  const view = new DataView(frame.buffer);
  frame.set(macBytes(fields.destinationMac ?? GUEST_MAC), 0);
  frame.set(macBytes(fields.sourceMac ?? PEER_MAC), 6);
  for (const [i, { id, priority = 0, type = 0x8100 }] of vlans.entries()) {
    view.setUint16(12 + 4 * i, type);
    view.setUint16(14 + 4 * i, priority << 13 | id);
  }
  view.setUint16(headerBytes - 2, fields.etherType ?? 0x88b5);
  frame.set(payload, headerBytes);
  frame.set(behind, headerBytes + payload.length);
  return frame;
}

/** An ARP packet for IPv4 over Ethernet (RFC 826). */
export interface ArpFields extends LinkFields {
  /** 1 request, 2 reply; default 1. */
  readonly operation?: number;
  /** Protocol address of the sender; default 10.0.0.1. */
  readonly source?: string;
  /** Protocol address that is asked for; default 10.0.0.2. */
  readonly target?: string;
}

/** An ARP frame of 60 bytes; a request is broadcast unless it is told a destination. */
export function arp(fields: ArpFields = {}): Uint8Array<ArrayBuffer> {
  const { operation = 1, source = "10.0.0.1", target = "10.0.0.2" } = fields;
  const payload = new Uint8Array(46);
  const view = new DataView(payload.buffer);
  view.setUint16(0, 1);
  view.setUint16(2, 0x0800);
  payload.set([6, 4], 4);
  view.setUint16(6, operation);
  payload.set(macBytes(fields.sourceMac ?? PEER_MAC), 8);
  payload.set(ipBytes(source), 14);
  if (operation !== 1) payload.set(macBytes(fields.destinationMac ?? GUEST_MAC), 18);
  payload.set(ipBytes(target), 24);
  return ethernet({
    etherType: 0x0806,
    payload,
    ...fields,
    destinationMac: fields.destinationMac ?? (operation === 1 ? "ff:ff:ff:ff:ff:ff" : GUEST_MAC),
  });
}

/**
 * The folded Internet checksum sum (RFC 1071), two bytes at a time, most significant first, of the bytes
 * `from` to `to - 1`, on top of `sum`. An odd last byte counts as if a zero followed.
 */
export function internetSum(bytes: Uint8Array, from = 0, to: number = bytes.length, sum = 0): number {
  let total = sum;
  for (let i = from; i < to; i += 2) {
    total += bytes[i] * 256 + (i + 1 < to ? bytes[i + 1] : 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

/** The checksum of the bytes: the complement of their sum. */
export function internetChecksum(bytes: Uint8Array, from = 0, to: number = bytes.length, sum = 0): number {
  return 0xffff - internetSum(bytes, from, to, sum);
}

/**
 * The sum of a TCP or UDP pseudo header (RFC 9293, section 3.1; RFC 8200, section 8.1). Addresses are 4 or 16
 * bytes.
 */
export function pseudoHeaderSum(
  source: Uint8Array,
  destination: Uint8Array,
  protocol: number,
  segmentBytes: number,
): number {
  const rest = new Uint8Array(8);
  const view = new DataView(rest.buffer);
  view.setUint32(0, segmentBytes);
  view.setUint32(4, protocol);
  return internetSum(rest, 0, 8, internetSum(destination, 0, destination.length, internetSum(source)));
}

/** The six bytes of a MAC address such as `52:54:00:12:34:56`, with colons or hyphens. Throws RangeError. */
export function macBytes(text: string): Uint8Array<ArrayBuffer> {
  const parts = text.split(text.includes("-") ? "-" : ":");
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-f]{2}$/i.test(part))) {
    throw new RangeError(`Cannot read MAC address "${text}": write six bytes such as 52:54:00:12:34:56`);
  }
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

/** The MAC address at `at`, as text. */
export function macText(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.slice(at, at + 6), (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Is this the text of an IPv6 address? */
export function isIpv6Text(text: string): boolean {
  return text.includes(":");
}

/** The 4 or 16 bytes of an IP address such as `10.0.0.1` or `fd00::1`. Throws RangeError. */
export function ipBytes(text: string): Uint8Array<ArrayBuffer> {
  const bytes = isIpv6Text(text) ? ipv6Bytes(text) : ipv4Bytes(text);
  if (bytes === null) {
    throw new RangeError(`Cannot read IP address "${text}": write one such as 10.0.0.1 or fd00::1`);
  }
  return bytes;
}

/**
 * The IP address of 4 or 16 bytes at `at`, as text. The longest run of zero groups is not looked for, only
 * the first.
 */
export function ipText(bytes: Uint8Array, at: number, length: 4 | 16): string {
  if (length === 4) return bytes.slice(at, at + 4).join(".");
  const groups: string[] = [];
  for (let i = at; i < at + 16; i += 2) groups.push((bytes[i] << 8 | bytes[i + 1]).toString(16));
  const shortened = groups.join(":").replace(/(^|:)0(:0)+(:|$)/, "::");
  return shortened;
}

function ipv4Bytes(text: string): Uint8Array<ArrayBuffer> | null {
  const parts = text.split(".");
  const valid = parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256);
  return valid ? Uint8Array.from(parts, Number) : null;
}

function ipv6Bytes(text: string): Uint8Array<ArrayBuffer> | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [left, right] = halves.map((half) => half === "" ? [] : half.split(":"));
  const missing = 8 - left.length - (right?.length ?? 0);
  if (right === undefined ? missing !== 0 : missing < 1) return null;
  const groups = right === undefined ? left : [...left, ...new Array<string>(missing).fill("0"), ...right];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return Uint8Array.from(groups.flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >>> 8, value & 0xff];
  }));
}
