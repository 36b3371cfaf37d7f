import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { z } from "zod";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import type { ResolvedDevice } from "../../config/types.ts";
import { guardDevice } from "../../machine/plugin_guards.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { PluginError } from "../../plugins/contract.ts";
import { defineDriver, type DriverTransport, type Plugin } from "../../plugins/plugin.ts";
import { netDriver } from "../../devices/net/driver/mod.ts";
import { guestOptions } from "../../devices/net/driver/options.ts";
import { net } from "../../devices/net/mod.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { type Frame, FrameBatch } from "../../pipeline/frame.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import {
  defineNetwork,
  defineNetworkDevice,
  defineOffload,
  type NetworkContext,
  type NetworkDevice,
} from "../../pipeline/plugin.ts";
import { perFrame, type Stage } from "../../pipeline/stage.ts";
import { loopbackDriver } from "../../transports/loopback_driver/mod.ts";

const options = z.strictObject({});
const SENDING = { use: "loopback", behaviour: { send: { count: 1000, intervalUs: 100, frameBytes: 60 } } };

/** The device that must go on, with a guest that sends a frame every 100 µs. */
const OTHER = { use: "net", name: "other", driver: SENDING, network: { use: "loopback", cable: "other" } };
/** The device whose plugins misbehave. */
const OWN = { use: "net", name: "own", mac: "52:54:00:00:00:02", driver: SENDING, network: "loopback" };

/** A network that sends back what comes, with some of its members exchanged. */
function network(more: (context: NetworkContext, waiting: FrameBatch) => Partial<FrameTransport>): Plugin {
  return defineNetwork({
    name: "bad",
    options,
    create: (context) => {
      const waiting = new FrameBatch();
      const mirror: FrameTransport = {
        maxFrameBytes: 1514,
        capabilities: OffloadCapabilities.none,
        queuePairs: 1,
        receive(out) {
          const count = waiting.length;
          for (let i = 0; i < count; i++) out.push(waiting.at(i));
          waiting.clear();
          return count;
        },
        send(batch) {
          for (let i = 0; i < batch.length; i++) waiting.push(batch.at(i));
          return batch.length;
        },
        deadlineNs: () => waiting.length > 0 ? 0 : Infinity,
        [Symbol.dispose]: () => waiting.releaseAll(),
      };
      return { ...mirror, ...more(context, waiting) };
    },
  });
}

function stage(make: () => Stage, more: object = {}): Plugin {
  return defineOffload({ name: "bad", direction: "fromGuest", options, create: make, ...more });
}

/** A loopback driver with some of its members exchanged. */
function driver(more: (inner: DriverTransport) => object): Plugin {
  return defineDriver({
    name: "bad",
    options,
    create: (context) => {
      const inner = loopbackDriver.create({ ...context, softwareDriver: netDriver }, guestOptions({}));
      return {
        serve: (device, signal) => inner.serve(device, signal),
        [Symbol.dispose]() {},
        ...more(inner),
      };
    },
  });
}

/** The net device with some of its members exchanged, before anybody sees it. */
function device(change: (device: Device) => void): Plugin {
  return defineNetworkDevice({
    name: "bad",
    options: net.options,
    facts: net.facts,
    driver: netDriver,
    create: (context, netOptions) => {
      const made = net.create(context, netOptions);
      change(made);
      return made;
    },
  });
}

function set(name: keyof NetworkDevice, value: unknown): Plugin {
  return device((made) => Object.defineProperty(made, name, { value, configurable: true, writable: true }));
}

const pass = () => perFrame((frame, output) => output.push(frame));
const fails = (): never => {
  throw new Error("no luck today");
};
const promise = () => Promise.resolve(true) as never;

const AT = {
  stage: { offloads: ["bad"] },
  network: { network: "bad" },
  driver: { driver: "bad" },
  device: { use: "bad" },
} as const;
const PATHS = {
  stage: "$.devices[0].offloads[0]",
  network: "$.devices[0].network",
  driver: "$.devices[0].driver",
  device: "$.devices[0]",
} as const;

/** Where it stands, the hook, the text, the plugin. */
type Misdeed = readonly [where: keyof typeof AT, hook: string, text: string, plugin: Plugin];

/** What is found before anything starts. */
const WHEN_BUILT: readonly Misdeed[] = [
  ["stage", "create", "it returned a promise, not a stage", stage(promise)],
  ["stage", "create", "it returned undefined, not a stage", stage(() => undefined as never)],
  ["stage", "create", "a stage without process()", stage(() => ({}) as never)],
  ["stage", "create", "whose flush is 7, not a function", stage(() => ({ ...pass(), flush: 7 }) as never)],
  ["stage", "create", "no luck today", stage(fails)],
  ["stage", "create", "perFrame needs a function", stage(() => perFrame(undefined as never))],
  ["stage", "offers", "it returned 5; a list of feature bits", stage(pass, { offers: () => 5 })],
  ["network", "create", "a network without receive()", network(() => ({ receive: undefined as never }))],
  ["network", "create", "maxFrameBytes NaN", network(() => ({ maxFrameBytes: NaN }))],
  ["network", "create", "queuePairs 1.5", network(() => ({ queuePairs: 1.5 }))],
  [
    "network",
    "create",
    "capabilities.csum is undefined",
    network(() => ({ capabilities: {} as never })),
  ],
  [
    "network",
    "create",
    "poll(), but no deadlineNs()",
    network(() => ({ poll: () => false, deadlineNs: undefined }) as never),
  ],
  [
    "network",
    "create",
    "counters are numbers in an object",
    network((context) => context.publish(null as never)),
  ],
  ["driver", "create", "a driver without serve()", driver(() => ({ serve: 1 }))],
  [
    "driver",
    "create",
    "whose poll is true, not a function",
    driver(() => ({ poll: true, deadlineNs: () => 0 })),
  ],
  ["device", "create", "features are a list, no FeatureSet", set("features", [1, 2])],
  ["device", "create", "queueSizes 64, -1", set("queueSizes", [64, -1])],
  ["device", "create", "queueSizes 12", set("queueSizes", 12)],
  ["device", "create", "the type NaN", set("type", NaN)],
  ["device", "create", "a device without readConfig()", set("readConfig", undefined)],
  ["device", "create", "featureNames are an object, no Map", set("featureNames", { 5: "MAC" })],
  ["device", "create", "3, not a device whose migration is an object", set("migration", 3)],
  [
    "device",
    "create",
    "a device whose migration is an object without restore()",
    set("migration", { save() {} }),
  ],
  [
    "device",
    "create",
    "a device whose net is an object without acceptsMtu()",
    set("net", { guestMoved() {} }),
  ],
];

/** What is found while it runs. */
const WHEN_RUNNING: readonly Misdeed[] = [
  ["stage", "process", "no luck today", stage(() => perFrame(fails))],
  ["stage", "process", "it returned a promise", stage(() => ({ process: promise }))],
  [
    "stage",
    "process",
    "which leaves its storage",
    stage(() =>
      perFrame((frame, output) => {
        frame.length = frame.total = 50_000;
        output.push(frame);
      })
    ),
  ],
  [
    "stage",
    "process",
    "it handed on an object in place of a frame",
    stage(() => perFrame((frame, output) => output.push({ ...frame } as Frame))),
  ],
  ["stage", "negotiated", "no luck today", stage(() => ({ ...pass(), negotiated: fails }))],
  ["stage", "deadlineNs", "for ever", stage(() => ({ ...pass(), deadlineNs: () => 0, flush() {} }))],
  ["network", "receive", "no luck today", network(() => ({ receive: fails }))],
  ["network", "receive", "it returned a promise", network(() => ({ receive: promise }))],
  ["network", "receive", "it returned 3, but has appended 0 frames", network(() => ({ receive: () => 3 }))],
  [
    "network",
    "receive",
    "which leaves its storage",
    network((_context, waiting) => ({
      receive(out) {
        if (waiting.length === 0) return 0;
        for (let i = 0; i < waiting.length; i++) {
          const frame = waiting.at(i);
          frame.start = frame.slot - 1000;
          out.push(frame);
        }
        const count = waiting.length;
        waiting.clear();
        return count;
      },
    })),
  ],
  [
    "network",
    "receive",
    "it has not got any more",
    network(({ pool }) => {
      const frame = pool.take(60)!;
      return {
        receive(out) {
          out.push(frame);
          out.push(frame);
          return 2;
        },
      };
    }),
  ],
  [
    "network",
    "receive",
    "frames; 64 were asked for at most",
    network(({ pool }) => ({
      receive(out) {
        for (let i = 0; i < 100; i++) out.push(pool.take(60)!);
        return 100;
      },
    })),
  ],
  ["network", "deadlineNs", "it returned NaN", network(() => ({ deadlineNs: () => NaN }))],
  [
    "network",
    "deadlineNs",
    "receive gives none, for ever",
    network(() => ({
      receive: () => 0,
      deadlineNs: () => 0,
    })),
  ],
  ["network", "send", "no luck today", network(() => ({ send: fails }))],
  ["network", "send", "it returned NaN; how many of", network(() => ({ send: () => NaN }))],
  ["network", "send", "it returned a promise", network(() => ({ send: promise }))],
  [
    "network",
    "send",
    "has released a frame behind those",
    network(() => ({
      send(batch) {
        batch.at(0).release();
        return 0;
      },
    })),
  ],
  [
    "network",
    "send",
    "it changed the batch",
    network(() => ({
      send(batch) {
        batch.releaseAll();
        return 1;
      },
    })),
  ],
  ["network", "guestCapabilities", "no luck today", network(() => ({ guestCapabilities: fails }))],
  ["network", "poll", "no luck today", network(() => ({ poll: fails }) as Partial<FrameTransport>)],
  ["network", "poll", "it returned a promise", network(() => ({ poll: promise }) as Partial<FrameTransport>)],
  ["driver", "serve", "no luck today", driver(() => ({ serve: fails }))],
  ["driver", "serve", "it returned no promise", driver(() => ({ serve: () => {} }))],
  ["driver", "poll", "no luck today", driver(() => ({ poll: fails, deadlineNs: () => Infinity }))],
  ["driver", "deadlineNs", "it returned undefined", driver(() => ({ poll: () => false, deadlineNs() {} }))],
  ["device", "poll", "no luck today", set("poll", fails)],
  ["device", "poll", "it returned a promise", set("poll", promise)],
  ["device", "deadlineNs", "it returned a promise", set("deadlineNs", promise)],
  [
    "device",
    "deadlineNs",
    "it is due for ever",
    device((made) => Object.assign(made, { poll: () => false, deadlineNs: () => 0 })),
  ],
  ["device", "readConfig", "no luck today", set("readConfig", fails)],
  ["device", "activate", "no luck today", set("activate", fails)],
  ["device", "acceptFeatures", "no luck today", set("acceptFeatures", fails)],
];

async function build(bad: Plugin, where: keyof typeof AT, told: string[] = []): Promise<Machine> {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, bad]));
  const config = { clock: "virtual", devices: [{ ...OWN, ...AT[where] }, OTHER] };
  const resolved = await parseConfig(JSON.stringify(config), import.meta.url, registry);
  return buildMachine(resolved, {
    events: (name, event) => {
      if (event.event === "failed") told.push(`${name}: ${event.message}`);
    },
  });
}

function assertNames(error: PluginError, hook: string, text: string, where: keyof typeof PATHS): void {
  assertEquals([error.plugin, error.hook, error.path], ["bad", hook, PATHS[where]], error.message);
  assert(error.message.includes(`${PATHS[where]}: plugin "bad" failed in ${hook}: `), error.message);
  assert(error.message.includes(text), error.message);
}

for (const [where, hook, text, plugin] of WHEN_BUILT) {
  Deno.test(`what a plugin makes is looked at: ${where} ${text}`, async () => {
    const error = await assertRejects(() => build(plugin, where), PluginError);
    assertNames(error, hook, text, where);
  });
}

for (const [where, hook, text, plugin] of WHEN_RUNNING) {
  Deno.test(`a plugin ends its own device only: ${where} ${hook}, ${text}`, async () => {
    const told: string[] = [];
    const machine = await build(plugin, where, told);
    machine.start();
    const { reactor } = machine.parts;
    const until = async (ms: number) => {
      // What serves asynchronously gets its turn.
      for (let i = 0; i < 5; i++) await Promise.resolve();
      reactor.advanceTo(ms * 1e6);
      return machine.counters["other.fromGuest"].packets;
    };
    const half = await until(10);
    assertEquals(await until(20) - half, 100, "the other device goes on");
    assertEquals(machine.isOver, false);
    const stop = new AbortController();
    stop.abort();
    const error = await assertRejects(() => machine.run(stop.signal), PluginError);
    assertNames(error, hook, text, where);
    assertEquals(told, [`own: ${error.message}`], "it is told at once, and once");
    await machine.close();
  });
}

Deno.test("frames that a network keeps are told at the end, with its name", async () => {
  const keeps: Frame[] = [];
  const plugin = network(() => ({
    send(batch) {
      for (let i = 0; i < batch.length; i++) keeps.push(batch.at(i));
      return batch.length;
    },
  }));
  const machine = await build(plugin, "network");
  machine.start();
  machine.parts.reactor.advanceTo(1e6);
  const error = await assertRejects(() => machine.close(), PluginError);
  assertNames(error, "dispose", `it keeps ${keeps.length} frames, which are lost`, "network");
});

Deno.test("the last device that fails ends the machine", async () => {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, stage(() => perFrame(fails))]));
  const config = { clock: "system", devices: [{ ...OWN, ...AT.stage }] };
  await using alone = buildMachine(await parseConfig(JSON.stringify(config), import.meta.url, registry));
  alone.start();
  await assertRejects(() => alone.run(new AbortController().signal), PluginError, "no luck today");
});

Deno.test("a GuestError of a device is the guest's fault, and no failure of the plugin", async () => {
  const machine = await build(
    set("poll", () => {
      throw new GuestError("descriptor-loop", "a ring is broken");
    }),
    "device",
  );
  machine.start();
  machine.parts.reactor.advanceTo(1e6);
  assertEquals(machine.failure, null);
  assertEquals(machine.counters["own.driver"].needsReset, 1);
  await machine.close();
});

Deno.test("what a device saves and cannot be written as JSON is the plugin's failure, by its name", () => {
  const failures: Error[] = [];
  const migration = { save: () => ({ count: 1n }), restore: () => {} };
  const device = { featureNames: new Map(), queueSizes: [], migration } as unknown as Device;
  const part = { plugin: { name: "odd" }, path: "$.devices[0]" } as ResolvedDevice;
  const guarded = guardDevice(device, part, (error) => failures.push(error), undefined);
  assertThrows(() => guarded.migration!.save(), GuestError, "it returned what is not JSON");
  const [error] = failures;
  assert(error instanceof PluginError);
  assertEquals([error.plugin, error.hook, error.path], ["odd", "migration.save", "$.devices[0]"]);
});
