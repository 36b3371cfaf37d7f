/**
 * Makes a plugin of a family: `rsc-v4` and `rsc-v6` differ in nothing else.
 * @module
 */
import { defineOffload, type OffloadPlugin } from "../../core/plugin.ts";
import type { Stage, StageContext } from "../../core/stage.ts";
import { VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import type { RscFamily } from "./family.ts";
import { type RscOptions, rscOptions } from "./options.ts";
import { QemuChain } from "./qemu_chain.ts";
import { StrictChain } from "./strict_chain.ts";

/** Declares the plugin that coalesces one family. */
export function defineRsc(family: RscFamily): OffloadPlugin<RscOptions> {
  return defineOffload<RscOptions>({
    name: `rsc-${family.name}`,
    summary:
      `Receive segment coalescing of TCP over IP${family.name}: many segments in, one large packet out.`,
    direction: "toGuest",
    options: rscOptions,
    offers: [VIRTIO_NET_F_RSC_EXT],
    needs: [VIRTIO_NET_F_GUEST_CSUM, family.guestTso],
    create(context: StageContext, options: RscOptions): Stage {
      const rules = options.rules ?? context.rules;
      return rules === "qemu"
        ? new QemuChain(family, context, options)
        : new StrictChain(family, context, options);
    },
  });
}
