/**
 * A bench for stages: a pipeline with a manual clock, without rings, guest or network around it.
 *
 * Theory of operation. `feed` takes frames from a pool, numbers them and pushes them through the pipeline, at
 * the bench's present time. `advanceTo` moves the time and on the way stops at every deadline of a stage, as
 * the reactor does: what is due at a moment has happened before anything is fed at that moment. What comes
 * out is copied to `out` and released. `close`, or `using`, drains the stages and then asserts that the pool
 * is whole.
 *
 * @module
 */
import { ManualClock } from "../core/clock.ts";
import { PluginError } from "../plugins/contract.ts";
import { FeatureSet, VIRTIO_F_VERSION_1 } from "../core/features.ts";
import { guestOffloads } from "../devices/net/features.ts";
import { type Frame, FrameBatch, type FrameHolder } from "../pipeline/frame.ts";
import { FramePool } from "../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../pipeline/offload_capabilities.ts";
import { type NamedStage, Pipeline } from "../pipeline/pipeline.ts";
import { inheritOptions, type OffloadPlugin } from "../pipeline/plugin.ts";
import { requestOffloads, type RuleBook } from "../pipeline/qemu_compat.ts";
import { type Direction, type Stage, stageFault } from "../pipeline/stage.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../wire/net_features.ts";
import { completeOptions, delivered, newFrame } from "./bench_parts.ts";
import {
  assertPoolWhole,
  type Delivered,
  type FrameFacts,
  type FrameSource,
  VerdictList,
} from "./matchers.ts";

/** A plugin and what the JSON would say of it. */
export interface BenchPlugin {
  /** The plugin. */
  // deno-lint-ignore no-explicit-any -- plugins of any options go in one list
  readonly plugin: OffloadPlugin<any>;
  /** Its options as written: validated and completed by its own schema. Default `{}`. */
  readonly options?: unknown;
}

/** What a bench is made of: plugins, with options or without, or a stage that is there already. */
// deno-lint-ignore no-explicit-any -- plugins of any options go in one list
export type BenchStage = OffloadPlugin<any> | BenchPlugin | NamedStage;

/** How a bench is set up. Everything has a default. */
export interface StageBenchSettings {
  /** Which way frames go; default `toGuest`. */
  readonly direction?: Direction;
  /** The device's rule book; default `strict`. */
  readonly rules?: RuleBook;
  /** Queue pairs of the device; default 1. */
  readonly queuePairs?: number;
  /** What the network takes; default nothing but ordinary frames. */
  readonly network?: OffloadCapabilities;
  /**
   * Features that the guest has accepted; default {@linkcode BENCH_FEATURES}. Null: nothing has been
   * negotiated yet.
   */
  readonly features?: FeatureSet | null;
  /** Where frames come from; default a pool of the bench's own. */
  readonly pool?: FramePool;
  /** Collect explanations in `verdicts`; default true. */
  readonly explain?: boolean;
}

/**
 * What the guest of a bench accepts by default: VERSION_1, MRG_RXBUF, GUEST_CSUM, GUEST_TSO4, GUEST_TSO6,
 * RSC_EXT.
 */
export const BENCH_FEATURES: FeatureSet = FeatureSet.of(
  VIRTIO_F_VERSION_1,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
);

const PLAIN_NETWORK = OffloadCapabilities.none;

/** Flushes at one moment after which a stage must be asking for them for ever. */
const MAX_ROUNDS = 1000;

/**
 * Runs frames through stages.
 *
 * @example
 * ```ts
 * import { rscV4 } from "../offloads/rsc_v4.ts";
 * import { StageBench } from "./stage_bench.ts";
 * import { TcpStream } from "./packets.ts";
 *
 * using bench = new StageBench({ plugin: rscV4, options: { intervalUs: 50 } });
 * const stream = new TcpStream();
 * bench.feed(stream.next(100));
 * bench.feed(stream.next(100));
 * bench.advanceTo(50_000);
 * if (bench.out.length !== 1 || bench.out[0].header.csumStart !== 2) throw new Error("unreachable");
 * ```
 */
export class StageBench implements Disposable {
  /** Everything that has come out so far, in order. */
  readonly out: Delivered[] = [];
  /** What the stages have said about frames. */
  readonly verdicts: VerdictList = new VerdictList();
  /** Counters by stage name, live. */
  readonly counters: Record<string, Record<string, number>> = {};
  /** The clock. */
  readonly clock: ManualClock = new ManualClock();
  /** Where frames come from. */
  readonly pool: FramePool;
  /** The stages in order. */
  readonly pipeline: Pipeline;
  readonly #batch = new FrameBatch();
  #features: FeatureSet | null;
  #fed = 0;
  #closed = false;

  /**
   * Builds the stages and negotiates. Throws what a plugin's `create` throws, and TypeError for options that
   * its schema does not accept.
   * @param stages one, or several in order of execution
   */
  constructor(stages: BenchStage | readonly BenchStage[], settings: StageBenchSettings = {}) {
    this.pool = settings.pool ?? new FramePool();
    const list = Array.isArray(stages) ? stages as readonly BenchStage[] : [stages as BenchStage];
    const named = list.map((stage) => this.#build(stage, settings));
    this.pipeline = new Pipeline(named, { accept: (frames, nowNs) => this.#take(frames, nowNs) }, {
      pool: this.pool,
      ...(settings.queuePairs === undefined ? {} : { queuePairs: settings.queuePairs }),
    });
    this.#features = settings.features === undefined ? BENCH_FEATURES : settings.features;
    if (this.#features !== null) this.negotiated(this.#features);
  }

  /**
   * Feeds a frame at the present time, in a batch of its own.
   * @param source its bytes, copied
   */
  feed(source: FrameSource, facts: FrameFacts = {}): void {
    this.feedFrame(this.frame(source, facts));
  }

  /** Feeds a frame that `frame` has made, all its pieces; it is the stages' from then on. */
  feedFrame(frame: Frame): void {
    this.#batch.push(frame);
    this.pipeline.push(this.#batch, this.clock.nowNs());
  }

  /** Feeds several frames in one batch. */
  feedBatch(sources: Iterable<FrameSource>, facts: Omit<FrameFacts, "number"> = {}): void {
    for (const source of sources) this.#batch.push(this.frame(source, facts));
    this.pipeline.push(this.#batch, this.clock.nowNs());
  }

  /**
   * A frame from the bench's pool, which the caller then owns: to build one in pieces, or to call a stage by
   * hand.
   */
  frame(source: FrameSource, facts: FrameFacts = {}): Frame {
    return newFrame(this.pool, source, { ...facts, number: facts.number ?? ++this.#fed });
  }

  /**
   * Moves the time on, and flushes the stages that are due on the way. Where it does move, nothing more comes
   * at the present time, which the stages are told first (`Stage.idle`). Throws RangeError for a time that
   * has passed.
   */
  advanceTo(nowNs: number): void {
    if (nowNs > this.clock.nowNs()) this.pipeline.idle(this.clock.nowNs());
    let rounds = 0;
    for (let due = this.pipeline.deadlineNs(); due <= nowNs; due = this.pipeline.deadlineNs()) {
      rounds = due > this.clock.nowNs() ? 0 : rounds + 1;
      if (rounds > MAX_ROUNDS) {
        throw new Error(`A stage wants to be flushed at ${due} ns for ever: flush must move its deadline`);
      }
      this.clock.advanceTo(Math.max(due, this.clock.nowNs()));
      this.pipeline.flushDue(this.clock.nowNs());
    }
    this.clock.advanceTo(nowNs);
  }

  /**
   * The guest has agreed on these features, or has switched its offloads. By default all guest offloads among
   * them.
   */
  negotiated(features: FeatureSet, offloads: FeatureSet = guestOffloads(features)): void {
    this.#features = features;
    this.pipeline.negotiated({ features, offloads }, this.clock.nowNs());
  }

  /** The guest switches its offloads; the features stay. */
  setOffloads(offloads: FeatureSet): void {
    requestOffloads(this.pipeline, offloads);
    this.negotiated(this.#features ?? FeatureSet.none, offloads);
  }

  /** The guest is gone. Returns how many frames the stages were holding, which are released. */
  reset(): number {
    return this.pipeline.reset();
  }

  /** Drains all stages, as before a stop. */
  drain(): void {
    this.pipeline.drain(this.clock.nowNs());
  }

  /** Drains, and asserts that every frame is back in the pool. May be called twice. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.drain();
    assertPoolWhole(this.pool);
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #build(entry: BenchStage, settings: StageBenchSettings): NamedStage {
    if ("stage" in entry) return entry;
    const { plugin, options } = "plugin" in entry ? entry : { plugin: entry, options: {} };
    const holder: FrameHolder = { plugin: plugin.name, path: "", kind: "stage" };
    const stage: Stage = plugin.create({
      name: plugin.name,
      direction: settings.direction ?? "toGuest",
      pool: this.pool.lentTo(holder),
      queuePairs: settings.queuePairs ?? 1,
      network: settings.network ?? PLAIN_NETWORK,
      isTimeVirtual: true,
      verdicts: settings.explain === false ? null : this.verdicts,
      publish: (counters) => {
        this.counters[plugin.name] = counters;
        return counters;
      },
    }, inheritOptions(plugin, completeOptions(plugin, options ?? {}), { rules: settings.rules ?? "strict" }));
    const fault = stageFault(stage);
    if (fault !== null) throw new PluginError(plugin.name, "create", new TypeError(fault));
    return { name: plugin.name, stage, holder };
  }

  #take(frames: FrameBatch, atNs: number): void {
    for (let i = 0; i < frames.length; i++) {
      const frame = frames.at(i);
      this.out.push(delivered(frame, atNs));
      frame.release();
    }
    frames.clear();
  }
}
