/**
 * The `tap` network: a TAP interface of this host (Linux), by its name or by descriptors that another program
 * passes.
 * @module
 */
import { defineNetwork, type NetworkFacts, type NetworkPlugin } from "../../pipeline/plugin.ts";
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
  waitsForHost: true,
  permissions: () => ({ ffi: true }),
  conflicts: ({ mtu: carried }, { path, device, facts }) => {
    const { mtu } = facts as NetworkFacts ?? {};
    return carried === undefined || mtu === undefined || mtu <= carried ? [] : [{
      path: `${device.path}.mtu`,
      problem: `the guest is told that packets may have ${mtu} bytes, and ${path} carries ${carried}`,
      remedy: "make both equal",
    }];
  },
  claims: ({ fd, fds = [], interface: name }, { path }) => {
    const descriptors = fd === undefined
      ? fds.map((number, i) => [number, `${path}.fds[${i}]`] as const)
      : [[fd, `${path}.fd`] as const];
    return [
      ...descriptors.map(([number, at]) => ({
        thing: `descriptor ${number}`,
        path: at,
        remedy: "pass a descriptor for each",
      })),
      // With %d the kernel chooses a free number.
      ...(name === undefined || name.includes("%d") ? [] : [{
        thing: `the interface ${name}`,
        path: `${path}.interface`,
        remedy: "give each device an interface of its own",
      }]),
    ];
  },
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
