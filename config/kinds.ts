/**
 * The kinds of part: those that the program comes with, and what holds for all others.
 * @module
 */
import type { DevicePlugin, PartKind, Plugin, Slot } from "../plugins/plugin.ts";
import { networkKind, offloadKind } from "../pipeline/kinds.ts";

/**
 * What kind of plugin: where in the configuration it may stand. Plugins may bring kinds that are not known
 * here.
 */
export type PluginKind = string;

/** The kinds that come with the program, in the order in which a configuration meets them. */
export const BUILT_IN_KINDS: readonly PartKind[] = [
  { kind: "device", title: "a device", heading: 'Devices ("use" of a device)', define: "defineDevice" },
  {
    kind: "driver",
    title: "a driver transport",
    heading: 'Ways to the guest ("driver")',
    define: "defineDriver",
  },
  networkKind,
  offloadKind,
];

/** What is said of a kind that the program knows, or what holds for one that a plugin has brought. */
export function partKind(kind: PluginKind): PartKind {
  return BUILT_IN_KINDS.find((one) => one.kind === kind) ?? {
    kind,
    title: `a plugin of kind "${kind}"`,
    heading: `Plugins of kind "${kind}"`,
    define: "definePart",
  };
}

/** The slots that devices of these plugins have, by name; of two with one name the first. */
export function slotsOf(devices: readonly Plugin[]): Record<string, Slot> {
  const slots: Record<string, Slot> = {};
  for (const { slots: own = {} } of devices as readonly DevicePlugin[]) {
    for (const [name, slot] of Object.entries(own)) slots[name] ??= slot;
  }
  return slots;
}
