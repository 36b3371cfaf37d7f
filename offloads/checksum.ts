/**
 * `checksum`: completes partial checksums that the receiver does not take, and verifies those of frames to
 * the guest. Checksums over frames in several pieces (`addFrameToSum`) are computed here for all stages.
 * @module
 */
import { z } from "zod";
import type { Frame, FrameBatch } from "../pipeline/frame.ts";
import { OffloadCapabilities } from "../pipeline/offload_capabilities.ts";
import { defineOffload, type OffloadPlugin } from "../pipeline/plugin.ts";
import type { Negotiated, Stage, StageContext } from "../pipeline/stage.ts";
import { addToSum, fold, isSumRight, storeChecksum, storePartial, swap16 } from "../wire/checksum.ts";
import { ETHERNET_HEADER_BYTES, ETHERNET_TYPE, ETHERTYPE_IPV4 } from "../wire/ethernet.ts";
import { VIRTIO_NET_F_CSUM } from "../wire/net_features.ts";
import { IPV4_HEADER_BYTES, IPV4_TOTAL_LENGTH, TCP_CHECKSUM, UDP_CHECKSUM } from "../wire/tcp_ip.ts";
import { TransportHeader } from "../wire/transport_header.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../wire/virtio_net_header.ts";

/** What `checksum` can be told. */
export interface ChecksumOptions {
  /**
   * Verify the checksums of frames to the guest, and say so in the header where they are right; default
   * false.
   */
  verify: boolean;
}

/** The plugin `checksum`, for both directions. */
export const checksum: OffloadPlugin<ChecksumOptions> = defineOffload<ChecksumOptions>({
  name: "checksum",
  summary:
    "Completes partial checksums that the receiver cannot take; verifies those of frames to the guest.",
  direction: "both",
  options: z.strictObject({
    verify: z.boolean().default(false)
      .describe(
        "Verify the checksums of frames to the guest and mark right ones DATA_VALID; wrong ones pass, counted.",
      ),
  }),
  offers: [VIRTIO_NET_F_CSUM],
  create: (context: StageContext, options: ChecksumOptions): Stage => new ChecksumStage(context, options),
});

class ChecksumStage implements Stage {
  readonly #verify: boolean;
  readonly #toGuest: boolean;
  readonly #counters: Record<"completed" | "verified" | "wrong" | "unverifiable" | "incomplete", number>;
  readonly #transport = new TransportHeader();
  /** What the receiver takes unfinished. A guest that takes partial checksums also looks at DATA_VALID. */
  #receiver: OffloadCapabilities;

  constructor(context: StageContext, options: ChecksumOptions) {
    this.#toGuest = context.direction === "toGuest";
    this.#verify = options.verify && this.#toGuest;
    this.#receiver = this.#toGuest ? OffloadCapabilities.none : context.network;
    this.#counters = context.publish({ completed: 0, verified: 0, wrong: 0, unverifiable: 0, incomplete: 0 });
  }

  negotiated(state: Negotiated): void {
    if (this.#toGuest) this.#receiver = OffloadCapabilities.ofGuest(state.offloads);
  }

  process(input: FrameBatch, output: FrameBatch): void {
    for (let i = 0; i < input.length; i++) {
      const frame = input.at(i);
      if ((frame.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
        // A large frame keeps its partial checksum: what cuts it completes every segment.
        if (!this.#receiver.csum && frame.header.gsoType === 0) this.#complete(frame);
      } else if (this.#verify && this.#receiver.csum && frame.header.flags === 0) {
        this.#check(frame);
      }
      output.push(frame);
    }
  }

  #complete(frame: Frame): void {
    if (completeChecksum(frame)) this.#counters.completed++;
    else this.#counters.incomplete++;
  }

  #check(frame: Frame): void {
    const transport = this.#transport;
    const fault = transport.locate(frame, frame.header.gsoType !== 0);
    if (fault === null) frame.trim(transport.ipEndAt - frame.start);
    switch (fault === null ? this.#judge(frame) : fault === "bad_transport" ? "wrong" : "unverifiable") {
      case "verified":
        this.#counters.verified++;
        frame.header.flags |= VIRTIO_NET_HDR_F_DATA_VALID;
        break;
      case "wrong":
        this.#counters.wrong++;
        break;
      default:
        this.#counters.unverifiable++;
    }
  }

  /** What the checksum of the located transport header is worth. */
  #judge(frame: Frame): "verified" | "wrong" | "unverifiable" {
    const { at, isTcp, isV4 } = this.#transport;
    if (!isTcp && frame.view.getUint16(at + UDP_CHECKSUM) === 0) {
      // UDP over IPv4 need not have one; over IPv6 it must (RFC 8200, section 8.1).
      return isV4 ? "unverifiable" : "wrong";
    }
    return isChecksumRight(frame, this.#transport) ? "verified" : "wrong";
  }
}

const transport = new TransportHeader();

/**
 * Adds the bytes of the frame from `at` to `endAt` to `sum`. Both are offsets in the storage of the first
 * piece, as if the frame were in one; `endAt` is by default the frame's end.
 */
export function addFrameToSum(
  frame: Frame,
  at: number,
  sum: number,
  endAt: number = frame.start + frame.total,
): number {
  const first = Math.min(frame.start + frame.length, endAt) - at;
  let total = addToSum(frame.view, at, first, sum);
  let left = endAt - at - first;
  let isOdd = (first & 1) === 1;
  for (let piece = frame.next; piece !== null && left > 0; piece = piece.next) {
    const bytes = Math.min(piece.length, left);
    const part = fold(addToSum(piece.view, piece.start, bytes, 0));
    // A piece that starts at an odd place has all its bytes in the other half of the 16-bit words.
    total += isOdd ? swap16(part) : part;
    if ((bytes & 1) === 1) isOdd = !isOdd;
    left -= bytes;
  }
  return fold(total);
}

/**
 * Computes the transport checksum from `startAt` to `endAt`, by default the end of the frame, on top of the
 * pseudo header's sum, and stores it at `checksumAt`. All are offsets in the storage of the first piece, as
 * if the frame were in one.
 */
export function storeFullChecksum(
  frame: Frame,
  startAt: number,
  checksumAt: number,
  pseudoSum: number,
  endAt: number = frame.start + frame.total,
): void {
  frame.view.setUint16(checksumAt, 0);
  storeChecksum(frame.view, checksumAt, addFrameToSum(frame, startAt, pseudoSum, endAt));
}

/**
 * Completes the checksum of an ordinary frame with NEEDS_CSUM, wherever it is (virtio 1.2, section 5.1.6.2).
 * False, and nothing is done, if that is not in the first piece.
 */
export function completeChecksum(frame: Frame): boolean {
  const { view, header, start } = frame;
  const checksumAt = start + header.csumStart + header.csumOffset;
  if (checksumAt + 2 > start + frame.length) return false;
  const startAt = start + header.csumStart;
  const endAt = checksummedEnd(frame, startAt);
  // The field holds the pseudo header's sum already, so that the sum over everything includes it.
  storeFullChecksum(frame, startAt, checksumAt, view.getUint16(checksumAt, true), endAt);
  if (header.csumOffset === UDP_CHECKSUM) avoidNoChecksum(view, checksumAt);
  header.flags &= ~VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csumStart = 0;
  header.csumOffset = 0;
  return true;
}

/**
 * Where the receiver stops adding up: it goes by the packet's own lengths, not by padding behind it. For
 * anything but TCP and UDP that is the frame's end (virtio 1.2, section 5.1.6.2).
 */
function checksummedEnd(frame: Frame, startAt: number): number {
  const { view, start, header } = frame;
  const end = start + frame.total;
  // Of most frames a glance tells that nothing is behind the packet, for less than the header's locator
  // takes.
  const typeAt = start + ETHERNET_TYPE;
  if (header.csumOffset === TCP_CHECKSUM && header.csumStart >= ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES) {
    const type = view.getUint16(typeAt);
    if (type === ETHERTYPE_IPV4 && typeAt + 2 + view.getUint16(typeAt + 2 + IPV4_TOTAL_LENGTH) === end) {
      return end;
    }
  }
  return transport.locate(frame, false) === null && transport.at === startAt ? transport.endAt : end;
}

/** Is the checksum of this frame, whose transport header was located, right? */
export function isChecksumRight(frame: Frame, transport: TransportHeader): boolean {
  const { at, endAt } = transport;
  return isSumRight(addFrameToSum(frame, at, transport.pseudoSum(frame.view, endAt - at), endAt));
}

/**
 * Leaves the transport checksum to the receiver: stores the pseudo header's sum, and says so in the header
 * (virtio 1.2, section 5.1.6.2).
 * @param at the transport header, in the storage of the frame's first piece
 * @param checksumOffset where the checksum is in it
 */
export function leavePartial(frame: Frame, at: number, checksumOffset: number, pseudoSum: number): void {
  const { view, header, start } = frame;
  storePartial(view, at + checksumOffset, pseudoSum);
  header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  header.csumStart = at - start;
  header.csumOffset = checksumOffset;
}

/** UDP says "no checksum" by 0, so that a checksum of 0 is sent as its equal (RFC 768). */
export function avoidNoChecksum(view: DataView, checksumAt: number): void {
  if (view.getUint16(checksumAt) === 0) view.setUint16(checksumAt, 0xffff);
}
