/**
 * The counters of the `qemu` rule book: the reference's own, by its names.
 * @module
 */

/** The reference's counters, in its order. Those it never raises are never raised here either. */
export const QEMU_COUNTERS = [
  "received",
  "coalesced",
  "over_size",
  "cache",
  "empty_cache",
  "no_match_cache",
  "win_update",
  "no_match",
  "tcp_syn",
  "tcp_ctrl_drain",
  "dup_ack",
  "dup_ack1",
  "dup_ack2",
  "pure_ack",
  "ack_out_of_win",
  "data_out_of_win",
  "data_out_of_order",
  "data_after_pure_ack",
  "bypass_not_tcp",
  "tcp_option",
  "tcp_all_opt",
  "ip_frag",
  "ip_ecn",
  "ip_hacked",
  "ip_option",
  "purge_failed",
  "drain_failed",
  "final_failed",
  "timer",
] as const;

/** Names of the reference's counters. */
export type QemuCounter = (typeof QEMU_COUNTERS)[number];

/** The reference's counters, all 0. */
export function newQemuCounters(): Record<QemuCounter, number> {
  return Object.fromEntries(QEMU_COUNTERS.map((name) => [name, 0])) as Record<QemuCounter, number>;
}
