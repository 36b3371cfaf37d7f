/**
 * The stages that frames go through, one way.
 *
 * Theory of operation. `push` hands a batch to the first stage; what that puts out is the next one's input,
 * and what the last puts out goes to the sink, which takes every frame. Two batches serve the whole pipeline
 * in turn. A stage that holds frames says by `deadlineNs` when it wants to be flushed; `flushDue` asks the
 * stage that is due first, and among equals the one that armed first, and runs what it flushes through the
 * stages *behind* it. The pipeline never looks at frames.
 *
 * Invariants: between calls both batches are empty; a frame is in one stage, or with the sink, or released. A
 * sink may throw (the guest's rings may be broken); it has taken every frame of the batch all the same.
 *
 * A stage that throws ends the pipeline, and with it the device. So does one that breaks the contract of
 * frames: what it hands on, and whether a frame is its own, is looked at where it leaves the stage
 * (`isSound` in `frame.ts`). The frames that the stages have are taken back by the pool. No stage is called
 * again; `push` and `negotiated` throw the same PluginError, all else does nothing, so that the device can be
 * closed in order.
 *
 * Limits: a pipeline does not branch; nothing is added after construction.
 *
 * @module
 */
import { kindOf, PluginError, refusePromise } from "../plugins/contract.ts";
import {
  FrameBatch,
  frameFault,
  type FrameHolder,
  isHeaderSound,
  isPlain,
  isSound,
  MAX_QUEUE_PAIRS,
} from "./frame.ts";
import type { FramePool } from "./frame_pool.ts";
import type { Negotiated, Stage } from "./stage.ts";

/** Flushes in a row that are due and in vain, after which a stage must be asking for them for ever. */
const MAX_VAIN_FLUSHES = 1000;
/** A flush in vain after which the next is wanted sooner than this counts, in ns. */
const VAIN_FLUSH_NS = 1000;
/** Times that a stage with a deadline may be found with most of the frames of an empty pool. */
const MAX_HOARDED_LOOKS = 5;
const KEPT_BATCH = "it pushed to a batch after its hook had returned: batches are lent until then, keep none";

/** The end of a pipeline: takes every frame of a batch and clears it. */
export interface FrameSink {
  /** Who has the frames then; left out: the device. */
  readonly holder?: FrameHolder;
  /** Takes the frames; they are its own and the batch is empty afterwards, even if it throws. */
  accept(frames: FrameBatch, nowNs: number): void;
}

/** A stage and the name of the plugin it came from. */
export interface NamedStage {
  /** The plugin's name, for errors. */
  readonly name: string;
  /** The stage. */
  readonly stage: Stage;
  /**
   * Who it is as a holder of frames; the pool that it got is lent to it. Left out: by its name, without a
   * path.
   */
  readonly holder?: FrameHolder;
}

/** What a pipeline can be told besides its stages. */
export interface PipelineOptions {
  /** Where frames come from: a stage that fails, or keeps frames for ever, has them taken back. */
  readonly pool?: FramePool;
  /** How many queue pairs the device has; default 32768. */
  readonly queuePairs?: number;
}

/** Runs frames through stages in order. */
export class Pipeline {
  readonly #stages: readonly NamedStage[];
  readonly #sink: FrameSink;
  readonly #pool: FramePool | null;
  readonly #queuePairs: number;
  /** Who has frames, by stage; the last is the sink. */
  readonly #holders: readonly FrameHolder[];
  /** Of each stage: may it hold frames? One that is never flushed must not. */
  readonly #mayHold: readonly boolean[];
  readonly #deadlinesNs: number[];
  readonly #armedAs: number[];
  readonly #flushedIn: number[];
  readonly #vainFlushes: number[];
  readonly #hoardedLooks: number[];
  #arms = 0;
  #flushes = 0;
  #failure: PluginError | null = null;
  /** Has a frame come in whose header means nothing? Then no stage can be blamed for such. */
  #unsoundIn = false;
  /** Has a stage something to say to `idle`, and has it not been asked since frames have come last? */
  #asksIdle: boolean;
  readonly #hasIdle: boolean;
  #front = new FrameBatch();
  #back = new FrameBatch();

  /** Joins stages. @param stages in order of execution; @param sink where frames end */
  constructor(stages: readonly NamedStage[], sink: FrameSink, options: PipelineOptions = {}) {
    this.#stages = stages;
    this.#sink = sink;
    this.#pool = options.pool ?? null;
    this.#queuePairs = options.queuePairs ?? MAX_QUEUE_PAIRS;
    const sinkHolder = sink.holder ?? { plugin: "device", path: "", kind: "device" };
    this.#holders = [
      ...stages.map(({ name, holder }): FrameHolder => holder ?? { plugin: name, path: "", kind: "stage" }),
      sinkHolder,
    ];
    this.#mayHold = stages.map(({ stage }) => stage.flush !== undefined || stage.deadlineNs !== undefined);
    this.#hasIdle = stages.some(({ stage }) => stage.idle !== undefined);
    this.#asksIdle = false;
    this.#deadlinesNs = stages.map(() => Infinity);
    this.#armedAs = stages.map(() => 0);
    this.#flushedIn = stages.map(() => 0);
    this.#vainFlushes = stages.map(() => 0);
    this.#hoardedLooks = stages.map(() => 0);
  }

  /** What a stage threw, or did wrong, that ended the pipeline; null as long as none did. */
  get failure(): PluginError | null {
    return this.#failure;
  }

  /**
   * Runs the frames of `input` through all stages and clears it. Throws PluginError, and what the sink
   * throws.
   */
  push(input: FrameBatch, nowNs: number): void {
    if (this.#failure !== null) {
      input.releaseAll();
      throw this.#failure;
    }
    if (this.#stages.length === 0) {
      this.#end(input, nowNs);
      return;
    }
    this.#asksIdle = this.#hasIdle;
    const first = this.#holders[0];
    // A stage that has kept this batch from another time has pushed to it before its owner could.
    if (input.length > 0 && this.#holders.indexOf(input.at(0).holder!) in this.#stages) {
      this.#expectEmpty(input, 0);
    }
    for (let i = 0; i < input.length; i++) {
      const frame = input.at(i);
      frame.holder = first;
      const { header } = frame;
      if ((header.flags | header.gsoType) !== 0 && !isHeaderSound(frame)) this.#unsoundIn = true;
    }
    this.#run(0, input, nowNs);
  }

  /** When `flushDue` has something to do next, in ns; Infinity if nothing is held. */
  deadlineNs(): number {
    let first = Infinity;
    for (let i = 0; i < this.#deadlinesNs.length; i++) {
      if (this.#deadlinesNs[i] < first) first = this.#deadlinesNs[i];
    }
    return first;
  }

  /**
   * Flushes the stages that are due, earliest first, each at most once. True if that changed anything: a
   * stage that stays due and flushes nothing must not keep the device awake, and fails after a thousand
   * times. Throws PluginError, and what the sink throws.
   */
  flushDue(nowNs: number): boolean {
    let did = false;
    const call = ++this.#flushes;
    for (let due = this.#firstDue(nowNs, call); due >= 0; due = this.#firstDue(nowNs, call)) {
      this.#flushedIn[due] = call;
      const dueNs = this.#deadlinesNs[due];
      if (this.#flush(due, nowNs, nowNs)) did = true;
      this.#noteVain(due, dueNs, nowNs);
    }
    return did;
  }

  /**
   * Where frames come from was looked at and has none: asks the stages, in order, what they let go for that,
   * once after each `push`. True if that changed anything. Throws PluginError, and what the sink throws.
   */
  idle(nowNs: number): boolean {
    if (!this.#asksIdle || this.#failure !== null) return false;
    this.#asksIdle = false;
    let did = false;
    for (let i = 0; i < this.#stages.length; i++) {
      const { stage } = this.#stages[i];
      if (stage.idle === undefined) continue;
      const released = this.#front;
      this.#expectEmpty(released, i);
      try {
        const result: unknown = stage.idle(released, nowNs);
        this.#takeOver(i, released, result);
      } catch (cause) {
        throw this.#fail(i, "idle", cause);
      }
      if (this.#note(i, released)) did = true;
      if (released.length === 0) continue;
      did = true;
      this.#run(i + 1, released, nowNs);
    }
    return did;
  }

  /**
   * Flushes everything that is held, in order of the stages. True if that changed anything: a stage may hold
   * nothing, or be unable to flush it. Throws PluginError, and what the sink throws.
   */
  drain(nowNs: number): boolean {
    if (this.#failure !== null) return false;
    let did = false;
    for (let i = 0; i < this.#stages.length; i++) if (this.#flush(i, Infinity, nowNs)) did = true;
    return did;
  }

  /** Tells every stage what the guest has agreed to. Throws PluginError, and what the sink throws. */
  negotiated(state: Negotiated, nowNs: number): void {
    if (this.#failure !== null) throw this.#failure;
    for (let i = 0; i < this.#stages.length; i++) {
      const { stage } = this.#stages[i];
      const released = this.#front;
      this.#expectEmpty(released, i);
      try {
        const result: unknown = stage.negotiated?.(state, released, nowNs);
        this.#takeOver(i, released, result);
      } catch (cause) {
        throw this.#fail(i, "negotiated", cause);
      }
      this.#note(i, released);
      this.#run(i + 1, released, nowNs);
    }
  }

  /**
   * Calls every stage in order, for what is no part of the contract of a stage. Throws PluginError.
   * @param hook what is called, for errors; @param call what to do with each stage
   */
  each(hook: string, call: (stage: Stage) => unknown): void {
    if (this.#failure !== null) return;
    for (let i = 0; i < this.#stages.length; i++) {
      try {
        refusePromise(call(this.#stages[i].stage));
      } catch (cause) {
        throw this.#fail(i, hook, cause);
      }
    }
  }

  /**
   * The guest is gone: releases what the stages hold and returns how many frames that were. Throws
   * PluginError, also for a stage that still has frames then.
   */
  reset(): number {
    if (this.#failure !== null) return 0;
    const held = this.#front;
    let count = 0;
    for (let i = 0; i < this.#stages.length; i++) {
      const { stage } = this.#stages[i];
      this.#expectEmpty(held, i);
      try {
        const result: unknown = stage.reset ? stage.reset(held) : stage.flush?.(held, Infinity);
        this.#takeOver(i, held, result);
      } catch (cause) {
        throw this.#fail(i, "reset", cause);
      }
      count += held.length;
      held.releaseAll();
    }
    this.#deadlinesNs.fill(Infinity);
    this.#vainFlushes.fill(0);
    this.#refuseKept();
    return count;
  }

  /**
   * Memory is short, and the stages have been flushed: a stage that still has most of the frames that are out
   * of the pool fails. One that has a deadline gets `MAX_HOARDED_LOOKS` calls. Throws PluginError.
   */
  refuseHoarders(): void {
    if (this.#failure !== null || this.#pool === null || this.#stages.length === 0) return;
    const held = this.#pool.held();
    for (let i = 0; i < this.#stages.length; i++) {
      const frames = held.get(this.#holders[i]) ?? 0;
      this.#hoardedLooks[i] = frames > 0 && frames >= this.#pool.inUse / 2 ? this.#hoardedLooks[i] + 1 : 0;
      const most = this.#deadlinesNs[i] === Infinity ? 1 : MAX_HOARDED_LOOKS;
      if (this.#hoardedLooks[i] >= most) {
        throw this.#failKeeping(
          i,
          "flush",
          frames,
          "the pool is empty, and flush(output, Infinity) must hand over all",
        );
      }
    }
  }

  /** The stage that is due first of those not flushed in this `call`; -1 if there is none. */
  #firstDue(nowNs: number, call: number): number {
    let due = -1;
    for (let i = 0; i < this.#stages.length; i++) {
      const deadline = this.#deadlinesNs[i];
      if (!(deadline <= nowNs) || this.#flushedIn[i] === call) continue;
      const earlier = due < 0 || deadline < this.#deadlinesNs[due] ||
        (deadline === this.#deadlinesNs[due] && this.#armedAs[i] < this.#armedAs[due]);
      if (earlier) due = i;
    }
    return due;
  }

  /** True if the stage flushed something, or is due at another time now. */
  #flush(index: number, dueNs: number, nowNs: number): boolean {
    const { stage } = this.#stages[index];
    const released = this.#front;
    this.#expectEmpty(released, index);
    try {
      const result: unknown = stage.flush?.(released, dueNs);
      this.#takeOver(index, released, result);
    } catch (cause) {
      throw this.#fail(index, "flush", cause);
    }
    const moved = this.#note(index, released);
    if (released.length === 0) return moved;
    this.#vainFlushes[index] = -1;
    this.#run(index + 1, released, nowNs);
    return true;
  }

  /** Counts flushes that are due, flush nothing, and are wanted again at once. */
  #noteVain(index: number, dueNs: number, nowNs: number): void {
    const vain = this.#vainFlushes[index] >= 0 && this.#deadlinesNs[index] < nowNs + VAIN_FLUSH_NS;
    this.#vainFlushes[index] = vain ? this.#vainFlushes[index] + 1 : 0;
    if (this.#vainFlushes[index] < MAX_VAIN_FLUSHES) return;
    throw this.#fail(
      index,
      "deadlineNs",
      new Error(
        `it wants to be flushed at ${dueNs} ns for ever: flush must move its deadline, or push frames`,
      ),
    );
  }

  /** Runs `input` from stage `first` on to the sink, and clears it. It may be the front batch. */
  #run(first: number, input: FrameBatch, nowNs: number): void {
    let from = input;
    for (let i = first; i < this.#stages.length && from.length > 0; i++) {
      const to = from === this.#front ? this.#back : this.#front;
      const { stage } = this.#stages[i];
      const count = from.length;
      this.#expectEmpty(to, i);
      try {
        const result: unknown = stage.process(from, to, nowNs);
        this.#takeOver(i, to, result);
        if (from.length !== count) refuseChanged(from, count);
        // One that hands on less than it got may still have the rest.
        if (to.length < count && !this.#mayHold[i]) this.#refuseHeld(i, from, count);
      } catch (cause) {
        input.clear();
        throw this.#fail(i, "process", cause);
      }
      from.clear();
      this.#note(i, to);
      from = to;
    }
    if (from.length > 0) this.#end(from, nowNs);
  }

  #end(frames: FrameBatch, nowNs: number): void {
    try {
      if (frames.length > 0) this.#sink.accept(frames, nowNs);
    } finally {
      frames.clear();
    }
  }

  /**
   * Takes the frames of `output` over from a stage, for the next one or the sink. Throws Error for one that
   * is not in order.
   */
  #takeOver(index: number, output: FrameBatch, result: unknown): void {
    if (result !== undefined) refusePromise(result);
    const own = this.#holders[index];
    const next = this.#holders[index + 1];
    const count = output.length;
    for (let i = 0; i < count; i++) {
      const frame = output.at(i);
      // What most frames are; everything else is looked at closely.
      if (frame?.holder !== own || !isPlain(frame, this.#queuePairs)) this.#inspect(index, output, i);
      frame.holder = next;
    }
  }

  /** Throws Error if this frame of `output` is not in order; those before it are the stage's again then. */
  #inspect(index: number, output: FrameBatch, at: number): void {
    const own = this.#holders[index];
    const frame = output.at(at);
    const isOwn = frame?.isOwned === true && (frame.holder === own || frame.holder === null);
    if (isOwn && isSound(frame, this.#queuePairs) && (isHeaderSound(frame) || this.#unsoundIn)) return;
    const isForeign = frame?.isOwned === true && !isOwn;
    const text = isForeign
      ? foreignText(frame.holder!, this.#holders[index + 1])
      : frameFault(frame, this.#queuePairs);
    for (let i = 0; i < at; i++) output.at(i).holder = own;
    throw new Error(text);
  }

  /**
   * A batch that is empty between hooks is not, if a stage has kept it and goes on using it. Throws
   * PluginError.
   */
  #expectEmpty(batch: FrameBatch, index: number): void {
    if (batch.length === 0) return;
    const by = this.#holders.indexOf(batch.at(0)?.holder ?? this.#holders[index]);
    throw this.#fail(by >= 0 && by < this.#stages.length ? by : index, "process", new Error(KEPT_BATCH));
  }

  /** Throws Error if the stage, which cannot hold any, still has a frame of its `count` inputs. */
  #refuseHeld(index: number, input: FrameBatch, count: number): void {
    const own = this.#holders[index];
    for (let i = 0; i < count; i++) {
      const frame = input.at(i);
      if (frame.holder === own && frame.isOwned) {
        throw new Error(
          "it keeps a frame but has no flush, which would get it back: push or release every frame of input",
        );
      }
    }
  }

  /** The guest is gone: throws PluginError for the first stage that has frames all the same. */
  #refuseKept(): void {
    if (this.#pool === null || this.#stages.length === 0 || this.#pool.inUse === 0) return;
    const held = this.#pool.held();
    for (let i = 0; i < this.#stages.length; i++) {
      const frames = held.get(this.#holders[i]) ?? 0;
      if (frames === 0) continue;
      const remedy = "reset(output), or flush(output, Infinity) in its place, must hand over all";
      throw this.#failKeeping(i, "reset", frames, remedy);
    }
  }

  #failKeeping(index: number, hook: string, frames: number, remedy: string): PluginError {
    return this.#fail(
      index,
      hook,
      new Error(`it keeps ${frames} ${frames === 1 ? "frame" : "frames"}: ${remedy}`),
    );
  }

  /**
   * Remembers a stage's deadline and, where it has moved, that it armed last of all. True if it has moved.
   * `output` is what has been taken over from the stage.
   */
  #note(index: number, output: FrameBatch): boolean {
    const { stage } = this.#stages[index];
    if (stage.deadlineNs === undefined) return false;
    const count = output.length;
    let deadline: number;
    try {
      deadline = stage.deadlineNs();
      if (typeof deadline !== "number" || Number.isNaN(deadline)) refuseDeadline(deadline);
    } catch (cause) {
      throw this.#fail(index, "deadlineNs", cause);
    }
    if (output.length !== count) throw this.#fail(index, "deadlineNs", new Error(KEPT_BATCH));
    if (deadline === this.#deadlinesNs[index]) return false;
    this.#deadlinesNs[index] = deadline;
    this.#armedAs[index] = ++this.#arms;
    return true;
  }

  /** Ends the pipeline. */
  #fail(index: number, hook: string, cause: unknown): PluginError {
    const { plugin, path } = this.#holders[index];
    this.#failure = new PluginError(this.#stages[index].name || plugin, hook, cause, path);
    this.#front.clear();
    this.#back.clear();
    this.#deadlinesNs.fill(Infinity);
    for (let i = 0; i < this.#stages.length; i++) this.#pool?.reclaim(this.#holders[i]);
    return this.#failure;
  }
}

function refuseChanged(input: FrameBatch, count: number): void {
  // A stage that has released all may well have cleared the batch by it.
  if (input.length === 0) return;
  throw new Error(
    `it changed its input from ${count} to ${input.length} frames: push to output, leave input alone`,
  );
}

function refuseDeadline(deadline: unknown): never {
  refusePromise(deadline);
  throw new TypeError(`it returned ${kindOf(deadline)}; a time in ns is needed, or Infinity`);
}

function foreignText(holder: FrameHolder, next: FrameHolder): string {
  return holder === next
    ? "it pushed a frame twice"
    : `it pushed a frame that it has not got: ${holder.kind} "${holder.plugin}" has it by now`;
}
