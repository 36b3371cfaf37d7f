/**
 * Counts verdicts, and passes them on to whoever explains them one by one.
 * @module
 */
import type { VerdictLog } from "../../core/stage.ts";

/** How often a rule was applied. */
export interface Reason {
  /** The stage that decided; empty if none did. */
  readonly stage: string;
  /** What it did, by name; of a frame that passed unjudged, what it is. */
  readonly verdict: string;
  /** The id of the rule; empty if there is none. */
  readonly rule: string;
  /** For how many frames. */
  count: number;
}

/** Counts verdicts by stage and rule. */
export class VerdictTally implements VerdictLog {
  readonly #reasons = new Map<string, Reason>();
  readonly #next: VerdictLog | null;
  /** Frames of this round that no stage has judged yet, and what they are. */
  readonly #expected = new Map<number, string>();

  /** @param next whom to tell of each verdict, if anybody */
  constructor(next: VerdictLog | null) {
    this.#next = next;
  }

  /** A frame goes to the stages. */
  expect(frame: number, kind: string): void {
    this.#expected.set(frame, kind);
  }

  /** The stages have had their say about all frames that went to them: what is left has passed without one. */
  settle(): void {
    for (const [frame, kind] of this.#expected) this.#count(frame, "", `passed: ${kind}`, "", 0);
    this.#expected.clear();
  }

  /** A stage has decided. */
  note(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
    this.#expected.delete(frame);
    this.#count(frame, stage, verdict, rule, unit);
  }

  #count(frame: number, stage: string, verdict: string, rule: string, unit: number): void {
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
