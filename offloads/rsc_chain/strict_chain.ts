/**
 * The rule book `strict`: merges what may be merged; nothing is lost, reordered or made up.
 *
 * Theory of operation. `take` asks in order: is the family on; is it a well-formed segment (S1); is its
 * checksum right (S2); do flags and options allow merging (S3). A frame that fails passes alone, but never
 * before what is held of its flow, in any form: where it is not a plain segment, `HeaderLocator`
 * finds its addresses and ports, and where the ports are hidden, all flows between the two addresses are
 * flushed first. The VLAN is part of the flow; a tag with id 0 is none.
 *
 * A segment of a flow of which nothing is held is held. Otherwise it must agree with what is held in all that
 * a merged packet can say only once (S4, else flush and hold), be the next bytes and not take back an
 * acknowledgment or a timestamp (S5, else flush and pass), and fit (S6, else as S4).
 *
 * `segments` counts data segments only. What holds two or more is flushed with NEEDS_CSUM, a pseudo-header
 * sum, gso_size and, if the guest accepted RSC_EXT, RSC_INFO; what holds one is flushed as it came, or, if a
 * window update was merged into it, with full checksums.
 *
 * @module
 */
import type { Frame, FrameBatch } from "../../pipeline/frame.ts";
import type { Negotiated, StageContext } from "../../pipeline/stage.ts";
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_TYPE,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  VLAN_TAG_BYTES,
} from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import {
  isExtensionHeader,
  PROTOCOL_TCP,
  seqBefore,
  TCP_ACK,
  TCP_AE,
  TCP_CHECKSUM,
  TCP_CWR,
  TCP_ECE,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_RST,
  TCP_SYN,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_VALUE,
  TCP_URG,
} from "../../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_ECN } from "../../wire/virtio_net_header.ts";
import { leavePartial, storeFullChecksum } from "../checksum.ts";
import { RscChain, type RscOptions } from "./chain.ts";
import {
  checksumVerdict,
  type CoalescedSegment,
  MAX_KEY_WORDS,
  type ParsedSegment,
  type RscFamily,
  tcpSum,
} from "./segments.ts";
import { newStrictCounters, STRICT_RULES, type StrictCounter, type StrictVerdict } from "./verdicts.ts";

/** The largest packet that a guest expects (virtio 1.2, section 5.1.6.3): a longer one is never held. */
const MAX_FRAME_BYTES = 65_589;
/** Largest value of the IP length field, in bytes. */
const MAX_IP_LENGTH = 65_535;
/** How many flows are looked at when the network has no more: work of a round is bounded. */
const MAX_IDLE_FLOWS = 64;
/** Segments behind up to two VLAN tags are merged if the tags are equal. */
const MAX_TAG_BYTES = 2 * VLAN_TAG_BYTES;

/** One family's chain under strict rules. */
export class StrictChain extends RscChain {
  /** One for each verdict, and what became of the flows. */
  readonly counters: Record<StrictCounter, number>;
  readonly #duplicates: DuplicateAcks;
  readonly #headers = new HeaderLocator();
  #accepted: AcceptedOffloads = NOTHING_ACCEPTED;
  /** Flushes what its sender has finished; undefined if that is to wait for the timer too. */
  declare readonly idle?: (output: FrameBatch) => void;

  /** An empty chain; counters are published under the context's name. @param family v4 or v6 */
  constructor(family: RscFamily, context: StageContext, options: RscOptions) {
    // In threads mode there is a chain for each queue pair.
    const pairs = context.claims === undefined ? context.queuePairs : 1;
    super(family, context, options, options.maxFlows * pairs);
    this.burst?.configureStrict(MAX_FRAME_BYTES, options);
    this.counters = context.publish(newStrictCounters());
    this.#duplicates = new DuplicateAcks(family.keyWords);
    if (options.flushOnIdle ?? context.isTimeVirtual !== true) {
      this.idle = (output) => {
        this.counters.drained_by_idle += this.flushSome(output, MAX_IDLE_FLOWS, isFinished);
      };
    }
  }

  /** Flushes what is held under what was accepted before, if that changes. */
  override negotiated(state: Negotiated, output: FrameBatch, _nowNs: number): void {
    const accepted = acceptedOffloads(state, this.family);
    const { on, rscInfo, guestEcn } = this.#accepted;
    if (on && (!accepted.on || rscInfo !== accepted.rscInfo || guestEcn !== accepted.guestEcn)) {
      this.counters.drained_by_switch += this.table.count;
      this.flush(output, Infinity);
    }
    this.#accepted = accepted;
    this.burst?.limitStrict(accepted.maxIpLength, accepted.guestEcn);
  }

  /** The driver is gone: off until the next one has agreed to something. */
  override reset(output: FrameBatch): void {
    super.reset(output);
    this.#duplicates.clear();
    this.#accepted = NOTHING_ACCEPTED;
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
    if (!this.#accepted.on) return this.#pass(frame, "off");
    this.counters.received++;
    if (!isPlain && (this.#headers.isEncapsulated || segment.tagBytes > MAX_TAG_BYTES)) {
      return this.#flushAndPassOtherForm(frame, "encapsulated");
    }
    const located = this.family.locate(frame, segment);
    if (located !== "segment") {
      if (located === "not_tcp") return this.#pass(frame, located);
      if (isPlain) this.#headers.locate(frame.bytes, frame.start, frame.length);
      return this.#flushAndPassOtherForm(frame, located);
    }
    if (frame.next !== null || frame.header.gsoType !== 0 || frame.length > MAX_FRAME_BYTES) {
      return this.#flushAndPass(frame, "already_large");
    }
    const checksum = this.isRight ? "right" : checksumVerdict(frame, segment, this.family);
    if (checksum !== "right") return this.#flushAndPass(frame, checksum);
    if (!flagsAllowMerging(segment.offsetFlags)) {
      return this.#flushAndPass(frame, forbiddingFlag(segment.offsetFlags));
    }
    if (segment.tcpHeaderBytes !== TCP_HEADER_BYTES && !(segment.hasTimestamp && this.options.timestamps)) {
      return this.#flushAndPass(frame, "tcp_options");
    }
    const held = this.table.find(segment);
    if (held === null) this.#tryHold(frame, nowNs);
    else this.#tryMerge(held, frame, nowNs);
  }

  /** Are frames looked at in bursts? */
  protected override get mergesBursts(): boolean {
    return this.#accepted.on;
  }

  /** Counts a segment that the kernel has merged. */
  protected override mergedInBurst(_held: CoalescedSegment): void {
    this.counters.received++;
    this.counters.merged++;
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

  /** Holds a segment of a flow of which nothing is held; a repeated duplicate ACK passes. */
  #tryHold(frame: Frame, nowNs: number): void {
    const segment = this.segment;
    if (segment.payloadBytes === 0 && this.#duplicates.isRepeated(segment)) {
      this.#waitForOtherThreads();
      return this.#pass(frame, "duplicate_ack");
    }
    this.#open(frame, nowNs, "held");
  }

  /** Merges a segment into what is held of its flow, or flushes that and holds or passes the segment. */
  #tryMerge(held: CoalescedSegment, frame: Frame, nowNs: number): void {
    const differs = difference(held, frame, this.segment, this.#accepted.guestEcn);
    if (differs !== null) return this.#flushThenHold(held, frame, nowNs, differs);
    const segment = this.segment;
    if (segment.seq !== (held.seq + held.payloadBytes | 0)) {
      return this.#flushThenPass(held, frame, "out_of_order");
    }
    const back = setback(held, segment);
    if (back !== null) return this.#flushThenPass(held, frame, back);
    if (segment.payloadBytes === 0) return this.#pureAck(held, frame);
    if (held.ipLength + segment.payloadBytes + segment.tagBytes > this.#accepted.maxIpLength) {
      return this.#flushThenHold(held, frame, nowNs, "over_size");
    }
    if (held.segments >= this.options.maxSegments) {
      return this.#flushThenHold(held, frame, nowNs, "max_segments");
    }
    takeOver(held, segment);
    held.segments++;
    held.ipLength += segment.payloadBytes;
    if (segment.payloadBytes > held.largestSegmentBytes) held.largestSegmentBytes = segment.payloadBytes;
    this.counters.merged++;
    if (this.verdicts !== null) this.#explain(frame, "merged", held);
    this.mergePayload(held, frame);
    if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#flushPushed(held);
  }

  /**
   * A segment without data in the right place: only a window update is merged, and it is not counted as a
   * segment.
   */
  #pureAck(held: CoalescedSegment, frame: Frame): void {
    const segment = this.segment;
    if (segment.ack !== held.ack) return this.#flushThenPass(held, frame, "pure_ack");
    if (segment.window === held.window) {
      if (held.segments > 0) this.#duplicates.remember(segment);
      return this.#flushThenPass(held, frame, "duplicate_ack");
    }
    takeOver(held, segment);
    this.counters.window_update++;
    if (this.verdicts !== null) this.#explain(frame, "window_update", held);
    this.mergePayload(held, frame);
  }

  #open(frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    const { segment, table } = this;
    if (table.isFull) {
      this.counters.drained_for_room++;
      this.flushFlow(table.oldest!);
    }
    const { claims } = this;
    const claim = claims === null ? -1 : claims.claim(segment.key, this.family.keyWords, this.#salt);
    // Padding behind the IP packet would end up in the middle of the merged data.
    frame.trim(segment.payloadAt + segment.payloadBytes - frame.start);
    const held = this.hold(frame, nowNs);
    openStrict(held, frame, segment);
    held.claim = claim;
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, held);
    if (claims !== null && claim < 0) {
      // Another flow has its place among the claims: the threads would not know of this one.
      this.counters.drained_for_room++;
      this.flushFlow(held);
    } else if (this.options.flushOnPush && (segment.offsetFlags & TCP_PSH) !== 0) this.#flushPushed(held);
  }

  /** Flushes the flow, and holds the segment. */
  #flushThenHold(held: CoalescedSegment, frame: Frame, nowNs: number, verdict: StrictVerdict): void {
    this.flushFlow(held);
    this.#open(frame, nowNs, verdict);
  }

  /** Flushes the flow, and passes the frame. */
  #flushThenPass(held: CoalescedSegment, frame: Frame, verdict: StrictVerdict): void {
    if (this.verdicts !== null) this.#explain(frame, verdict, held);
    this.flushFlow(held);
    this.counters[verdict]++;
    this.output.push(frame);
  }

  /** Flushes the located segment's flow, if anything is held of it, and passes the frame. */
  #flushAndPass(frame: Frame, verdict: StrictVerdict): void {
    const held = this.table.find(this.segment);
    if (held !== null) return this.#flushThenPass(held, frame, verdict);
    this.#waitForOtherThreads();
    this.#pass(frame, verdict);
  }

  /**
   * Waits until no other thread holds anything of the located segment's flow, of which a frame is to pass.
   */
  #waitForOtherThreads(): void {
    const { claims, segment, family } = this;
    if (claims !== null) claims.pass(segment.key, family.keyWords, this.#salt);
  }

  /** What makes a flow beside its key. */
  get #salt(): number {
    return this.segment.vlan ^ this.family.version << 28;
  }

  /**
   * Passes a frame that is no plain segment. Flushes its flow before, or, if its ports are hidden, all flows
   * between its addresses. A frame without addresses, or of another protocol, belongs to no flow.
   */
  #flushAndPassOtherForm(frame: Frame, verdict: StrictVerdict): void {
    const { family, segment, table } = this;
    const { version, protocol, portsAt, sourceAt, destinationAt } = this.#headers;
    if (version !== family.version) return this.#pass(frame, verdict);
    if (protocol !== PROTOCOL_TCP && !isExtensionHeader(protocol)) return this.#pass(frame, verdict);
    family.fillAddresses(frame.view, segment, sourceAt, destinationAt);
    if (portsAt >= 0) {
      segment.key[family.keyWords - 1] = frame.view.getInt32(portsAt, true);
      return this.#flushAndPass(frame, verdict);
    }
    for (let held = table.firstOfPair(segment); held !== null;) {
      const following = held.followingOfPair;
      if (table.hasPair(held, segment)) this.flushFlow(held);
      held = following;
    }
    this.#pass(frame, verdict);
  }

  #pass(frame: Frame, verdict: StrictVerdict): void {
    this.counters[verdict]++;
    if (this.verdicts !== null) this.#explain(frame, verdict, null);
    this.output.push(frame);
  }

  #flushPushed(held: CoalescedSegment): void {
    this.counters.drained_by_push++;
    this.flushFlow(held);
  }

  /** Counts the flows that the timer flushed. */
  protected override timerFired(flows: number): void {
    this.counters.drained_by_timer += flows;
  }

  /** Counts the packet and completes its headers. */
  protected override finish(held: CoalescedSegment, frame: Frame): void {
    if (held.segments > 1) {
      this.counters.packets_coalesced++;
      this.counters.segments_coalesced += held.segments;
    } else this.counters.packets_single++;
    if (held.changed) finishStrict(held, frame, this.family, this.#accepted.rscInfo);
  }

  #explain(frame: Frame, verdict: StrictVerdict, held: CoalescedSegment | null): void {
    this.verdicts!.note(frame.number, this.name, STRICT_RULES[verdict], held?.frame?.number ?? 0);
  }
}

/** Has the sender said that it has no more for now? A pure ACK is nothing that more would be added to. */
function isFinished(held: CoalescedSegment): boolean {
  return (held.offsetFlags & TCP_PSH) !== 0 || held.segments === 0;
}

const FLAGS = 0xfff;
const TCP_ECN = TCP_ECE | TCP_CWR | TCP_AE;
/** With one of these set, or ACK clear, a segment is never merged. */
const UNMERGEABLE = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;
/**
 * Flags that merged segments must have alike: all but PSH, and the reserved bits, whose meaning is not known.
 */
const ALIKE = FLAGS & ~TCP_PSH;

/** Do the flags allow merging at all? */
function flagsAllowMerging(offsetFlags: number): boolean {
  return (offsetFlags & (UNMERGEABLE | TCP_ACK)) === TCP_ACK;
}

/** The flag that forbids merging; of several the one that says most. */
function forbiddingFlag(offsetFlags: number): StrictVerdict {
  if ((offsetFlags & TCP_SYN) !== 0) return "syn";
  if ((offsetFlags & TCP_RST) !== 0) return "rst";
  if ((offsetFlags & TCP_FIN) !== 0) return "fin";
  if ((offsetFlags & TCP_URG) !== 0) return "urg";
  return "no_ack";
}

/**
 * What a merged packet can say only once, and the segment says otherwise than what is held; null if nothing.
 */
function difference(
  held: CoalescedSegment,
  frame: Frame,
  segment: ParsedSegment,
  guestEcn: boolean,
): StrictVerdict | null {
  if (segment.traits !== held.traits) return "traits_differ";
  if (((segment.offsetFlags ^ held.offsetFlags) & ALIKE) !== 0) return "tcp_ecn_differs";
  if (!guestEcn && (segment.ecn !== 0 || (segment.offsetFlags & TCP_ECN) !== 0)) return "ecn_not_negotiated";
  if (segment.hasTimestamp !== held.hasTimestamp) return "timestamp_option_differs";
  if (!held.hasMacs(frame.view, frame.start)) return "mac_differs";
  if (held.outerTag !== segment.outerTag || held.innerTag !== segment.innerTag) return "vlan_tag_differs";
  return held.queuePair === frame.queuePair ? null : "queue_pair_differs";
}

/** What the segment would take back of what is held, an acknowledgment or a timestamp; null if nothing. */
function setback(held: CoalescedSegment, segment: ParsedSegment): "ack_older" | "timestamp_older" | null {
  if (seqBefore(segment.ack, held.ack)) return "ack_older";
  if (!held.hasTimestamp) return null;
  const older = seqBefore(segment.tsValue, held.tsValue) || seqBefore(segment.tsEcho, held.tsEcho);
  return older ? "timestamp_older" : null;
}

/**
 * Completes the headers of a packet into which something was merged. `rscInfo`: the guest accepted RSC_EXT.
 */
function finishStrict(held: CoalescedSegment, frame: Frame, family: RscFamily, rscInfo: boolean): void {
  const { view, header } = frame;
  const tcp = held.tcpAt;
  held.writeLatest(view);
  if (held.hasTimestamp) {
    view.setInt32(tcp + TCP_TIMESTAMP_VALUE, held.tsValue);
    view.setInt32(tcp + TCP_TIMESTAMP_ECHO, held.tsEcho);
  }
  family.finish(view, held, true);
  header.clear();
  const tcpBytes = held.tcpHeaderBytes + held.payloadBytes;
  const pseudo = tcpSum(family, view, held.ipAt, tcpBytes, 0);
  if (held.segments < 2) {
    storeFullChecksum(frame, tcp, tcp + TCP_CHECKSUM, pseudo);
    return;
  }
  leavePartial(frame, tcp, TCP_CHECKSUM, pseudo);
  const ecn = (held.offsetFlags & (TCP_ECE | TCP_CWR)) !== 0 ? VIRTIO_NET_HDR_GSO_ECN : 0;
  header.gsoType = family.gsoType | ecn;
  header.gsoSize = held.largestSegmentBytes;
  header.hdrLen = tcp + held.tcpHeaderBytes - frame.start;
  if (!rscInfo) return;
  header.flags |= VIRTIO_NET_HDR_F_RSC_INFO;
  header.csumStart = held.segments;
  // Duplicate ACKs are never merged here, so there are none to report.
  header.csumOffset = 0;
}

/**
 * The largest merged packet for a guest without MRG_RXBUF: the 65562 bytes that virtio 1.0 to 1.2 tell it to
 * post (section 5.1.6.3.1), less 12 of header. IPv6 packets can be longer, and would be lost.
 */
const MAX_BYTES_IN_ONE_BUFFER = 65_550;

/** What the guest's features and offloads mean for one family. */
interface AcceptedOffloads {
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
const NOTHING_ACCEPTED: AcceptedOffloads = { on: false, rscInfo: false, guestEcn: false, maxIpLength: 0 };

/**
 * What a guest has accepted. It is on with GUEST_CSUM and the family's GUEST_TSO. A guest that knows RSC_EXT
 * must have it on too, one that does not gets ordinary large packets.
 */
function acceptedOffloads({ features, offloads }: Negotiated, family: RscFamily): AcceptedOffloads {
  const wanted = !features.has(VIRTIO_NET_F_RSC_EXT) || offloads.has(VIRTIO_NET_F_RSC_EXT);
  return {
    on: wanted && offloads.has(VIRTIO_NET_F_GUEST_CSUM) && offloads.has(family.guestTso),
    rscInfo: offloads.has(VIRTIO_NET_F_RSC_EXT),
    guestEcn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    maxIpLength: features.has(VIRTIO_NET_F_MRG_RXBUF)
      ? MAX_IP_LENGTH
      : Math.min(MAX_IP_LENGTH, MAX_BYTES_IN_ONE_BUFFER - ETHERNET_HEADER_BYTES - family.ipHeaderUncounted),
  };
}

/** Keeps what strict rules compare later, of the segment in `frame` that is held from now on. */
function openStrict(held: CoalescedSegment, frame: Frame, segment: ParsedSegment): void {
  held.segments = segment.payloadBytes > 0 ? 1 : 0;
  held.traits = segment.traits;
  held.hopLimit = segment.hopLimit;
  held.outerTag = segment.outerTag;
  held.innerTag = segment.innerTag;
  held.hasTimestamp = segment.hasTimestamp;
  held.tsValue = segment.tsValue;
  held.tsEcho = segment.tsEcho;
  held.keepMacs(frame.view, frame.start);
  held.queuePair = frame.queuePair;
  held.largestSegmentBytes = segment.payloadBytes;
}

/** Takes over what the latest segment says. PSH once said stays said. */
function takeOver(held: CoalescedSegment, segment: ParsedSegment): void {
  held.ack = segment.ack;
  held.window = segment.window;
  held.offsetFlags = segment.offsetFlags | held.offsetFlags & TCP_PSH;
  if (segment.hopLimit < held.hopLimit) held.hopLimit = segment.hopLimit;
  held.tsValue = segment.tsValue;
  held.tsEcho = segment.tsEcho;
}

const DUPLICATE_SLOTS = 256;
/** The key, then sequence number, acknowledgment number, window and VLAN. */
const ENTRY_WORDS = MAX_KEY_WORDS + 4;

/**
 * Remembers duplicate ACKs that have just passed: a pure ACK that flushed data because it said nothing new.
 * Equal ones that follow are passed at once instead of held: a sender counts three of them before it
 * retransmits, and waits for none longer than it must (RFC 5681, section 3.2). One slot for each of 256
 * values of an unseeded hash: what is delivered must not depend on a seed. A flow that takes another's slot
 * costs the other a delay of one interval at most.
 */
class DuplicateAcks {
  readonly #keyWords: number;
  readonly #entries = new Int32Array(DUPLICATE_SLOTS * ENTRY_WORDS);

  /** Remembers nothing yet. @param keyWords 32-bit words of a flow's key */
  constructor(keyWords: number) {
    this.#keyWords = keyWords;
  }

  /** Remembers the pure ACK at hand. */
  remember(segment: ParsedSegment): void {
    const row = this.#rowOf(segment);
    const entries = this.#entries;
    for (let i = 0; i < this.#keyWords; i++) entries[row + i] = segment.key[i];
    entries[row + MAX_KEY_WORDS] = segment.seq;
    entries[row + MAX_KEY_WORDS + 1] = segment.ack;
    entries[row + MAX_KEY_WORDS + 2] = segment.window;
    entries[row + MAX_KEY_WORDS + 3] = segment.vlan;
  }

  /** Is the pure ACK at hand equal to the one of its flow that is remembered? */
  isRepeated(segment: ParsedSegment): boolean {
    const row = this.#rowOf(segment);
    const entries = this.#entries;
    if (
      entries[row + MAX_KEY_WORDS] !== segment.seq || entries[row + MAX_KEY_WORDS + 1] !== segment.ack ||
      entries[row + MAX_KEY_WORDS + 2] !== segment.window ||
      entries[row + MAX_KEY_WORDS + 3] !== segment.vlan
    ) return false;
    for (let i = 0; i < this.#keyWords; i++) if (entries[row + i] !== segment.key[i]) return false;
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.#entries.fill(0);
  }

  #rowOf(segment: ParsedSegment): number {
    let hash = 0;
    for (let i = 0; i < this.#keyWords; i++) {
      hash = Math.imul(hash ^ segment.key[i], 0x9e3779b1) ^ hash >>> 15;
    }
    return (hash >>> 24) * ENTRY_WORDS;
  }
}
