/**
 * A stage: one step of the pipeline that frames go through in a device.
 * @module
 */
import { refusePromise, shapeFault } from "../plugins/contract.ts";
import type { FeatureSet } from "../core/features.ts";
import type { FlowClaims } from "./flow_claims.ts";
import type { Frame, FrameBatch } from "./frame.ts";
import type { FramePool } from "./frame_pool.ts";
import type { OffloadCapabilities } from "./offload_capabilities.ts";

/** Which way frames go, named after the partner they go to or come from. */
export type Direction = "toGuest" | "fromGuest";

/** What the guest has agreed to. */
export interface Negotiated {
  /** The features it accepted. */
  readonly features: FeatureSet;
  /** The guest offloads that are on: the accepted ones, or what GUEST_OFFLOADS_SET left of them. */
  readonly offloads: FeatureSet;
}

/**
 * One step of a pipeline. It owns its inner loop: batches in, batches out. After it has been made it
 * allocates nothing. Every frame of `input` is pushed to `output`, held, or released; the pipeline clears
 * `input`. No hook is asynchronous, and both batches are lent until it returns. What the pipeline gets back
 * is checked (`isSound` in `pipeline/frame.ts`).
 */
export interface Stage {
  /** Takes every frame of `input`; `nowNs` is the time of this round. */
  process(input: FrameBatch, output: FrameBatch, nowNs: number): void;
  /** When `flush` is wanted next, in ns; Infinity while nothing is held. */
  deadlineNs?(): number;
  /** Pushes what is due at `nowNs` to `output`; at Infinity everything, before a stop, in order. */
  flush?(output: FrameBatch, nowNs: number): void;
  /**
   * The network was looked at and has nothing more: pushes what need not wait for more to `output`. Called
   * once after frames have come, and not while the guest has no buffers: what is held needs a deadline all
   * the same. Only stages to the guest are called.
   */
  idle?(output: FrameBatch, nowNs: number): void;
  /**
   * The guest has agreed on features, or changed its offloads. What may no longer be held is pushed to
   * `output`.
   */
  negotiated?(state: Negotiated, output: FrameBatch, nowNs: number): void;
  /**
   * The guest is gone (device reset): forget its state. What is held is pushed to `output`, to be counted and
   * released.
   */
  reset?(output: FrameBatch): void;
}

/** A rule by which a stage judges frames. */
export interface Rule {
  /** What the stage did, by name, such as `merged`: the name of its counter as well. */
  readonly verdict: string;
  /** The id in the stage's rule book, such as `S7.2`. */
  readonly id: string;
  /** What the rule does and when, in a sentence without a full stop. */
  readonly text: string;
}

/** Told what became of a frame, where explanations are wanted. */
export interface VerdictLog {
  /**
   * One frame has been judged.
   * @param frame the frame's number in the input
   * @param stage the stage that decided
   * @param rule the rule by which it did, with its text
   * @param openedBy the number of the frame that opened the coalesced segment concerned, or 0
   */
  note(frame: number, stage: string, rule: Rule, openedBy: number): void;
}

/** What a plugin gets to build its stage from. */
export interface StageContext {
  /** The name under which the stage runs. */
  readonly name: string;
  /** Which way its frames go. */
  readonly direction: Direction;
  /** Frames of one's own come from here. */
  readonly pool: FramePool;
  /** How many queue pairs the device has. */
  readonly queuePairs: number;
  /** What the network takes unfinished. */
  readonly network: OffloadCapabilities;
  /**
   * With the queue pairs in threads: which pair's thread holds what. Left out: no other holds segments of the
   * same network.
   */
  readonly claims?: FlowClaims | undefined;
  /**
   * Does time stand still while there is work, as by a virtual clock? Then a network has nothing more after
   * every frame that comes at a time of its own. Left out: no.
   */
  readonly isTimeVirtual?: boolean | undefined;
  /**
   * Where to explain what happens to each frame; null if nothing listens, and then nothing may be spent on
   * it.
   */
  readonly verdicts: VerdictLog | null;
  /** Makes these counters readable from outside, live, under the stage's name. Returns the same object. */
  publish<T extends Record<string, number>>(counters: T): T;
}

/**
 * A stage from a function that sees one frame at a time: the short way for a first plugin. The function
 * pushes the frame to `output`, keeps it, or releases it.
 *
 * @example
 * ```ts
 * import { perFrame } from "./stage.ts";
 * const pass = perFrame((frame, output) => output.push(frame));
 * ```
 *
 * Throws TypeError if it is no function.
 */
export function perFrame(each: (frame: Frame, output: FrameBatch, nowNs: number) => void): Stage {
  if (typeof each !== "function") throw new TypeError("perFrame needs a function of a frame and the output");
  return {
    process(input: FrameBatch, output: FrameBatch, nowNs: number): void {
      for (let i = 0; i < input.length; i++) {
        const result: unknown = each(input.at(i), output, nowNs);
        if (result !== undefined) refusePromise(result);
      }
    },
  };
}

/** What keeps a value from being a stage, as the rest of a sentence about `create`; null for a stage. */
export function stageFault(value: unknown): string | null {
  return shapeFault(value, "a stage", ["process"], ["deadlineNs", "flush", "idle", "negotiated", "reset"]);
}
