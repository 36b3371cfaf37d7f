/**
 * The result of a replay as one value (`summarize`): what `--json` prints, and what the texts are made from;
 * with what must be known before its numbers are believed.
 * @module
 */
import { DEFAULT_MTU } from "../../offloads/undo_offloads/offload_finder.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import { count, plural } from "../console/io.ts";
import type { CaptureStatistics } from "./capture_input.ts";
import type { Reason } from "./explainer.ts";
import type {
  InputCounters,
  LeftOut,
  OffloadTraces,
  OutputCounters,
  ReplayResult,
  ReplaySetup,
} from "./replay_capture.ts";

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
  readonly input: Readonly<
    Pick<InputCounters, "frames" | "bytes" | "dataFrames" | "dataSegments" | "payloadBytes">
  >;
  /** What offloads of the captured host had left in the frames to the guest. */
  readonly offloads: OffloadTraces;
  /** What the guest got. */
  readonly output: Readonly<Omit<OutputCounters, "bySegments" | "note">> & {
    readonly interrupts: number;
    /** How many packets with TCP data hold so many segments, by number of segments. */
    readonly packetsBySegments: Readonly<Record<string, number>>;
  };
  /** Frames with data that came in for each packet with data that the guest got; null if there were none. */
  readonly coalescingFactor: number | null;
  /** What was decided, the most frequent first. */
  readonly reasons: readonly Readonly<Reason>[];
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
  statistics: CaptureStatistics,
  result: ReplayResult,
  chosen: "automatically" | "by --guest",
): ReplaySummary {
  const { capture, guestMac, rules, intervalUs, pace } = setup;
  const { format, packets, durationNs, startUnixNs } = statistics;
  const { frames, bytes, dataFrames, dataSegments, payloadBytes } = result.input;
  const { bySegments, ...output } = result.output;
  const { interrupts, reasons, oddities, offloads, leftOut, snappedNumbers, dropped, guestErrors } = result;
  const station = statistics.stations.find(({ mac }) => mac === guestMac);
  return {
    capture: { file: capture.name, format, packets, durationNs, startUnixNs: String(startUnixNs) },
    guest: {
      mac: guestMac,
      chosen,
      payloadBytes: station?.payloadBytes ?? 0,
      ofPayloadBytes: statistics.payloadBytes,
    },
    rules,
    intervalUs,
    pace,
    input: { frames, bytes, dataFrames, dataSegments, payloadBytes },
    output: {
      ...output,
      interrupts,
      packetsBySegments: Object.fromEntries([...bySegments].sort(([a], [b]) => a - b)),
    },
    coalescingFactor: output.dataPackets === 0 ? null : dataFrames / output.dataPackets,
    reasons,
    remarks: remarksOn(setup, statistics, result),
    oddities,
    offloads,
    leftOut,
    snappedNumbers,
    dropped,
    guestErrors,
    failure: result.failure?.message ?? null,
  };
}

const MAX_STATIONS_NAMED = 3;

/**
 * What must be known before the numbers are believed, in sentences, the most important first: why nothing
 * came, or why nothing was merged.
 */
export function remarksOn(setup: ReplaySetup, statistics: CaptureStatistics, result: ReplayResult): string[] {
  const remarks = offloadRemarks(result);
  const { input, output, leftOut } = result;
  const station = statistics.stations.find(({ mac }) => mac === setup.guestMac);
  if (result.captureFailure !== null) {
    const packet = `packet ${count(statistics.packets)}`;
    const what = leftOut.cutOff > 0
      ? `ends early, behind ${packet}`
      : `is damaged behind ${packet}, and read no further`;
    remarks.push(`The capture ${what}: ${result.captureFailure.message}.`);
  }
  if (leftOut.snapped > 0) {
    const all = leftOut.snapped === statistics.packets ? "All" : `${count(leftOut.snapped)} of`;
    remarks.push(
      `${all} ${plural(statistics.packets, "packet")} ${
        leftOut.snapped === 1 ? "is" : "are"
      } cut by the snap length, of ${statistics.longestSnappedBytes} bytes or so, ` +
        "and left out: record with a larger one (tcpdump -s 0).",
    );
  }
  if (station === undefined && statistics.packets > 0) {
    const others = statistics.stations.slice(0, MAX_STATIONS_NAMED).map(({ mac, frames }) =>
      `${mac} (${plural(frames, "frame")})`
    );
    remarks.push(
      `No frame of the capture is sent to ${setup.guestMac}. ` +
        (others.length > 0
          ? `Name another guest by --guest: ${others.join(", ")}.`
          : "None is sent to one station alone."),
    );
  }
  if (leftOut.otherLinkType > 0) {
    remarks.push(
      `${plural(leftOut.otherLinkType, "packet")} of link type ${
        statistics.otherLinkTypes.join(", ")
      }, of which no Ethernet frame can be made: left out.`,
    );
  }
  if (leftOut.unreadable > 0) {
    remarks.push(
      `${plural(leftOut.unreadable, "packet")} cannot be read and ${
        leftOut.unreadable === 1 ? "is" : "are"
      } left out; see "Odd in the capture".`,
    );
  }
  if (input.dataSegments > 1 && output.coalesced === 0 && setup.intervalUs !== null) {
    const kept = result.reasons.filter(({ verdict }) => verdict !== "held" && verdict !== "empty_cache");
    const [most] = kept;
    const why = most === undefined
      ? "each was alone for longer than the interval"
      : `most often "${most.stage === "" ? "" : `${most.stage} `}${most.verdict}" (${count(most.count)})` +
        (most.stage === "" ? "" : `: ${most.meaning}`);
    remarks.push(`No segment was merged; ${why}.`);
  }
  return remarks;
}

/** That the capture was taken on a host with offloads, if it was: nothing else can be understood without. */
export function offloadRemarks({ offloads, input }: Pick<ReplaySummary, "offloads" | "input">): string[] {
  const { partialChecksums, largeFrames, segments, longUdpFrames, undone } = offloads;
  const kinds: string[] = [];
  const facts: string[] = [];
  if (largeFrames > 0) {
    kinds.push("TSO or GRO");
    facts.push(`${plural(largeFrames, "large frame")} of ${plural(segments, "segment")}`);
  }
  if (partialChecksums > 0) {
    kinds.push("checksum offload");
    facts.push(`${plural(partialChecksums, "checksum")} left to the interface`);
  }
  if (kinds.length === 0) return [];
  // Whether they hold several datagrams or the wire's MTU is larger, such frames do not tell.
  if (longUdpFrames > 0) {
    facts.push(
      `${plural(longUdpFrames, "UDP frame")} longer than ${count(DEFAULT_MTU)} bytes and left whole`,
    );
  }
  return [
    `Captured with ${kinds.join(" and ")} on${
      undone ? ", which was undone." : ": --undo-offloads undoes it."
    }`,
    undone
      ? `To the guest: ${facts.join(", ")}. It was sent the segments, and the checksums taken for right.`
      : `To the guest: ${facts.join(", ")}, in ${
        plural(input.frames, "frame")
      }. That is not what was on the wire.`,
  ];
}
