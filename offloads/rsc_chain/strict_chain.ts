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
import type { Frame } from "../../pipeline/frame.ts";
import type { FrameBatch } from "../../pipeline/frame_batch.ts";
import type { Negotiated, StageContext } from "../../pipeline/stage.ts";
import { storePartial } from "../../wire/checksum.ts";
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  VLAN_TAG_BYTES,
} from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { isExtensionHeader } from "../../wire/ip.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import {
  PROTOCOL_TCP,
  seqBefore,
  TCP_ACK,
  TCP_ACK_NUMBER,
  TCP_AE,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_ECE,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_OFFSET_FLAGS,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_VALUE,
  TCP_URG,
  TCP_WINDOW,
} from "../../wire/tcp.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
} from "../../wire/virtio_net_header.ts";
import { storeFullChecksum } from "../checksum.ts";
import { DuplicateAcks, RscChain } from "./chain.ts";
import type { RscFamily, RscOptions } from "./plugin.ts";
import { checksumVerdict, type Segment } from "./segment.ts";
import type { Unit } from "./unit.ts";
import { newStrictCounters, STRICT_RULES, type StrictCounter, type StrictVerdict } from "./verdicts.ts";

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
    super(family, context, options, options.maxFlows * pairs);
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
    if (unit.ipLength + segment.payloadBytes + segment.tagBytes > this.#terms.maxIpLength) {
      return this.#reopen(unit, frame, nowNs, "over_size");
    }
    if (unit.segments >= this.options.maxSegments) {
      return this.#reopen(unit, frame, nowNs, "max_segments");
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

// What keeps a segment out of a unit under strict rules, apart from its place in the stream of bytes.

const FLAGS = 0xfff;
const TCP_ECN = TCP_ECE | TCP_CWR | TCP_AE;
/** With these set, or ACK clear, a segment is never merged. */
const UNMERGEABLE = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;
/** Flags that all segments of a unit must have alike: all but PSH, and the reserved bits, whose meaning is not known. */
const ALIKE = FLAGS & ~TCP_PSH;

/** Do the flags allow merging at all? */
export function flagsAllowMerging(offsetFlags: number): boolean {
  return (offsetFlags & (UNMERGEABLE | TCP_ACK)) === TCP_ACK;
}

/** The flag that forbids merging, of those that do the one that says most. */
export function forbiddingFlag(offsetFlags: number): StrictVerdict {
  if ((offsetFlags & TCP_SYN) !== 0) return "syn";
  if ((offsetFlags & TCP_RST) !== 0) return "rst";
  if ((offsetFlags & TCP_FIN) !== 0) return "fin";
  if ((offsetFlags & TCP_URG) !== 0) return "urg";
  return "no_ack";
}

/** What a merged packet can say only once, and segment and unit say differently; null if nothing. */
export function difference(
  unit: Unit,
  frame: Frame,
  segment: Segment,
  guestEcn: boolean,
): StrictVerdict | null {
  if (segment.traits !== unit.traits) return "traits_differ";
  if (((segment.offsetFlags ^ unit.offsetFlags) & ALIKE) !== 0) return "tcp_ecn_differs";
  if (!guestEcn && (segment.ecn !== 0 || (segment.offsetFlags & TCP_ECN) !== 0)) return "ecn_not_negotiated";
  if (segment.hasTimestamp !== unit.hasTimestamp) return "timestamp_option_differs";
  const { view, start } = frame;
  const same = unit.macs0 === view.getInt32(start) && unit.macs1 === view.getInt32(start + 4) &&
    unit.macs2 === view.getInt32(start + 8);
  if (!same) return "mac_differs";
  if (unit.outerTag !== segment.outerTag || unit.innerTag !== segment.innerTag) return "vlan_tag_differs";
  return unit.queue === frame.queue ? null : "queue_pair_differs";
}

/** What the segment would take back of what the unit says, an acknowledgment or a timestamp; null if nothing. */
export function setback(unit: Unit, segment: Segment): "ack_older" | "timestamp_older" | null {
  if (seqBefore(segment.ack, unit.ack)) return "ack_older";
  if (!unit.hasTimestamp) return null;
  const older = seqBefore(segment.tsValue, unit.tsValue) || seqBefore(segment.tsEcho, unit.tsEcho);
  return older ? "timestamp_older" : null;
}

// Writes into a unit that is about to leave what merging has changed, under strict rules.

/** Completes the headers of a unit into which something was merged. `rscInfo`: the guest accepted RSC_EXT. */
export function finishStrict(unit: Unit, frame: Frame, family: RscFamily, rscInfo: boolean): void {
  const { view, header } = frame;
  const tcp = unit.tcpAt;
  view.setUint16(tcp + TCP_OFFSET_FLAGS, unit.offsetFlags);
  view.setInt32(tcp + TCP_ACK_NUMBER, unit.ack);
  view.setUint16(tcp + TCP_WINDOW, unit.window);
  if (unit.hasTimestamp) {
    view.setInt32(tcp + TCP_TIMESTAMP_VALUE, unit.tsValue);
    view.setInt32(tcp + TCP_TIMESTAMP_ECHO, unit.tsEcho);
  }
  family.finish(view, unit, true);
  header.clear();
  const tcpBytes = unit.tcpHeaderBytes + unit.payloadBytes;
  const pseudo = family.pseudoSum(view, unit.ipAt, tcpBytes);
  if (unit.segments < 2) {
    storeFullChecksum(frame, tcp, tcp + TCP_CHECKSUM, pseudo);
    return;
  }
  storePartial(view, tcp + TCP_CHECKSUM, pseudo);
  const ecn = (unit.offsetFlags & (TCP_ECE | TCP_CWR)) !== 0 ? VIRTIO_NET_HDR_GSO_ECN : 0;
  header.gsoType = family.gsoType | ecn;
  header.gsoSize = unit.largestSegmentBytes;
  header.hdrLen = tcp + unit.tcpHeaderBytes - frame.start;
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (rscInfo) {
    header.flags |= VIRTIO_NET_HDR_F_RSC_INFO;
    header.csumStart = unit.segments;
    // Duplicate ACKs are never merged here, so there are none to report.
    header.csumOffset = 0;
  } else {
    header.csumStart = tcp - frame.start;
    header.csumOffset = TCP_CHECKSUM;
  }
}

// What the guest's features and offloads mean for strict coalescing.

const ETHERNET_BYTES = 14;
/**
 * The largest merged packet for a guest without MRG_RXBUF: the 65562 bytes that virtio 1.0 to 1.2 tell it to post (section
 * 5.1.6.3.1), less 12 of header. IPv6 packets can be longer, and would be lost.
 */
const MAX_BYTES_IN_ONE_BUFFER = 65_550;

/** The terms under which one family's segments are merged. */
export interface StrictTerms {
  /** Are they merged at all? */
  readonly on: boolean;
  /** Does the guest look at RSC_INFO? */
  readonly rscInfo: boolean;
  /** Does it take merged packets with ECN? */
  readonly guestEcn: boolean;
  /** Largest value of a merged packet's IP length field, in bytes. */
  readonly maxIpLength: number;
}

/** Nothing is merged. */
export const NO_TERMS: StrictTerms = { on: false, rscInfo: false, guestEcn: false, maxIpLength: 0 };

/**
 * The terms of a guest. It is on with GUEST_CSUM and the family's GUEST_TSO. A guest that knows RSC_EXT must have it on too,
 * one that does not gets ordinary large packets.
 */
export function strictTerms({ features, offloads }: Negotiated, family: RscFamily): StrictTerms {
  const wanted = !features.has(VIRTIO_NET_F_RSC_EXT) || offloads.has(VIRTIO_NET_F_RSC_EXT);
  const { maxIpLength, ipHeaderUncounted } = family;
  return {
    on: wanted && offloads.has(VIRTIO_NET_F_GUEST_CSUM) && offloads.has(family.guestTso),
    rscInfo: offloads.has(VIRTIO_NET_F_RSC_EXT),
    guestEcn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    maxIpLength: features.has(VIRTIO_NET_F_MRG_RXBUF)
      ? maxIpLength
      : Math.min(maxIpLength, MAX_BYTES_IN_ONE_BUFFER - ETHERNET_BYTES - ipHeaderUncounted),
  };
}

// What a unit says of its segments under strict rules, beyond what every chain keeps.

/** A unit that the segment in `frame` opens. */
export function openStrict(unit: Unit, frame: Frame, segment: Segment): void {
  unit.segments = segment.payloadBytes > 0 ? 1 : 0;
  unit.traits = segment.traits;
  unit.macs0 = frame.view.getInt32(frame.start);
  unit.macs1 = frame.view.getInt32(frame.start + 4);
  unit.macs2 = frame.view.getInt32(frame.start + 8);
  unit.outerTag = segment.outerTag;
  unit.innerTag = segment.innerTag;
  unit.queue = frame.queue;
  unit.hopLimit = segment.hopLimit;
  unit.largestSegmentBytes = segment.payloadBytes;
  unit.hasTimestamp = segment.hasTimestamp;
  unit.tsValue = segment.tsValue;
  unit.tsEcho = segment.tsEcho;
}

/** The unit takes over what the latest segment says. PSH once said stays said. */
export function takeOver(unit: Unit, segment: Segment): void {
  unit.ack = segment.ack;
  unit.window = segment.window;
  unit.offsetFlags = segment.offsetFlags | unit.offsetFlags & TCP_PSH;
  if (segment.hopLimit < unit.hopLimit) unit.hopLimit = segment.hopLimit;
  unit.tsValue = segment.tsValue;
  unit.tsEcho = segment.tsEcho;
}
