/**
 * The `loopback` network: an in-memory cable between the devices of one machine, or between a device and a
 * test.
 * @module
 */
import { z } from "zod";
import { defineNetwork, type NetworkFacts, type NetworkPlugin } from "../pipeline/plugin.ts";
import { formatMac } from "../wire/ethernet.ts";
import { type OptionsSchema, partsOf } from "../plugins/plugin.ts";
import { LoopbackCable, newCablePortCounters } from "./loopback/cable.ts";
export * from "./loopback/cable.ts";

/** The options of the `loopback` network. */
export interface LoopbackOptions {
  /** The name of the cable. */
  cable: string;
  /** The most frames that wait for this device. */
  queueFrames: number;
  /** Does the cable carry frames that are still to be checksummed or segmented? */
  largeFrames: boolean;
}

const options: OptionsSchema<LoopbackOptions> = z.strictObject({
  cable: z.string().min(1).default("default").describe(
    "Name of the cable: devices with the same name reach each other.",
  ),
  queueFrames: z.int().min(1).max(65_536).default(1024).describe(
    "Frames that may wait for this device, 1 to 65536.",
  ),
  largeFrames: z.boolean().default(false).describe(
    "Carry frames that are still to be checksummed or segmented; the same for all devices of a cable.",
  ),
});

/** The key under which the cable `name` is shared, for those who want its open end. */
export function cableKey(name: string): string {
  return `cable:${name}`;
}

/** The `loopback` network plugin. */
const loopback: NetworkPlugin<LoopbackOptions> = defineNetwork({
  name: "loopback",
  summary: "An in-memory cable between the devices of one machine.",
  options,
  // A cable with one end: nothing arrives.
  hints({ cable }, { path, devices }) {
    const ends = devices.flatMap(partsOf).filter(({ plugin, options }) =>
      plugin.create === loopback.create && (options as LoopbackOptions).cable === cable
    );
    return ends.length > 1 ? [] : [{
      path,
      value: cable,
      problem: "is a cable with no other device: nothing arrives",
      remedy: "put a second device on it, or use another network",
    }];
  },
  // Two guests with one address would take each other's frames; on cables of their own they are no matter.
  claims({ cable }, { device, facts }) {
    const { guestMac } = facts as NetworkFacts ?? {};
    if (guestMac === undefined) return [];
    const mac = formatMac(guestMac);
    return [{
      thing: `${mac} on ${cableKey(cable)}`,
      path: `${device.path}.mac`,
      owner: device.name,
      problem: (other) => `${mac} is the address of ${other} as well, which is on the same cable`,
      remedy: "give every device of a cable an address of its own",
    }];
  },
  // It touches nothing of the host: it can be made to be looked at.
  preview: (context, options) => loopback.create(context, options),
  create(context, { cable, queueFrames, largeFrames }) {
    return context.shared(cableKey(cable), () => new LoopbackCable()).plug({
      pool: context.pool,
      queueFrames,
      largeFrames,
      mac: context.guestMac,
      wake: () => context.wake(),
      counters: context.publish(newCablePortCounters()),
    }, context.path);
  },
});
export default loopback;
