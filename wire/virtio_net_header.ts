/**
 * The virtio-net header in front of every frame (virtio 1.2, section 5.1.6): constants, reading and writing.
 * Little-endian, at any offset of a byte array.
 * @module
 */
import {
  type FeatureBits,
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MRG_RXBUF,
} from "./net_features.ts";

/** The checksum is to be completed from `csum_start` on (virtio 1.2, section 5.1.6.2). */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** The checksum has been validated (virtio 1.2, section 5.1.6.4). */
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
/** `csum_start` and `csum_offset` count coalesced segments and duplicate ACKs (virtio 1.2, section 5.1.6.4). */
export const VIRTIO_NET_HDR_F_RSC_INFO = 4;

/** Not to be segmented. */
export const VIRTIO_NET_HDR_GSO_NONE = 0;
/** TCP over IPv4. */
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
/** UDP over IPv4, by IP fragmentation. */
export const VIRTIO_NET_HDR_GSO_UDP = 3;
/** TCP over IPv6. */
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
/** UDP, by several datagrams. */
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** Beside a TCP type: the segment has ECN state. */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** No hash was calculated (virtio 1.2, section 5.1.6.4.4). */
export const VIRTIO_NET_HASH_REPORT_NONE = 0;
/** Hash over the IPv4 addresses. */
export const VIRTIO_NET_HASH_REPORT_IPV4 = 1;
/** Hash over IPv4 addresses and TCP ports. */
export const VIRTIO_NET_HASH_REPORT_TCPV4 = 2;
/** Hash over IPv4 addresses and UDP ports. */
export const VIRTIO_NET_HASH_REPORT_UDPV4 = 3;
/** Hash over the IPv6 addresses. */
export const VIRTIO_NET_HASH_REPORT_IPV6 = 4;
/** Hash over IPv6 addresses and TCP ports. */
export const VIRTIO_NET_HASH_REPORT_TCPV6 = 5;
/** Hash over IPv6 addresses and UDP ports. */
export const VIRTIO_NET_HASH_REPORT_UDPV6 = 6;
/** Hash over the addresses found in IPv6 extension headers. */
export const VIRTIO_NET_HASH_REPORT_IPV6_EX = 7;
/** The same, and TCP ports. */
export const VIRTIO_NET_HASH_REPORT_TCPV6_EX = 8;
/** The same, and UDP ports. */
export const VIRTIO_NET_HASH_REPORT_UDPV6_EX = 9;

/** Bytes of the legacy header, which ends before `num_buffers`. */
export const LEGACY_NET_HEADER_BYTES = 10;
/** Bytes of the header with `num_buffers`. */
export const NET_HEADER_BYTES = 12;
/** Bytes of the header with `hash_value` and `hash_report`. */
export const HASH_NET_HEADER_BYTES = 20;

const FLAGS = 0;
const GSO_TYPE = 1;
const HDR_LEN = 2;
const GSO_SIZE = 4;
const CSUM_START = 6;
const CSUM_OFFSET = 8;
const NUM_BUFFERS = 10;
const HASH_VALUE = 12;
const HASH_REPORT = 16;

/** The fields that every form of the header has. */
export interface NetHeaderFields {
  /** NEEDS_CSUM 1, DATA_VALID 2, RSC_INFO 4. */
  flags: number;
  /** One of VIRTIO_NET_HDR_GSO_*. */
  gsoType: number;
  /** Bytes of all headers, a hint. */
  hdrLen: number;
  /** Bytes of payload in each segment. */
  gsoSize: number;
  /** Where checksumming starts; under RSC_INFO the number of coalesced segments. */
  csumStart: number;
  /** Where the checksum is stored, from `csumStart`; under RSC_INFO the number of duplicate ACKs. */
  csumOffset: number;
}

/** Bytes of the header that these features make: 10, 12 or 20 (virtio 1.2, sections 5.1.6 and 5.1.6.1). */
export function headerBytes(features: FeatureBits): number {
  if (features.has(VIRTIO_NET_F_HASH_REPORT)) return HASH_NET_HEADER_BYTES;
  const counted = features.has(VIRTIO_F_VERSION_1) || features.has(VIRTIO_NET_F_MRG_RXBUF);
  return counted ? NET_HEADER_BYTES : LEGACY_NET_HEADER_BYTES;
}

/** Reads the ten bytes that every form of the header has from `bytes[at]` on. They must be there. */
export function readNetHeader(bytes: Uint8Array, at: number, into: NetHeaderFields): void {
  into.flags = bytes[at + FLAGS];
  into.gsoType = bytes[at + GSO_TYPE];
  into.hdrLen = bytes[at + HDR_LEN] | bytes[at + HDR_LEN + 1] << 8;
  into.gsoSize = bytes[at + GSO_SIZE] | bytes[at + GSO_SIZE + 1] << 8;
  into.csumStart = bytes[at + CSUM_START] | bytes[at + CSUM_START + 1] << 8;
  into.csumOffset = bytes[at + CSUM_OFFSET] | bytes[at + CSUM_OFFSET + 1] << 8;
}

/**
 * Writes a header of `sizeBytes` (10, 12 or 20: {@linkcode headerBytes}) to `bytes[at]` on. `numBuffers` (0 to 65535)
 * is left out of the legacy form; the hash of the longest form says NONE until {@linkcode writeHashReport}.
 */
export function writeNetHeader(
  bytes: Uint8Array,
  at: number,
  from: Readonly<NetHeaderFields>,
  numBuffers: number,
  sizeBytes: number,
): void {
  bytes[at + FLAGS] = from.flags;
  bytes[at + GSO_TYPE] = from.gsoType;
  storeLe16(bytes, at + HDR_LEN, from.hdrLen);
  storeLe16(bytes, at + GSO_SIZE, from.gsoSize);
  storeLe16(bytes, at + CSUM_START, from.csumStart);
  storeLe16(bytes, at + CSUM_OFFSET, from.csumOffset);
  if (sizeBytes < NET_HEADER_BYTES) return;
  storeLe16(bytes, at + NUM_BUFFERS, numBuffers);
  for (let i = NET_HEADER_BYTES; i < sizeBytes; i++) bytes[at + i] = 0;
}

/** Fills `hash_value` (32 bits) and `hash_report` (one of VIRTIO_NET_HASH_REPORT_*) of a 20-byte header at `at`. */
export function writeHashReport(bytes: Uint8Array, at: number, value: number, report: number): void {
  storeLe16(bytes, at + HASH_VALUE, value);
  storeLe16(bytes, at + HASH_VALUE + 2, value >>> 16);
  storeLe16(bytes, at + HASH_REPORT, report);
}

function storeLe16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
}
