/**
 * What the `qemu` rule book may do with a segment, and by which of its rules (docs/rules.md).
 * @module
 */

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
