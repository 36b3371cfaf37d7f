/**
 * Segments: one as an IP version parses it (`ParsedSegment`), what is held of a flow (`CoalescedSegment`),
 * and what an IP version does differently (`RscFamily`).
 * @module
 */
import * as flow from "../../kernels/flow_layout.ts";
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
 * One segment, as `RscFamily` parsed it (QEMU's `NetRscUnit`). One object, refilled for each frame. `ipAt`,
 * `vlan` and the tags are set before the family locates the rest. Offsets are absolute, into the storage of
 * the frame. 32-bit fields are signed: only differences and equality of them are ever used.
 */
export class ParsedSegment {
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
  /** Source address, destination address, ports: as they lie in the headers, by words of 32 bits. */
  readonly key: Int32Array<ArrayBuffer> = new Int32Array(MAX_KEY_WORDS);
}

/**
 * What a chain holds of one flow (QEMU's `NetRscSeg`, an item of DPDK's GRO). The frame's pieces are the
 * payloads as they arrived, not copied; the headers say what is written once, at the flush: the latest
 * acknowledgment, window, flags and timestamps, the lengths of all that is held and, of TTLs and hop limits,
 * the smallest. The frame itself is not touched between opening and flush.
 *
 * All that a segment is compared with are numbers in a row of the table, where the kernel reads and writes
 * them too (`kernels/flow_layout.ts`). Here are their names, and what is no number.
 */
export class CoalescedSegment {
  /** The last of the frame's pieces. */
  tail: Frame | null = null;
  /** How many pieces the frame has, which it gets at the flush. */
  pieces = 0;
  /** Where all pieces return to; null if that is not one place. */
  owner: FrameOwner | null = null;
  /** How many had been opened since the chain was last empty, when this one was. */
  order = 0;
  /** The words among which its row lies. */
  row: Int32Array<ArrayBuffer>;
  /** Where its row begins among them. */
  at: number;
  /** The frame that opened it, followed by the merged payloads. Null while nothing is held here. */
  frame: Frame | null = null;
  /** First byte of the IP header. */
  ipAt = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header, as its data offset says. */
  tcpHeaderBytes = 0;
  /** Strict rules: where its flow is claimed (`FlowClaims`); -1 if it is not. */
  claim: number = -1;
  /** Hash of the flow's key. */
  hash = 0;
  /** What it is recalled by, see `RecentFlows`. */
  tag = 0;
  /** Its number in the table; never changes. */
  readonly index: number;
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

  /** Holds nothing. @param index its number in the table; @param row where its row lies, from word `at` on */
  constructor(index: number, row: Int32Array<ArrayBuffer>, at: number) {
    this.index = index;
    this.row = row;
    this.at = at;
  }

  /** Which VLAN it is of; 0 for the untagged network. */
  get vlan(): number {
    return this.row[this.at + flow.VLAN];
  }
  set vlan(value: number) {
    this.row[this.at + flow.VLAN] = value;
  }

  /** Sequence number of the first byte. */
  get seq(): number {
    return this.row[this.at + flow.SEQ];
  }
  set seq(value: number) {
    this.row[this.at + flow.SEQ] = value;
  }

  /** Bytes of payload of all segments. */
  get payloadBytes(): number {
    return this.row[this.at + flow.PAYLOAD_BYTES];
  }
  set payloadBytes(value: number) {
    this.row[this.at + flow.PAYLOAD_BYTES] = value;
  }

  /** The IP length field of all of it: total length (v4) or payload length (v6). */
  get ipLength(): number {
    return this.row[this.at + flow.IP_LENGTH];
  }
  set ipLength(value: number) {
    this.row[this.at + flow.IP_LENGTH] = value;
  }

  /** The latest acknowledgment number. */
  get ack(): number {
    return this.row[this.at + flow.ACK];
  }
  set ack(value: number) {
    this.row[this.at + flow.ACK] = value;
  }

  /** The latest window, as in the header. */
  get window(): number {
    return this.row[this.at + flow.WINDOW];
  }
  set window(value: number) {
    this.row[this.at + flow.WINDOW] = value;
  }

  /** The latest 16-bit word of data offset and flags. */
  get offsetFlags(): number {
    return this.row[this.at + flow.OFFSET_FLAGS];
  }
  set offsetFlags(value: number) {
    this.row[this.at + flow.OFFSET_FLAGS] = value;
  }

  /** Segments merged, as the rule book counts them. */
  get segments(): number {
    return this.row[this.at + flow.SEGMENTS];
  }
  set segments(value: number) {
    this.row[this.at + flow.SEGMENTS] = value;
  }

  /** Bytes in all pieces of the frame, which the frame gets at the flush. */
  get totalBytes(): number {
    return this.row[this.at + flow.TOTAL_BYTES];
  }
  set totalBytes(value: number) {
    this.row[this.at + flow.TOTAL_BYTES] = value;
  }

  /** Strict rules: the outer VLAN tag. */
  get outerTag(): number {
    return this.row[this.at + flow.OUTER_TAG];
  }
  set outerTag(value: number) {
    this.row[this.at + flow.OUTER_TAG] = value;
  }

  /** Strict rules: the inner one. */
  get innerTag(): number {
    return this.row[this.at + flow.INNER_TAG];
  }
  set innerTag(value: number) {
    this.row[this.at + flow.INNER_TAG] = value;
  }

  /** Strict rules: what of the IP header must be equal, as in the segment that opened it. */
  get traits(): number {
    return this.row[this.at + flow.TRAITS];
  }
  set traits(value: number) {
    this.row[this.at + flow.TRAITS] = value;
  }

  /** Strict rules: the smallest TTL or hop limit. */
  get hopLimit(): number {
    return this.row[this.at + flow.HOP_LIMIT];
  }
  set hopLimit(value: number) {
    this.row[this.at + flow.HOP_LIMIT] = value;
  }

  /** Strict rules: the latest TSval. */
  get tsValue(): number {
    return this.row[this.at + flow.TS_VALUE];
  }
  set tsValue(value: number) {
    this.row[this.at + flow.TS_VALUE] = value;
  }

  /** Strict rules: the latest TSecr. */
  get tsEcho(): number {
    return this.row[this.at + flow.TS_ECHO];
  }
  set tsEcho(value: number) {
    this.row[this.at + flow.TS_ECHO] = value;
  }

  /** Strict rules: the queue pair it goes to. */
  get queuePair(): number {
    return this.row[this.at + flow.QUEUE_PAIR];
  }
  set queuePair(value: number) {
    this.row[this.at + flow.QUEUE_PAIR] = value;
  }

  /** Strict rules: bytes of payload of the largest segment. */
  get largestSegmentBytes(): number {
    return this.row[this.at + flow.LARGEST];
  }
  set largestSegmentBytes(value: number) {
    this.row[this.at + flow.LARGEST] = value;
  }

  /** Has anything been merged into it? A window counts. */
  get changed(): boolean {
    return this.row[this.at + flow.CHANGED] !== 0;
  }
  set changed(value: boolean) {
    this.row[this.at + flow.CHANGED] = value ? 1 : 0;
  }

  /** Strict rules: has it the timestamp block? */
  get hasTimestamp(): boolean {
    return this.row[this.at + flow.HAS_TIMESTAMP] !== 0;
  }
  set hasTimestamp(value: boolean) {
    this.row[this.at + flow.HAS_TIMESTAMP] = value ? 1 : 0;
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

  /** Keeps the MAC addresses of the frame whose Ethernet header begins there. */
  keepMacs(view: DataView, start: number): void {
    const to = this.at + flow.MACS;
    for (let i = 0; i < 3; i++) this.row[to + i] = view.getInt32(start + 4 * i, true);
  }

  /** Are these the MAC addresses that it has kept? */
  hasMacs(view: DataView, start: number): boolean {
    const { row } = this;
    const at = this.at + flow.MACS;
    return row[at] === view.getInt32(start, true) && row[at + 1] === view.getInt32(start + 4, true) &&
      row[at + 2] === view.getInt32(start + 8, true);
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
