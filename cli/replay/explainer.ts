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
import type { VerdictLog } from "../../core/stage.ts";
import type { CapturedPacket, CaptureStep, PacketObstacle } from "../../transports/pcap/captured_packet.ts";
import type { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { MAX_FRAME_BYTES } from "../../core/frame_pool.ts";
import type { CaptureInput } from "./capture_input.ts";
import { ETHERNET_HEADER_BYTES, isMulticast, macEquals, parseMac } from "../../wire/ethernet.ts";

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
