/**
 * Collects what stages say about frames.
 * @module
 */
import type { VerdictLog } from "../core/stage.ts";

/** What a stage did with one frame. */
export interface Verdict {
  /** The frame's number in the input. */
  readonly frame: number;
  /** The stage that decided. */
  readonly stage: string;
  /** What it did, by name. */
  readonly verdict: string;
  /** The rule behind it. */
  readonly rule: string;
  /** The number of the frame that opened the unit concerned, or 0. */
  readonly unit: number;
}

/**
 * A verdict log that keeps everything it is told.
 *
 * @example
 * ```ts
 * import { VerdictList } from "./verdict_list.ts";
 * const list = new VerdictList();
 * list.note(2, "rsc-v4", "merged", "S7.2", 1);
 * if (list.of(2).join() !== "merged") throw new Error("unreachable");
 * if (String(list) !== "frame 2: rsc-v4 merged (S7.2), unit of frame 1") throw new Error("unreachable");
 * ```
 */
export class VerdictList implements VerdictLog {
  /** All of them, in order. */
  readonly all: Verdict[] = [];

  /** Keeps a verdict. */
  note(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    this.all.push({ frame, stage, verdict, rule, unit });
  }

  /** The names of the verdicts on the frame of this number, in order. */
  of(frame: number): string[] {
    return this.all.filter((verdict) => verdict.frame === frame).map(({ verdict }) => verdict);
  }

  /** All names, in order. */
  get names(): string[] {
    return this.all.map(({ verdict }) => verdict);
  }

  /** One line for each verdict. */
  toString(): string {
    return this.all.map(({ frame, stage, verdict, rule, unit }) =>
      `frame ${frame}: ${stage} ${verdict} (${rule})${unit === 0 ? "" : `, unit of frame ${unit}`}`
    ).join("\n");
  }
}
