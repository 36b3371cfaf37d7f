/**
 * What a stage and a network device that repeat QEMU's receive path, faults included, tell each other beyond
 * the contract of a stage. Nothing else needs to know it.
 * @module
 */
import type { FeatureSet } from "../core/features.ts";
import type { Pipeline } from "./pipeline.ts";
import type { Stage } from "./stage.ts";

/** The two rule books: `strict` is right, `qemu` repeats the reference bit for bit, its faults included. */
export type RuleBook = "strict" | "qemu";

/** What a stage that repeats QEMU's receive path wants to be told. */
export interface QemuReceivePath {
  /**
   * The guest asks for these offloads. QEMU stores them before it judges the command, and keeps them if it
   * refuses it.
   */
  offloadsRequested(mask: FeatureSet): void;
}

/** A stage that repeats QEMU's receive path. */
export interface QemuStage extends Stage {
  /** What it wants to be told. */
  readonly qemu: QemuReceivePath;
}

/**
 * Tells every stage that repeats QEMU's receive path which offloads the guest asks for. Throws PluginError.
 */
export function requestOffloads(pipeline: Pipeline, mask: FeatureSet): void {
  pipeline.each("offloadsRequested", (stage) => (stage as Partial<QemuStage>).qemu?.offloadsRequested(mask));
}

/**
 * The `Frame.mark` of a frame that QEMU keeps in its network queue when the guest has no buffer: the device
 * runs it through the stages again when there is one.
 */
export const OFFER_AGAIN = 1;
