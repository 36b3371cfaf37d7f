/**
 * What goes into a device and what comes out: frames of the capture before, packets of the guest behind the stages.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { defineOffload, type OffloadPlugin } from "../../core/plugin.ts";
import { perFrame } from "../../core/stage.ts";
import type { ReceivedPacket } from "../../transports/loopback_driver/mod.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE } from "../../wire/virtio_net_header.ts";
import { z } from "zod";
import { kindOfFrame } from "./frame_kind.ts";
import { type MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import { tcpPayloadBytes } from "./tcp_payload.ts";
import type { VerdictTally } from "./verdict_tally.ts";

/** What came from the network. */
export class InputTally {
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
  readonly #verdicts: VerdictTally;

  /**
   * Has counted nothing yet.
   * @param knownMss what the connections of the capture have announced
   * @param verdicts told of every frame, before the stages that judge it are
   */
  constructor(knownMss: MssTable, verdicts: VerdictTally) {
    this.#finder = new OffloadFinder(knownMss, {});
    this.#verdicts = verdicts;
  }

  /** A stage that lets every frame pass and counts it: the first of a line sees what the device was given. */
  plugin(): OffloadPlugin<Record<string, never>> {
    return defineOffload<Record<string, never>>({
      name: "input-tally",
      direction: "toGuest",
      options: z.strictObject({}),
      create: () =>
        perFrame((frame, output) => {
          // A frame that found no room at the guest comes by again.
          if (!frame.offerAgain) {
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
export class OutputTally {
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
