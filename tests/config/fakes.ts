import { z } from "zod";
import { ConfigError, type ConfigIssue } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { resolveConfig } from "../../config/resolve.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import { defineDevice, defineDriver, type Plugin } from "../../plugins/plugin.ts";
import { defineNetwork, defineOffload } from "../../pipeline/plugin.ts";

/** Small plugins of every kind, with options of every sort that messages and schemas must be able to show. */

/** No test here builds anything. */
function create(): never {
  throw new Error("a configuration test must not build anything");
}

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;

const slots = {
  network: { kind: "network" },
  offloads: {
    kind: "offload",
    many: true,
    summary: "The steps that frames go through, in order of execution",
  },
};

export const fakePlugins: readonly Plugin[] = [
  defineDevice({
    name: "net",
    slots,
    summary: "Network card",
    options: z.strictObject({
      mac: z.string().regex(MAC, 'is no MAC address; write six bytes such as "52:54:00:00:00:01"')
        .default("52:54:00:00:00:01").describe("The guest's MAC address"),
      rules: z.enum(["strict", "qemu"]).default("strict").describe("Which rule book applies"),
      queuePairs: z.int().min(1).max(8).default(1).describe("How many queue pairs there are."),
    }),
    create,
  }),
  defineDevice({ name: "entropy", slots, options: z.strictObject({}), create }),
  defineDriver({
    name: "loopback",
    options: z.strictObject({ ring: z.enum(["split", "packed"]).default("split") }),
    create,
  }),
  defineDriver({
    name: "vhost-user",
    options: z.strictObject({ socket: z.string().min(1).max(107).describe("Path of the socket") }),
    create,
  }),
  defineNetwork({
    name: "loopback",
    options: z.strictObject({ cable: z.string().default("default") }),
    create,
  }),
  defineNetwork({ name: "tap", options: z.strictObject({ interface: z.string() }), create }),
  defineNetwork({
    name: "pcap",
    options: z.strictObject({
      read: z.string().optional(),
      write: z.string().optional(),
      inner: z.unknown().optional().describe("The transport that is recorded"),
    }).refine((o) => o.read !== undefined || o.inner !== undefined, 'needs "read" or "inner"'),
    create,
  }),
  defineOffload({ name: "checksum", direction: "both", options: z.strictObject({}), create }),
  defineOffload({
    name: "rsc-v4",
    summary: "Joins TCP segments",
    direction: "toGuest",
    options: z.strictObject({
      intervalUs: z.number().min(0).max(1e6).default(300).describe("How long a unit is held"),
      ports: z.array(z.int().min(0).max(65535)).max(4).default([]),
      limit: z.union([z.literal("none"), z.strictObject({ segments: z.int().min(2) })]).optional(),
      chunk: z.int().multipleOf(4).optional(),
    }),
    create,
  }),
  defineOffload({
    name: "drop-every",
    direction: "toGuest",
    options: z.strictObject({
      nth: z.int().min(2).default(10).describe("Every how many frames one is dropped"),
    }),
    create,
  }),
];

/** A registry of the fakes and of whatever else a test needs. */
export function fakeRegistry(...more: Plugin[]): PluginRegistry {
  return new PluginRegistry(builtIns([...fakePlugins, ...more]));
}

/** The directory of the module fixtures, as the place of an imaginary configuration file. */
export const BASE_URL = new URL("./fixtures/config.json", import.meta.url).href;

/** Resolves a configuration that must be right. */
export async function good(
  config: unknown,
  registry: PluginRegistry = fakeRegistry(),
): Promise<ResolvedConfig> {
  return await parseConfig(JSON.stringify(config), BASE_URL, registry);
}

/** The error of a configuration that must be wrong. */
export async function bad(config: unknown, registry: PluginRegistry = fakeRegistry()): Promise<ConfigError> {
  try {
    // A value has no places in a text, which messages would begin with.
    if (typeof config === "string") await parseConfig(config, BASE_URL, registry);
    else await resolveConfig(config, BASE_URL, registry);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("this configuration should have been refused");
}

/** The lines of the message about a configuration that must be wrong. */
export async function lines(config: unknown, registry?: PluginRegistry): Promise<string[]> {
  const error = await bad(config, registry);
  const issues: readonly ConfigIssue[] = error.issues;
  const told = error.message.split("\n");
  if (told.length !== issues.length) throw new Error(`${issues.length} issues but ${told.length} lines`);
  return told;
}

/** A device that is right, with some keys exchanged. */
export function device(keys: Record<string, unknown> = {}): Record<string, unknown> {
  return { use: "net", driver: "loopback", network: "loopback", ...keys };
}
