/**
 * What the `strict` rule book may do with a segment, and by which of its rules (docs/rules.md).
 * @module
 */

/** Each verdict of the strict rule book and the id of the rule behind it. */
export const STRICT_RULES = {
  /** Passed: the family is off, or the guest takes no large packets. */
  off: "S0",
  /** Passed: no TCP. No unit is concerned. */
  not_tcp: "S1.1",
  /** Passed: shorter than its headers. */
  too_short: "S1.2",
  /** Passed: the version is not what the EtherType says. */
  bad_version: "S1.3",
  /** Flow flushed, passed: IPv4 options. */
  ip_options: "S1.4",
  /** Flow flushed, or all units between the two addresses if the ports are hidden, passed: IPv6 extension headers, ESP, AH. */
  extension_header: "S1.5",
  /** All units between the two addresses flushed, passed: a fragment. */
  fragment: "S1.6",
  /** Flow flushed, passed: the IP length is shorter than the headers or longer than the frame. */
  bad_length: "S1.7",
  /** Flow flushed, passed: the data offset is below 5 or beyond the segment. */
  bad_data_offset: "S1.8",
  /** Flow flushed, passed: the frame is large already, or was merged before. */
  already_large: "S1.9",
  /** Flow flushed, passed: in LLC/SNAP, PPPoE or MPLS, or behind more than two VLAN tags. */
  encapsulated: "S1.10",
  /** Flow flushed, passed unmodified: wrong IPv4 header checksum. */
  bad_ip_checksum: "S2.1",
  /** Flow flushed, passed unmodified: wrong TCP checksum. */
  bad_tcp_checksum: "S2.2",
  /** Flow flushed, passed: a partial checksum that is not the TCP checksum, or has a wrong pseudo-header sum. */
  odd_partial_checksum: "S2.3",
  /** Flow flushed, passed: SYN. */
  syn: "S3.1",
  /** Flow flushed, passed: FIN. */
  fin: "S3.2",
  /** Flow flushed, passed: RST. */
  rst: "S3.3",
  /** Flow flushed, passed: URG. */
  urg: "S3.4",
  /** Flow flushed, passed: no ACK. */
  no_ack: "S3.5",
  /** Flow flushed, passed: TCP options other than the timestamp block. */
  tcp_options: "S3.6",
  /** Unit flushed, another opened: DSCP, traffic class, flow label, IP ECN or DF differ. */
  traits_differ: "S4.1",
  /** Unit flushed, another opened: ECE, CWR, AE or reserved bits differ. */
  tcp_ecn_differs: "S4.2",
  /** Unit flushed, another opened: ECN is in use and the guest does not take merged packets with it. */
  ecn_not_negotiated: "S4.3",
  /** Unit flushed, another opened: MAC addresses differ. */
  mac_differs: "S4.4",
  /** Unit flushed, another opened: one has the timestamp option and the other has not. */
  timestamp_option_differs: "S4.5",
  /** Unit flushed, another opened: the VLAN tags of one VLAN differ, in priority, in type, or in being there at all. */
  vlan_tag_differs: "S4.6",
  /** Unit flushed, another opened: the flow has moved to another queue pair. */
  queue_pair_differs: "S4.7",
  /** Unit flushed, passed: not the next byte (gap, overlap, retransmission). */
  out_of_order: "S5.1",
  /** Unit flushed, passed: acknowledges less than the unit. */
  ack_older: "S5.2",
  /** Unit flushed, passed: the timestamp or its echo goes back. */
  timestamp_older: "S5.3",
  /** Unit flushed, passed: a pure ACK that acknowledges more. */
  pure_ack: "S5.4",
  /** Unit flushed, passed: a pure ACK that says nothing new. Duplicates are never hidden. */
  duplicate_ack: "S5.5",
  /** Merged: only the window is new. */
  window_update: "S5.6",
  /** Unit flushed, another opened: the unit would be larger than IP allows. */
  over_size: "S6.1",
  /** Unit flushed, another opened: the unit has `maxSegments`. */
  max_segments: "S6.2",
  /** Opened a unit. */
  held: "S7.1",
  /** Merged: the next bytes of the flow. */
  merged: "S7.2",
} as const;

/** A verdict of the strict rule book. */
export type StrictVerdict = keyof typeof STRICT_RULES;

/** The counters of a strict chain: one for each verdict, and what became of the units. */
export type StrictCounter =
  | StrictVerdict
  /** Frames of the family seen while it was on. */
  | "received"
  /** Units that left with two data segments or more. */
  | "units_coalesced"
  /** Data segments in those. */
  | "segments_coalesced"
  /** Units that left with one segment. */
  | "units_single"
  /** Units that left because the timer ran out. */
  | "drained_by_timer"
  /** Units that left early because the table was full. */
  | "drained_for_room"
  /** Units that left early because of PSH. */
  | "drained_by_push"
  /** Units that left because coalescing was switched off. */
  | "drained_by_switch";

const OTHERS = [
  "received",
  "units_coalesced",
  "segments_coalesced",
  "units_single",
  "drained_by_timer",
  "drained_for_room",
  "drained_by_push",
  "drained_by_switch",
] as const;

/** Counters of a strict chain, all 0. */
export function newStrictCounters(): Record<StrictCounter, number> {
  const names = [...OTHERS, ...Object.keys(STRICT_RULES) as StrictVerdict[]];
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<StrictCounter, number>;
}

// What the `qemu` rule book may do with a segment, and by which of its rules (docs/rules.md).

/** Each verdict of the reference's rule book and the id of the rule behind it. */
export const QEMU_RULES = {
  /** Passed without a look: the family is off, or the frame is too short or too long. */
  direct: "Q0",
  /** Passed: no TCP, or shorter than its headers. */
  bypass_not_tcp: "Q1",
  /** Passed: IP options, or another IP version. */
  ip_option: "Q2",
  /** Passed: may be fragmented (DF clear). */
  ip_frag: "Q3",
  /** Passed: ECN bits (v4), low DSCP bits (v6). */
  ip_ecn: "Q4",
  /** Passed: the IP length is shorter than the headers or longer than the frame. */
  ip_hacked: "Q5",
  /** Passed: SYN. */
  tcp_syn: "Q6",
  /** Let the flow's unit go, then passed: FIN, RST or URG. */
  tcp_ctrl_drain: "Q7",
  /** Let the flow's unit go, then passed: TCP options. */
  tcp_all_opt: "Q8",
  /** Opened a unit in an empty chain; the timer starts. */
  empty_cache: "Q9",
  /** Opened a unit beside others. */
  no_match_cache: "Q10",
  /** Let the unit go, then passed: more than 65535 before or behind it. */
  data_out_of_win: "Q11",
  /** Merged: the first data behind a pure ACK. */
  data_after_pure_ack: "Q12",
  /** Let the unit go, then passed: not the next byte. */
  data_out_of_order: "Q13",
  /** Let the unit go, then passed: it would grow too large. */
  over_size: "Q14",
  /** Merged: the next bytes of the flow. */
  coalesced: "Q15",
  /** Let the unit go, then passed: acknowledges more than 65534 bytes, or fewer than before. */
  ack_out_of_win: "Q16",
  /** Let the unit go, then passed: acknowledges more. */
  pure_ack: "Q17",
  /** Let the unit go, then passed: says nothing new. */
  dup_ack: "Q18",
  /** Swallowed: only its window was taken. */
  win_update: "Q19",
} as const;

/** A verdict of the reference's rule book. */
export type QemuVerdict = keyof typeof QEMU_RULES;
