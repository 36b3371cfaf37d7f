/**
 * A pipeline of stages that hardly do anything: what the line itself costs.
 * @module
 */
import { FrameBatch } from "../../pipeline/frame.ts";
import { newFramePool } from "../../pipeline/frame_pool.ts";
import { type FrameSink, Pipeline } from "../../pipeline/pipeline.ts";
import type { Stage } from "../../pipeline/stage.ts";
import { Stopwatch } from "./stopwatch.ts";

const BURST = 64;
/** Bursts that are timed together. */
const LAP_BURSTS = 20;
const FRAME_BYTES = 1502;

/** Every call makes a class of its own, as if the stage came from another plugin. */
function touchClass(): new () => Stage {
  return class implements Stage {
    process(input: FrameBatch, output: FrameBatch, _nowNs: number): void {
      for (let i = 0; i < input.length; i++) {
        const frame = input.at(i);
        frame.view.setUint8(frame.start + 22, frame.view.getUint8(frame.start + 22) - 1);
        output.push(frame);
      }
    }
  };
}

/** Keeps what arrives, for the next burst. */
class Keeper implements FrameSink {
  readonly kept = new FrameBatch(BURST);

  accept(frames: FrameBatch, _nowNs: number): void {
    for (let i = 0; i < frames.length; i++) this.kept.push(frames.at(i));
    frames.clear();
  }
}

/** Sends bursts of 64 frames through a line of stages. */
export class StageLine {
  readonly #keeper = new Keeper();
  readonly #input = new FrameBatch(BURST);
  readonly #line: Pipeline;
  readonly #watch = new Stopwatch();

  /** A line of `count` stages, `different` if each is of a class of its own. */
  constructor(count: number, different: boolean) {
    const common = touchClass();
    const stages = Array.from({ length: count }, () => new (different ? touchClass() : common)());
    this.#line = new Pipeline(stages.map((stage, i) => ({ name: `touch${i}`, stage })), this.#keeper);
    const pool = newFramePool(1 << 20);
    for (let i = 0; i < BURST; i++) this.#keeper.kept.push(pool.take(FRAME_BYTES)!);
  }

  /** ns per frame, over this many bursts. Throws if a frame got lost. */
  run(bursts: number): number {
    const laps = Math.ceil(bursts / LAP_BURSTS);
    this.#watch.reset(laps);
    for (let lap = 0; lap < laps; lap++) {
      this.#watch.start();
      for (let i = 0; i < LAP_BURSTS; i++) this.#burst();
      this.#watch.stop();
      this.#watch.lap();
    }
    const { length } = this.#keeper.kept;
    if (length !== BURST) throw new Error(`Only ${length} of ${BURST} frames came through`);
    return this.#watch.lapNs / (LAP_BURSTS * BURST);
  }

  #burst(): void {
    const { kept } = this.#keeper;
    for (let i = 0; i < BURST; i++) this.#input.push(kept.at(i));
    kept.clear();
    this.#line.push(this.#input, 0);
    this.#input.clear();
  }
}
