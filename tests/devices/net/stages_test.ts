import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import {
  defineOffload,
  type NetworkDeviceContext,
  type OffloadPlugin,
  type ResolvedOffload,
  stageOffers,
} from "../../../pipeline/plugin.ts";
import { PluginError } from "../../../plugins/contract.ts";
import { buildStages } from "../../../devices/net/device.ts";
import type { NetOptions } from "../../../devices/net/mod.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { perFrame, type StageContext } from "../../../pipeline/stage.ts";

const NETWORK = OffloadCapabilities.of("csum");
const OPTIONS = { rules: "qemu", queuePairs: 3 } as NetOptions;

interface Made {
  readonly context: StageContext;
  readonly options: unknown;
}

/** A plugin that notes what its stages are made of. */
function noting(
  name: string,
  direction: OffloadPlugin["direction"],
  made: Made[],
  more: Partial<OffloadPlugin> = {},
): OffloadPlugin {
  return defineOffload({
    name,
    direction,
    options: z.unknown(),
    create(context, options) {
      made.push({ context, options });
      context.publish({ seen: 0 });
      return perFrame((frame, output) => output.push(frame));
    },
    ...more,
  });
}

function contextOf(
  offloads: readonly ResolvedOffload[],
): NetworkDeviceContext & { readonly groups: string[] } {
  const groups: string[] = [];
  return {
    groups,
    name: "net0",
    pool: new FramePool(),
    parts: { network: null as unknown as FrameTransport, offloads },
    verdicts: null,
    newBuffer: (bytes) => new Uint8Array(bytes),
    publish: (counters, part) => {
      groups.push(part ?? "");
      return counters;
    },
  };
}

Deno.test("buildStages() makes the stages of each direction in the order of the configuration", () => {
  const made: Made[] = [];
  const offloads = [
    { plugin: noting("up", "toGuest", made), options: { a: 1 } },
    { plugin: noting("down", "fromGuest", made), options: null },
    { plugin: noting("two-way", "both", made), options: { b: 2 } },
    { plugin: noting("last", "toGuest", made), options: 3 },
  ];
  const context = contextOf(offloads);
  const lines = buildStages(context, OPTIONS, NETWORK);
  assertEquals(lines.toGuest.map(({ name }) => name), ["up", "two-way", "last"]);
  assertEquals(lines.fromGuest.map(({ name }) => name), ["down", "two-way"]);
  assertEquals(made.map(({ context: { name, direction }, options }) => [name, direction, options]), [
    ["up", "toGuest", { a: 1 }],
    ["down", "fromGuest", null],
    ["two-way", "toGuest", { b: 2 }],
    ["two-way", "fromGuest", { b: 2 }],
    ["last", "toGuest", 3],
  ]);
  assertEquals(context.groups, ["up", "down", "two-way.toGuest", "two-way.fromGuest", "last"]);
});

Deno.test("buildStages() tells a plugin what its stage is part of", () => {
  const made: Made[] = [];
  const context = contextOf([{
    plugin: noting("one", "toGuest", made, { inherits: ["rules", "queuePairs", "mtu"] }),
    options: { nth: 2, queuePairs: 9 },
  }]);
  buildStages(context, OPTIONS, NETWORK);
  const [{ context: told, options }] = made;
  const frame = told.pool.take(60)!;
  assertEquals([context.pool.inUse, frame.holder?.plugin], [1, "one"], "the same pool, lent to the stage");
  frame.release();
  assertEquals([options, told.queuePairs, told.network, told.verdicts], [
    { rules: "qemu", nth: 2, queuePairs: 9 },
    3,
    NETWORK,
    null,
  ]);
});

Deno.test("buildStages() numbers a plugin that stands in several places", () => {
  const made: Made[] = [];
  const plugin = noting("drop-every", "both", made);
  const context = contextOf([{ plugin, options: 1 }, { plugin, options: 2 }, { plugin, options: 3 }]);
  const { toGuest } = buildStages(context, OPTIONS, NETWORK);
  assertEquals(toGuest.map(({ name }) => name), ["drop-every", "drop-every#2", "drop-every#3"]);
  assertEquals(context.groups.slice(2, 4), ["drop-every#2.toGuest", "drop-every#2.fromGuest"]);
  assertEquals(new Set(context.groups).size, 6);
});

Deno.test("buildStages() names the plugin whose stage cannot be made", () => {
  const cause = new RangeError("nth is 1");
  const plugin = noting("bad", "toGuest", [], {
    create: () => {
      throw cause;
    },
  });
  const error = assertThrows(
    () => buildStages(contextOf([{ plugin, options: {} }]), OPTIONS, NETWORK),
    PluginError,
    'plugin "bad" failed in create: nth is 1',
  );
  assertStrictEquals(error.cause, cause);
});

Deno.test("stageOffers() collects the bits of all offloads, by list or by options", () => {
  const offloads = [
    { plugin: noting("none", "toGuest", []), options: {} },
    { plugin: noting("list", "toGuest", [], { offers: [1, 61] }), options: {} },
    {
      plugin: noting("function", "toGuest", [], {
        offers: (options) => (options as { on: boolean }).on ? [7] : [],
      }),
      options: { on: true },
    },
  ];
  assertEquals(stageOffers(offloads), [1, 61, 7]);
  assertEquals(stageOffers([]), []);
});

Deno.test("stageOffers() names the plugin that cannot tell", () => {
  const plugin = noting("bad", "toGuest", [], {
    offers: () => {
      throw new TypeError("no options");
    },
  });
  const error = assertThrows(() => stageOffers([{ plugin, options: null }]), PluginError);
  assertEquals([error.plugin, error.hook], ["bad", "offers"]);
  assert(error.cause instanceof TypeError);
});
