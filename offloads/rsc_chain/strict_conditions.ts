/**
 * What keeps a segment out of a unit under strict rules, apart from its place in the stream of bytes.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import {
  seqBefore,
  TCP_ACK,
  TCP_AE,
  TCP_CWR,
  TCP_ECE,
  TCP_FIN,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
} from "../../wire/tcp.ts";
import type { Segment } from "./segment.ts";
import type { StrictVerdict } from "./strict_verdicts.ts";
import type { Unit } from "./unit.ts";

const FLAGS = 0xfff;
const TCP_ECN = TCP_ECE | TCP_CWR | TCP_AE;
/** With these set, or ACK clear, a segment is never merged. */
const UNMERGEABLE = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;
/** Flags that all segments of a unit must have alike: all but PSH, and the reserved bits, whose meaning is not known. */
const ALIKE = FLAGS & ~TCP_PSH;

/** Do the flags allow merging at all? */
export function flagsAllowMerging(offsetFlags: number): boolean {
  return (offsetFlags & (UNMERGEABLE | TCP_ACK)) === TCP_ACK;
}

/** The flag that forbids merging, of those that do the one that says most. */
export function forbiddingFlag(offsetFlags: number): StrictVerdict {
  if ((offsetFlags & TCP_SYN) !== 0) return "syn";
  if ((offsetFlags & TCP_RST) !== 0) return "rst";
  if ((offsetFlags & TCP_FIN) !== 0) return "fin";
  if ((offsetFlags & TCP_URG) !== 0) return "urg";
  return "no_ack";
}

/** What a merged packet can say only once, and segment and unit say differently; null if nothing. */
export function difference(
  unit: Unit,
  frame: Frame,
  segment: Segment,
  guestEcn: boolean,
): StrictVerdict | null {
  if (segment.traits !== unit.traits) return "traits_differ";
  if (((segment.offsetFlags ^ unit.offsetFlags) & ALIKE) !== 0) return "tcp_ecn_differs";
  if (!guestEcn && (segment.ecn !== 0 || (segment.offsetFlags & TCP_ECN) !== 0)) return "ecn_not_negotiated";
  if (segment.hasTimestamp !== unit.hasTimestamp) return "timestamp_option_differs";
  const { view, start } = frame;
  const same = unit.macs0 === view.getInt32(start) && unit.macs1 === view.getInt32(start + 4) &&
    unit.macs2 === view.getInt32(start + 8);
  if (!same) return "mac_differs";
  if (unit.outerTag !== segment.outerTag || unit.innerTag !== segment.innerTag) return "vlan_tag_differs";
  return unit.queue === frame.queue ? null : "queue_pair_differs";
}

/** What the segment would take back of what the unit says, an acknowledgment or a timestamp; null if nothing. */
export function setback(unit: Unit, segment: Segment): "ack_older" | "timestamp_older" | null {
  if (seqBefore(segment.ack, unit.ack)) return "ack_older";
  if (!unit.hasTimestamp) return null;
  const older = seqBefore(segment.tsValue, unit.tsValue) || seqBefore(segment.tsEcho, unit.tsEcho);
  return older ? "timestamp_older" : null;
}
