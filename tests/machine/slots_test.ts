import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { PluginError } from "../../plugins/contract.ts";
import { defineDriver, type Plugin } from "../../plugins/plugin.ts";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { buildMachine } from "../../machine/build.ts";
import { deviceTold, permissionsTold } from "../../machine/descriptions.ts";
import type { Machine } from "../../machine/machine.ts";
import { z } from "zod";
import { type Disk, log } from "./fixtures/disk.ts";

// A device and parts of a kind that the program has never heard of, from modules beside the configuration.

const BASE = new URL("fixtures/config.json", import.meta.url);

/** A guest that never does anything. */
const idle = defineDriver({
  name: "idle",
  options: z.strictObject({}),
  create: () => ({
    serve: (_device, signal) =>
      new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
    [Symbol.dispose]() {},
  }),
}) as Plugin;

function disk(name: string, more: object = {}): object {
  return { use: "./disk.ts", name, ...more };
}

function store(keys: object): object {
  return { use: "./store.ts", driver: "idle", ...keys };
}

async function build(...devices: object[]): Promise<Machine> {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, idle]));
  return buildMachine(await parseConfig(JSON.stringify({ clock: "virtual", devices }), BASE, registry));
}

async function issues(...devices: object[]): Promise<string[]> {
  const error = await assertRejects(() => build(...devices), ConfigError);
  return error.issues.map(({ path, value, problem, remedy }) =>
    `${path}: ${value === undefined ? "" : `${JSON.stringify(value)} `}${problem}${
      remedy === undefined ? "" : `; ${remedy}`
    }`
  );
}

Deno.test("a device gets what stands in its slots, whatever its kind; it is polled, and closed in reverse", async () => {
  log.length = 0;
  const machine = await build(store({ disk: disk("a"), mirrors: [disk("b"), disk("c")] }));
  const [{ device, parts, built }] = machine.devices;
  const given = (device as unknown as { parts: Record<string, unknown> }).parts;
  assertEquals(given, { ...parts });
  assertEquals((parts.disk as Disk).path, "$.devices[0].disk");
  assertEquals((parts.mirrors as Disk[]).map(({ path }) => path), [
    "$.devices[0].mirrors[0]",
    "$.devices[0].mirrors[1]",
  ]);
  assertEquals(parts.spare, null);
  assertEquals(built.map(({ part }) => part.plugin.kind), ["disk", "disk", "disk"]);
  assertEquals(
    Object.keys(machine.counters).sort(),
    ["store0", "store0.disk", "store0.mirrors.0", "store0.mirrors.1"],
  );
  machine.start();
  machine.parts.reactor.turn();
  assert(!machine.isOver);
  (parts.disk as Disk).finished = true;
  assert(machine.isOver, "a device is at its end when a part of it is");
  await machine.close();
  const opened = ["open a", "open b", "open c"];
  assertEquals(log.filter((line) => !line.startsWith("poll")), [
    ...opened,
    ...["c", "b", "a"].flatMap((name) => [`close ${name}`, `dispose ${name}`]),
  ]);
  assertEquals(log.filter((line) => line.startsWith("poll")).sort(), ["poll a", "poll b", "poll c"]);
});

Deno.test("what is wrong in a slot of an unknown kind is told as in any other", async () => {
  assertEquals(await issues(store({})), [
    '$.devices[0].disk: missing; write a module such as "./name.ts"',
  ]);
  assertEquals(await issues(store({ disk: 5, mirrors: {}, spare: "tap" })), [
    "$.devices[0].mirrors: {} is not what belongs here; write a list in [] (What stands in the slot of kind disk)",
    '$.devices[0].disk: 5 is not a plugin of kind "disk"; write a module such as "./name.ts"',
    '$.devices[0].spare: "tap" is a network transport; a plugin of kind "disk" is needed here',
  ]);
  assertEquals(await issues(store({ disk: { use: "./disk.ts", nmae: "a" }, miror: [] })), [
    '$.devices[0].miror: unknown key, did you mean "mirrors"?',
    "$.devices[0].disk.name: missing; write text in double quotes (What it is called)",
    '$.devices[0].disk.nmae: unknown key, did you mean "name"?',
  ]);
  assertEquals(await issues(store({ disk: "./store.ts" })), [
    '$.devices[0].disk: the default export of "./store.ts" is a device; a plugin of kind "disk" is needed here',
  ]);
  const net = { use: "net", driver: "loopback", network: "./disk.ts" };
  assertEquals(await issues(net), [
    '$.devices[0].network: the default export of "./disk.ts" has the kind "disk"; a network transport is needed here',
  ]);
  assertEquals(await issues(store({ disk: disk("a"), network: "loopback" })), [
    '$.devices[0].network: "./store.ts" is a device without "network"; leave "network" out',
  ]);
});

Deno.test("a part of an unknown kind that fails is named, and what was opened before it is closed", async () => {
  log.length = 0;
  const error = await assertRejects(
    () => build(store({ disk: disk("a"), spare: disk("b", { fails: true }) })),
    PluginError,
  );
  assertEquals([error.plugin, error.hook, error.path], ["memory", "create", "$.devices[0].spare"]);
  assertEquals(log, ["open a", "dispose a"]);
});

Deno.test("a library user is refused what plugins say cannot be together, in all devices at once", async () => {
  assertEquals(
    await issues(
      store({ name: "s", disk: disk("s", { owner: "x" }) }),
      store({ disk: disk("b", { owner: "x" }) }),
    ),
    [
      "$.devices[0].disk: a disk is called as its device, s",
      "$.devices[1].disk: the sectors of x is that of $.devices[0].disk already; give each disk its own",
    ],
  );
});

Deno.test("slots have names and kinds that can stand in a configuration", () => {
  const device = (slots: unknown) => ({ ...BUILT_IN_PLUGINS[0], name: "x", slots }) as Plugin;
  for (
    const [slots, text] of [
      [{ driver: { kind: "disk" } }, 'the slot "driver"'],
      [{ "a b": { kind: "disk" } }, 'the slot "a b"'],
      [{ disk: { kind: "Disk!" } }, 'the slot "disk"'],
      [{ disk: { kind: "driver" } }, 'of the kind "driver"'],
      [[], "the slots []"],
    ] as const
  ) assertThrows(() => builtIns([device(slots)]), TypeError, text);
  assertEquals(newRegistry().kinds, ["device", "driver", "network", "offload"]);
});

Deno.test("a library user is refused what built-in plugins cannot do together, as the command line is", async () => {
  const guest = (socket: object) => ({ use: "entropy", driver: { use: "vhost-user", ...socket } });
  const tap = (network: object, keys = {}) => ({
    use: "net",
    driver: "loopback",
    network: { use: "tap", ...network },
    ...keys,
  });
  const deep = `/${"d".repeat(120)}/s`;
  const refused = async (clock: string, ...devices: object[]) => {
    const config = await parseConfig(JSON.stringify({ clock, devices }), BASE, newRegistry());
    return assertThrows(() => buildMachine(config), ConfigError).issues.map((
      { path, problem },
    ) => [path, problem]);
  };
  assertEquals(
    await refused(
      "system",
      guest({ socket: "/run/a" }),
      guest({ socket: "/run/a" }),
      guest({ socket: deep }),
      guest({ fd: 7, mode: "client" }),
      tap({ fd: 7 }, { mac: "52:54:00:00:00:01" }),
      tap({ interface: "tap9" }, { mac: "52:54:00:00:00:02" }),
      tap({ interface: "tap9", mtu: 1500 }, { mac: "52:54:00:00:00:03", mtu: 9000 }),
    ),
    [
      ["$.devices[1].driver.socket", "the socket /run/a is that of $.devices[0].driver.socket already"],
      [
        "$.devices[2].driver.socket",
        `the path of the socket is ${deep}, ${deep.length} bytes, and must have at most 107`,
      ],
      ["$.devices[4].network.fd", "descriptor 7 is that of $.devices[3].driver.fd already"],
      [
        "$.devices[6].mtu",
        "the guest is told that packets may have 9000 bytes, and $.devices[6].network carries 1500",
      ],
      [
        "$.devices[6].network.interface",
        "the interface tap9 is that of $.devices[5].network.interface already",
      ],
    ],
  );
  assertEquals(await refused("virtual", guest({ socket: "/run/a" })), [
    ["$.clock", "a virtual clock cannot wait for the host, and $.devices[0].driver has to"],
  ]);
});

Deno.test("what a plugin says of itself is looked at: wrong lists are its error, by hook and place", async () => {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, idle]));
  const text = JSON.stringify({ clock: "virtual", devices: [store({ disk: disk("a") })] });
  const config = await parseConfig(text, BASE, registry);
  const [device] = config.devices;
  await using machine = buildMachine(config, { preview: true });
  const saying = (words: object) => ({
    ...config,
    devices: [{ ...device, plugin: { ...device.plugin, ...words } }],
  });
  const path = "$.devices[0]";
  const thing = { thing: "the bell", remedy: "leave one out" };
  const claims =
    (problem: unknown) => () => [{ ...thing, path }, { ...thing, path: "$.devices[1]", problem }];
  const wrong: readonly [hook: string, says: unknown, told: string][] = [
    ["conflicts", () => Promise.reject(new Error("late")), "it returned a promise"],
    ["conflicts", () => "no", 'it returned "no", not a list'],
    ["conflicts", () => [null], "a list with null whose path is undefined, not a text"],
    ["conflicts", () => [{ path, problem: 5 }], "a list with an object whose problem is 5, not a text"],
    ["claims", () => [{ path, thing: "the bell" }], "whose remedy is undefined, not a text"],
    ["claims", () => ({}), "it returned an object, not a list"],
    ["claims", claims("taken"), "problem is not a function"],
    ["claims", claims(() => 7), "it returned a claim whose problem is 7, not a text"],
    [
      "claims",
      claims(async () => await "late"),
      "it returned a claim whose problem is an object, not a text",
    ],
    ["conflicts", () => new Array(1_000_000).fill({ path, problem: "x" }), "a list of 1000000; at most 1000"],
    ["claims", () => new Array(1_000_000), "a list of 1000000; at most 1000"],
    ["hints", () => new Array(1_000_000), "a list of 1000000; at most 1000"],
    [
      "hints",
      () => [{ path, problem: "x".repeat(1_000_000) }],
      "whose problem has 1000000 characters; at most 10000",
    ],
    ["hints", () => 7, "it returned 7, not a list"],
    ["hints", () => [{ problem: "x" }], "whose path is undefined, not a text"],
    ["hints", () => ({ length: 1 }), "it returned an object, not a list"],
    ["describe", () => {
      throw new Error("no words");
    }, "no words"],
    ["describe", () => Promise.reject(new Error("late")), "it returned a promise, not a description"],
    ["describe", () => "a store", 'it returned "a store", not a description'],
    ["describe", () => ({ lines: "a store" }), 'it returned "a store", not a list'],
    ["describe", () => ({ lines: [["label"]] }), "a line is no pair of label and text"],
    ["describe", () => ({ lines: [["a", "b", "c"]] }), "a line is no pair of label and text"],
    ["describe", () => ({ lines: [["label", 5]] }), "of which a line is 5, not a text"],
    ["describe", () => ({ lines: new Array(1_000_000).fill(["a", "b"]) }), "a list of 1000000; at most 1000"],
    ["describe", () => ({ offers: [5] }), "it returned a list of which one is 5, not a text"],
    ["describe", () => ({ offers: new Array(1_000_000).fill("x") }), "a list of 1000000; at most 1000"],
    ["describe", () => ({ json: 5 }), "whose json is 5, not an object"],
    ["describe", () => ({ json: [] }), "whose json is a list, not an object"],
    ["describe", () => ({ json: { n: 1n } }), "BigInt"],
    ["describe", () => ({ json: { toJSON: () => undefined } }), "whose json is an object, not an object"],
    ["describe", () => ({ json: { all: "x".repeat(1_000_000) } }), "characters; at most 65536"],
    [
      "describe",
      () => ({ needs: [{ path, file: "/x", use: "burn" }] }),
      'a need with use "burn"; write, listen',
    ],
    ["describe", () => ({ needs: [{ path, file: 5, use: "open" }] }), "whose file is 5, not a text"],
    [
      "describe",
      () => ({ needs: [{ path, file: "/x", use: "open", missing: 5 }] }),
      "a need whose missing is 5",
    ],
    [
      "describe",
      () => ({ needs: [{ path, file: "/x", use: "open", unseen: 5 }] }),
      "a need whose unseen is 5",
    ],
    ["describe", () => ({ needs: new Array(1_000_000) }), "a list of 1000000; at most 1000"],
    ["permissions", () => ({ read: new Array(1_000_000).fill("/x") }), "a list of 1000000; at most 1000"],
    ["permissions", () => ({ read: ["x".repeat(1_000_000)] }), "one has 1000000 characters; at most 10000"],
    ["permissions", () => Promise.reject(new Error("late")), "it returned a promise, not the permissions"],
  ];
  for (const [hook, says, told] of wrong) {
    const bad = saying({ [hook]: says });
    const error = assertThrows(
      () => {
        if (hook === "conflicts" || hook === "claims") return buildMachine(bad);
        if (hook === "permissions") return permissionsTold(bad.devices[0]);
        return deviceTold(bad, { ...machine.devices[0], resolved: bad.devices[0] }, null);
      },
      PluginError,
      told,
    );
    assertEquals([error.plugin, error.hook, error.path], [device.plugin.name, hook, path]);
  }
});

Deno.test("what a plugin tells is read once: what was looked at is what is used", async () => {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, idle]));
  const text = JSON.stringify({ clock: "virtual", devices: [store({ disk: disk("a") })] });
  const config = await parseConfig(text, BASE, registry);
  await using machine = buildMachine(config, { preview: true });
  const [device] = config.devices;
  const turning = (good: string) => {
    let reads = 0;
    return () => reads++ === 0 ? good : 5;
  };
  const shifty = (texts: Record<string, string>) => {
    const one = {};
    for (const [name, good] of Object.entries(texts)) {
      Object.defineProperty(one, name, { enumerable: true, get: turning(good) });
    }
    return one;
  };
  const plugin = {
    ...device.plugin,
    hints: () => [shifty({ path: "$", problem: "is shifty" })],
    describe: () => ({ needs: [shifty({ path: "$", file: "/x", use: "write" })] }),
  } as unknown as typeof device.plugin;
  const resolved = { ...device, plugin };
  const { hints, descriptions } = deviceTold(config, { ...machine.devices[0], resolved }, null);
  assertEquals(hints, [{ path: "$", problem: "is shifty" }]);
  const [{ path, file, use }] = descriptions.get(resolved)!.needs;
  assertEquals([path, file, use], ["$", "/x", "write"]);
});

Deno.test("what a driver says of front-ends is looked at", async () => {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, idle]));
  const text = JSON.stringify({ clock: "virtual", devices: [store({ disk: disk("a") })] });
  const config = await parseConfig(text, BASE, registry);
  await using machine = buildMachine(config, { preview: true });
  const [device] = config.devices;
  const [bit] = machine.devices[0].device.features;
  const features = new Map(Array.from(machine.devices[0].device.features, (bit) => [bit, "agreed"]));
  const fails = (frontEnds: unknown, told: string) => {
    const driver = { ...device.driver, plugin: { ...device.driver.plugin, frontEnds: () => frontEnds } };
    const resolved = { ...device, driver } as typeof device;
    const error = assertThrows(
      () => deviceTold(config, { ...machine.devices[0], resolved }, null),
      PluginError,
      told,
    );
    assertEquals([error.plugin, error.hook], ["idle", "frontEnds"]);
  };
  fails("qemu", 'it returned "qemu", not a list');
  fails(new Array(1_000_000), "a list of 1000000; at most 1000");
  fails([{ name: 5 }], "whose name is 5, not a text");
  fails([{ name: "qemu", features: {} }], "whose features are an object, no Map of bits");
  fails([{ name: "qemu", features: new Map([...features, [bit, "gone"]]) }], `feature ${bit} becomes "gone"`);
});
