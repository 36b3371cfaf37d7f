/**
 * The straight line of stages that frames take, one way.
 *
 * Theory of operation. `push` hands a batch to the first stage; what that puts out is the next one's input, and what the
 * last puts out goes to the sink, which takes every frame. Two batches serve the whole line in turn. A stage that holds
 * frames says by `deadlineNs` when it wants to be flushed; `flushDue` asks the stage that is due first, and among equals
 * the one that armed first, and runs what it lets go through the stages *behind* it. The pipeline never looks at frames.
 *
 * Invariants: between calls both batches are empty; a frame is in one stage, or with the sink, or released. A sink may throw
 * (the guest's rings may be broken); it has taken every frame of the batch all the same.
 *
 * A stage that throws ends the line, and with it the device: no one can know which frames it had handed on, so that those
 * of the batch at hand, and those that stages hold, are given up. No stage is called again; `push` and `negotiated` throw
 * the same PluginError, all else does nothing, so that what is around can be closed in order.
 *
 * Limits: the line does not branch; nothing is added after construction.
 *
 * @module
 */
import { PluginError } from "./errors.ts";
import type { FeatureSet } from "./features.ts";
import { FrameBatch } from "./frame_batch.ts";
import type { Negotiated, Stage } from "./stage.ts";

/** The end of a line: takes every frame of a batch and clears it. */
export interface FrameSink {
  /** Takes the frames; they are its own and the batch is empty afterwards, even if it throws. */
  accept(frames: FrameBatch, nowNs: number): void;
}

/** A stage and the name of the plugin it came from. */
export interface NamedStage {
  /** The plugin's name, for errors. */
  readonly name: string;
  /** The stage. */
  readonly stage: Stage;
}

/** Runs frames through stages in order. */
export class Pipeline {
  readonly #stages: readonly NamedStage[];
  readonly #sink: FrameSink;
  readonly #deadlinesNs: number[];
  readonly #armedAs: number[];
  readonly #flushedIn: number[];
  #arms = 0;
  #flushes = 0;
  #failure: PluginError | null = null;
  #front = new FrameBatch();
  #back = new FrameBatch();

  /** A line of stages. @param stages in order of execution; @param sink where frames end */
  constructor(stages: readonly NamedStage[], sink: FrameSink) {
    this.#stages = stages;
    this.#sink = sink;
    this.#deadlinesNs = stages.map(() => Infinity);
    this.#armedAs = stages.map(() => 0);
    this.#flushedIn = stages.map(() => 0);
  }

  /** What a stage threw that ended the line; null as long as none did. */
  get failure(): PluginError | null {
    return this.#failure;
  }

  /** Runs the frames of `input` through all stages and clears it. Throws PluginError, and what the sink throws. */
  push(input: FrameBatch, nowNs: number): void {
    if (this.#failure !== null) {
      input.releaseAll();
      throw this.#failure;
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
   * Flushes the stages that are due, earliest first, each at most once. True if that changed anything: a stage that stays
   * due and lets nothing go must not keep everybody awake. Throws PluginError, and what the sink throws.
   */
  flushDue(nowNs: number): boolean {
    let did = false;
    const call = ++this.#flushes;
    for (let due = this.#firstDue(nowNs, call); due >= 0; due = this.#firstDue(nowNs, call)) {
      this.#flushedIn[due] = call;
      if (this.#flush(due, nowNs, nowNs)) did = true;
    }
    return did;
  }

  /**
   * Lets go everything that is held, in order of the stages. True if that changed anything: a stage may have nothing to let
   * go, or be unable to. Throws PluginError, and what the sink throws.
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
      const { name, stage } = this.#stages[i];
      const released = this.#front;
      try {
        stage.negotiated?.(state, released, nowNs);
      } catch (cause) {
        throw this.#fail(name, "negotiated", cause);
      }
      this.#note(i);
      this.#run(i + 1, released, nowNs);
    }
  }

  /** Tells every stage what offloads the guest asks for, before that is judged. Throws PluginError. */
  offloadsRequested(mask: FeatureSet): void {
    if (this.#failure !== null) return;
    for (const { name, stage } of this.#stages) {
      try {
        stage.offloadsRequested?.(mask);
      } catch (cause) {
        throw this.#fail(name, "offloadsRequested", cause);
      }
    }
  }

  /** The guest is gone: releases what the stages hold and returns how many frames that were. Throws PluginError. */
  reset(): number {
    if (this.#failure !== null) return 0;
    const held = this.#front;
    for (const { name, stage } of this.#stages) {
      try {
        if (stage.reset) stage.reset(held);
        else stage.flush?.(held, Infinity);
      } catch (cause) {
        throw this.#fail(name, "reset", cause);
      }
    }
    const count = held.length;
    held.releaseAll();
    this.#deadlinesNs.fill(Infinity);
    return count;
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

  /** True if the stage let something go, or is due at another time now. */
  #flush(index: number, dueNs: number, nowNs: number): boolean {
    const { name, stage } = this.#stages[index];
    const released = this.#front;
    try {
      stage.flush?.(released, dueNs);
    } catch (cause) {
      throw this.#fail(name, "flush", cause);
    }
    const moved = this.#note(index) || released.length > 0;
    this.#run(index + 1, released, nowNs);
    return moved;
  }

  /** Runs `input` from stage `first` on to the sink. `input` may be the front batch. */
  #run(first: number, input: FrameBatch, nowNs: number): void {
    let from = input;
    for (let i = first; i < this.#stages.length && from.length > 0; i++) {
      const to = from === this.#front ? this.#back : this.#front;
      const stage = this.#stages[i].stage;
      try {
        stage.process(from, to, nowNs);
      } catch (cause) {
        input.clear();
        throw this.#fail(this.#stages[i].name, "process", cause);
      }
      from.clear();
      this.#note(i);
      from = to;
    }
    try {
      if (from.length > 0) this.#sink.accept(from, nowNs);
    } finally {
      from.clear();
    }
  }

  /** Remembers a stage's deadline and, where it has moved, that it armed last of all. True if it has moved. */
  #note(index: number): boolean {
    const { name, stage } = this.#stages[index];
    if (stage.deadlineNs === undefined) return false;
    let deadline: number;
    try {
      deadline = stage.deadlineNs();
    } catch (cause) {
      throw this.#fail(name, "deadlineNs", cause);
    }
    if (deadline === this.#deadlinesNs[index]) return false;
    this.#deadlinesNs[index] = deadline;
    this.#armedAs[index] = ++this.#arms;
    return true;
  }

  /** Ends the line. */
  #fail(plugin: string, hook: string, cause: unknown): PluginError {
    this.#failure = new PluginError(plugin, hook, cause);
    this.#front.clear();
    this.#back.clear();
    this.#deadlinesNs.fill(Infinity);
    return this.#failure;
  }
}
