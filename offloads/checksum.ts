/**
 * `checksum`: completes a partial checksum that the receiver cannot take, and verifies checksums for a guest that lets us.
 * @module
 */
import { z } from "zod";
import type { Frame } from "../core/frame.ts";
import type { FrameBatch } from "../core/frame_batch.ts";
import { defineOffload, type OffloadPlugin } from "../core/plugin.ts";
import type { Negotiated, Stage, StageContext } from "../core/stage.ts";
import { isSumRight } from "../wire/checksum.ts";
import { VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM } from "../wire/net_features.ts";
import { TransportHeader, UDP_CHECKSUM } from "../wire/transport_header.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../wire/virtio_net_header.ts";
import { addFrameToSum, completeChecksum } from "./frame_checksum.ts";

/** What `checksum` can be told. */
export interface ChecksumOptions {
  /** Verify the checksums of frames to the guest, and say so in the header where they are right; default false. */
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
  /** Does the receiver take a partial checksum as it is? */
  #partialWelcome: boolean;
  /** Does the guest look at DATA_VALID? */
  #markWelcome = false;

  constructor(context: StageContext, options: ChecksumOptions) {
    this.#toGuest = context.direction === "toGuest";
    this.#verify = options.verify && this.#toGuest;
    this.#partialWelcome = !this.#toGuest && context.network.partialChecksum;
    this.#counters = context.publish({ completed: 0, verified: 0, wrong: 0, unverifiable: 0, incomplete: 0 });
  }

  negotiated(state: Negotiated): void {
    if (!this.#toGuest) return;
    this.#partialWelcome = state.offloads.has(VIRTIO_NET_F_GUEST_CSUM);
    this.#markWelcome = this.#partialWelcome;
  }

  process(input: FrameBatch, output: FrameBatch): void {
    for (let i = 0; i < input.length; i++) {
      const frame = input.at(i);
      if ((frame.header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
        // A large frame keeps its partial checksum: whoever cuts it completes every segment.
        if (!this.#partialWelcome && frame.header.gsoType === 0) this.#complete(frame);
      } else if (this.#verify && this.#markWelcome && frame.header.flags === 0) {
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
    const { at, endAt, isTcp, isV4 } = this.#transport;
    if (!isTcp && frame.view.getUint16(at + UDP_CHECKSUM) === 0) {
      // UDP over IPv4 need not have one; over IPv6 it must (RFC 8200, section 8.1).
      return isV4 ? "unverifiable" : "wrong";
    }
    const pseudo = this.#transport.pseudoSum(frame.view, endAt - at);
    return isSumRight(addFrameToSum(frame, at, pseudo, endAt)) ? "verified" : "wrong";
  }
}
