/**
 * The rule book `strict`: merges what may be merged, and nothing is lost, reordered or made up.
 *
 * Theory of operation. `take` asks in order: is the family on; is it a well-formed segment (S1); is its checksum right
 * (S2); do flags and options allow merging (S3). A frame that fails leaves alone, but never before the unit of its flow,
 * whatever form it has: where it is not a plain segment, `HeaderLocator` finds its addresses and ports, and where the ports
 * are hidden, all units between the two addresses leave first. The VLAN is part of the flow; a tag with id 0 is none.
 *
 * A segment of a flow without a unit opens one. Otherwise it must agree with the unit in all that a merged packet can say
 * only once (S4, else the unit leaves and the segment opens the next), be the next bytes and not take back an acknowledgment
 * or a timestamp (S5, else the unit leaves and the segment passes), and fit (S6, else as S4).
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
  ETHERNET_HEADER_BYTES,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  VLAN_TAG_BYTES,
} from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { isExtensionHeader } from "../../wire/ipv6.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES, TCP_PSH } from "../../wire/tcp.ts";
import { RscChain } from "./chain.ts";
import { DuplicateAcks } from "./duplicate_acks.ts";
import type { RscFamily } from "./family.ts";
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
const MAX_FRAME_BYTES = 65_589;
/** Segments behind two VLAN tags are merged; the tags of a unit are compared. */
const MAX_TAG_BYTES = 2 * VLAN_TAG_BYTES;

/** One family's chain under strict rules. */
export class StrictChain extends RscChain {
  /** One for each verdict, and what became of the units. */
  readonly counters: Record<StrictCounter, number>;
  readonly #duplicates: DuplicateAcks;
  readonly #headers = new HeaderLocator();
  #terms: StrictTerms = NO_TERMS;

  /** An empty chain; counters are published under the context's name. @param family v4 or v6 */
  constructor(family: RscFamily, context: StageContext, options: RscOptions) {
    // In threads mode there is a chain for each queue pair.
    const pairs = context.claims === undefined ? context.queuePairs : 1;
    super(family, context, options, options.mostFlows * pairs);
    this.counters = context.publish(newStrictCounters());
    this.#duplicates = new DuplicateAcks(family.keyWords);
  }

  /** What is held under other terms leaves under those. */
  override negotiated(state: Negotiated, output: FrameBatch, _nowNs: number): void {
    const terms = strictTerms(state, this.family);
    const { on, rscInfo, guestEcn } = this.#terms;
    if (on && (!terms.on || rscInfo !== terms.rscInfo || guestEcn !== terms.guestEcn)) {
      this.counters.drained_by_switch += this.table.count;
      this.flush(output, Infinity);
    }
    this.#terms = terms;
  }

  /** The driver is gone: off until the next one has agreed to something. */
  override reset(output: FrameBatch): void {
    super.reset(output);
    this.#duplicates.clear();
    this.#terms = NO_TERMS;
  }

  /** Judges one frame. */
  protected override take(frame: Frame, nowNs: number): void {
    const type = frame.length < ETHERNET_HEADER_BYTES ? 0 : this.etherTypeOf(frame);
    const isPlain = type === this.family.etherType;
    const segment = this.segment;
    if (isPlain) {
      segment.ipAt = frame.start + ETHERNET_HEADER_BYTES;
      segment.vlan = 0;
      segment.tagBytes = 0;
      segment.outerTag = 0;
      segment.innerTag = 0;
    } else if (type === ETHERTYPE_IPV4 || type === ETHERTYPE_IPV6 || !this.#readLink(frame)) {
      this.output.push(frame);
      return;
    }
    if (!this.#terms.on) return this.#pass(frame, "off");
    this.counters.received++;
    if (!isPlain && (this.#headers.isEncapsulated || segment.tagBytes > MAX_TAG_BYTES)) {
      return this.#flushOtherFormAndPass(frame, "encapsulated");
    }
    const located = this.family.locate(frame, segment);
    if (located !== "segment") {
      if (located === "not_tcp") return this.#pass(frame, located);
      if (isPlain) this.#headers.locate(frame.bytes, frame.start, frame.length);
      return this.#flushOtherFormAndPass(frame, located);
    }
    if (frame.next !== null || frame.header.gsoType !== 0 || frame.length > MAX_FRAME_BYTES) {
      return this.#flushAndPass(frame, "already_large");
    }
    const checksum = checksumVerdict(frame, segment, this.family);
    if (checksum !== "right") return this.#flushAndPass(frame, checksum);
    if (!flagsAllowMerging(segment.offsetFlags)) {
      return this.#flushAndPass(frame, forbiddingFlag(segment.offsetFlags));
    }
    if (segment.tcpHeaderBytes !== TCP_HEADER_BYTES && !(segment.hasTimestamp && this.options.timestamps)) {
      return this.#flushAndPass(frame, "tcp_options");
    }
    const unit = this.table.find(segment);
    if (unit === null) this.#begin(frame, nowNs);
    else this.#meet(unit, frame, nowNs);
  }

  /** Looks behind VLAN tags and encapsulations. False if what is there is not of this family. */
  #readLink(frame: Frame): boolean {
    const { segment, family } = this;
    const headers = this.#headers;
    headers.locate(frame.bytes, frame.start, frame.length);
    const { etherTypeAt, vlanTags } = headers;
    if (headers.version === family.version) segment.ipAt = headers.ipAt;
    else if (etherTypeAt < 0 || frame.view.getUint16(etherTypeAt) !== family.etherType) return false;
    else segment.ipAt = etherTypeAt + 2;
    segment.vlan = headers.vlan;
    segment.tagBytes = vlanTags * VLAN_TAG_BYTES;
    segment.outerTag = vlanTags > 0 ? frame.view.getInt32(frame.start + ETHERNET_TYPE) : 0;
    segment.innerTag = vlanTags > 1 ? frame.view.getInt32(frame.start + ETHERNET_TYPE + VLAN_TAG_BYTES) : 0;
    return true;
  }

  /** The segment's flow has no unit. */
  #begin(frame: Frame, nowNs: number): void {
    const segment = this.segment;
    if (segment.payloadBytes === 0 && this.#duplicates.isRepeated(segment)) {
      this.#await();
      return this.#pass(frame, "duplicate_ack");
    }
    this.#open(frame, nowNs, "held");
  }

  /** The segment's flow has a unit. */
  #meet(unit: Unit, frame: Frame, nowNs: number): void {
    const differs = difference(unit, frame, this.segment, this.#terms.guestEcn);
    if (differs !== null) return this.#reopen(unit, frame, nowNs, differs);
    const segment = this.segment;
    if (segment.seq !== (unit.seq + unit.payloadBytes | 0)) {
      return this.#final(unit, frame, "out_of_order");
    }
    const back = setback(unit, segment);
    if (back !== null) return this.#final(unit, frame, back);
    if (segment.payloadBytes === 0) return this.#pureAck(unit, frame);
    if (unit.ipLength + segment.payloadBytes + segment.tagBytes > this.#terms.mostIpLength) {
      return this.#reopen(unit, frame, nowNs, "over_size");
    }
    if (unit.segments >= this.options.mostSegments) {
      return this.#reopen(unit, frame, nowNs, "most_segments");
    }
    takeOver(unit, segment);
    unit.segments++;
    unit.ipLength += segment.payloadBytes;
    if (segment.payloadBytes > unit.largestSegmentBytes) unit.largestSegmentBytes = segment.payloadBytes;
    this.counters.merged++;
    if (this.verdicts !== null) this.#explain(frame, "merged", unit);
    this.mergePayload(unit, frame);
    if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#drainPushed(unit);
  }

  /** A segment without data in the right place: only a window update is merged, and it is not counted as a segment. */
  #pureAck(unit: Unit, frame: Frame): void {
    const segment = this.segment;
    if (segment.ack !== unit.ack) return this.#final(unit, frame, "pure_ack");
    if (segment.window === unit.window) {
      if (unit.segments > 0) this.#duplicates.remember(segment);
      return this.#final(unit, frame, "duplicate_ack");
    }
    takeOver(unit, segment);
    this.counters.window_update++;
    if (this.verdicts !== null) this.#explain(frame, "window_update", unit);
    this.mergePayload(unit, frame);
  }

  #open(frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    const { segment, table } = this;
    if (table.isFull) {
      this.counters.drained_for_room++;
      this.drain(table.oldest!);
    }
    const { claims } = this;
    const claim = claims === null ? -1 : claims.claim(segment.key, this.family.keyWords, this.#salt);
    // Padding behind the IP packet would end up in the middle of the merged data.
    frame.trim(segment.payloadAt + segment.payloadBytes - frame.start);
    const unit = this.hold(frame, nowNs);
    openStrict(unit, frame, segment);
    unit.claim = claim;
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    if (claims !== null && claim < 0) {
      // Another flow has its place among the claims, so that it could be overtaken.
      this.counters.drained_for_room++;
      this.drain(unit);
    } else if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#drainPushed(unit);
  }

  /** The unit leaves, and the segment opens the next one of its flow. */
  #reopen(unit: Unit, frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    this.drain(unit);
    this.#open(frame, nowNs, verdict);
  }

  /** The unit leaves, and then the frame passes. */
  #final(unit: Unit, frame: Frame, verdict: StrictVerdict): void {
    if (this.verdicts !== null) this.#explain(frame, verdict, unit);
    this.drain(unit);
    this.counters[verdict]++;
    this.output.push(frame);
  }

  /** What is held of the located segment's flow leaves, and then the frame passes. */
  #flushAndPass(frame: Frame, verdict: StrictVerdict): void {
    const unit = this.table.find(this.segment);
    if (unit !== null) return this.#final(unit, frame, verdict);
    this.#await();
    this.#pass(frame, verdict);
  }

  /** A frame of the located segment's flow is to pass, of which nothing is held here: is anything in another thread? */
  #await(): void {
    const { claims, segment, family } = this;
    if (claims !== null) claims.pass(segment.key, family.keyWords, this.#salt);
  }

  /** What makes a flow beside its key. */
  get #salt(): number {
    return this.segment.vlan ^ this.family.version << 28;
  }

  /**
   * The frame is no plain segment. What is held of its flow leaves, or, if its ports are hidden, all that is held between its
   * addresses; then it passes. A frame without addresses, or of another protocol, belongs to no flow.
   */
  #flushOtherFormAndPass(frame: Frame, verdict: StrictVerdict): void {
    const { family, segment, table } = this;
    const { version, protocol, portsAt, sourceAt, destinationAt } = this.#headers;
    if (version !== family.version) return this.#pass(frame, verdict);
    if (protocol !== PROTOCOL_TCP && !isExtensionHeader(protocol)) return this.#pass(frame, verdict);
    family.fillAddresses(frame.view, segment, sourceAt, destinationAt);
    if (portsAt >= 0) {
      segment.key[family.keyWords - 1] = frame.view.getInt32(portsAt);
      return this.#flushAndPass(frame, verdict);
    }
    for (let unit = table.firstOfPair(segment); unit !== null;) {
      const following = unit.followingOfPair;
      if (table.hasPair(unit, segment)) this.drain(unit);
      unit = following;
    }
    this.#pass(frame, verdict);
  }

  #pass(frame: Frame, verdict: StrictVerdict): void {
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, null);
    this.output.push(frame);
  }

  #drainPushed(unit: Unit): void {
    this.counters.drained_by_push++;
    this.drain(unit);
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
