/**
 * `net`: the virtio network device.
 * @module
 */
import { defineDevice, type DevicePlugin } from "../../core/plugin.ts";
import { type NetOptions, netOptions } from "./config_space.ts";
import { NetDevice } from "./device.ts";
export { NetDevice } from "./device.ts";
export type { NetOptions } from "./config_space.ts";

/** The plugin `net`. */
export const net: DevicePlugin<NetOptions> = defineDevice<NetOptions>({
  name: "net",
  summary: "Virtio network device (virtio 1.2, section 5.1).",
  options: netOptions,
  worksInThreads: true,
  network: "required",
  facts: (options) => ({ guestMac: options.mac, queuePairs: options.queuePairs }),
  create(context, options) {
    return new NetDevice(context, options, context.network!);
  },
});
