/**
 * Explains a replay frame by frame, in the order of the capture.
 *
 * Theory of operation. Stages note their verdicts while a round runs; a round takes few frames, and the stage for one
 * family sees all of them before the stage for the other does. So notes are kept until the round is over (`showJudged`).
 * Then a second reader of the same capture walks on to the last frame that was judged and shows every packet on the way
 * with its time: with its verdicts, or with the reason why it never came to a stage. Memory does not grow with the capture.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { QemuVerdict, StrictVerdict } from "../../offloads/rsc_chain/verdicts.ts";
import { MAX_FRAME_BYTES } from "../../pipeline/frame_pool.ts";
import type { RuleBook, VerdictLog } from "../../pipeline/stage.ts";
import type { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import type { CapturedPacket, CaptureStep, PacketObstacle } from "../../transports/pcap/captured_packet.ts";
import {
  ETHERNET_HEADER_BYTES,
  etherType,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  isMulticast,
  macEquals,
  parseMac,
} from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import type { CaptureInput } from "./capture_input.ts";

/** What became of one packet of the capture. */
export interface Explanation {
  /** Its number in the capture. */
  readonly frame: number;
  /** When it was captured, in ns from the first packet. */
  readonly timeNs: number;
  /** The stage that decided; empty if none did. */
  readonly stage: string;
  /** What was decided. */
  readonly verdict: string;
  /** The id of the rule; empty if no stage decided. */
  readonly rule: string;
  /** The number of the frame that opened the unit concerned, or 0. */
  readonly unit: number;
}

/** Why a packet cannot be read. */
const OBSTACLES: Readonly<Record<PacketObstacle, string>> = {
  beyondBlock: "longer than its block",
  unknownInterface: "of an interface that is not described",
  beyondInterfaceLimit: "its interface is beyond our limit",
  beyondLengthLimit: "beyond our limit of length",
};

type Note = Omit<Explanation, "timeNs">;

/** Shows what became of each packet. */
export class Explainer implements VerdictLog, Disposable {
  readonly #reader: CaptureReader;
  readonly #guestMac: Uint8Array;
  readonly #show: (explanation: Explanation) => void;
  readonly #notes: Note[] = [];
  #ended = false;

  /**
   * Opens the capture a second time. Throws HostError if it cannot.
   * @param capture the input; @param guestMac the guest's address; @param show told of each packet, in order
   */
  constructor(capture: CaptureInput, guestMac: string, show: (explanation: Explanation) => void) {
    this.#guestMac = parseMac(guestMac);
    this.#reader = capture.reader();
    this.#show = show;
  }

  /** A stage has decided. */
  note(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    this.#notes.push({ frame, stage, verdict, rule, unit });
  }

  /** Shows the packets up to the last that was judged. */
  showJudged(): void {
    if (this.#notes.length === 0) return;
    // Sorting is stable: what two stages say of a frame stays in order.
    this.#notes.sort((a, b) => a.frame - b.frame);
    for (const note of this.#notes) {
      this.#walkTo(note.frame);
      // A frame that found no room is judged again when the reader is past it; its time is then not at hand.
      this.#show({ ...note, timeNs: this.#reader.packet.timeNs });
    }
    this.#notes.length = 0;
  }

  /** Shows the packets behind the last that was judged, and closes the capture. */
  finish(): void {
    this.showJudged();
    this.#walkTo(Infinity);
    this[Symbol.dispose]();
  }

  /** Closes the capture. */
  [Symbol.dispose](): void {
    if (!this.#ended) this.#reader[Symbol.dispose]();
    this.#ended = true;
  }

  /** Reads on to packet `number`, and shows those before it. */
  #walkTo(number: number): void {
    while (!this.#ended && this.#reader.packet.number < number) {
      const step = this.#step();
      if (step === "end" || step === "wait") return;
      const { packet } = this.#reader;
      if (step === "other" || packet.number === number) continue;
      this.#show({
        frame: packet.number,
        timeNs: packet.timeNs,
        stage: "",
        verdict: this.#withoutVerdict(step, packet),
        rule: "",
        unit: 0,
      });
    }
  }

  #step(): CaptureStep {
    try {
      return this.#reader.step();
    } catch (error) {
      // The replay has met the same damage and reports it.
      if (error instanceof HostError) return "end";
      throw error;
    }
  }

  #withoutVerdict(step: CaptureStep, { bytes, at, length, obstacle }: CapturedPacket): string {
    if (step === "snapped") return "left out: snapped";
    if (step === "otherLinkType") return "left out: no Ethernet";
    if (step === "unreadable") return `left out: ${OBSTACLES[obstacle]}`;
    if (length > MAX_FRAME_BYTES) return "left out: too long";
    if (length < ETHERNET_HEADER_BYTES) return "left out: too short";
    const forGuest = isMulticast(bytes, at)
      ? !macEquals(bytes, at + 6, this.#guestMac)
      : macEquals(bytes, at, this.#guestMac);
    return forGuest ? "left out: refused by the receive filter" : "left out: not for the guest";
  }
}

// What a frame is, in a word or two: the name of a frame that no stage has judged.

/** EtherTypes below are lengths (IEEE 802.3). */
const MIN_ETHERTYPE = 0x600;
const NAMES: ReadonlyMap<number, string> = new Map([
  [ETHERTYPE_IPV4, "IPv4"],
  [ETHERTYPE_ARP, "ARP"],
  [0x8035, "RARP"],
  [ETHERTYPE_IPV6, "IPv6"],
  [0x8808, "pause frame"],
  [0x8809, "LACP"],
  [0x8847, "MPLS"],
  [0x8848, "MPLS"],
  [0x8863, "PPPoE discovery"],
  [0x8864, "PPPoE"],
  [0x888e, "EAPOL"],
  [0x88cc, "LLDP"],
  [0x88e5, "MACsec"],
  [0x88f7, "PTP"],
]);

const headers = new HeaderLocator();

/** What the frame carries, such as `ARP`, `IPv4 in a VLAN` or `EtherType 0x88b5`. */
export function kindOfFrame(bytes: Uint8Array, at: number, length: number): string {
  headers.locate(bytes, at, length);
  const { etherTypeAt, vlanTags } = headers;
  if (etherTypeAt < 0) return "no EtherType";
  const type = etherType(bytes, etherTypeAt);
  const name = type < MIN_ETHERTYPE
    ? "IEEE 802.3"
    : NAMES.get(type) ?? `EtherType 0x${type.toString(16).padStart(4, "0")}`;
  return vlanTags > 0 ? `${name} in a VLAN` : name;
}

// The rules in one line each, for people: what the tables of verdicts say in their comments. A test compares the two.

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
  max_segments: "Unit flushed, another opened: the unit has maxSegments",
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

// Counts verdicts, and passes them on to whoever explains them one by one.

/** How often a rule was applied. */
export interface Reason {
  /** The stage that decided; empty if none did. */
  readonly stage: string;
  /** What it did, by name; of a frame that passed unjudged, what it is. */
  readonly verdict: string;
  /** The id of the rule; empty if there is none. */
  readonly rule: string;
  /** For how many frames. */
  count: number;
}

/** Counts verdicts by stage and rule. */
export class VerdictTally implements VerdictLog {
  readonly #reasons = new Map<string, Reason>();
  readonly #next: VerdictLog | null;
  /** Frames of this round that no stage has judged yet, and what they are. */
  readonly #expected = new Map<number, string>();

  /** @param next whom to tell of each verdict, if anybody */
  constructor(next: VerdictLog | null) {
    this.#next = next;
  }

  /** A frame goes to the stages. */
  expect(frame: number, kind: string): void {
    this.#expected.set(frame, kind);
  }

  /** The stages have had their say about all frames that went to them: what is left has passed without one. */
  settle(): void {
    for (const [frame, kind] of this.#expected) this.#count(frame, "", `passed: ${kind}`, "", 0);
    this.#expected.clear();
  }

  /** A stage has decided. */
  note(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    this.#expected.delete(frame);
    this.#count(frame, stage, verdict, rule, unit);
  }

  #count(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    const key = `${stage} ${verdict}`;
    const reason = this.#reasons.get(key);
    if (reason === undefined) this.#reasons.set(key, { stage, verdict, rule, count: 1 });
    else reason.count++;
    this.#next?.note(frame, stage, verdict, rule, unit);
  }

  /** The reasons, the most frequent first. */
  get reasons(): Reason[] {
    return [...this.#reasons.values()].sort((a, b) =>
      b.count - a.count || (a.stage + a.verdict < b.stage + b.verdict ? -1 : 1)
    );
  }
}
