/**
 * What the stages decided about the frames of a replay: each decision in the order of the capture
 * (`Explainer`), and how often each rule was applied (`VerdictCounters`).
 *
 * Theory of operation. Stages note their verdicts while a round runs; a round takes few frames, and the stage
 * for one family sees all of them before the stage for the other does. So notes are kept until the round is
 * over (`showJudged`). Then a second reader of the same capture walks on to the last frame that was judged
 * and shows every packet on the way with its time: with its verdicts, or with the reason why it never came to
 * a stage. Memory does not grow with the capture.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { MAX_FRAME_BYTES } from "../../pipeline/frame.ts";
import type { Rule, VerdictLog } from "../../pipeline/stage.ts";
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
  /** The number of the frame that opened the coalesced segment concerned, or 0. */
  readonly openedBy: number;
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
  note(frame: number, stage: string, { verdict, id }: Rule, openedBy: number): void {
    this.#notes.push({ frame, stage, verdict, rule: id, openedBy });
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
        openedBy: 0,
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

/** The text for a frame that no stage has judged. */
const UNJUDGED = "Passes: no stage looks at such frames";

/** How often a rule was applied. */
export interface Reason {
  /** The stage that decided; empty if none did. */
  readonly stage: string;
  /** What it did, by name; of a frame that passed unjudged, what it is. */
  readonly verdict: string;
  /** The id of the rule; empty if there is none. */
  readonly rule: string;
  /** What the rule does and when, in a sentence without a full stop. */
  readonly meaning: string;
  /** For how many frames. */
  count: number;
}

/** Counts verdicts by stage and rule, and passes them on. */
export class VerdictCounters implements VerdictLog {
  readonly #reasons = new Map<string, Reason>();
  readonly #next: VerdictLog | null;
  /** Frames of this round that no stage has judged yet, and what they are. */
  readonly #expected = new Map<number, string>();

  /** @param next told of each verdict; null if nothing explains them */
  constructor(next: VerdictLog | null) {
    this.#next = next;
  }

  /** A frame goes to the stages. */
  expect(frame: number, kind: string): void {
    this.#expected.set(frame, kind);
  }

  /** Counts as passed every frame that went to the stages and that none has judged in this round. */
  settle(): void {
    for (const [frame, kind] of this.#expected) {
      this.#count(frame, "", { verdict: `passed: ${kind}`, id: "", text: UNJUDGED }, 0);
    }
    this.#expected.clear();
  }

  /** A stage has decided. */
  note(frame: number, stage: string, rule: Rule, openedBy: number): void {
    this.#expected.delete(frame);
    this.#count(frame, stage, rule, openedBy);
  }

  #count(frame: number, stage: string, rule: Rule, openedBy: number): void {
    const { verdict, id, text } = rule;
    const key = `${stage} ${verdict}`;
    const reason = this.#reasons.get(key);
    if (reason === undefined) this.#reasons.set(key, { stage, verdict, rule: id, meaning: text, count: 1 });
    else reason.count++;
    this.#next?.note(frame, stage, rule, openedBy);
  }

  /** The reasons, the most frequent first. */
  get reasons(): Reason[] {
    return [...this.#reasons.values()].sort((a, b) =>
      b.count - a.count || (a.stage + a.verdict < b.stage + b.verdict ? -1 : 1)
    );
  }
}
