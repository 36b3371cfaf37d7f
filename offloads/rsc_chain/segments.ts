/**
 * Segments: one as an IP version parses it (`ParsedSegment`), what is held of a flow (`CoalescedSegment`),
 * and what an IP version does differently (`RscFamily`).
 * @module
 */
import type { Frame, FrameOwner } from "../../pipeline/frame.ts";
import { addToSum, fold, isSumRight, sumOf16 } from "../../wire/checksum.ts";
import {
  PROTOCOL_TCP,
  TCP_ACK_NUMBER,
  TCP_CHECKSUM,
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  TCP_SEQ,
  TCP_TIMESTAMP_BLOCK,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_HEADER_BYTES,
  TCP_TIMESTAMP_VALUE,
  TCP_WINDOW,
  tcpHeaderBytes,
} from "../../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";

/** Words of the key: two IPv6 addresses and the ports. IPv4 uses the first three. */
export const MAX_KEY_WORDS = 9;

/**
 * What a chain looks at first, of a segment at hand and of what is held. Offsets are absolute, into the
 * storage of the frame. 32-bit fields are signed: only differences and equality of them are ever used.
 */
class SegmentHeaders {
  /** Which VLAN it is of, as `HeaderLocator` tells; 0 for the untagged network. */
  vlan = 0;
  /** Sequence number of the first byte. */
  seq = 0;
  /** Bytes of payload, as the IP length says. */
  payloadBytes = 0;
  /** The IP length field: total length (v4) or payload length (v6). */
  ipLength = 0;
  /** Acknowledgment number. */
  ack = 0;
  /** Window, as in the header. */
  window = 0;
  /** The 16-bit word of data offset and flags. */
  offsetFlags = 0;
}

/**
 * One segment, as `RscFamily` parsed it (QEMU's `NetRscUnit`). One object, refilled for each frame. `ipAt`,
 * `vlan` and the tags are set before the family locates the rest.
 */
export class ParsedSegment extends SegmentHeaders {
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header, as its data offset says. */
  tcpHeaderBytes = 0;
  /**
   * What of the IP header must be equal in all segments that are merged: DSCP, ECN and DF, or traffic class
   * and flow label.
   */
  traits = 0;
  /** TTL or hop limit. */
  hopLimit = 0;
  /** The outer VLAN tag, type and TCI; 0 if there is none. */
  outerTag = 0;
  /** The inner one. */
  innerTag = 0;
  /** Does the header carry the timestamp block, and nothing else? */
  hasTimestamp = false;
  /** TSval, if so. */
  tsValue = 0;
  /** TSecr, if so. */
  tsEcho = 0;
  /** Bytes of VLAN tags, those with id 0 included: 0, 4 or 8 if the segment may be merged. */
  tagBytes = 0;
  /** First byte of payload. */
  payloadAt = 0;
  /** ECN bits of the IP header. */
  ecn = 0;
  /** Source address, destination address, ports; in network order, as 32-bit words. */
  readonly key: Int32Array<ArrayBuffer> = new Int32Array(MAX_KEY_WORDS);
}

/**
 * What a chain holds of one flow (QEMU's `NetRscSeg`, an item of DPDK's GRO). The frame's pieces are the
 * payloads as they arrived, not copied; the headers say what is written once, at the flush: the latest
 * acknowledgment, window, flags and timestamps, the lengths of all that is held and, of TTLs and hop limits,
 * the smallest. What every segment looks at stands first, so that it shares cache lines; what only strict
 * rules keep and what only the flush needs comes behind. The frame itself is not touched between opening and
 * flush.
 */
export class CoalescedSegment extends SegmentHeaders {
  /** Hash of the flow's key. */
  hash = 0;
  /** The first words of the key, which are all of it for IPv4; the table keeps whole keys. */
  key0 = 0;
  /** Second word. */
  key1 = 0;
  /** Third word. */
  key2 = 0;
  /** What it is recalled by, see `RecentFlows`. */
  tag = 0;
  /** Segments merged, as the rule book counts them. */
  segments = 0;
  /** How many had been opened since the chain was last empty, when this one was. */
  order = 0;
  /** Strict rules: where its flow is claimed (`FlowClaims`); -1 if it is not. */
  claim: number = -1;
  /** Has anything been merged into it? A window counts. */
  changed = false;
  /** The last of the frame's pieces. */
  tail: Frame | null = null;
  /** Bytes in all pieces of the frame, which the frame gets at the flush. */
  totalBytes = 0;
  /** How many pieces the frame has, which it gets at the flush too. */
  pieces = 0;
  /** Where all pieces return to; null if that is not one place. */
  owner: FrameOwner | null = null;
  /** Strict rules: what of the IP header must be equal, as in the segment that opened it. */
  traits = 0;
  /** Strict rules: the smallest TTL or hop limit. */
  hopLimit = 0;
  /** Strict rules: the outer VLAN tag. */
  outerTag = 0;
  /** Strict rules: the inner one. */
  innerTag = 0;
  /** Strict rules: has it the timestamp block? */
  hasTimestamp = false;
  /** Strict rules: the latest TSval. */
  tsValue = 0;
  /** Strict rules: the latest TSecr. */
  tsEcho = 0;
  /** Strict rules: the two MAC addresses, as three words. */
  macs0 = 0;
  /** Second word. */
  macs1 = 0;
  /** Third word. */
  macs2 = 0;
  /** Strict rules: the queue pair it goes to. */
  queue = 0;
  /** Strict rules: bytes of payload of the largest segment. */
  largestSegmentBytes = 0;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header, as its data offset says. */
  tcpHeaderBytes = 0;
  /** Its place in the table; never changes. */
  readonly index: number;
  /** The frame that opened it, followed by the merged payloads. Null while nothing is held here. */
  frame: Frame | null = null;
  /** The one that was opened before this one. */
  previous: CoalescedSegment | null = null;
  /** The one that was opened after this one. */
  following: CoalescedSegment | null = null;
  /** The list of flows with like addresses in which it is. */
  pairSlot = 0;
  /** The one that was opened before this one in that list. */
  previousOfPair: CoalescedSegment | null = null;
  /** The one that was opened after this one in that list. */
  followingOfPair: CoalescedSegment | null = null;

  /** Holds nothing. @param index its place in the table */
  constructor(index: number) {
    super();
    this.index = index;
  }

  /** Takes what every rule book keeps of the segment that opens it; the table has set `vlan`. */
  begin(segment: ParsedSegment): void {
    this.seq = segment.seq;
    this.payloadBytes = segment.payloadBytes;
    this.ipLength = segment.ipLength;
    this.ack = segment.ack;
    this.window = segment.window;
    this.offsetFlags = segment.offsetFlags;
    this.ipAt = segment.ipAt;
    this.tcpAt = segment.tcpAt;
    this.tcpHeaderBytes = segment.tcpHeaderBytes;
  }

  /** Writes the latest flags, acknowledgment and window into the frame. */
  writeLatest(view: DataView): void {
    view.setUint16(this.tcpAt + TCP_OFFSET_FLAGS, this.offsetFlags);
    view.setInt32(this.tcpAt + TCP_ACK_NUMBER, this.ack);
    view.setUint16(this.tcpAt + TCP_WINDOW, this.window);
  }
}

/** Why a frame is no segment that could be merged, under strict rules; `segment` if it is one. */
export type Located =
  | "segment"
  | "not_tcp"
  | "too_short"
  | "bad_version"
  | "ip_options"
  | "extension_header"
  | "fragment"
  | "bad_length"
  | "bad_ip_checksum"
  | "bad_data_offset";

/** What the reference's own checks say: `candidate`, or the counter under which the frame passes. */
export type QemuLocated =
  | "candidate"
  | "bypass_not_tcp"
  | "ip_option"
  | "ip_frag"
  | "ip_ecn"
  | "ip_hacked"
  | "uncounted";

/**
 * One IP version. The chain decides; a family locates headers, tells what must be equal, and writes lengths.
 */
export interface RscFamily {
  /** `v4` or `v6`. */
  readonly name: "v4" | "v6";
  /** IP version. */
  readonly version: 4 | 6;
  /** EtherType of its frames. */
  readonly etherType: number;
  /** gso_type of a merged packet: TCPV4 1 or TCPV6 4. */
  readonly gsoType: number;
  /** Feature bit without which the guest takes no merged packet of this family: GUEST_TSO4 or GUEST_TSO6. */
  readonly guestTso: number;
  /** Where the addresses are in the IP header, the source's before the destination's. */
  readonly addressesAt: number;
  /** Bytes of both addresses. */
  readonly addressesBytes: number;
  /** 32-bit words of a flow's key; the last holds the ports. */
  readonly keyWords: number;
  /** Bytes of IP header that the IP length field does not count. */
  readonly ipHeaderUncounted: number;
  /** Largest value of the IP length field under the reference's rules. */
  readonly maxIpLengthQemu: number;

  /**
   * Finds the segment behind the link header in the first piece of a frame, from `segment.ipAt` on, checking
   * every length, and fills `segment`: all of it where the answer is `segment`.
   */
  locate(frame: Frame, segment: ParsedSegment): Located;
  /** Fills the addresses of the key from where they are. */
  fillAddresses(view: DataView, segment: ParsedSegment, sourceAt: number, destinationAt: number): void;
  /**
   * The reference's checks, in its order; fills all fields of `segment` that its rules need if it is a
   * candidate.
   */
  locateQemu(frame: Frame, segment: ParsedSegment): QemuLocated;
  /**
   * Writes the IP length of a merged packet, and under strict rules (`renew`) hop limit and header checksum
   * as well.
   */
  finish(view: DataView, held: CoalescedSegment, renew: boolean): void;
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

/**
 * As `readTcp`, and the timestamp block, if the options are that block and nothing else: the last step of
 * `RscFamily.locate`.
 */
export function readSegment(
  view: DataView,
  segment: ParsedSegment,
  tcpBytes: number,
): "segment" | "bad_data_offset" {
  readTcp(view, segment, tcpBytes);
  if (segment.tcpHeaderBytes < TCP_HEADER_BYTES || segment.payloadBytes < 0) return "bad_data_offset";
  const at = segment.tcpAt;
  segment.hasTimestamp = segment.tcpHeaderBytes === TCP_TIMESTAMP_HEADER_BYTES &&
    view.getInt32(at + TCP_HEADER_BYTES) === TCP_TIMESTAMP_BLOCK;
  if (segment.hasTimestamp) {
    segment.tsValue = view.getInt32(at + TCP_TIMESTAMP_VALUE);
    segment.tsEcho = view.getInt32(at + TCP_TIMESTAMP_ECHO);
  }
  return "segment";
}

/** Where the first piece of a frame ends, in its storage. */
export function endOf(frame: Frame): number {
  return frame.start + frame.length;
}

/**
 * The sum over the pseudo header of a TCP segment of `tcpBytes` and the first `summedBytes` of the segment
 * itself, behind the IP header at `ipAt`. These may be more than 0 where the header has no options: the
 * addresses stand right before the segment then, and one sum takes both.
 */
export function tcpSum(
  family: RscFamily,
  view: DataView,
  ipAt: number,
  tcpBytes: number,
  summedBytes: number,
): number {
  const rest = sumOf16(PROTOCOL_TCP) + sumOf16(tcpBytes);
  return addToSum(view, ipAt + family.addressesAt, family.addressesBytes + summedBytes, rest);
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
    const pseudo = fold(tcpSum(family, frame.view, segment.ipAt, tcpBytes, 0));
    // 0 and 0xffff are the same sum.
    return (seed - pseudo) % 0xffff === 0 ? "right" : "odd_partial_checksum";
  }
  if ((flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) return "right";
  const sum = tcpSum(family, frame.view, segment.ipAt, tcpBytes, tcpBytes);
  return isSumRight(sum) ? "right" : "bad_tcp_checksum";
}
