/**
 * `undo-offloads`: makes of frames that were captured on a host with offloads what was on its wire.
 *
 * Theory of operation. `OffloadFinder` tells of each frame whether its checksum was left to the interface and
 * how many segments it holds. Such a frame is marked as a guest or a TAP would hand it over: NEEDS_CSUM,
 * `gso_type` and `gso_size`. Then the stage cuts it as `segment` does, even if the guest takes large frames,
 * so that a stage behind it, `rsc-v4` above all, gets what it would get from a wire. The checksums of all
 * these frames are taken for right: what they were on the wire cannot be told. They stay partial for a guest
 * that takes that, under the strict rules; the reference does not know NEEDS_CSUM.
 *
 * Large UDP frames are left whole, and counted: the size of their datagrams cannot be told.
 *
 * @module
 */
import { z } from "zod";
import type { Frame, FrameBatch } from "../pipeline/frame.ts";
import { OffloadCapabilities } from "../pipeline/offload_capabilities.ts";
import { defineOffload, type OffloadPlugin } from "../pipeline/plugin.ts";
import type { RuleBook } from "../pipeline/qemu_compat.ts";
import type { Negotiated, Stage, StageContext } from "../pipeline/stage.ts";
import { VIRTIO_NET_HDR_GSO_NONE } from "../wire/virtio_net_header.ts";
import { leavePartial } from "./checksum.ts";
import { newSegmentCounters, type SegmentCounters, SegmentStage } from "./segment.ts";
import { MssTable, OffloadFinder } from "./undo_offloads/offload_finder.ts";

/** What `undo-offloads` can be told. */
export interface UndoOffloadsOptions {
  /** The MSS of all connections in bytes, 88 to 65535; by default each tells its own. */
  mss?: number | undefined;
  /** The MTU of the wire in bytes, 576 to 65535; default 1500, or more where a connection says so. */
  mtu?: number | undefined;
  /**
   * Rule book of the coalescing behind it: under `qemu` every checksum is completed. Default the device's
   * own.
   */
  rules?: RuleBook | undefined;
}

/** Most segments in 64 KiB: none is taken to be shorter than 64 bytes. */
const MAX_SEGMENTS = 1024;

/**
 * The plugin, with what is known of connections beforehand. @param knownMss made anew for each stage if there
 * is none
 */
export function defineUndoOffloads(knownMss?: MssTable): OffloadPlugin<UndoOffloadsOptions> {
  return defineOffload<UndoOffloadsOptions>({
    name: "undo-offloads",
    summary: "Makes of frames captured with TSO, GRO and checksum offload what was on the wire.",
    direction: "toGuest",
    options: z.strictObject({
      mss: z.int().min(88).max(65_535).optional()
        .describe(
          "The MSS of all connections, in bytes. By default that of their SYNs, or of the segments seen.",
        ),
      mtu: z.int().min(576).max(65_535).optional()
        .describe(
          "The MTU of the wire, in bytes: no segment is longer. By default 1500, or more where a SYN says so.",
        ),
      rules: z.enum(["strict", "qemu"]).optional()
        .describe(
          'Rule book of the coalescing behind it: under "qemu" every checksum is completed. Default: the device\'s own.',
        ),
    }),
    inherits: ["rules"],
    create: (context, options): Stage =>
      new UndoOffloadsStage(
        context,
        options,
        new OffloadFinder(knownMss ?? new MssTable(), options),
        context.publish({ ...newSegmentCounters(), partial: 0, large_udp: 0 }),
      ),
  });
}

/** The plugin `undo-offloads`. */
export const undoOffloads: OffloadPlugin<UndoOffloadsOptions> = defineUndoOffloads();

class UndoOffloadsStage extends SegmentStage {
  readonly #finder: OffloadFinder;
  readonly #counters: SegmentCounters & Record<"partial" | "large_udp", number>;
  readonly #isReference: boolean;

  constructor(
    context: StageContext,
    options: UndoOffloadsOptions,
    finder: OffloadFinder,
    counters: SegmentCounters & Record<"partial" | "large_udp", number>,
  ) {
    super(context, MAX_SEGMENTS, counters);
    this.#finder = finder;
    this.#counters = counters;
    this.#isReference = options.rules === "qemu";
  }

  override process(input: FrameBatch, output: FrameBatch, nowNs: number): void {
    for (let i = 0; i < input.length; i++) this.#mark(input.at(i));
    super.process(input, output, nowNs);
  }

  protected override capabilitiesOf(state: Negotiated): OffloadCapabilities {
    const csum = super.capabilitiesOf(state).csum && !this.#isReference;
    return csum ? OffloadCapabilities.of("csum") : OffloadCapabilities.none;
  }

  protected override takesCoalesced(): boolean {
    return true;
  }

  /** Writes into the frame's header what the capture does not say of it. */
  #mark(frame: Frame): void {
    const finder = this.#finder;
    if (!finder.find(frame)) return;
    const { transport } = finder;
    const { view, header, start } = frame;
    if (finder.isLargeUdp) this.#counters.large_udp++;
    if (transport.lacksIpLength) transport.fillIpLength(view);
    if (finder.isPartial) {
      // Padding is no part of what is to be summed up.
      frame.trim(transport.endAt - start);
      const { at, endAt, checksumOffset } = transport;
      leavePartial(frame, at, checksumOffset, transport.pseudoSum(view, endAt - at));
      this.#counters.partial++;
    }
    if (finder.segments === 1 || header.gsoType !== VIRTIO_NET_HDR_GSO_NONE) return;
    header.gsoType = transport.gsoType;
    header.gsoSize = finder.segmentBytes;
  }
}
