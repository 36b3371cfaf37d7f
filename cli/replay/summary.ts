/**
 * The result of a replay as one value: what `--json` prints, and what the texts are made from.
 * @module
 */
import type { RuleBook } from "../../core/stage.ts";
import { remarksOn } from "./remarks.ts";
import type { ReplaySetup } from "./machine.ts";
import { meaningOf } from "./meanings.ts";
import type { LeftOut, OffloadTraces, ReplayResult } from "./replay_capture.ts";
import type { CaptureSurvey } from "./survey.ts";

/** What it means that no stage has judged a frame. */
const UNJUDGED_MEANING = "Passed: no stage looks at such frames";

/** A reason, with what it means. */
export interface ExplainedReason {
  /** The stage that decided. */
  readonly stage: string;
  /** What it did, by name. */
  readonly verdict: string;
  /** The id of the rule. */
  readonly rule: string;
  /** For how many frames. */
  readonly count: number;
  /** What the rule says. */
  readonly meaning: string;
}

/** The result of a replay. */
export interface ReplaySummary {
  /** What was replayed. */
  readonly capture: {
    file: string;
    format: string;
    packets: number;
    durationNs: number;
    startUnixNs: string;
  };
  /** Who the guest was, how it was found, and how much of the TCP payload in the capture it receives. */
  readonly guest: {
    mac: string;
    chosen: "automatically" | "by --guest";
    payloadBytes: number;
    ofPayloadBytes: number;
  };
  /** The rule book. */
  readonly rules: RuleBook;
  /** Longest time a segment was held, in microseconds. */
  readonly intervalUs: number | null;
  /** When frames arrived. */
  readonly pace: string;
  /** What the device was given. */
  readonly input: {
    frames: number;
    bytes: number;
    dataFrames: number;
    /** TCP segments with data: as many as were on the wire, where a frame holds several. */
    dataSegments: number;
    payloadBytes: number;
  };
  /** What offloads of the captured host had left in the frames to the guest. */
  readonly offloads: OffloadTraces;
  /** What the guest got. */
  readonly output: {
    packets: number;
    bytes: number;
    dataPackets: number;
    payloadBytes: number;
    coalesced: number;
    largestBytes: number;
    interrupts: number;
    /** How many packets with TCP data hold so many segments, by number of segments. */
    packetsBySegments: Readonly<Record<string, number>>;
  };
  /** Frames with data that came in for each packet with data that the guest got; null if there were none. */
  readonly coalescingFactor: number | null;
  /** What was decided, the most frequent first. */
  readonly reasons: readonly ExplainedReason[];
  /** What must be known before any of the numbers is believed, in sentences; the report begins with them. */
  readonly remarks: readonly string[];
  /** What is odd about the capture, by how many packets or blocks. */
  readonly oddities: Readonly<Record<string, number>>;
  /** What the guest did not get, by reason. */
  readonly leftOut: LeftOut;
  /** The numbers of the first snapped packets. */
  readonly snappedNumbers: readonly number[];
  /** Packets that the device dropped, by counter. */
  readonly dropped: Readonly<Record<string, number>>;
  /** What the guest found wrong with the device. */
  readonly guestErrors: readonly string[];
  /** What is wrong with the capture or the output; null if nothing is. */
  readonly failure: string | null;
}

/** Puts the result of a replay together. */
export function summarize(
  setup: ReplaySetup,
  survey: CaptureSurvey,
  result: ReplayResult,
  chosen: "automatically" | "by --guest",
): ReplaySummary {
  const { input, output } = result;
  const station = survey.stations.find(({ mac }) => mac === setup.guestMac);
  const bySegments = [...output.bySegments].sort(([a], [b]) => a - b);
  return {
    capture: {
      file: setup.capture.name,
      format: survey.format,
      packets: survey.packets,
      durationNs: survey.durationNs,
      startUnixNs: String(survey.startUnixNs),
    },
    guest: {
      mac: setup.guestMac,
      chosen,
      payloadBytes: station?.payloadBytes ?? 0,
      ofPayloadBytes: survey.payloadBytes,
    },
    rules: setup.rules,
    intervalUs: setup.intervalUs,
    pace: setup.pace,
    input: {
      frames: input.frames,
      bytes: input.bytes,
      dataFrames: input.dataFrames,
      dataSegments: input.dataSegments,
      payloadBytes: input.payloadBytes,
    },
    output: {
      packets: output.packets,
      bytes: output.bytes,
      dataPackets: output.dataPackets,
      payloadBytes: output.payloadBytes,
      coalesced: output.coalesced,
      largestBytes: output.largestBytes,
      interrupts: result.interrupts,
      packetsBySegments: Object.fromEntries(bySegments),
    },
    coalescingFactor: output.dataPackets === 0 ? null : input.dataFrames / output.dataPackets,
    reasons: result.reasons.map((reason) => ({
      ...reason,
      meaning: reason.stage === "" ? UNJUDGED_MEANING : meaningOf(reason.verdict, setup.rules),
    })),
    remarks: remarksOn(setup, survey, result),
    oddities: result.oddities,
    offloads: result.offloads,
    leftOut: result.leftOut,
    snappedNumbers: result.snappedNumbers,
    dropped: result.dropped,
    guestErrors: result.guestErrors,
    failure: result.failure?.message ?? null,
  };
}
