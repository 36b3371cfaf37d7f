/**
 * From the offloads of the configuration to the stages of the two lines.
 * @module
 */
import { kindOf, refusePromise, stageFault } from "../../core/contract.ts";
import type { DeviceContext, ResolvedOffload } from "../../core/device.ts";
import { PluginError } from "../../core/errors.ts";
import type { FrameHolder } from "../../core/frame.ts";
import type { NamedStage } from "../../core/pipeline.ts";
import type { Direction, NetworkAbilities } from "../../core/stage.ts";
import type { NetOptions } from "./options.ts";

/** The feature bits that these offloads let the device offer. Throws PluginError if a plugin's `offers` throws. */
export function stageOffers(offloads: readonly ResolvedOffload[]): number[] {
  return offloads.flatMap(({ plugin, options, path }) => {
    const { offers } = plugin;
    if (typeof offers !== "function") return [...offers ?? []];
    try {
      const bits: unknown = offers(options);
      refusePromise(bits);
      if (Array.isArray(bits) && bits.every((bit) => Number.isInteger(bit) && bit >= 0 && bit <= 127)) {
        return bits;
      }
      throw new TypeError(`it returned ${kindOf(bits)}; a list of feature bits, 0 to 127, is needed`);
    } catch (cause) {
      throw new PluginError(plugin.name, "offers", cause, path);
    }
  });
}

/**
 * Makes the stages, in order, for each direction; a plugin for both makes one for each. A plugin that stands in several
 * places is told apart by a number, as in `drop-every#2`. Throws PluginError if a plugin's `create` throws, or
 * returns no stage.
 */
export function buildStages(
  context: DeviceContext,
  options: NetOptions,
  network: NetworkAbilities,
): Record<Direction, NamedStage[]> {
  const lines: Record<Direction, NamedStage[]> = { toGuest: [], fromGuest: [] };
  const used = new Map<string, number>();
  for (const offload of context.offloads) {
    const { plugin, path = "" } = offload;
    const times = (used.get(plugin.name) ?? 0) + 1;
    used.set(plugin.name, times);
    const name = times === 1 ? plugin.name : `${plugin.name}#${times}`;
    for (const direction of ["toGuest", "fromGuest"] as const) {
      if (plugin.direction !== "both" && plugin.direction !== direction) continue;
      const group = plugin.direction === "both" ? `${name}.${direction}` : name;
      const holder: FrameHolder = { plugin: plugin.name, path, kind: "stage" };
      try {
        const stage = plugin.create({
          name,
          direction,
          pool: context.pool.lentTo(holder),
          rules: options.rules,
          queuePairs: options.queuePairs,
          network,
          claims: context.claims,
          verdicts: context.verdicts,
          publish: (counters) => context.publish(counters, group),
        }, offload.options);
        const fault = stageFault(stage);
        if (fault !== null) throw new TypeError(fault);
        lines[direction].push({ name, stage, holder });
      } catch (cause) {
        throw new PluginError(plugin.name, "create", cause, path);
      }
    }
  }
  return lines;
}
