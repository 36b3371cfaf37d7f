/**
 * The virtio-net header in front of every frame (virtio 1.2, section 5.1.6): constants, reading and writing.
 * Little-endian, at any offset.
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
/**
 * `csum_start` and `csum_offset` count coalesced segments and duplicate ACKs (virtio 1.2, section 5.1.6.4).
 */
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

/** Offsets of fields; gso_type (1) and hdr_len (2) go with flags, csum_start (6) with gso_size. */
const FLAGS = 0;
const GSO_SIZE = 4;
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

/**
 * Reads the ten bytes that every form of the header has from offset `at` of `view` on. They must be there.
 */
export function readNetHeader(view: DataView, at: number, into: NetHeaderFields): void {
  const kind = view.getUint32(at + FLAGS, true);
  const segments = view.getUint32(at + GSO_SIZE, true);
  into.flags = kind & 0xff;
  into.gsoType = kind >>> 8 & 0xff;
  into.hdrLen = kind >>> 16;
  into.gsoSize = segments & 0xffff;
  into.csumStart = segments >>> 16;
  into.csumOffset = view.getUint16(at + CSUM_OFFSET, true);
}

/**
 * Writes a header of `sizeBytes` (10, 12 or 20: {@linkcode headerBytes}) to offset `at` of `view` on.
 * `numBuffers` (0 to 65535) is left out of the legacy form; the hash of the longest form says NONE until
 * {@linkcode writeHashReport}.
 */
export function writeNetHeader(
  view: DataView,
  at: number,
  from: Readonly<NetHeaderFields>,
  numBuffers: number,
  sizeBytes: number,
): void {
  // Two fields a store: byte by byte it is a tenth of all that a short frame costs.
  view.setUint32(at + FLAGS, from.flags & 0xff | (from.gsoType & 0xff) << 8 | from.hdrLen << 16, true);
  view.setUint32(at + GSO_SIZE, from.gsoSize & 0xffff | from.csumStart << 16, true);
  view.setUint16(at + CSUM_OFFSET, from.csumOffset, true);
  if (sizeBytes < NET_HEADER_BYTES) return;
  view.setUint16(at + NUM_BUFFERS, numBuffers, true);
  for (let i = NET_HEADER_BYTES; i < sizeBytes; i += 4) view.setUint32(at + i, 0, true);
}

/**
 * Fills `hash_value` (32 bits) and `hash_report` (one of VIRTIO_NET_HASH_REPORT_*) of a 20-byte header at
 * `at`.
 */
export function writeHashReport(view: DataView, at: number, value: number, report: number): void {
  view.setUint32(at + HASH_VALUE, value, true);
  view.setUint16(at + HASH_REPORT, report, true);
}
