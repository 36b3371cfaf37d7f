/**
 * The straight line of stages that frames take, one way.
 *
 * Theory of operation. `push` hands a batch to the first stage; what that puts out is the next one's input, and what the
 * last puts out goes to the sink, which takes every frame. Two batches serve the whole line in turn. A stage that holds
 * frames says by `deadlineNs` when it wants to be flushed; `flushDue` asks the stage that is due first, and among equals
 * the one that armed first, and runs what it lets go through the stages *behind* it. The pipeline never looks at frames.
 *
 * Invariants: between calls both batches are empty; a frame is in one stage, or with the sink, or released.
 * Limits: the line does not branch; nothing is added after construction. A stage that throws ends the device: its frames
 * are where it left them, and no one can know which it had handed on.
 *
 * @module
 */
import { PluginError } from "./errors.ts";
import type { FeatureSet } from "./features.ts";
import { FrameBatch } from "./frame_batch.ts";
import type { Negotiated, Stage } from "./stage.ts";

/** The end of a line: takes every frame of a batch and clears it. */
export interface FrameSink {
  /** Takes the frames; the batch is empty afterwards. */
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
  #arms = 0;
  #front = new FrameBatch();
  #back = new FrameBatch();

  /** A line of stages. @param stages in order of execution; @param sink where frames end */
  constructor(stages: readonly NamedStage[], sink: FrameSink) {
    this.#stages = stages;
    this.#sink = sink;
    this.#deadlinesNs = stages.map(() => Infinity);
    this.#armedAs = stages.map(() => 0);
  }

  /** Runs the frames of `input` through all stages and clears it. Throws PluginError. */
  push(input: FrameBatch, nowNs: number): void {
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

  /** Flushes the stages that are due, earliest first. True if there was one. Throws PluginError. */
  flushDue(nowNs: number): boolean {
    let did = false;
    // Each stage is flushed at most once a round: one that stays due at once (interval 0) must not spin here.
    for (let round = 0; round < this.#stages.length; round++) {
      const due = this.#firstDue(nowNs);
      if (due < 0) break;
      this.#flush(due, nowNs, nowNs);
      did = true;
    }
    return did;
  }

  /** Lets go everything that is held, in order of the stages. Throws PluginError. */
  drain(nowNs: number): void {
    for (let i = 0; i < this.#stages.length; i++) this.#flush(i, Infinity, nowNs);
  }

  /** Tells every stage what the guest has agreed to. Throws PluginError. */
  negotiated(state: Negotiated, nowNs: number): void {
    for (let i = 0; i < this.#stages.length; i++) {
      const { name, stage } = this.#stages[i];
      const released = this.#front;
      try {
        stage.negotiated?.(state, released, nowNs);
      } catch (cause) {
        throw new PluginError(name, "negotiated", cause);
      }
      this.#note(i);
      this.#run(i + 1, released, nowNs);
    }
  }

  /** Tells every stage what offloads the guest asks for, before that is judged. Throws PluginError. */
  offloadsRequested(mask: FeatureSet): void {
    for (const { name, stage } of this.#stages) {
      try {
        stage.offloadsRequested?.(mask);
      } catch (cause) {
        throw new PluginError(name, "offloadsRequested", cause);
      }
    }
  }

  /** The guest is gone: releases what the stages hold and returns how many frames that were. Throws PluginError. */
  reset(): number {
    const held = this.#front;
    for (const { name, stage } of this.#stages) {
      try {
        if (stage.reset) stage.reset(held);
        else stage.flush?.(held, Infinity);
      } catch (cause) {
        throw new PluginError(name, "reset", cause);
      }
    }
    const count = held.length;
    held.releaseAll();
    this.#deadlinesNs.fill(Infinity);
    return count;
  }

  #firstDue(nowNs: number): number {
    let due = -1;
    for (let i = 0; i < this.#stages.length; i++) {
      const deadline = this.#deadlinesNs[i];
      if (deadline > nowNs) continue;
      const earlier = due < 0 || deadline < this.#deadlinesNs[due] ||
        (deadline === this.#deadlinesNs[due] && this.#armedAs[i] < this.#armedAs[due]);
      if (earlier) due = i;
    }
    return due;
  }

  #flush(index: number, dueNs: number, nowNs: number): void {
    const { name, stage } = this.#stages[index];
    const released = this.#front;
    try {
      stage.flush?.(released, dueNs);
    } catch (cause) {
      throw new PluginError(name, "flush", cause);
    }
    this.#note(index);
    this.#run(index + 1, released, nowNs);
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
        throw new PluginError(this.#stages[i].name, "process", cause);
      }
      from.clear();
      this.#note(i);
      from = to;
    }
    if (from.length > 0) this.#sink.accept(from, nowNs);
    from.clear();
  }

  /** Remembers a stage's deadline and, where it has moved, that it armed last of all. */
  #note(index: number): void {
    const stage = this.#stages[index].stage;
    if (stage.deadlineNs === undefined) return;
    const deadline = stage.deadlineNs();
    if (deadline !== this.#deadlinesNs[index]) {
      this.#deadlinesNs[index] = deadline;
      this.#armedAs[index] = ++this.#arms;
    }
  }
}
