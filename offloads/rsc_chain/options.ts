/**
 * The options of `rsc-v4` and `rsc-v6`.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../../core/plugin.ts";

/** What `rsc-v4` and `rsc-v6` can be told. */
export interface RscOptions {
  /** Longest time a segment is held, in µs; default 300, 0 merges only what arrives together. */
  intervalUs: number;
  /** Rule book; default the device's own. */
  rules?: "strict" | "qemu" | undefined;
  /** Most flows held at once, as many again for each further queue pair; default 4096. */
  mostFlows: number;
  /** Most segments in a unit; default 1024. Strict rules only. */
  mostSegments: number;
  /** Let a unit go as soon as a segment with PSH is in it; default false. Strict rules only. */
  flushOnPush: boolean;
  /** Merge segments with the TCP timestamp option; default true. Strict rules only. */
  timestamps: boolean;
}

/** The schema of {@linkcode RscOptions}. */
export const rscOptions: OptionsSchema<RscOptions> = z.strictObject({
  intervalUs: z.number().min(0).max(10_000_000).default(300)
    .describe("Longest time a segment is held, in µs; 0 merges only what arrives together."),
  rules: z.enum(["strict", "qemu"]).optional()
    .describe(
      'Rule book: "strict" is right, "qemu" repeats the reference bit for bit. Default: the device\'s own.',
    ),
  mostFlows: z.int().min(1).max(65_536).default(4096)
    .describe("Most flows held at once, for each queue pair; the oldest leaves early to make room."),
  mostSegments: z.int().min(2).max(65_535).default(1024)
    .describe("Most segments in a unit. Strict rules only."),
  flushOnPush: z.boolean().default(false)
    .describe(
      "Let a unit go as soon as a segment with PSH is in it: less delay, less coalescing. Strict rules only.",
    ),
  timestamps: z.boolean().default(true)
    .describe("Merge segments that carry the TCP timestamp option, as Linux sends them. Strict rules only."),
});
