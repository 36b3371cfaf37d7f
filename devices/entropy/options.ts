/**
 * The options of the entropy device.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../../plugins/plugin.ts";

/** Most bytes that one request gets: what the host's generator gives at once. */
export const MAX_REQUEST_BYTES = 65_536;

/** What an entropy device is made with, complete. */
export interface EntropyOptions {
  /** Most entries of its queue: a power of two. */
  readonly queueSize: number;
  /** Is the packed ring layout offered? */
  readonly packedRing: boolean;
  /** How many bytes a second the guest gets in the long run; undefined for as many as it asks for. */
  readonly rateLimitBytesPerS: number | undefined;
  /**
   * How many bytes it gets at once after a pause, and so at most for one request; of no effect without a rate
   * limit.
   */
  readonly burstBytes: number;
}

/** What is written in the configuration, turned into {@linkcode EntropyOptions}. */
export const entropyOptions: OptionsSchema<EntropyOptions> = z.strictObject({
  queueSize: z.int().min(1).max(32_768).default(256)
    .refine((size) => (size & (size - 1)) === 0, { error: "Write a power of two" })
    .describe("Most entries of the queue; a power of two."),
  packedRing: z.boolean().default(true).describe("Offer the packed ring layout (feature RING_PACKED)."),
  rateLimitBytesPerS: z.int().min(1).max(1_000_000_000).optional()
    .describe("Most random bytes a second, in the long run. Default: as many as the guest asks for."),
  burstBytes: z.int().min(1).max(MAX_REQUEST_BYTES).optional()
    .describe(
      "Most random bytes at once after a pause, and for one request. Default: what a second brings, at most 65536.",
    ),
}).refine(
  ({ rateLimitBytesPerS, burstBytes }) => burstBytes === undefined || rateLimitBytesPerS !== undefined,
  {
    path: ["burstBytes"],
    error: 'Has no effect without "rateLimitBytesPerS": write that too, or leave it out',
  },
).transform((written): EntropyOptions => ({
  queueSize: written.queueSize,
  packedRing: written.packedRing,
  rateLimitBytesPerS: written.rateLimitBytesPerS,
  burstBytes: written.burstBytes ??
    Math.min(written.rateLimitBytesPerS ?? MAX_REQUEST_BYTES, MAX_REQUEST_BYTES),
}));
