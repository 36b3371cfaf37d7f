/**
 * The two rule books: what a chain may do with a frame, under which name, and by which rule.
 *
 * This table is the only place where a rule is put into words. `replay --explain` and the demonstration print
 * its sentences, and a test compares the tables of docs/rules.md with it.
 *
 * @module
 */
import type { Rule } from "../../pipeline/stage.ts";

const PASSES = "Passes the frame";
const FLUSHES = "Flushes the flow, passes the frame";
const REOPENS = "Flushes the flow, holds the segment";

/** Rules by verdict; each row is the rule's id, its effect, and the condition. */
function ruleTable<V extends string>(
  rows: Readonly<Record<V, readonly [id: string, effect: string, condition: string]>>,
): Readonly<Record<V, Rule>> {
  const entries = Object.entries<readonly [string, string, string]>(rows);
  return Object.fromEntries(
    entries.map(([verdict, [id, effect, condition]]) =>
      [verdict, { verdict, id, text: `${effect}: ${condition}` }] as const
    ),
  ) as Record<V, Rule>;
}

/** Every rule of the strict rule book, by verdict, in the order in which they are asked. */
export const STRICT_RULES = ruleTable({
  off: ["S0", PASSES, "the guest did not accept large packets of this family, or has switched them off"],
  not_tcp: ["S1.1", PASSES, "another protocol over IP, which has no flow here"],
  too_short: ["S1.2", PASSES, "the frame ends in the IP header"],
  bad_version: ["S1.3", PASSES, "the IP version is not that of the EtherType"],
  ip_options: ["S1.4", FLUSHES, "the IPv4 header has options"],
  extension_header: [
    "S1.5",
    "Flushes the flow, or all flows between the two addresses where the ports are hidden, passes the frame",
    "IPv6 extension headers, or ESP or AH over IPv4",
  ],
  fragment: [
    "S1.6",
    "Flushes all flows between the two addresses, passes the frame",
    "a piece of an IPv4 packet, whose ports are not to be seen or only in the first piece",
  ],
  bad_length: ["S1.7", FLUSHES, "the IP length is shorter than the headers or longer than the frame"],
  bad_data_offset: ["S1.8", FLUSHES, "the TCP header is shorter than 20 bytes or longer than the segment"],
  already_large: [
    "S1.9",
    FLUSHES,
    "the network (GSO) or another stage has merged the frame already, or it is longer than 65589 bytes",
  ],
  encapsulated: ["S1.10", FLUSHES, "in LLC/SNAP, PPPoE or MPLS, or behind more than two VLAN tags"],
  bad_ip_checksum: [
    "S2.1",
    "Flushes the flow, passes the frame unmodified, for the guest to see",
    "wrong IPv4 header checksum",
  ],
  bad_tcp_checksum: [
    "S2.2",
    "Flushes the flow, passes the frame unmodified, for the guest to see",
    "wrong TCP checksum, and the network has not vouched for the data",
  ],
  odd_partial_checksum: [
    "S2.3",
    FLUSHES,
    "a checksum still to be completed (NEEDS_CSUM) that is not that of TCP, or with a wrong pseudo-header sum",
  ],
  syn: ["S3.1", FLUSHES, "SYN"],
  fin: ["S3.2", FLUSHES, "FIN"],
  rst: ["S3.3", FLUSHES, "RST"],
  urg: ["S3.4", FLUSHES, "URG"],
  no_ack: ["S3.5", FLUSHES, "the ACK flag is missing"],
  tcp_options: [
    "S3.6",
    FLUSHES,
    'TCP options other than the usual timestamp block, or any with "timestamps": false',
  ],
  traits_differ: ["S4.1", REOPENS, "another DSCP, ECN or DF, or another traffic class or flow label"],
  tcp_ecn_differs: ["S4.2", REOPENS, "other ECE, CWR, AE or reserved bits"],
  ecn_not_negotiated: ["S4.3", REOPENS, "ECN is in use, and the guest did not accept GUEST_ECN"],
  mac_differs: ["S4.4", REOPENS, "other MAC addresses"],
  timestamp_option_differs: ["S4.5", REOPENS, "only one of the two has the timestamp block"],
  vlan_tag_differs: [
    "S4.6",
    REOPENS,
    "the same VLAN, but other tags: in priority or DEI, in type, or in being there at all (id 0)",
  ],
  queue_pair_differs: [
    "S4.7",
    REOPENS,
    "the flow has moved to another queue pair; what is held goes to the old one",
  ],
  out_of_order: [
    "S5.1",
    FLUSHES,
    "not the next byte: a gap, an overlap, a retransmission, a keep-alive probe",
  ],
  ack_older: ["S5.2", FLUSHES, "acknowledges less than what is held"],
  timestamp_older: ["S5.3", FLUSHES, "the timestamp or its echo goes back"],
  pure_ack: ["S5.4", FLUSHES, "a pure ACK that acknowledges more"],
  duplicate_ack: [
    "S5.5",
    FLUSHES,
    "a pure ACK that says nothing new; the guest sees every one of them, behind data all at once",
  ],
  window_update: ["S5.6", "Merges, uncounted", "a pure ACK that changes only the window"],
  over_size: [
    "S6.1",
    REOPENS,
    "IPv4 total length or IPv6 payload length would be above 65535, or, for a guest without MRG_RXBUF, the frame " +
    "above 65550 bytes; VLAN tags count",
  ],
  max_segments: ["S6.2", REOPENS, "maxSegments are held of the flow already"],
  held: ["S7.1", "Holds, without padding", "nothing is held of the flow; a pure ACK is held like data"],
  merged: [
    "S7.2",
    "Merges, with ACK number, window and timestamps of the latest, the smallest TTL, and PSH if any had it",
    "the next bytes of the flow",
  ],
});

/** A verdict of the strict rule book. */
export type StrictVerdict = keyof typeof STRICT_RULES;

/** What a strict chain counts beside its verdicts. */
const STRICT_TOTALS = [
  /** Frames of the family seen while it was on. */
  "received",
  /** Packets flushed with two data segments or more. */
  "packets_coalesced",
  /** Data segments in those. */
  "segments_coalesced",
  /** Packets flushed with one data segment or none. */
  "packets_single",
  /** Flows flushed because the timer ran out. */
  "drained_by_timer",
  /** Flows flushed because the sender had finished and the network had no more. */
  "drained_by_idle",
  /** Flows flushed early because the table was full. */
  "drained_for_room",
  /** Flows flushed early because of PSH. */
  "drained_by_push",
  /** Flows flushed because coalescing was switched off. */
  "drained_by_switch",
] as const;

/** The counters of a strict chain: one for each verdict, and what became of the flows. */
export type StrictCounter = StrictVerdict | (typeof STRICT_TOTALS)[number];

/** Counters of a strict chain, all 0. */
export function newStrictCounters(): Record<StrictCounter, number> {
  const names = [...STRICT_TOTALS, ...Object.keys(STRICT_RULES)];
  return Object.fromEntries(names.map((name) => [name, 0])) as Record<StrictCounter, number>;
}

const OVERTAKES = "Passes the frame, which overtakes what is held of the flow";

/** Every rule of the reference's rule book, by verdict: its own counter where it has one. */
export const QEMU_RULES = ruleTable({
  direct: [
    "Q0",
    `${OVERTAKES}, uncounted`,
    "the family is off, or an IPv6 frame is too short or of another version, or a frame is longer than 65589 bytes",
  ],
  bypass_not_tcp: [
    "Q1",
    OVERTAKES,
    "not TCP, an IPv6 extension header, or an IPv4 frame shorter than 54 bytes",
  ],
  ip_option: ["Q2", OVERTAKES, "IPv4 options, or another version under the EtherType of IPv4"],
  ip_frag: ["Q3", OVERTAKES, "DF is clear; a fragment with DF set is taken for a whole packet (case 43)"],
  ip_ecn: [
    "Q4",
    OVERTAKES,
    "ECN bits over IPv4; over IPv6 the two low bits of DSCP, by a wrong mask: ECN goes unseen (case 64)",
  ],
  ip_hacked: ["Q5", OVERTAKES, "the IP length is shorter than the headers or longer than the frame"],
  tcp_syn: ["Q6", OVERTAKES, "SYN, with any other flags"],
  tcp_ctrl_drain: ["Q7", FLUSHES, "FIN, RST or URG; ECE, CWR and AE go unseen (cases 36, 37)"],
  tcp_all_opt: ["Q8", FLUSHES, "any TCP option, so that nothing with timestamps is merged"],
  empty_cache: ["Q9", "Holds, with its padding", "the first segment in an empty chain: the timer starts"],
  no_match_cache: [
    "Q10",
    "Holds, with its padding",
    "the first segment of its flow, beside other flows, with which it is flushed",
  ],
  data_out_of_win: ["Q11", FLUSHES, "more than 65535 ahead of what is held, or behind it"],
  data_after_pure_ack: [
    "Q12",
    "Merges, counted as two segments",
    "data behind a pure ACK, with any ACK number (case 24); padding of the ACK becomes data (case 53)",
  ],
  data_out_of_order: ["Q13", FLUSHES, "within 65535 ahead, but not the next byte"],
  over_size: [
    "Q14",
    FLUSHES,
    "IPv4 total length above 65515, IPv6 payload length above 65535, or more than the reference's buffer holds",
  ],
  coalesced: [
    "Q15",
    "Merges, with flags, ACK number and window of the latest, even if they go back; checksums stay stale",
    "the next bytes of the flow, or a pure ACK behind data, which vanishes (cases 25, 26)",
  ],
  ack_out_of_win: [
    "Q16",
    FLUSHES,
    "the same sequence number, and 65535 or more acknowledged, or less than before",
  ],
  pure_ack: ["Q17", FLUSHES, "the same sequence number, and more acknowledged"],
  dup_ack: [
    "Q18",
    FLUSHES,
    "the same sequence number, ACK number and window: a duplicate ACK or a retransmission",
  ],
  win_update: [
    "Q19",
    "Swallows the frame, takes over its window only, counts as merged with 1 segment",
    "the same sequence and ACK number, another window; data in it is lost (case 27)",
  ],
});

/** A verdict of the reference's rule book. */
export type QemuVerdict = keyof typeof QEMU_RULES;
