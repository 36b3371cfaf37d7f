/**
 * `segment`: cuts large frames into ordinary ones where the receiver does not take them.
 *
 * Theory of operation. A *large* frame (`gso_type` TCPV4, TCPV6 or UDP_L4) carries the payload of many
 * packets behind one set of headers, and `gso_size` bytes of it belong to each. To the guest, one that the
 * guest did not agree to take (GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_USO4 and 6) is cut; from the guest,
 * one that the network does not take (`capabilities`). So the stage may offer the guest to send large frames
 * on any network: HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_USO, and CSUM, which they need. Having offered CSUM,
 * it also completes the partial checksums of ordinary frames that the receiver does not take.
 *
 *     large, must be cut -> locate -> fault? -- dropped and counted by its name
 *                              |
 *                              +-> one segment: finished where it lies
 *                              +-> more: cut, one after the other <-- left off while the pool is empty
 *
 * Each segment gets a copy of all headers, its own lengths, IPv4 identification and header checksum, sequence
 * number and flags, and a checksum: partial if the receiver takes that, else in full. It rests on the
 * pseudo-header sum that the sender has left in the large frame, because only the sender knows the final
 * destination of a source route for certain. When the pool is empty, the frame being cut and all that follow
 * it are held, in order, and tried again after 0.1 ms, or when frames have come back by the time that
 * anything else happens. A frame for which there is no memory for 10 ms is dropped: if nothing but frames
 * like it fill the pool, they would wait for each other.
 *
 * Invariants: order is kept. `#held` is empty, or its first frame is the one that `#cutter` is at. A refusal
 * of the pool is not provoked again before something has changed, because the device drains its pipelines on
 * each.
 *
 * Limits: a large frame whose transport header is encapsulated or hidden is dropped; so are a jumbogram (RFC
 * 2675) and one that would make more than `maxSegments`, for else 64 KiB from a guest could fill all memory.
 *
 * @module
 */
import { z } from "zod";
import { type Frame, FrameBatch, type NetHeader } from "../pipeline/frame.ts";
import type { FramePool } from "../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../pipeline/offload_capabilities.ts";
import { defineOffload, type OffloadPlugin } from "../pipeline/plugin.ts";
import type { Negotiated, Stage, StageContext } from "../pipeline/stage.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_RSC_EXT,
} from "../wire/net_features.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../wire/virtio_net_header.ts";
import { completeChecksum } from "./checksum.ts";
import {
  Cutter,
  finishChecksum,
  type LargeFault,
  LargeFrame,
  mustCut,
  writeSegmentHeaders,
} from "./segment/large_frame.ts";

/** What `segment` can be told. */
export interface SegmentOptions {
  /** Most segments that a large frame may be cut into, 2 to 65535; default 256. */
  maxSegments: number;
}

/** Time between two tries while the pool is empty. */
const RETRY_NS = 100_000;
/** Time without any progress after which a frame is given up. */
const MAX_WAIT_NS = 10_000_000;

/** The plugin `segment`, for both directions. */
export const segment: OffloadPlugin<SegmentOptions> = defineOffload<SegmentOptions>({
  name: "segment",
  summary:
    "Cuts large TCP and UDP frames into ordinary ones where the receiver does not take them (TSO and USO in software).",
  direction: "both",
  options: z.strictObject({
    maxSegments: z.int().min(2).max(65_535).default(256)
      .describe("Most segments that a large frame may be cut into; one that would make more is dropped."),
  }),
  renamedOptions: { mostSegments: "maxSegments" },
  offers: [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_USO,
  ],
  create: (context: StageContext, { maxSegments }: SegmentOptions): Stage =>
    new SegmentStage(context, maxSegments, context.publish(newSegmentCounters())),
});

/** The counters of a stage that cuts. */
export type SegmentCounters = Record<
  "cut" | "segments" | "finished_whole" | "completed" | "waited" | "dropped_no_memory" | LargeFault,
  number
>;

/** Counters of a stage that cuts, all 0. */
export function newSegmentCounters(): SegmentCounters {
  return {
    cut: 0,
    segments: 0,
    finished_whole: 0,
    completed: 0,
    waited: 0,
    dropped_no_memory: 0,
    dropped_no_segment_size: 0,
    dropped_cut_headers: 0,
    dropped_wrong_kind: 0,
    dropped_fragment: 0,
    dropped_bad_length: 0,
    dropped_bad_flags: 0,
    dropped_too_many: 0,
    dropped_odd_checksum: 0,
    dropped_bad_checksum: 0,
  };
}

/** Cuts large frames that the receiver does not take. */
export class SegmentStage implements Stage {
  readonly #toGuest: boolean;
  readonly #maxSegments: number;
  readonly #pool: FramePool;
  readonly #counters: SegmentCounters;
  readonly #large = new LargeFrame();
  readonly #cutter: Cutter;
  readonly #held = new FrameBatch();
  /** What the receiver takes unfinished. */
  #receiver: OffloadCapabilities;
  /** Does it take packets that this device has coalesced, even if it takes no other large frames? */
  #takesCoalesced = false;
  #nowNs = 0;
  #retryNs = 0;
  /** Since when nothing could be cut. */
  #stuckSinceNs = 0;
  /** Frames that were out of the pool when it was found empty. */
  #outWhenEmpty = 0;

  /** @param maxSegments that a frame may be cut into; @param counters what to count in */
  constructor(context: StageContext, maxSegments: number, counters: SegmentCounters) {
    this.#toGuest = context.direction === "toGuest";
    this.#maxSegments = maxSegments;
    this.#pool = context.pool;
    this.#counters = counters;
    this.#cutter = new Cutter(this.#large, context.pool);
    this.#receiver = this.#toGuest ? OffloadCapabilities.none : context.network;
  }

  /** The guest takes other frames from now on. */
  negotiated(state: Negotiated): void {
    if (!this.#toGuest) return;
    this.#receiver = this.capabilitiesOf(state);
    this.#takesCoalesced = this.takesCoalesced(state);
  }

  /** What a guest takes unfinished that has agreed to this. */
  protected capabilitiesOf({ offloads }: Negotiated): OffloadCapabilities {
    return OffloadCapabilities.ofGuest(offloads);
  }

  /** Does a guest that has agreed to this take packets that this device has coalesced? */
  protected takesCoalesced({ offloads }: Negotiated): boolean {
    return offloads.has(VIRTIO_NET_F_RSC_EXT);
  }

  /** Takes every frame of `input`. */
  process(input: FrameBatch, output: FrameBatch, nowNs: number): void {
    this.#nowNs = nowNs;
    if (this.#held.length > 0 && this.#mayTry()) this.#resume(output);
    for (let i = 0; i < input.length; i++) {
      const frame = input.at(i);
      if (this.#held.length > 0 || !this.#take(frame, output)) this.#held.push(frame);
    }
  }

  /** When to try again to cut what is held, in ns. */
  deadlineNs(): number {
    return this.#held.length === 0 ? Infinity : this.#retryNs;
  }

  /** Goes on with what is held, if there is memory. */
  flush(output: FrameBatch, nowNs: number): void {
    if (nowNs !== Infinity) this.#nowNs = nowNs;
    if (this.#held.length > 0 && this.#mayTry()) this.#resume(output);
  }

  /** Hands what is held over. */
  reset(output: FrameBatch): void {
    for (let i = 0; i < this.#held.length; i++) output.push(this.#held.at(i));
    this.#held.clear();
    if (!this.#toGuest) return;
    this.#receiver = OffloadCapabilities.none;
    this.#takesCoalesced = false;
  }

  /** Has something changed since the pool was found empty? */
  #mayTry(): boolean {
    return this.#nowNs >= this.#retryNs || this.#pool.inUse < this.#outWhenEmpty;
  }

  /** Goes on with the frame that was left off, and then with those behind it. */
  #resume(output: FrameBatch): void {
    const held = this.#held;
    const before = output.length;
    let done = 0;
    if (this.#cut(held.at(0), output) || this.#giveUp(held.at(0), output.length > before)) {
      done = 1;
      while (done < held.length && this.#take(held.at(done), output)) done++;
    }
    held.dropFirst(done);
  }

  /** Drops the frame if there has been no memory for it for too long. */
  #giveUp(frame: Frame, progress: boolean): boolean {
    if (progress) this.#stuckSinceNs = this.#nowNs;
    if (this.#nowNs - this.#stuckSinceNs < MAX_WAIT_NS) return false;
    this.#stuckSinceNs = this.#nowNs;
    return this.#drop(frame, "dropped_no_memory");
  }

  /**
   * Passes, completes or cuts a frame, or drops it. False if it is left off for want of memory.
   */
  #take(frame: Frame, output: FrameBatch): boolean {
    const { header } = frame;
    if (header.gsoType === VIRTIO_NET_HDR_GSO_NONE) {
      if (this.#mustComplete(header)) {
        if (!completeChecksum(frame)) return this.#drop(frame, "dropped_odd_checksum");
        this.#counters.completed++;
      }
      output.push(frame);
      return true;
    }
    const isCoalesced = this.#takesCoalesced && (header.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0;
    if (isCoalesced || !mustCut(header, this.#receiver)) {
      output.push(frame);
      return true;
    }
    const fault = this.#large.locate(frame, this.#maxSegments);
    if (fault !== null) return this.#drop(frame, fault);
    if (this.#large.segments === 1) {
      if (this.#large.transport.lacksIpLength) writeSegmentHeaders(frame, this.#large, 0, 0);
      finishChecksum(frame, this.#large, this.#receiver.csum);
      this.#counters.finished_whole++;
      output.push(frame);
      return true;
    }
    this.#cutter.begin();
    this.#stuckSinceNs = this.#nowNs;
    return this.#cut(frame, output);
  }

  #mustComplete(header: NetHeader): boolean {
    const partial = header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_RSC_INFO);
    return partial === VIRTIO_NET_HDR_F_NEEDS_CSUM && !this.#receiver.csum;
  }

  /** Cuts what is left of the frame that the cutter is at. False if the pool is empty before the end. */
  #cut(frame: Frame, output: FrameBatch): boolean {
    const cutter = this.#cutter;
    const { csum } = this.#receiver;
    while (cutter.hasNext) {
      const next = cutter.next(csum);
      if (next === null) {
        this.#counters.waited++;
        this.#retryNs = this.#nowNs + RETRY_NS;
        this.#outWhenEmpty = this.#pool.inUse;
        return false;
      }
      this.#counters.segments++;
      output.push(next);
    }
    this.#counters.cut++;
    frame.release();
    return true;
  }

  #drop(frame: Frame, reason: LargeFault | "dropped_no_memory"): true {
    this.#counters[reason]++;
    frame.release();
    return true;
  }
}
