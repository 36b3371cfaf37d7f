/**
 * The `tap` network: a TAP interface of this host (Linux), by its name or by descriptors that another program
 * passes.
 * @module
 */
import { defineNetwork, type NetworkPlugin } from "../../pipeline/plugin.ts";
import { FileDescriptor } from "../../host/descriptors.ts";
import { openTap } from "./open_tap.ts";
import { type TapOptions, tapOptions } from "./options.ts";
import { newTapCounters } from "./tap_queue.ts";
import { type GivenQueue, TapTransport } from "./tap_transport.ts";
export { newTapCounters, type TapCounters } from "./tap_queue.ts";
export { type OpenTap, openTap } from "./open_tap.ts";
export type { TapOptions } from "./options.ts";
export { type GivenQueue, tapCapabilities, type TapSettings, TapTransport } from "./tap_transport.ts";

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
  createInWorker({ pool, publish, watch }, given) {
    const { descriptor, name, headerBytes, mtu, largeUdp, offloads } = given as GivenQueue;
    // A duplicate: the thread that ends first closes nothing of the other.
    const queues = [FileDescriptor.duplicate(descriptor, `queue of ${name}`)];
    return new TapTransport({ name, queues, headerBytes, mtu, largeUdp }, {
      pool,
      counters: publish(newTapCounters()),
      offloads,
      watch: (number) => watch(number),
    });
  },
});

export default tap;
