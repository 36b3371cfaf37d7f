/**
 * `entropy`: the virtio entropy device, the smallest complete device and the template for new ones.
 * @module
 */
import { defineDevice, type DevicePlugin } from "../../plugins/plugin.ts";
import { EntropyDevice } from "./device.ts";
import { entropyDriver } from "./driver.ts";
import { entropyFrontEnd } from "./front_end.ts";
import { type EntropyOptions, entropyOptions } from "./options.ts";
export { EntropyGuest, type EntropyGuestCounters, type EntropyGuestOptions } from "./driver.ts";
export { EntropyDevice } from "./device.ts";
export type { EntropyOptions } from "./options.ts";
export type { RandomSource } from "./device.ts";

/** The plugin `entropy`. */
export const entropy: DevicePlugin<EntropyOptions> = defineDevice<EntropyOptions>({
  name: "entropy",
  summary: "Virtio entropy device: random bytes for the guest (virtio 1.2, section 5.4).",
  options: entropyOptions,
  driver: entropyDriver,
  frontEnd: entropyFrontEnd,
  create: (context, options) => new EntropyDevice(context, options),
});
