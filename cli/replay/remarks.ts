/**
 * What must be known before the numbers of a replay are believed: why nothing came, why nothing was merged.
 * @module
 */
import { DEFAULT_MTU } from "../../offloads/undo_offloads/offload_finder.ts";
import { count, plural } from "../console/text.ts";
import { meaningOf } from "./meanings.ts";
import type { ReplaySetup } from "./machine.ts";
import type { ReplayResult } from "./replay_capture.ts";
import type { ReplaySummary } from "./summary.ts";
import type { CaptureSurvey } from "./survey.ts";

const MOST_STATIONS_NAMED = 3;

/** Remarks in sentences, the most important first; none if the numbers speak for themselves. */
export function remarksOn(setup: ReplaySetup, survey: CaptureSurvey, result: ReplayResult): string[] {
  const remarks = offloadRemarks(result);
  const { input, output, leftOut } = result;
  const station = survey.stations.find(({ mac }) => mac === setup.guestMac);
  if (result.captureFailure !== null) {
    const packet = `packet ${count(survey.packets)}`;
    const what = leftOut.cutOff > 0
      ? `ends early, behind ${packet}`
      : `is damaged behind ${packet}, and read no further`;
    remarks.push(`The capture ${what}: ${result.captureFailure.message}.`);
  }
  if (leftOut.snapped > 0) {
    const all = leftOut.snapped === survey.packets ? "All" : `${count(leftOut.snapped)} of`;
    remarks.push(
      `${all} ${plural(survey.packets, "packet")} ${
        leftOut.snapped === 1 ? "is" : "are"
      } cut by the snap length, of ${survey.longestSnappedBytes} bytes or so, ` +
        "and left out: record with a larger one (tcpdump -s 0).",
    );
  }
  if (station === undefined && survey.packets > 0) {
    const others = survey.stations.slice(0, MOST_STATIONS_NAMED).map(({ mac, frames }) =>
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
        survey.otherLinkTypes.join(", ")
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
        (meaningOf(most.verdict, setup.rules) === "" ? "" : `: ${meaningOf(most.verdict, setup.rules)}`);
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
