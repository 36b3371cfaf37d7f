/**
 * What a chain holds of one flow: a segment, and everything that has been merged into it.
 * @module
 */
import type { Frame, FrameOwner } from "../../pipeline/frame.ts";

/**
 * A held segment (QEMU's `NetRscSeg`, an item of DPDK's GRO). The frame's pieces are the payloads as they
 * arrived, not copied; the header fields that merging changes are kept here and written once, at the flush.
 * What every segment looks at stands first, so that it shares cache lines; the frame itself is not touched
 * between opening and flush.
 */
export class CoalescedSegment {
  /** Hash of the flow's key. */
  hash = 0;
  /** The first words of the key, which are all of it for IPv4; the table keeps whole keys. */
  key0 = 0;
  /** Second word. */
  key1 = 0;
  /** Third word. */
  key2 = 0;
  /** Which VLAN the flow is of. */
  vlan = 0;
  /** What it is recalled by, see `RecentFlows`. */
  tag = 0;
  /** Sequence number of the first byte. */
  seq = 0;
  /** Bytes of payload held. */
  payloadBytes = 0;
  /** The IP length field as it will be written. */
  ipLength = 0;
  /** The latest acknowledgment number. */
  ack = 0;
  /** The latest window. */
  window = 0;
  /** The latest word of data offset and flags. */
  offsetFlags = 0;
  /** Segments merged, as the rule book counts them. */
  segments = 0;
  /** How many had been opened since the chain was last empty, when this one was. */
  order = 0;
  /** Strict rules: where its flow is claimed (`FlowClaims`); -1 if it is not. */
  claim: number = -1;
  /** Has anything been merged into it, be it only a window? */
  changed = false;
  /** The last of the frame's pieces. */
  tail: Frame | null = null;
  /** Bytes in all pieces of the frame, which the frame gets at the flush. */
  totalBytes = 0;
  /** How many pieces the frame has, which it gets at the flush too. */
  pieces = 0;
  /** Where all pieces return to; null if that is not one place. */
  owner: FrameOwner | null = null;
  /** Strict rules: the two MAC addresses, as three words. */
  macs0 = 0;
  /** Second word. */
  macs1 = 0;
  /** Third word. */
  macs2 = 0;
  /** Strict rules: the outer VLAN tag. */
  outerTag = 0;
  /** Strict rules: the inner one. */
  innerTag = 0;
  /** Strict rules: the queue pair it goes to. */
  queue = 0;
  /** Strict rules: what of the IP header must stay equal. */
  traits = 0;
  /** Strict rules: the smallest TTL or hop limit. */
  hopLimit = 0;
  /** Strict rules: bytes of payload of the largest segment. */
  largestSegmentBytes = 0;
  /** Strict rules: has it the timestamp block? */
  hasTimestamp = false;
  /** Strict rules: the latest TSval. */
  tsValue = 0;
  /** Strict rules: the latest TSecr. */
  tsEcho = 0;

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

  /** First byte of the IP header, in the frame's storage. */
  ipAt = 0;
  /** First byte of the TCP header. */
  tcpAt = 0;
  /** Bytes of the TCP header. */
  tcpHeaderBytes = 0;

  /** Holds nothing. @param index its place in the table */
  constructor(index: number) {
    this.index = index;
  }
}
