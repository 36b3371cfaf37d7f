/**
 * One TCP segment as a chain reads it: where its headers are, what they say, and whether its checksum is
 * right.
 * @module
 */
import type { Frame } from "../../pipeline/frame.ts";
import { fold, isSumRight } from "../../wire/checksum.ts";
import {
  TCP_ACK_NUMBER,
  TCP_CHECKSUM,
  TCP_OFFSET_FLAGS,
  TCP_SEQ,
  TCP_TIMESTAMP_BLOCK,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_HEADER_BYTES,
  TCP_TIMESTAMP_VALUE,
  TCP_WINDOW,
  tcpHeaderBytes,
} from "../../wire/tcp.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import type { RscFamily } from "./plugin.ts";

/** Words of the key: two IPv6 addresses and the ports. IPv4 uses the first three. */
export const MAX_KEY_WORDS = 9;

/**
 * One segment, as `RscFamily` parsed it (QEMU's `NetRscUnit`). One object, refilled for each frame. Offsets
 * are absolute, into the storage of the frame. 32-bit fields are signed: only differences and equality of
 * them are ever used.
 */
export class ParsedSegment {
  /** First byte of the IP header; set before the family locates the rest. */
  ipAt = 0;
  /** Which VLAN it is of, as `HeaderLocator` tells; 0 for the untagged network. */
  vlan = 0;
  /** Bytes of VLAN tags, those with id 0 included: 0, 4 or 8 if the segment may be merged. */
  tagBytes = 0;
  /** The outer tag, type and TCI; 0 if there is none. */
  outerTag = 0;
  /** The inner one. */
  innerTag = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header, as its data offset says. */
  tcpHeaderBytes = 0;
  /** First byte of payload. */
  payloadAt = 0;
  /** Bytes of payload, as the IP length says. */
  payloadBytes = 0;
  /** The IP length field: total length (v4) or payload length (v6). */
  ipLength = 0;
  /** Sequence number. */
  seq = 0;
  /** Acknowledgment number. */
  ack = 0;
  /** Window, as in the header. */
  window = 0;
  /** The 16-bit word of data offset and flags. */
  offsetFlags = 0;
  /**
   * What of the IP header must be equal in all segments that are merged: DSCP, ECN and DF, or traffic class
   * and flow label.
   */
  traits = 0;
  /** ECN bits of the IP header. */
  ecn = 0;
  /** TTL or hop limit. */
  hopLimit = 0;
  /** Does the header carry the timestamp block, and nothing else? */
  hasTimestamp = false;
  /** TSval, if so. */
  tsValue = 0;
  /** TSecr, if so. */
  tsEcho = 0;
  /** Source address, destination address, ports; in network order, as 32-bit words. */
  readonly key: Int32Array<ArrayBuffer> = new Int32Array(MAX_KEY_WORDS);
}

/**
 * Reads the fixed TCP header at `segment.tcpAt`, whose 20 bytes are there; `tcpBytes` is what the IP length
 * leaves for TCP.
 */
export function readTcp(view: DataView, segment: ParsedSegment, tcpBytes: number): void {
  const at = segment.tcpAt;
  const offsetFlags = view.getUint16(at + TCP_OFFSET_FLAGS);
  const headerBytes = tcpHeaderBytes(offsetFlags);
  segment.seq = view.getInt32(at + TCP_SEQ);
  segment.ack = view.getInt32(at + TCP_ACK_NUMBER);
  segment.offsetFlags = offsetFlags;
  segment.window = view.getUint16(at + TCP_WINDOW);
  segment.tcpHeaderBytes = headerBytes;
  segment.payloadAt = at + headerBytes;
  segment.payloadBytes = tcpBytes - headerBytes;
}

/** Reads the timestamp block, if the options are that block and nothing else; all header bytes are there. */
export function readTimestamp(view: DataView, segment: ParsedSegment): void {
  const at = segment.tcpAt;
  segment.hasTimestamp = segment.tcpHeaderBytes === TCP_TIMESTAMP_HEADER_BYTES &&
    view.getInt32(at + 20) === TCP_TIMESTAMP_BLOCK;
  if (segment.hasTimestamp) {
    segment.tsValue = view.getInt32(at + TCP_TIMESTAMP_VALUE);
    segment.tsEcho = view.getInt32(at + TCP_TIMESTAMP_ECHO);
  }
}

/** Where the first piece of a frame ends, in its storage. */
export function endOf(frame: Frame): number {
  return frame.start + frame.length;
}

/**
 * Tells whether the TCP checksum may be trusted: `right` if the network vouches for the data (DATA_VALID, or
 * NEEDS_CSUM for the TCP checksum: then it never left this host) or the checksum, computed here, is right. A
 * partial checksum must be on top of the right pseudo-header sum, for a coalesced segment gets a new one:
 * what would become a wrong checksum must not become a right one.
 */
export function checksumVerdict(
  frame: Frame,
  segment: ParsedSegment,
  family: RscFamily,
): "right" | "bad_tcp_checksum" | "odd_partial_checksum" {
  const { flags, csumStart, csumOffset } = frame.header;
  const tcpBytes = segment.tcpHeaderBytes + segment.payloadBytes;
  if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    const isTcp = frame.start + csumStart === segment.tcpAt && csumOffset === TCP_CHECKSUM;
    if (!isTcp) return "odd_partial_checksum";
    const seed = frame.view.getUint16(segment.tcpAt + TCP_CHECKSUM, true);
    const pseudo = fold(family.pseudoSum(frame.view, segment.ipAt, tcpBytes));
    // 0 and 0xffff are the same sum.
    return (seed - pseudo) % 0xffff === 0 ? "right" : "odd_partial_checksum";
  }
  if ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return "right";
  return isSumRight(family.segmentSum(frame.view, segment.ipAt, tcpBytes)) ? "right" : "bad_tcp_checksum";
}
