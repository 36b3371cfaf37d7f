/**
 * A first look at a capture: what is in it, and who in it is most likely the guest.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { CaptureStep } from "../../transports/pcap/captured_packet.ts";
import { linkTypeName } from "../../transports/pcap/link_types.ts";
import type { CaptureFormat, CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { ETHERNET_HEADER_BYTES, formatMac, isMulticast } from "../../wire/ethernet.ts";
import type { CaptureInput } from "./capture_input.ts";
import { MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import { tcpPayloadBytes } from "./tcp_payload.ts";

/** Destinations that are told apart; a capture of a flood has more, and none of them is a guest. */
const MOST_STATIONS = 65_536;

/** What one station receives in a capture. */
export interface Station {
  /** Its address. */
  readonly mac: string;
  /** Frames sent to it. */
  readonly frames: number;
  /** Bytes of TCP payload in these, or as many as they had on the wire. */
  readonly payloadBytes: number;
}

/** What is in a capture. */
export interface CaptureSurvey {
  /** Its format. */
  readonly format: CaptureFormat;
  /** Packets of every kind. */
  readonly packets: number;
  /** Link types of which no Ethernet frame can be made, in words. */
  readonly otherLinkTypes: readonly string[];
  /** Are all packets of such a link type? */
  readonly isAllOther: boolean;
  /** Packets of which the capture has not all bytes. */
  readonly snapped: number;
  /** The most bytes that it has of one of these: the snap length, if that was the reason. */
  readonly longestSnappedBytes: number;
  /** Time from the first packet to the latest, in ns. */
  readonly durationNs: number;
  /** When the first packet was captured, in ns since 1970. */
  readonly startUnixNs: bigint;
  /** Bytes of TCP payload to all stations. */
  readonly payloadBytes: number;
  /** Who receives what, the one with most TCP payload first. Group addresses are no stations, nor is the address 0. */
  readonly stations: readonly Station[];
  /** What its connections have announced, in both directions. */
  readonly knownMss: MssTable;
}

/**
 * Reads a capture once; what is behind a damaged place is not counted. Throws HostError if it cannot be read, or is
 * damaged before its first packet.
 */
export function surveyCapture(capture: CaptureInput): CaptureSurvey {
  using reader = capture.reader();
  const stations = new Map<number, { mac: string; frames: number; payloadBytes: number }>();
  const knownMss = new MssTable();
  const finder = new OffloadFinder(knownMss, {});
  let view = new DataView(new ArrayBuffer(0));
  const otherLinkTypes = new Set<string>();
  let payloadBytes = 0;
  let lastNs = 0;
  let longestSnappedBytes = 0;
  for (let step = goOn(reader); step !== "end"; step = goOn(reader)) {
    if (step === "otherLinkType") otherLinkTypes.add(linkTypeName(reader.packet.linkType));
    if (step !== "whole" && step !== "snapped") continue;
    const { bytes, at, length, originalLength, timeNs } = reader.packet;
    if (timeNs > lastNs) lastNs = timeNs;
    if (step === "snapped") longestSnappedBytes = Math.max(longestSnappedBytes, length);
    if (view.buffer !== bytes.buffer) view = new DataView(bytes.buffer);
    finder.learn({ bytes, view, start: at, length, total: length });
    if (length < ETHERNET_HEADER_BYTES || isMulticast(bytes, at)) continue;
    const key = macKey(bytes, at);
    if (key === 0) continue;
    let station = stations.get(key);
    if (station === undefined) {
      if (stations.size >= MOST_STATIONS) continue;
      stations.set(key, station = { mac: formatMac(bytes, at), frames: 0, payloadBytes: 0 });
    }
    const payload = Math.max(0, tcpPayloadBytes(bytes, at, originalLength, length));
    station.frames++;
    station.payloadBytes += payload;
    payloadBytes += payload;
  }
  return {
    format: reader.format!,
    packets: reader.counters.read,
    otherLinkTypes: [...otherLinkTypes],
    isAllOther: reader.counters.otherLinkType === reader.counters.read,
    snapped: reader.counters.snapped,
    longestSnappedBytes,
    durationNs: lastNs,
    startUnixNs: reader.startUnixNs,
    payloadBytes,
    // Sorting is stable: of equals the one that was seen first comes first.
    stations: [...stations.values()].sort((a, b) => b.payloadBytes - a.payloadBytes || b.frames - a.frames),
    knownMss,
  };
}

/** The next step; the end also at a damaged place, which the replay reports when it gets there. */
function goOn(reader: CaptureReader): CaptureStep {
  try {
    return reader.step();
  } catch (error) {
    if (error instanceof HostError && reader.counters.read > 0) return "end";
    throw error;
  }
}

function macKey(bytes: Uint8Array, at: number): number {
  let key = 0;
  for (let i = 0; i < 6; i++) key = key * 256 + bytes[at + i];
  return key;
}
