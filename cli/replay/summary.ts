/**
 * The result of a replay as one value: what `--json` prints, and what the texts are made from.
 * @module
 */
import { z } from "zod";
import type { ReceivedPacket } from "../../testing/mod.ts";
import { type MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { defineOffload, type OffloadPlugin } from "../../pipeline/plugin.ts";
import { OFFER_AGAIN, type RuleBook } from "../../pipeline/qemu_compat.ts";
import { perFrame } from "../../pipeline/stage.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { PROTOCOL_TCP, TCP_HEADER_BYTES, TCP_OFFSET_FLAGS } from "../../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE } from "../../wire/virtio_net_header.ts";
import type { CaptureStatistics } from "./capture_input.ts";
import { kindOfFrame, type Reason, type VerdictCounters } from "./explainer.ts";
import type { LeftOut, OffloadTraces, ReplayResult, ReplaySetup } from "./replay_capture.ts";
import { remarksOn } from "./report.ts";

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
  const { input, output } = result;
  const station = statistics.stations.find(({ mac }) => mac === setup.guestMac);
  const bySegments = [...output.bySegments].sort(([a], [b]) => a - b);
  return {
    capture: {
      file: setup.capture.name,
      format: statistics.format,
      packets: statistics.packets,
      durationNs: statistics.durationNs,
      startUnixNs: String(statistics.startUnixNs),
    },
    guest: {
      mac: setup.guestMac,
      chosen,
      payloadBytes: station?.payloadBytes ?? 0,
      ofPayloadBytes: statistics.payloadBytes,
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
    reasons: result.reasons,
    remarks: remarksOn(setup, statistics, result),
    oddities: result.oddities,
    offloads: result.offloads,
    leftOut: result.leftOut,
    snappedNumbers: result.snappedNumbers,
    dropped: result.dropped,
    guestErrors: result.guestErrors,
    failure: result.failure?.message ?? null,
  };
}

/** What came from the network. */
export class InputCounters {
  /** Frames. */
  frames = 0;
  /** Their bytes. */
  bytes = 0;
  /** Those with TCP data. */
  dataFrames = 0;
  /** TCP segments with data: as many as were on the wire, where a frame holds several. */
  dataSegments = 0;
  /** Bytes of TCP payload. */
  payloadBytes = 0;
  /** Frames that hold several segments: no wire carries them. */
  largeFrames = 0;
  /** Frames whose checksum is yet to be computed. */
  partialChecksums = 0;
  /** UDP frames yet to be finished and longer than the MTU: of several datagrams, maybe. */
  longUdpFrames = 0;
  readonly #finder: OffloadFinder;
  readonly #verdicts: VerdictCounters;

  /**
   * Has counted nothing yet.
   * @param knownMss what the connections of the capture have announced
   * @param verdicts told of every frame, before the stages that judge it are
   */
  constructor(knownMss: MssTable, verdicts: VerdictCounters) {
    this.#finder = new OffloadFinder(knownMss, {});
    this.#verdicts = verdicts;
  }

  /**
   * A stage that lets every frame pass and counts it: the first of a pipeline sees what the device was given.
   */
  plugin(): OffloadPlugin<Record<string, never>> {
    return defineOffload<Record<string, never>>({
      name: "input-counters",
      direction: "toGuest",
      options: z.strictObject({}),
      create: () =>
        perFrame((frame, output) => {
          // A frame that found no room at the guest comes by again.
          if (frame.mark !== OFFER_AGAIN) {
            this.#note(frame);
            this.#verdicts.expect(frame.number, kindOfFrame(frame.bytes, frame.start, frame.length));
          }
          output.push(frame);
        }),
    });
  }

  #note(frame: Frame): void {
    const finder = this.#finder;
    this.frames++;
    this.bytes += frame.length;
    const isFound = finder.find(frame);
    if (isFound && finder.isPartial) this.partialChecksums++;
    if (isFound && finder.isLargeUdp) this.longUdpFrames++;
    const payload = tcpPayloadBytes(frame.bytes, frame.start, frame.length);
    if (payload <= 0) return;
    const segments = isFound ? finder.segments : 1;
    if (segments > 1) this.largeFrames++;
    this.dataFrames++;
    this.dataSegments += segments;
    this.payloadBytes += payload;
  }
}

/** What the guest got. */
export class OutputCounters {
  /** Packets. */
  packets = 0;
  /** Their bytes. */
  bytes = 0;
  /** Those that are TCP segments with data, or several merged. */
  dataPackets = 0;
  /** Bytes of TCP payload. */
  payloadBytes = 0;
  /** Packets that hold several segments. */
  coalesced = 0;
  /** Bytes of the largest packet. */
  largestBytes = 0;
  /** How many packets with TCP data hold so many segments. */
  readonly bySegments: Map<number, number> = new Map();

  /** Counts a packet and returns how many segments it holds. */
  note(packet: ReceivedPacket): number {
    const { length } = packet.bytes;
    const payload = tcpPayloadBytes(packet.bytes, 0, length);
    const segments = segmentsOf(packet, payload);
    this.packets++;
    this.bytes += length;
    if (length > this.largestBytes) this.largestBytes = length;
    if (segments > 1) this.coalesced++;
    if (payload > 0) {
      this.dataPackets++;
      this.payloadBytes += payload;
      this.bySegments.set(segments, (this.bySegments.get(segments) ?? 0) + 1);
    }
    return segments;
  }
}

/** Segments in a packet: what the device says, else what its size says, else 1. */
function segmentsOf(packet: ReceivedPacket, payloadBytes: number): number {
  if (packet.gsoType === VIRTIO_NET_HDR_GSO_NONE) return 1;
  if ((packet.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) return packet.csumStart;
  return packet.gsoSize > 0 && payloadBytes > 0 ? Math.ceil(payloadBytes / packet.gsoSize) : 1;
}

/** The frame is no TCP segment, or not a whole one. */
export const NO_TCP = -1;

const headers = new HeaderLocator();

/**
 * Bytes of TCP payload in a frame, behind any tags, options and extension headers; `NO_TCP` for a
 * fragment, for another protocol, and for a packet that is not wholly in the frame.
 * @param bytes where the frame is; @param at its first byte; @param length its bytes, or as many as it had if
 * it was cut
 * @param there how many of its bytes are there; by default all
 */
export function tcpPayloadBytes(
  bytes: Uint8Array,
  at: number,
  length: number,
  there: number = length,
): number {
  headers.locate(bytes, at, there);
  const { version, transportAt, protocol } = headers;
  // A length of 0 ends with the frame, all of it.
  const packetEnd = headers.packetEnd === at + there
    ? Math.max(headers.packetEnd, at + length)
    : headers.packetEnd;
  if (version === 0 || transportAt < 0 || protocol !== PROTOCOL_TCP || packetEnd > at + length) return NO_TCP;
  if (transportAt + TCP_OFFSET_FLAGS >= at + there) return NO_TCP;
  const tcpBytes = (bytes[transportAt + TCP_OFFSET_FLAGS] >>> 4) * 4;
  const payloadBytes = packetEnd - transportAt - tcpBytes;
  return tcpBytes < TCP_HEADER_BYTES || payloadBytes < 0 ? NO_TCP : payloadBytes;
}
