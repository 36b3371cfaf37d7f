/**
 * What `rsc-v4` and `rsc-v6` have in common as plugins: their options, and which chain they make.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin } from "../../pipeline/plugin.ts";
import type { OptionsSchema } from "../../plugins/plugin.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Stage, StageContext } from "../../pipeline/stage.ts";
import { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import type { RscOptions } from "./chain.ts";
import { QemuChain } from "./qemu_chain.ts";
import { StrictChain } from "./strict_chain.ts";
import type { RscFamily } from "./segments.ts";

/** Declares the plugin that coalesces TCP over one IP version. */
export function defineRsc(family: RscFamily): OffloadPlugin<RscOptions> {
  return defineOffload<RscOptions>({
    name: `rsc-${family.name}`,
    summary:
      `Receive segment coalescing of TCP over IP${family.name}: many segments in, one large packet out.`,
    direction: "toGuest",
    options: rscOptions,
    inherits: ["rules"],
    renamedOptions: { mostFlows: "maxFlows", mostSegments: "maxSegments" },
    offers: [VIRTIO_NET_F_RSC_EXT],
    conflicts: ({ rules, flushOnIdle }, { path, device }) => {
      const book = rules ?? (device.options as { rules?: RuleBook }).rules;
      return book !== "qemu" || flushOnIdle !== true ? [] : [{
        path: `${path}.flushOnIdle`,
        problem: 'true does not go with "rules": "qemu": the reference holds every segment for its interval',
        remedy: 'leave it out, or write "rules": "strict" for this offload',
      }];
    },
    needs: [VIRTIO_NET_F_GUEST_CSUM, family.guestTso],
    // The reference merges nothing for a driver that does not know RSC_EXT.
    idleWithout: ({ rules }) => rules === "qemu" ? [VIRTIO_NET_F_RSC_EXT] : [],
    create(context: StageContext, options: RscOptions): Stage {
      return options.rules === "qemu"
        ? new QemuChain(family, context, options)
        : new StrictChain(family, context, options);
    },
  });
}

/** The schema of {@linkcode RscOptions}. */
export const rscOptions: OptionsSchema<RscOptions> = z.strictObject({
  intervalUs: z.number().min(0).max(10_000_000).default(300)
    .describe("Longest time a segment is held, in µs; 0 merges only what arrives together."),
  rules: z.enum(["strict", "qemu"]).optional()
    .describe(
      'Rule book: "strict" is right, "qemu" repeats the reference bit for bit. Default: the device\'s own.',
    ),
  maxFlows: z.int().min(1).max(65_536).default(4096)
    .describe("Most flows held at once, for each queue pair; the oldest leaves early to make room."),
  maxSegments: z.int().min(2).max(65_535).default(1024)
    .describe("Most segments merged into one. Strict rules only."),
  flushOnPush: z.boolean().default(false)
    .describe(
      "Flush a flow as soon as a segment with PSH is held of it: less delay, less coalescing. Strict rules only.",
    ),
  flushOnIdle: z.boolean().optional()
    .describe(
      "Flush a flow of which data with PSH or a pure ACK is held as soon as the network has nothing more. " +
        "Strict rules only. Default: true; by a virtual clock, as in replay, false.",
    ),
  timestamps: z.boolean().default(true)
    .describe("Merge segments that carry the TCP timestamp option, as Linux sends them. Strict rules only."),
});
