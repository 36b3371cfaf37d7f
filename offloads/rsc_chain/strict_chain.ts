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
import { TCP_HEADER_BYTES, TCP_PSH } from "../../wire/tcp.ts";
import { RscChain } from "./chain.ts";
import { DuplicateAcks } from "./duplicate_acks.ts";
import type { RscFamily } from "./family.ts";
import type { FlowTable } from "./flow_table.ts";
import type { RscOptions } from "./options.ts";
import { difference, flagsAllowMerging, forbiddingFlag, setback } from "./strict_conditions.ts";
import { finishStrict } from "./strict_finish.ts";
import { NO_TERMS, type StrictTerms, strictTerms } from "./strict_terms.ts";
import { openStrict, takeOver } from "./strict_unit.ts";
import {
  newStrictCounters,
  STRICT_RULES,
  type StrictCounter,
  type StrictVerdict,
} from "./strict_verdicts.ts";
import { checksumVerdict } from "./trusted_checksum.ts";
import type { Unit } from "./unit.ts";

/** The largest packet that a guest expects (virtio 1.2, section 5.1.6.3): whatever is longer is never held. */
const MOST_FRAME_BYTES = 65_589;

/** One family's chain under strict rules. */
export class StrictChain extends RscChain {
  /** One for each verdict, and what became of the units. */
  readonly counters: Record<StrictCounter, number>;
  readonly #duplicates: readonly DuplicateAcks[];
  #terms: StrictTerms = NO_TERMS;

  /** An empty chain; counters are published under the context's name. @param family v4 or v6 */
  constructor(family: RscFamily, context: StageContext, options: RscOptions) {
    super(family, context, options, context.queuePairs, options.mostFlows);
    this.counters = context.publish(newStrictCounters());
    this.#duplicates = this.tables.map(() => new DuplicateAcks(family.keyWords));
  }

  /** What is held under other terms leaves under those. */
  override negotiated(state: Negotiated, output: FrameBatch, _nowNs: number): void {
    const terms = strictTerms(state, this.family);
    const { on, rscInfo, guestEcn } = this.#terms;
    if (on && (!terms.on || rscInfo !== terms.rscInfo || guestEcn !== terms.guestEcn)) {
      for (const table of this.tables) this.counters.drained_by_switch += table.count;
      this.flush(output, Infinity);
    }
    this.#terms = terms;
  }

  /** The driver is gone: off until the next one has agreed to something. */
  override reset(output: FrameBatch): void {
    super.reset(output);
    for (const duplicates of this.#duplicates) duplicates.clear();
    this.#terms = NO_TERMS;
  }

  /** Judges one frame. */
  protected override take(frame: Frame, nowNs: number): void {
    if (frame.length < 14 || this.etherTypeOf(frame) !== this.family.etherType) {
      this.output.push(frame);
      return;
    }
    if (!this.#terms.on) return this.#pass(frame, "off");
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
    const unit = table.find(segment);
    if (unit === null) this.#begin(table, frame, nowNs);
    else this.#meet(table, unit, frame, nowNs);
  }

  /** The segment's flow has no unit. */
  #begin(table: FlowTable, frame: Frame, nowNs: number): void {
    const segment = this.segment;
    if (segment.payloadBytes === 0 && this.#duplicates[frame.queue].isRepeated(segment)) {
      return this.#pass(frame, "duplicate_ack");
    }
    this.#open(table, frame, nowNs, "held");
  }

  /** The segment's flow has a unit. */
  #meet(table: FlowTable, unit: Unit, frame: Frame, nowNs: number): void {
    const differs = difference(unit, frame, this.segment, this.#terms.guestEcn);
    if (differs !== null) return this.#reopen(table, unit, frame, nowNs, differs);
    const segment = this.segment;
    if (segment.seq !== (unit.seq + unit.payloadBytes | 0)) {
      return this.#final(table, unit, frame, "out_of_order");
    }
    const back = setback(unit, segment);
    if (back !== null) return this.#final(table, unit, frame, back);
    if (segment.payloadBytes === 0) return this.#pureAck(table, unit, frame);
    if (unit.ipLength + segment.payloadBytes > this.#terms.mostIpLength) {
      return this.#reopen(table, unit, frame, nowNs, "over_size");
    }
    if (unit.segments >= this.options.mostSegments) {
      return this.#reopen(table, unit, frame, nowNs, "most_segments");
    }
    takeOver(unit, segment);
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
    takeOver(unit, segment);
    this.counters.window_update++;
    if (this.verdicts !== null) this.#explain(frame, "window_update", unit);
    this.mergePayload(unit, frame);
  }

  #open(table: FlowTable, frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    if (table.isFull) {
      this.counters.drained_for_room++;
      this.drain(table, table.oldest!);
    }
    const segment = this.segment;
    // Padding behind the IP packet would end up in the middle of the merged data.
    frame.trim(segment.payloadAt + segment.payloadBytes - frame.start);
    const unit = this.hold(table, frame, nowNs);
    openStrict(unit, frame, segment);
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#drainPushed(table, unit);
  }

  /** The unit leaves, and the segment opens the next one of its flow. */
  #reopen(
    table: FlowTable,
    unit: Unit,
    frame: Frame,
    nowNs: number,
    verdict: StrictVerdict,
  ): void {
    this.drain(table, unit);
    this.#open(table, frame, nowNs, verdict);
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
      const unit = table.find(segment);
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
    } else this.counters.units_single++;
    if (unit.changed) finishStrict(unit, frame, this.family, this.#terms.rscInfo);
  }

  #explain(frame: Frame, verdict: StrictVerdict, unit: Unit | null): void {
    this.verdicts!.note(frame.number, this.name, verdict, STRICT_RULES[verdict], unit?.frame?.number ?? 0);
  }
}
