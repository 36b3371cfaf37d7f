/**
 * What keeps a segment out of a unit under strict rules, apart from its place in the stream.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import {
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
  const held = unit.frame!;
  const a = held.view;
  const b = frame.view;
  const same = a.getInt32(held.start) === b.getInt32(frame.start) &&
    a.getInt32(held.start + 4) === b.getInt32(frame.start + 4) &&
    a.getInt32(held.start + 8) === b.getInt32(frame.start + 8);
  return same ? null : "mac_differs";
}
