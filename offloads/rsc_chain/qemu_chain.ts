/**
 * The rule book `qemu`: the reference, bit for bit, its faults included.
 *
 * What it does with a segment is what QEMU's virtio-net device was observed to do (see docs/rules.md for each
 * rule and its number). It repeats what is wrong there: padding in the middle of data, checksums left stale,
 * pure ACKs swallowed. Three things it does not repeat, because they are no behaviour but accidents of
 * memory: a frame longer than 65589 bytes is passed on, what would outgrow the reference's buffer is treated
 * as too large, and a packet that finds no receive buffer waits instead of being lost. The number of flows
 * held is bounded (65536) where the reference's is not.
 *
 * @module
 */
import { FeatureSet } from "../../core/features.ts";
import type { Frame, FrameBatch } from "../../pipeline/frame.ts";
import { OFFER_AGAIN, type QemuReceivePath, type QemuStage } from "../../pipeline/qemu_compat.ts";
import type { Negotiated, StageContext } from "../../pipeline/stage.ts";
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from "../../wire/ethernet.ts";
import {
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import {
  IPV6_HEADER_BYTES,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
} from "../../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE } from "../../wire/virtio_net_header.ts";
import { RscChain, type RscOptions } from "./chain.ts";
import type { CoalescedSegment, RscFamily } from "./segments.ts";
import { QEMU_RULES, type QemuVerdict } from "./verdicts.ts";

/** Most flows held under the reference's rules; the reference itself knows no limit. */
const MAX_FLOWS = 65_536;
/** Bytes of frame that the reference's buffer takes: Ethernet and IPv6 headers and the largest payload. */
const MAX_HELD_BYTES = ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + 65_535;
/** Largest distance in sequence numbers that counts as inside the window. */
const MAX_WINDOW = 65_535;
/** EtherTypes that have a chain: IPv4 and IPv6. */
const COALESCED_TYPES: readonly number[] = [ETHERTYPE_IPV4, ETHERTYPE_IPV6];

/** One family's chain under the reference's rules. */
export class QemuChain extends RscChain implements QemuStage {
  /** The reference stores what GUEST_OFFLOADS_SET asks for before it judges it. */
  readonly qemu: QemuReceivePath = { offloadsRequested: (mask) => this.#follow(mask) };
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
    super(family, context, options, MAX_FLOWS);
    this.burst?.configureQemu(family.maxIpLengthQemu, MAX_HELD_BYTES);
    this.counters = context.publish(newQemuCounters());
  }

  /** Both families follow what was accepted, whether or not GUEST_CSUM was. */
  override negotiated(state: Negotiated, _output: FrameBatch, _nowNs: number): void {
    // Later changes come by `qemu.offloadsRequested`, which the reference obeys even if it then refuses the
    // command.
    if (state.features === this.#features) return;
    this.#features = state.features;
    this.#follow(state.features);
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
    const type = frame.length < ETHERNET_HEADER_BYTES ? 0 : this.etherTypeOf(frame);
    if (!this.#anyOn || type !== this.family.etherType) {
      // What the other family's chain flushes waits for room as it is; that chain marks what is offered
      // again.
      if (type === this.family.etherType || !COALESCED_TYPES.includes(type)) frame.mark = OFFER_AGAIN;
      this.output.push(frame);
      return;
    }
    this.counters.received++;
    if (!this.#on || frame.next !== null || frame.total > MAX_HELD_BYTES) return this.#pass(frame, "direct");
    const located = this.family.locateQemu(frame, this.segment);
    if (located !== "candidate") return this.#pass(frame, located === "uncounted" ? "direct" : located);
    const { table, segment } = this;
    const flags = segment.offsetFlags;
    if ((flags & TCP_SYN) !== 0) return this.#pass(frame, "tcp_syn");
    if ((flags & (TCP_FIN | TCP_URG | TCP_RST)) !== 0) {
      return this.#flushThenPass(table.find(segment), frame, "tcp_ctrl_drain");
    }
    if (segment.tcpHeaderBytes > TCP_HEADER_BYTES) {
      return this.#flushThenPass(table.find(segment), frame, "tcp_all_opt");
    }
    this.#candidate(frame, nowNs);
  }

  /** Are frames looked at in bursts? */
  protected override get mergesBursts(): boolean {
    return this.#on;
  }

  /** Counts a segment that the kernel has merged. */
  protected override mergedInBurst(held: CoalescedSegment): void {
    const { counters } = this;
    counters.received++;
    counters.no_match += this.#order.before(held.order);
    counters.coalesced++;
  }

  #candidate(frame: Frame, nowNs: number): void {
    const { table } = this;
    if (table.count === 0) {
      this.counters.empty_cache++;
      this.#open(frame, nowNs, "empty_cache");
      return;
    }
    const held = table.find(this.segment);
    if (held === null) {
      this.counters.no_match += table.count;
      this.counters.no_match_cache++;
      if (table.isFull) this.#flush(table.oldest!);
      this.#open(frame, nowNs, "no_match_cache");
      return;
    }
    this.counters.no_match += this.#order.before(held.order);
    this.#sequence(held, frame);
  }

  /** Judges the segment by its sequence number: where does it stand to what is held? */
  #sequence(held: CoalescedSegment, frame: Frame): void {
    const segment = this.segment;
    const counters = this.counters;
    const distance = segment.seq - held.seq >>> 0;
    if (distance > MAX_WINDOW) return this.#flushThenPass(held, frame, "data_out_of_win");
    if (distance === 0) {
      if (held.payloadBytes !== 0 || segment.payloadBytes === 0) return this.#acknowledgment(held, frame);
      counters.data_after_pure_ack++;
    } else if (distance !== held.payloadBytes) {
      return this.#flushThenPass(held, frame, "data_out_of_order");
    }
    const tooLarge = held.ipLength + segment.payloadBytes > this.family.maxIpLengthQemu ||
      held.totalBytes + segment.payloadBytes > MAX_HELD_BYTES;
    if (tooLarge) return this.#flushThenPass(held, frame, "over_size");
    held.ipLength += segment.payloadBytes;
    held.offsetFlags = segment.offsetFlags;
    held.ack = segment.ack;
    held.window = segment.window;
    held.segments = held.segments + 1 & 0xffff;
    counters.coalesced++;
    this.#explain(frame, distance === 0 ? "data_after_pure_ack" : "coalesced", held);
    this.mergePayload(held, frame);
  }

  /** Judges a segment with the sequence number of what is held by its acknowledgment. */
  #acknowledgment(held: CoalescedSegment, frame: Frame): void {
    const segment = this.segment;
    const advance = segment.ack - held.ack >>> 0;
    if (advance >= MAX_WINDOW) return this.#flushThenPass(held, frame, "ack_out_of_win");
    if (advance !== 0) return this.#flushThenPass(held, frame, "pure_ack");
    if (segment.window === held.window) return this.#flushThenPass(held, frame, "dup_ack");
    this.counters.win_update++;
    held.window = segment.window;
    held.changed = true;
    this.#explain(frame, "win_update", held);
    frame.release();
  }

  #open(frame: Frame, nowNs: number, verdict: QemuVerdict): void {
    const { table } = this;
    if (table.count === 0) this.#order.clear();
    else if (this.#order.wantsRenumbering(table.count)) this.#renumber();
    const held = this.hold(frame, nowNs);
    held.order = this.#order.add();
    held.segments = 1;
    this.counters.cache++;
    this.#explain(frame, verdict, held);
  }

  /** Flushes the flow, if anything is held of it, and passes the frame, counted. */
  #flushThenPass(held: CoalescedSegment | null, frame: Frame, verdict: QemuVerdict & QemuCounter): void {
    this.counters[verdict]++;
    this.#explain(frame, verdict, held);
    if (held !== null) this.#flush(held);
    this.#offer(frame);
  }

  /** Passes the frame, which overtakes what is held of its flow; counted unless it is `direct`. */
  #pass(frame: Frame, verdict: "direct" | (QemuVerdict & QemuCounter)): void {
    if (verdict !== "direct") this.counters[verdict]++;
    this.#explain(frame, verdict, null);
    this.#offer(frame);
  }

  /** Hands a frame on that the device offers again if the guest has no buffer for it. */
  #offer(frame: Frame): void {
    frame.mark = OFFER_AGAIN;
    this.output.push(frame);
  }

  #flush(held: CoalescedSegment): void {
    this.#order.remove(held.order);
    this.flushFlow(held);
  }

  #renumber(): void {
    this.#order.clear();
    for (let held = this.table.oldest; held !== null; held = held.following) {
      held.order = this.#order.add();
    }
  }

  /** Counts the timer. */
  protected override timerFired(_flows: number): void {
    this.counters.timer++;
  }

  /** Completes the headers. */
  protected override finish(held: CoalescedSegment, frame: Frame): void {
    finishQemu(held, frame, this.family);
  }

  #follow(mask: FeatureSet): void {
    const enabled = mask.has(VIRTIO_NET_F_RSC_EXT);
    this.#on = enabled && mask.has(this.family.guestTso);
    this.#anyOn = enabled && (mask.has(VIRTIO_NET_F_GUEST_TSO4) || mask.has(VIRTIO_NET_F_GUEST_TSO6));
  }

  #explain(frame: Frame, verdict: QemuVerdict, held: CoalescedSegment | null): void {
    if (this.verdicts === null) return;
    this.verdicts.note(frame.number, this.name, QEMU_RULES[verdict], held?.frame?.number ?? 0);
  }
}

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

/**
 * Completes the headers of a packet; its checksums stay as they were. Nothing is left of what the network
 * said of it.
 */
function finishQemu(held: CoalescedSegment, frame: Frame, family: RscFamily): void {
  const { view, header } = frame;
  header.flags = 0;
  header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
  if (!held.changed) return;
  held.writeLatest(view);
  family.finish(view, held, false);
  header.flags = VIRTIO_NET_HDR_F_RSC_INFO;
  header.gsoType = family.gsoType;
  header.csumStart = held.segments;
  header.csumOffset = 0;
}

/**
 * Counts how many entries stand before a given one in a list that loses entries anywhere and gains them at
 * its end only: in logarithmic time what the reference counts by walking its list (`no_match`). A Fenwick
 * tree over the numbers in which entries were added remembers those that have gone; while none has, the
 * number is the answer.
 */
export class OpeningOrder {
  #gone = new Int32Array(64);
  #added = 0;
  #removed = 0;

  /** Adds an entry at the end and returns its number. */
  add(): number {
    return this.#added++;
  }

  /** Forgets everything: the list is empty. */
  clear(): void {
    if (this.#removed > 0) this.#gone.fill(0);
    this.#added = 0;
    this.#removed = 0;
  }

  /** Is it time to number the entries anew, because far more have been added than are left? */
  wantsRenumbering(left: number): boolean {
    return this.#added > 1024 && this.#added > 4 * left;
  }

  /** The entry with this number has gone. */
  remove(number: number): void {
    if (this.#added + 1 > this.#gone.length) this.#enlarge();
    this.#removed++;
    this.#mark(number);
  }

  /** How many of the entries before this number are left. */
  before(number: number): number {
    if (this.#removed === 0) return number;
    let gone = 0;
    for (let at = Math.min(number, this.#gone.length - 1); at > 0; at -= at & -at) gone += this.#gone[at];
    return number - gone;
  }

  #mark(number: number): void {
    for (let at = number + 1; at < this.#gone.length; at += at & -at) this.#gone[at]++;
  }

  #enlarge(): void {
    const old = this.#gone;
    const size = old.length - 1;
    let length = old.length;
    while (length < this.#added + 1) length *= 2;
    const grown = new Int32Array(length);
    // Turns the tree into plain marks, and the marks into the larger tree.
    for (let at = size; at >= 1; at--) {
      const parent = at + (at & -at);
      if (parent <= size) old[parent] -= old[at];
    }
    this.#gone = grown;
    for (let at = 1; at <= size; at++) for (let n = old[at]; n > 0; n--) this.#mark(at - 1);
  }
}
