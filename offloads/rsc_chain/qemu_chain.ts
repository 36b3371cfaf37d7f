/**
 * The rule book `qemu`: the reference, bit for bit, its faults included.
 *
 * What it does with a segment is what QEMU's virtio-net device was observed to do (see docs/rules.md for each rule and
 * its number). It repeats what is wrong there: padding in the middle of data, checksums left stale, pure ACKs swallowed.
 * Three things it does not repeat, because they are no behaviour but accidents of memory: a frame longer than 65589 bytes is
 * passed on, a unit that would outgrow the reference's buffer is treated as too large, and a unit that finds no receive
 * buffer waits instead of being lost. Units are bounded (65536) where the reference's are not.
 *
 * @module
 */
import { FeatureSet } from "../../core/features.ts";
import type { Frame } from "../../pipeline/frame.ts";
import type { FrameBatch } from "../../pipeline/frame_batch.ts";
import type { Negotiated, StageContext } from "../../pipeline/stage.ts";
import {
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import {
  TCP_ACK_NUMBER,
  TCP_FIN,
  TCP_OFFSET_FLAGS,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
  TCP_WINDOW,
} from "../../wire/tcp.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE } from "../../wire/virtio_net_header.ts";
import { OpeningOrder, RscChain } from "./chain.ts";
import type { RscFamily, RscOptions } from "./plugin.ts";
import type { Unit } from "./unit.ts";
import { QEMU_RULES, type QemuVerdict } from "./verdicts.ts";

/** Most units the reference's rule book holds; the reference itself knows no limit. */
const MAX_UNITS = 65_536;
/** Bytes of frame that the reference's buffer for a unit takes: Ethernet and IPv6 headers and the largest payload. */
const UNIT_BYTES = 14 + 40 + 65_535;
/** Largest distance in sequence numbers that counts as inside the window. */
const MAX_WINDOW = 65_535;
const OPTIONLESS_TCP_BYTES = 20;
/** EtherTypes that have a chain: IPv4 and IPv6. */
const COALESCED_TYPES: readonly number[] = [0x0800, 0x86dd];

/** One family's chain under the reference's rules. */
export class QemuChain extends RscChain {
  /** The reference's counters, under its own names. */
  readonly counters: Record<QemuCounter, number>;
  readonly #order = new OpeningOrder();
  /** Are either of the two families on: only then does the reference look at a frame at all. */
  #anyOn = false;
  #on = false;
  /** The features that `negotiated` saw last. */
  #features = FeatureSet.none;

  /** An empty chain; counters are published under the context's name. @param family v4 or v6 */
  constructor(family: RscFamily, context: StageContext, options: RscOptions) {
    super(family, context, options, MAX_UNITS);
    this.counters = context.publish(newQemuCounters());
  }

  /** Both families follow what was accepted, whether or not GUEST_CSUM was. */
  override negotiated(state: Negotiated, _output: FrameBatch, _nowNs: number): void {
    // Later changes come by offloadsRequested, which the reference obeys even if it then refuses the command.
    if (state.features === this.#features) return;
    this.#features = state.features;
    this.#follow(state.features);
  }

  /** The reference stores what GUEST_OFFLOADS_SET asks for before it judges it. */
  override offloadsRequested(mask: FeatureSet): void {
    this.#follow(mask);
  }

  /** The driver is gone: the next one's features are new ones. */
  override reset(output: FrameBatch): void {
    super.reset(output);
    this.#order.clear();
    this.#features = FeatureSet.none;
    this.#follow(FeatureSet.none);
  }

  /** Judges one frame, in the reference's order. */
  protected override take(frame: Frame, nowNs: number): void {
    const type = frame.length < 14 ? 0 : this.etherTypeOf(frame);
    if (!this.#anyOn || type !== this.family.etherType) {
      // What the other family's chain puts out may be a unit, which waits for room; its chain marks what may not.
      if (type === this.family.etherType || !COALESCED_TYPES.includes(type)) frame.offerAgain = true;
      this.output.push(frame);
      return;
    }
    this.counters.received++;
    if (!this.#on || frame.next !== null || frame.total > UNIT_BYTES) return this.#pass(frame, "direct");
    const located = this.family.locateQemu(frame, this.segment);
    if (located !== "candidate") {
      if (located === "uncounted") return this.#pass(frame, "direct");
      this.counters[located]++;
      return this.#pass(frame, located);
    }
    const flags = this.segment.offsetFlags;
    if ((flags & TCP_SYN) !== 0) {
      this.counters.tcp_syn++;
      return this.#pass(frame, "tcp_syn");
    }
    const { table } = this;
    if ((flags & (TCP_FIN | TCP_URG | TCP_RST)) !== 0) {
      this.counters.tcp_ctrl_drain++;
      return this.#final(table.find(this.segment), frame, "tcp_ctrl_drain");
    }
    if (this.segment.tcpHeaderBytes > OPTIONLESS_TCP_BYTES) {
      this.counters.tcp_all_opt++;
      return this.#final(table.find(this.segment), frame, "tcp_all_opt");
    }
    this.#candidate(frame, nowNs);
  }

  #candidate(frame: Frame, nowNs: number): void {
    const { table } = this;
    if (table.count === 0) {
      this.counters.empty_cache++;
      this.#open(frame, nowNs, "empty_cache");
      return;
    }
    const unit = table.find(this.segment);
    if (unit === null) {
      this.counters.no_match += table.count;
      this.counters.no_match_cache++;
      if (table.isFull) this.#leave(table.oldest!);
      this.#open(frame, nowNs, "no_match_cache");
      return;
    }
    this.counters.no_match += this.#order.before(unit.order);
    this.#sequence(unit, frame);
  }

  /** Where the segment stands to its unit, by sequence number. */
  #sequence(unit: Unit, frame: Frame): void {
    const segment = this.segment;
    const counters = this.counters;
    const distance = segment.seq - unit.seq >>> 0;
    if (distance > MAX_WINDOW) {
      counters.data_out_of_win++;
      return this.#final(unit, frame, "data_out_of_win");
    }
    if (distance === 0) {
      if (unit.payloadBytes !== 0 || segment.payloadBytes === 0) return this.#acknowledgment(unit, frame);
      counters.data_after_pure_ack++;
    } else if (distance !== unit.payloadBytes) {
      counters.data_out_of_order++;
      return this.#final(unit, frame, "data_out_of_order");
    }
    const tooLarge = unit.ipLength + segment.payloadBytes > this.family.maxIpLengthQemu ||
      unit.totalBytes + segment.payloadBytes > UNIT_BYTES;
    if (tooLarge) {
      counters.over_size++;
      return this.#final(unit, frame, "over_size");
    }
    unit.ipLength += segment.payloadBytes;
    unit.offsetFlags = segment.offsetFlags;
    unit.ack = segment.ack;
    unit.window = segment.window;
    unit.segments = unit.segments + 1 & 0xffff;
    counters.coalesced++;
    this.#explain(frame, distance === 0 ? "data_after_pure_ack" : "coalesced", unit);
    this.mergePayload(unit, frame);
  }

  /** The segment has the unit's own sequence number: what does its acknowledgment say? */
  #acknowledgment(unit: Unit, frame: Frame): void {
    const segment = this.segment;
    const counters = this.counters;
    const advance = segment.ack - unit.ack >>> 0;
    if (advance >= MAX_WINDOW) {
      counters.ack_out_of_win++;
      this.#final(unit, frame, "ack_out_of_win");
    } else if (advance !== 0) {
      counters.pure_ack++;
      this.#final(unit, frame, "pure_ack");
    } else if (segment.window === unit.window) {
      counters.dup_ack++;
      this.#final(unit, frame, "dup_ack");
    } else {
      counters.win_update++;
      unit.window = segment.window;
      unit.changed = true;
      this.#explain(frame, "win_update", unit);
      frame.release();
    }
  }

  #open(frame: Frame, nowNs: number, verdict: QemuVerdict): void {
    const { table } = this;
    if (table.count === 0) this.#order.clear();
    else if (this.#order.wantsRenumbering(table.count)) this.#renumber();
    const unit = this.hold(frame, nowNs);
    unit.order = this.#order.add();
    unit.segments = 1;
    this.counters.cache++;
    this.#explain(frame, verdict, unit);
  }

  /** The unit of the flow leaves, if there is one, and then the frame passes. */
  #final(unit: Unit | null, frame: Frame, verdict: QemuVerdict): void {
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    if (unit !== null) this.#leave(unit);
    frame.offerAgain = true;
    this.output.push(frame);
  }

  #pass(frame: Frame, verdict: QemuVerdict): void {
    if (this.verdicts !== null) this.#explain(frame, verdict, null);
    frame.offerAgain = true;
    this.output.push(frame);
  }

  #leave(unit: Unit): void {
    this.#order.remove(unit.order);
    this.drain(unit);
  }

  #renumber(): void {
    this.#order.clear();
    for (let unit = this.table.oldest; unit !== null; unit = unit.following) {
      unit.order = this.#order.add();
    }
  }

  /** Counts the timer. */
  protected override timerFired(_units: number): void {
    this.counters.timer++;
  }

  /** Completes the headers. */
  protected override finish(unit: Unit, frame: Frame): void {
    finishQemu(unit, frame, this.family);
  }

  #follow(mask: FeatureSet): void {
    const enabled = mask.has(VIRTIO_NET_F_RSC_EXT);
    this.#on = enabled && mask.has(this.family.guestTso);
    this.#anyOn = enabled && (mask.has(VIRTIO_NET_F_GUEST_TSO4) || mask.has(VIRTIO_NET_F_GUEST_TSO6));
  }

  #explain(frame: Frame, verdict: QemuVerdict, unit: Unit | null): void {
    if (this.verdicts === null) return;
    this.verdicts.note(frame.number, this.name, verdict, QEMU_RULES[verdict], unit?.frame?.number ?? 0);
  }
}

// The counters of the `qemu` rule book: the reference's own, by its names.

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

// Writes into a unit that is about to leave what merging has changed, under the reference's rules.

/** Completes the headers of a unit; its checksums stay as they were. Nothing is left of what the network said of it. */
export function finishQemu(unit: Unit, frame: Frame, family: RscFamily): void {
  const { view, header } = frame;
  header.flags = 0;
  header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
  if (!unit.changed) return;
  view.setUint16(unit.tcpAt + TCP_OFFSET_FLAGS, unit.offsetFlags);
  view.setInt32(unit.tcpAt + TCP_ACK_NUMBER, unit.ack);
  view.setUint16(unit.tcpAt + TCP_WINDOW, unit.window);
  family.finish(view, unit, false);
  header.flags = VIRTIO_NET_HDR_F_RSC_INFO;
  header.gsoType = family.gsoType;
  header.csumStart = unit.segments;
  header.csumOffset = 0;
}
