/**
 * IP headers around a transport segment, right by default and wrong where a field says so.
 * @module
 */
import { ipBytes, isIpv6Text } from "./addresses.ts";
import { ethernet, type LinkFields } from "./ethernet_frame.ts";
import { internetChecksum } from "./internet_sum.ts";

/** The IP part of a packet. The source address decides between IPv4 and IPv6. */
export interface IpFields extends LinkFields {
  /** Source address; default 10.0.0.1. */
  readonly source?: string;
  /** Destination address, of the same family; default 10.0.0.2, or fd00::2 if the source is an IPv6 address. */
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
  /** IPv6: an extension header between the IPv6 header and the segment; `bytes` is a multiple of 8. Default none. */
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
