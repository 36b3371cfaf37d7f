/**
 * `net`: the virtio network device.
 * @module
 */
import { defineNetworkDevice, type NetworkDevicePlugin } from "../../pipeline/plugin.ts";
import { type NetOptions, netOptions } from "./options.ts";
import { NetDevice } from "./device.ts";
import { netDriver } from "./driver/mod.ts";
import { describeNet, netFrontEnd, netHints } from "./front_end.ts";
export { NetDevice } from "./device.ts";
export type { NetOptions } from "./options.ts";

/** The plugin `net`. */
export const net: NetworkDevicePlugin<NetOptions> = defineNetworkDevice<NetOptions>({
  name: "net",
  summary: "Virtio network device (virtio 1.2, section 5.1).",
  options: netOptions,
  worksInThreads: true,
  facts: (options) => ({ guestMac: options.mac, queuePairs: options.queuePairs, mtu: options.mtu }),
  driver: netDriver,
  frontEnd: netFrontEnd,
  hints: netHints,
  describe: describeNet,
  create: (context, options) => new NetDevice(context, options),
});
