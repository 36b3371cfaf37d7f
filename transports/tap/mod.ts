/**
 * The `tap` network: a TAP interface of this host (Linux), by its name or by descriptors that another program passes.
 * @module
 */
import { defineNetwork, type NetworkPlugin } from "../../core/plugin.ts";
import { newTapCounters } from "./counters.ts";
import { openTap } from "./open_tap.ts";
import { type TapOptions, tapOptions } from "./options.ts";
import { TapTransport } from "./tap_transport.ts";

export { newTapCounters, type TapCounters } from "./counters.ts";
export { type OpenTap, openTap } from "./open_tap.ts";
export type { TapOptions } from "./options.ts";
export { type TapSettings, TapTransport } from "./tap_transport.ts";

/** The `tap` network plugin. */
export const tap: NetworkPlugin<TapOptions> = defineNetwork({
  name: "tap",
  summary: "A TAP interface of this host.",
  options: tapOptions,
  create(context, options) {
    return new TapTransport(openTap(options, context.queuePairs, context.path), {
      pool: context.pool,
      counters: context.publish(newTapCounters()),
      offloads: options.offloads === "auto",
      watch: (number) => context.watch(number),
    });
  },
});

export default tap;
