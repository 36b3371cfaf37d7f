/**
 * A coalescer with nothing around it, fed with TCP segments in order, round robin over flows.
 *
 * Theory of operation. Segments come in batches of 64, as a device takes them from its network. Two ways to
 * measure:
 *
 * - `alone`: the frames are there, as a network transport has read them. Making them is not timed; holding,
 *   merging, finishing, letting go and giving back is.
 * - `withCopy`: the frames lie in 64 buffers outside the pool and are copied in, timed too. That is what a
 *   coalescer does that builds a packet in one buffer, as the C programs in `bench/peers` do.
 *
 * Everything held leaves after `held` segments a flow, which is a cycle; a packet that is full leaves before.
 * A run ends with nothing held. The first cycle of every run is not timed but counted: the caller checks that
 * no payload got lost.
 *
 * @module
 */
import { FeatureSet } from "../../core/features.ts";
import type { RscOptions } from "../../offloads/rsc_chain/chain.ts";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { rscV6 } from "../../offloads/rsc_v6.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { OffloadPlugin } from "../../pipeline/plugin.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Stage } from "../../pipeline/stage.ts";
import { type TcpFrame, tcpFrame } from "../tcp_frame.ts";
import { Stopwatch } from "./stopwatch.ts";

/** Segments in a batch. */
export const BATCH_SEGMENTS = 64;

const OPTIONS: RscOptions = {
  intervalUs: 1e6,
  maxFlows: 65_536,
  maxSegments: 65_535,
  flushOnPush: false,
  timestamps: true,
};

/** What is coalesced, and how. */
export interface CoalescingSetup {
  /** Over which IP. */
  readonly family: "v4" | "v6";
  /** By which rule book. */
  readonly rules: RuleBook;
  /** How many flows take turns. */
  readonly flows: number;
  /** Segments of each flow between two purges. */
  readonly held: number;
  /** Bytes of data in each segment. */
  readonly payloadBytes: number;
}

/** One coalescer and those who send to it. */
export class Coalescing {
  readonly #setup: CoalescingSetup;
  readonly #pool: FramePool;
  readonly #stage: Stage;
  readonly #flows: readonly TcpFrame[];
  readonly #headerBytes: number;
  /** Buffers outside the pool: the segments of the next batch. */
  readonly #buffers: readonly Uint8Array<ArrayBuffer>[];
  readonly #watch = new Stopwatch();
  readonly #input = new FrameBatch(BATCH_SEGMENTS);
  readonly #output = new FrameBatch(BATCH_SEGMENTS);
  #firstCycle = { units: 0, bytes: 0 };
  #next = 0;

  /**
   * A coalescer whose frames come from `pool`: room for `flows` times `held` frames, and as many as a batch.
   */
  constructor(setup: CoalescingSetup, pool: FramePool) {
    this.#setup = setup;
    this.#pool = pool;
    const plugin: OffloadPlugin<RscOptions> = setup.family === "v4" ? rscV4 : rscV6;
    this.#stage = plugin.create({
      name: plugin.name,
      direction: "toGuest",
      pool,
      queuePairs: 1,
      network: OffloadCapabilities.none,
      verdicts: null,
      publish: (counters) => counters,
    }, { ...OPTIONS, rules: setup.rules });
    const features = FeatureSet.of(1, 7, 8, 61);
    this.#stage.negotiated?.({ features, offloads: features }, this.#output, 0);
    const { family, flows, payloadBytes } = setup;
    this.#flows = Array.from({ length: flows }, (_, flow) => tcpFrame(family, flow, payloadBytes));
    this.#headerBytes = this.#flows[0].bytes.length - payloadBytes;
    this.#buffers = Array.from({ length: BATCH_SEGMENTS }, () => this.#flows[0].bytes.slice());
  }

  /** ns per segment, of at least `segments`: the median of the cycles. */
  run(segments: number, way: "alone" | "withCopy"): number {
    const { flows, held } = this.#setup;
    const batches = Math.max(1, flows * held / BATCH_SEGMENTS);
    const cycles = Math.ceil(segments / (batches * BATCH_SEGMENTS));
    this.#runOnce(batches);
    const watch = this.#watch;
    watch.reset(cycles);
    for (let cycle = 0; cycle < cycles; cycle++) {
      for (let batch = 1; batch <= batches; batch++) {
        if (way === "alone") {
          this.#fill();
          watch.start();
        } else {
          this.#prepare();
          watch.start();
          this.#copy();
        }
        this.#coalesce(batch === batches);
        this.#output.releaseAll();
        watch.stop();
      }
      watch.lap();
    }
    return watch.lapNs / (batches * BATCH_SEGMENTS);
  }

  /** What came out of the first cycle of the last run: frames, and bytes of payload in them. */
  get firstCycle(): { readonly units: number; readonly bytes: number } {
    return this.#firstCycle;
  }

  /** Holds `held` segments of each flow, lets none go, and returns how many frames are out of the pool. */
  hold(): number {
    const { flows, held } = this.#setup;
    for (let batch = 0; batch * BATCH_SEGMENTS < flows * held; batch++) {
      this.#fill();
      this.#coalesce(false);
    }
    return this.#pool.inUse;
  }

  /** One cycle, not timed. */
  #runOnce(batches: number): void {
    let units = 0;
    let bytes = 0;
    for (let batch = 1; batch <= batches; batch++) {
      this.#fill();
      this.#coalesce(batch === batches);
      for (let i = 0; i < this.#output.length; i++) bytes += this.#output.at(i).total - this.#headerBytes;
      units += this.#output.length;
      this.#output.releaseAll();
    }
    this.#firstCycle = { units, bytes };
  }

  /** Makes frames: what a network transport would do. */
  #fill(): void {
    for (let i = 0; i < BATCH_SEGMENTS; i++) {
      const flow = this.#following();
      this.#input.push(this.#pool.takeCopy(flow.bytes)!);
      flow.advance(this.#setup.payloadBytes);
    }
  }

  /** Puts segments into the buffers outside the pool. All flows have the same payload: it is there. */
  #prepare(): void {
    for (let i = 0; i < BATCH_SEGMENTS; i++) {
      const flow = this.#following();
      this.#buffers[i].set(flow.bytes.subarray(0, this.#headerBytes));
      flow.advance(this.#setup.payloadBytes);
    }
  }

  /** Takes them over. */
  #copy(): void {
    for (let i = 0; i < BATCH_SEGMENTS; i++) this.#input.push(this.#pool.takeCopy(this.#buffers[i])!);
  }

  #coalesce(purge: boolean): void {
    this.#stage.process(this.#input, this.#output, 0);
    this.#input.clear();
    if (purge) this.#stage.flush!(this.#output, Infinity);
  }

  #following(): TcpFrame {
    const flow = this.#flows[this.#next];
    this.#next = (this.#next + 1) % this.#flows.length;
    return flow;
  }
}
