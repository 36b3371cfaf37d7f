/**
 * The rules in one line each, for people: what the tables of verdicts say in their comments. A test compares the two.
 * @module
 */
import type { QemuVerdict } from "../../offloads/rsc_chain/qemu_verdicts.ts";
import type { StrictVerdict } from "../../offloads/rsc_chain/strict_verdicts.ts";
import type { RuleBook } from "../../core/stage.ts";

/** What each verdict of the strict rule book means. */
export const STRICT_MEANINGS: Readonly<Record<StrictVerdict, string>> = {
  off: "Passed: the family is off, or the guest takes no large packets",
  not_tcp: "Passed: no TCP. No unit is concerned",
  too_short: "Passed: shorter than its headers",
  bad_version: "Passed: the version is not what the EtherType says",
  ip_options: "Flow flushed, passed: IPv4 options",
  extension_header:
    "Flow flushed, or all units between the two addresses if the ports are hidden, passed: IPv6 extension headers, ESP, AH",
  fragment: "All units between the two addresses flushed, passed: a fragment",
  bad_length: "Flow flushed, passed: the IP length is shorter than the headers or longer than the frame",
  bad_data_offset: "Flow flushed, passed: the data offset is below 5 or beyond the segment",
  already_large: "Flow flushed, passed: the frame is large already, or was merged before",
  encapsulated: "Flow flushed, passed: in LLC/SNAP, PPPoE or MPLS, or behind more than two VLAN tags",
  bad_ip_checksum: "Flow flushed, passed unmodified: wrong IPv4 header checksum",
  bad_tcp_checksum: "Flow flushed, passed unmodified: wrong TCP checksum",
  odd_partial_checksum:
    "Flow flushed, passed: a partial checksum that is not the TCP checksum, or has a wrong pseudo-header sum",
  syn: "Flow flushed, passed: SYN",
  fin: "Flow flushed, passed: FIN",
  rst: "Flow flushed, passed: RST",
  urg: "Flow flushed, passed: URG",
  no_ack: "Flow flushed, passed: no ACK",
  tcp_options: "Flow flushed, passed: TCP options other than the timestamp block",
  traits_differ: "Unit flushed, another opened: DSCP, traffic class, flow label, IP ECN or DF differ",
  tcp_ecn_differs: "Unit flushed, another opened: ECE, CWR, AE or reserved bits differ",
  ecn_not_negotiated:
    "Unit flushed, another opened: ECN is in use and the guest does not take merged packets with it",
  mac_differs: "Unit flushed, another opened: MAC addresses differ",
  timestamp_option_differs:
    "Unit flushed, another opened: one has the timestamp option and the other has not",
  vlan_tag_differs:
    "Unit flushed, another opened: the VLAN tags of one VLAN differ, in priority, in type, or in being there at all",
  queue_pair_differs: "Unit flushed, another opened: the flow has moved to another queue pair",
  out_of_order: "Unit flushed, passed: not the next byte (gap, overlap, retransmission)",
  ack_older: "Unit flushed, passed: acknowledges less than the unit",
  timestamp_older: "Unit flushed, passed: the timestamp or its echo goes back",
  pure_ack: "Unit flushed, passed: a pure ACK that acknowledges more",
  duplicate_ack: "Unit flushed, passed: a pure ACK that says nothing new. Duplicates are never hidden",
  window_update: "Merged: only the window is new",
  over_size: "Unit flushed, another opened: the unit would be larger than IP allows",
  most_segments: "Unit flushed, another opened: the unit has mostSegments",
  held: "Opened a unit",
  merged: "Merged: the next bytes of the flow",
};

/** What each verdict of the reference's rule book means. */
export const QEMU_MEANINGS: Readonly<Record<QemuVerdict, string>> = {
  direct: "Passed without a look: the family is off, or the frame is too short or too long",
  bypass_not_tcp: "Passed: no TCP, or shorter than its headers",
  ip_option: "Passed: IP options, or another IP version",
  ip_frag: "Passed: may be fragmented (DF clear)",
  ip_ecn: "Passed: ECN bits (v4), low DSCP bits (v6)",
  ip_hacked: "Passed: the IP length is shorter than the headers or longer than the frame",
  tcp_syn: "Passed: SYN",
  tcp_ctrl_drain: "Let the flow's unit go, then passed: FIN, RST or URG",
  tcp_all_opt: "Let the flow's unit go, then passed: TCP options",
  empty_cache: "Opened a unit in an empty chain; the timer starts",
  no_match_cache: "Opened a unit beside others",
  data_out_of_win: "Let the unit go, then passed: more than 65535 before or behind it",
  data_after_pure_ack: "Merged: the first data behind a pure ACK",
  data_out_of_order: "Let the unit go, then passed: not the next byte",
  over_size: "Let the unit go, then passed: it would grow too large",
  coalesced: "Merged: the next bytes of the flow",
  ack_out_of_win: "Let the unit go, then passed: acknowledges more than 65534 bytes, or fewer than before",
  pure_ack: "Let the unit go, then passed: acknowledges more",
  dup_ack: "Let the unit go, then passed: says nothing new",
  win_update: "Swallowed: only its window was taken",
};

/** What a verdict means; empty if the rule book has no such verdict. */
export function meaningOf(verdict: string, rules: RuleBook): string {
  const meanings: Readonly<Record<string, string>> = rules === "strict" ? STRICT_MEANINGS : QEMU_MEANINGS;
  return Object.hasOwn(meanings, verdict) ? meanings[verdict] : "";
}
