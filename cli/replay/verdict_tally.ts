/**
 * Counts verdicts, and passes them on to whoever explains them one by one.
 * @module
 */
import type { VerdictLog } from "../../core/stage.ts";

/** How often a rule was applied. */
export interface Reason {
  /** The stage that decided. */
  readonly stage: string;
  /** What it did, by name. */
  readonly verdict: string;
  /** The id of the rule. */
  readonly rule: string;
  /** For how many frames. */
  count: number;
}

/** Counts verdicts by stage and rule. */
export class VerdictTally implements VerdictLog {
  readonly #reasons = new Map<string, Reason>();
  readonly #next: VerdictLog | null;

  /** @param next whom to tell of each verdict, if anybody */
  constructor(next: VerdictLog | null) {
    this.#next = next;
  }

  /** A stage has decided. */
  note(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    const key = `${stage} ${verdict}`;
    const reason = this.#reasons.get(key);
    if (reason === undefined) this.#reasons.set(key, { stage, verdict, rule, count: 1 });
    else reason.count++;
    this.#next?.note(frame, stage, verdict, rule, unit);
  }

  /** The reasons, the most frequent first. */
  get reasons(): Reason[] {
    return [...this.#reasons.values()].sort((a, b) =>
      b.count - a.count || (a.stage + a.verdict < b.stage + b.verdict ? -1 : 1)
    );
  }
}
