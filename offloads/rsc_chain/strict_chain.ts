/**
 * The rule book `strict`: merges what may be merged, and nothing is lost, reordered or made up.
 *
 * Theory of operation. `take` asks in order: is the family on; is it a well-formed segment (S1); is its checksum right
 * (S2); do flags and options allow merging (S3). A frame that fails leaves alone, but never before the unit of its flow:
 * where the ports cannot be seen, all units between the two addresses leave first. A segment of a flow without a unit opens
 * one. Otherwise it must agree with the unit in all that a merged packet can say only once (S4, else the unit leaves and
 * the segment opens the next), be the next bytes and not take back an acknowledgment or a timestamp (S5, else the unit
 * leaves and the segment passes), and fit (S6, else as S4).
 *
 * `segments` counts data segments only. A unit of two or more leaves with NEEDS_CSUM, a pseudo-header sum, gso_size and, if
 * the guest accepted RSC_EXT, RSC_INFO; a unit of one leaves as it came, or, if a window update was merged into it, with full
 * checksums.
 *
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import type { FrameBatch } from "../../core/frame_batch.ts";
import type { Negotiated, StageContext } from "../../core/stage.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import { seqBefore, TCP_HEADER_BYTES, TCP_PSH } from "../../wire/tcp.ts";
import { RscChain } from "./chain.ts";
import { DuplicateAcks } from "./duplicate_acks.ts";
import type { RscFamily } from "./family.ts";
import type { FlowTable } from "./flow_table.ts";
import type { RscOptions } from "./options.ts";
import { difference, flagsAllowMerging, forbiddingFlag } from "./strict_conditions.ts";
import { finishStrict } from "./strict_finish.ts";
import {
  newStrictCounters,
  STRICT_RULES,
  type StrictCounter,
  type StrictVerdict,
} from "./strict_verdicts.ts";
import { checksumVerdict } from "./trusted_checksum.ts";
import type { Unit } from "./unit.ts";

const ETHERNET_BYTES = 14;
/** The largest packet that a guest expects (virtio 1.2, section 5.1.6.3): whatever is longer is never held. */
const MOST_FRAME_BYTES = 65_589;
/**
 * The largest merged packet for a guest without MRG_RXBUF: the 65562 bytes that virtio 1.0 to 1.2 tell it to post (section
 * 5.1.6.3.1), less 12 of header. IPv6 packets can be longer, and would be lost.
 */
const MOST_BYTES_IN_ONE_BUFFER = 65_550;

/** One family's chain under strict rules. */
export class StrictChain extends RscChain {
  /** One for each verdict, and what became of the units. */
  readonly counters: Record<StrictCounter, number>;
  readonly #duplicates: readonly DuplicateAcks[];
  #on = false;
  #rscInfo = false;
  #guestEcn = false;
  #mostIpLength: number;

  /** An empty chain; counters are published under the context's name. @param family v4 or v6 */
  constructor(family: RscFamily, context: StageContext, options: RscOptions) {
    super(family, context, options, context.queuePairs, options.mostFlows);
    this.counters = context.publish(newStrictCounters());
    this.#duplicates = this.tables.map(() => new DuplicateAcks(family.keyWords));
    this.#mostIpLength = family.mostIpLength;
  }

  /**
   * On with GUEST_CSUM and the family's GUEST_TSO. A guest that knows RSC_EXT must have it on too, one that does not gets
   * ordinary large packets.
   */
  override negotiated(state: Negotiated, output: FrameBatch, _nowNs: number): void {
    const { features, offloads } = state;
    const wanted = !features.has(VIRTIO_NET_F_RSC_EXT) || offloads.has(VIRTIO_NET_F_RSC_EXT);
    const on = wanted && offloads.has(VIRTIO_NET_F_GUEST_CSUM) &&
      offloads.has(this.family.guestTso);
    const rscInfo = offloads.has(VIRTIO_NET_F_RSC_EXT);
    const guestEcn = offloads.has(VIRTIO_NET_F_GUEST_ECN);
    if (this.#on && (!on || rscInfo !== this.#rscInfo || guestEcn !== this.#guestEcn)) {
      for (const table of this.tables) this.counters.drained_by_switch += table.count;
      this.flush(output, Infinity);
    }
    this.#on = on;
    this.#rscInfo = rscInfo;
    this.#guestEcn = guestEcn;
    const { mostIpLength, ipHeaderUncounted } = this.family;
    this.#mostIpLength = features.has(VIRTIO_NET_F_MRG_RXBUF)
      ? mostIpLength
      : Math.min(mostIpLength, MOST_BYTES_IN_ONE_BUFFER - ETHERNET_BYTES - ipHeaderUncounted);
  }

  /** The driver is gone: off until the next one has agreed to something. */
  override reset(output: FrameBatch): void {
    super.reset(output);
    for (const duplicates of this.#duplicates) duplicates.clear();
    this.#on = false;
  }

  /** Judges one frame. */
  protected override take(frame: Frame, nowNs: number): void {
    if (frame.length < 14 || this.etherTypeOf(frame) !== this.family.etherType) {
      this.output.push(frame);
      return;
    }
    if (!this.#on) return this.#pass(frame, "off");
    this.counters.received++;
    const segment = this.segment;
    const located = this.family.locate(frame, segment);
    const table = this.tables[frame.queue];
    if (located !== "segment") return this.#flushAndPass(table, frame, located);
    if (frame.next !== null || frame.header.gsoType !== 0 || frame.length > MOST_FRAME_BYTES) {
      return this.#flushAndPass(table, frame, "already_large");
    }
    const checksum = checksumVerdict(frame, segment, this.family);
    if (checksum !== "right") return this.#flushAndPass(table, frame, checksum);
    if (!flagsAllowMerging(segment.offsetFlags)) {
      return this.#flushAndPass(table, frame, forbiddingFlag(segment.offsetFlags));
    }
    if (segment.tcpHeaderBytes !== TCP_HEADER_BYTES && !(segment.hasTimestamp && this.options.timestamps)) {
      return this.#flushAndPass(table, frame, "tcp_options");
    }
    const hash = table.hashOf(segment);
    const unit = table.find(segment, hash);
    if (unit === null) this.#begin(table, hash, frame, nowNs);
    else this.#meet(table, unit, hash, frame, nowNs);
  }

  /** The segment's flow has no unit. */
  #begin(table: FlowTable, hash: number, frame: Frame, nowNs: number): void {
    const { segment } = this;
    if (segment.payloadBytes === 0 && this.#duplicates[frame.queue].isRepeated(segment)) {
      this.#pass(frame, "duplicate_ack");
    } else {
      this.#open(table, hash, frame, nowNs, "held");
    }
  }

  /** The segment's flow has a unit. */
  #meet(table: FlowTable, unit: Unit, hash: number, frame: Frame, nowNs: number): void {
    const differs = difference(unit, frame, this.segment, this.#guestEcn);
    if (differs !== null) return this.#reopen(table, unit, hash, frame, nowNs, differs);
    const segment = this.segment;
    if (segment.seq !== (unit.seq + unit.payloadBytes | 0)) {
      return this.#final(table, unit, frame, "out_of_order");
    }
    if (seqBefore(segment.ack, unit.ack)) return this.#final(table, unit, frame, "ack_older");
    if (unit.hasTimestamp) {
      if (seqBefore(segment.tsValue, unit.tsValue) || seqBefore(segment.tsEcho, unit.tsEcho)) {
        return this.#final(table, unit, frame, "timestamp_older");
      }
    }
    if (segment.payloadBytes === 0) return this.#pureAck(table, unit, frame);
    if (unit.ipLength + segment.payloadBytes > this.#mostIpLength) {
      return this.#reopen(table, unit, hash, frame, nowNs, "over_size");
    }
    if (unit.segments >= this.options.mostSegments) {
      return this.#reopen(table, unit, hash, frame, nowNs, "most_segments");
    }
    this.#takeOver(unit);
    unit.segments++;
    unit.ipLength += segment.payloadBytes;
    if (segment.payloadBytes > unit.largestSegmentBytes) unit.largestSegmentBytes = segment.payloadBytes;
    this.counters.merged++;
    if (this.verdicts !== null) this.#explain(frame, "merged", unit);
    this.mergePayload(unit, frame);
    if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#drainPushed(table, unit);
  }

  /** A segment without data in the right place: only a window update is merged, and it is not counted as a segment. */
  #pureAck(table: FlowTable, unit: Unit, frame: Frame): void {
    const segment = this.segment;
    if (segment.ack !== unit.ack) return this.#final(table, unit, frame, "pure_ack");
    if (segment.window === unit.window) {
      if (unit.segments > 0) this.#duplicates[frame.queue].remember(segment);
      return this.#final(table, unit, frame, "duplicate_ack");
    }
    this.#takeOver(unit);
    this.counters.window_update++;
    if (this.verdicts !== null) this.#explain(frame, "window_update", unit);
    this.mergePayload(unit, frame);
  }

  /** The unit takes over what the latest segment says. PSH once said stays said. */
  #takeOver(unit: Unit): void {
    const segment = this.segment;
    unit.ack = segment.ack;
    unit.window = segment.window;
    unit.offsetFlags = segment.offsetFlags | unit.offsetFlags & TCP_PSH;
    if (segment.hopLimit < unit.hopLimit) unit.hopLimit = segment.hopLimit;
    unit.tsValue = segment.tsValue;
    unit.tsEcho = segment.tsEcho;
  }

  #open(table: FlowTable, hash: number, frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    if (table.isFull) {
      this.counters.drained_for_room++;
      this.drain(table, table.oldest!);
    }
    const segment = this.segment;
    // Padding behind the IP packet would end up in the middle of the merged data.
    frame.trim(segment.payloadAt + segment.payloadBytes - frame.start);
    const unit = this.hold(table, hash, frame, nowNs);
    unit.segments = segment.payloadBytes > 0 ? 1 : 0;
    unit.traits = segment.traits;
    unit.hopLimit = segment.hopLimit;
    unit.largestSegmentBytes = segment.payloadBytes;
    unit.hasTimestamp = segment.hasTimestamp;
    unit.tsValue = segment.tsValue;
    unit.tsEcho = segment.tsEcho;
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#drainPushed(table, unit);
  }

  /** The unit leaves, and the segment opens the next one of its flow. */
  #reopen(
    table: FlowTable,
    unit: Unit,
    hash: number,
    frame: Frame,
    nowNs: number,
    verdict: StrictVerdict,
  ): void {
    this.drain(table, unit);
    this.#open(table, hash, frame, nowNs, verdict);
  }

  /** The unit leaves, and then the frame passes. */
  #final(table: FlowTable, unit: Unit, frame: Frame, verdict: StrictVerdict): void {
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    this.drain(table, unit);
    this.counters[verdict]++;
    this.output.push(frame);
  }

  /** Whatever is held of the frame's flow leaves, as far as the flow can be told, and then the frame passes. */
  #flushAndPass(table: FlowTable, frame: Frame, verdict: StrictVerdict): void {
    const segment = this.segment;
    if (segment.flowKnown === "flow") {
      const unit = table.find(segment, table.hashOf(segment));
      if (unit !== null) return this.#final(table, unit, frame, verdict);
    } else if (segment.flowKnown === "addresses") {
      for (let unit = table.firstOfPair(segment); unit !== null;) {
        const following = unit.followingOfPair;
        if (table.hasPair(unit, segment)) this.drain(table, unit);
        unit = following;
      }
    }
    this.#pass(frame, verdict);
  }

  #pass(frame: Frame, verdict: StrictVerdict): void {
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, null);
    this.output.push(frame);
  }

  #drainPushed(table: FlowTable, unit: Unit): void {
    this.counters.drained_by_push++;
    this.drain(table, unit);
  }

  /** Counts the units that the timer drained. */
  protected override timerFired(units: number): void {
    this.counters.drained_by_timer += units;
  }

  /** Counts the unit and completes its headers. */
  protected override finish(unit: Unit, frame: Frame): void {
    if (unit.segments > 1) {
      this.counters.units_coalesced++;
      this.counters.segments_coalesced += unit.segments;
    } else {
      this.counters.units_single++;
    }
    if (unit.changed) finishStrict(unit, frame, this.family, this.#rscInfo);
  }

  #explain(frame: Frame, verdict: StrictVerdict, unit: Unit | null): void {
    this.verdicts!.note(frame.number, this.name, verdict, STRICT_RULES[verdict], unit?.frame?.number ?? 0);
  }
}
