import type { NetGuest } from "../../devices/net/driver/mod.ts";
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import { entropy, type EntropyOptions } from "../../devices/entropy/mod.ts";
import { defineDevice, defineDriver, type Plugin } from "../../plugins/plugin.ts";
import { defineNetwork, defineOffload, type NetworkContext } from "../../pipeline/plugin.ts";
import { perFrame } from "../../pipeline/stage.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { tcp } from "../../testing/mod.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { framePool } from "../../pipeline/kinds.ts";

const MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"];

/** Plugins that tell what is done with them, and fail when told to. */
class Spies {
  readonly log: string[] = [];
  readonly contexts: NetworkContext[] = [];
  readonly buffers: Uint8Array[] = [];
  readonly plugins: readonly Plugin[];

  constructor() {
    const network = (context: NetworkContext, name: string): FrameTransport => {
      this.log.push(`open ${name}`);
      this.contexts.push(context as unknown as NetworkContext);
      return {
        maxFrameBytes: 1514,
        capabilities: OffloadCapabilities.none,
        queuePairs: 1,
        receive: () => 0,
        send: (batch) => batch.length,
        [Symbol.dispose]: () => {
          this.log.push(`dispose ${name}`);
          if (name.startsWith("sticky")) throw new Error("it does not close");
        },
      };
    };
    const options = z.strictObject({
      name: z.string(),
      fails: z.string().optional(),
      inner: z.unknown().optional(),
    });
    this.plugins = [
      defineNetwork({
        name: "spy",
        options,
        create: (context, { name, fails, inner }) => {
          if (inner !== undefined) context.inner(inner, "inner");
          if (fails === "host") throw new HostError(`${context.path}: no such interface`);
          if (fails === "shape") return { ...network(context, name), send: undefined! };
          if (fails !== undefined) throw new TypeError(fails);
          return network(context, name);
        },
      }),
      defineDriver({
        name: "spy",
        options,
        create: (context, { name, fails }) => {
          if (fails !== undefined) throw new TypeError(fails);
          this.log.push(`open ${name}`);
          this.contexts.push(context as unknown as NetworkContext);
          return {
            serve: () => Promise.resolve(),
            [Symbol.dispose]: () => void this.log.push(`dispose ${name}`),
          };
        },
      }),
      defineDevice({
        name: "no-facts",
        options: z.strictObject({ fails: z.boolean().default(false) }),
        create: () => {
          throw new RangeError("it has no queues");
        },
        facts: ({ fails }) => {
          if (fails) throw new RangeError("it has no facts");
          return { guestMac: new Uint8Array(6), queuePairs: 1 };
        },
      }),
      defineDevice<EntropyOptions>({
        ...entropy,
        name: "buffered",
        create: (context, options) => {
          this.buffers.push(context.newBuffer(64), context.newBuffer(64));
          return entropy.create(context, options);
        },
      }),
      defineDevice<EntropyOptions>({
        ...entropy,
        name: "no-guest",
        driver: {
          options: entropy.driver!.options,
          create: () => {
            throw new RangeError("it has no guest");
          },
        },
      }),
      defineOffload({
        name: "needs-mergeable",
        direction: "toGuest",
        needs: [15, 17],
        options: z.strictObject({}),
        create: () => perFrame((frame, output) => output.push(frame)),
      }),
      defineOffload({
        name: "plain",
        direction: "toGuest",
        options: z.strictObject({}),
        create(context) {
          context.publish({ seen: 0 });
          return perFrame((frame, output) => output.push(frame));
        },
      }),
      defineOffload({
        name: "bad-stage",
        direction: "toGuest",
        options: z.strictObject({}),
        create: () => {
          throw new RangeError("no memory");
        },
      }),
    ];
  }

  async build(config: object, baseUrl: string | URL = import.meta.url): Promise<Machine> {
    const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, ...this.plugins]));
    return buildMachine(
      await parseConfig(JSON.stringify({ clock: "virtual", ...config }), baseUrl, registry),
    );
  }

  async failure(config: object, baseUrl?: string | URL): Promise<Error> {
    let machine: Machine;
    try {
      machine = await this.build(config, baseUrl);
    } catch (error) {
      assert(error instanceof Error);
      return error;
    }
    await machine.close();
    throw new Error("this machine should not have been built");
  }
}

function device(keys: object = {}): Record<string, unknown> {
  return { use: "net", driver: "loopback", network: "loopback", ...keys };
}

Deno.test("buildMachine() builds what the configuration describes, and starts nothing", async () => {
  await using machine = await new Spies().build({
    name: "two",
    frameMemoryMiB: 3,
    devices: [device({ mac: MACS[0] }), device({ name: "other", mac: MACS[1] })],
  });
  assertEquals(machine.parts.name, "two");
  assertEquals(machine.devices.map(({ name, device: { type } }) => [name, type]), [["net0", 1], [
    "other",
    1,
  ]]);
  assertEquals([...machine.parts.shared.keys()], ["cable:default"]);
  assertEquals((machine.devices[0].driver as LoopbackDriver<NetGuest>).guest.attached, false);
  assertEquals([framePool(machine.parts.scope).made, machine.parts.manualClock !== null], [0, true]);
});

Deno.test("a device's buffers lie where kernels reach them, beside its guest", async () => {
  const rig = new Spies();
  const buffered = { use: "buffered", driver: { use: "spy", name: "driver" } };
  await using _ = await rig.build({ devices: [buffered] });
  const { arena } = rig.contexts[0];
  const [first, second] = rig.buffers;
  if (arena !== null) assertEquals([first.buffer, second.buffer], [arena.buffer, arena.buffer]);
  assertEquals([first.length, second.length, first.fill(7)[63], second[0]], [64, 64, 7, 0]);
});

Deno.test("buildMachine() has no manual clock unless the configuration asks for one", async () => {
  await using machine = await new Spies().build({ clock: "system", devices: [device()] });
  assertEquals(machine.parts.manualClock, null);
  assertThrows(() => machine.parts.reactor.advanceTo(1), TypeError);
});

Deno.test("buildMachine() refuses two devices of one address on one cable", async () => {
  const spies = new Spies();
  const error = await spies.failure({
    devices: [device({ mac: MACS[0] }), device({ name: "b", mac: MACS[0] })],
  });
  assert(error instanceof ConfigError);
  assertEquals(error.issues.map(({ path }) => path), ["$.devices[1].mac"]);
  assertEquals(
    error.message.includes(`${MACS[0]} is the address of net0 as well, which is on the same cable`),
    true,
  );
});

Deno.test("buildMachine() sees through recorders that two devices of one address share a cable", async () => {
  const spies = new Spies();
  const wrapped = { use: "spy", name: "recorder", inner: { use: "loopback", cable: "a" } };
  const error = await spies.failure({
    devices: [device({ network: { use: "loopback", cable: "a" } }), device({ network: wrapped })],
  });
  assert(error instanceof ConfigError);
  assertEquals(error.issues[0].path, "$.devices[1].mac");
});

Deno.test("buildMachine() takes one address on different cables, and networks that share nothing", async () => {
  const spies = new Spies();
  await using machine = await spies.build({
    devices: [
      device({ network: { use: "loopback", cable: "a" } }),
      device({ network: { use: "loopback", cable: "b" } }),
      device({ network: { use: "spy", name: "n1" } }),
      device({ network: { use: "spy", name: "n2" } }),
    ],
  });
  assertEquals(machine.devices.length, 4);
});

Deno.test("buildMachine() refuses an offload that stands twice, if it makes features possible", async () => {
  const offloads = ["rsc-v4", "checksum", { use: "rsc-v4", intervalUs: 5 }, "plain", "plain", "checksum"];
  const error = await new Spies().failure({ devices: [device({ offloads })] });
  assert(error instanceof ConfigError);
  assertEquals(error.issues.map(({ path }) => path), [
    "$.devices[0].offloads[2]",
    "$.devices[0].offloads[5]",
  ]);
  assertEquals(error.issues[0].problem, '"rsc-v4" stands at $.devices[0].offloads[0] already');
  await using machine = await new Spies().build({
    devices: [device({ offloads: ["plain", "plain", "rsc-v4"] })],
  });
  assertEquals(machine.devices.length, 1);
});

Deno.test("buildMachine() refuses an offload whose needs the device withholds, and says which", async () => {
  const spies = new Spies();
  const error = await spies.failure({
    devices: [device({
      withhold: ["MRG_RXBUF"],
      network: { use: "spy", name: "net" },
      offloads: ["plain", "needs-mergeable"],
    })],
  });
  assert(error instanceof ConfigError);
  assertEquals(error.issues, [{
    file: "build_test.ts",
    line: 1,
    column: 146,
    path: "$.devices[0].offloads[1]",
    problem: '"needs-mergeable" needs MRG_RXBUF, which net0 does not offer',
    remedy: 'take MRG_RXBUF out of "withhold", or leave the offload out',
  }]);
  assertEquals(spies.log, ["open net", "dispose net"]);
});

Deno.test("buildMachine() disposes of everything that it had opened, the last first, if something cannot be built", async () => {
  const spies = new Spies();
  const spy = (name: string, more: object = {}) => ({ use: "spy", name, ...more });
  const error = await spies.failure({
    devices: [
      device({ network: spy("n0"), driver: spy("d0") }),
      device({ network: spy("n1", { inner: spy("inner1") }), driver: spy("d1") }),
      device({ network: spy("n2", { inner: spy("inner2"), fails: "host" }), driver: spy("d2") }),
    ],
  });
  assert(error instanceof HostError);
  assertEquals(error.message, "build_test.ts:1:287: $.devices[2].network: no such interface");
  assertEquals(spies.log, [
    ...["open n0", "open d0", "open inner1", "open n1", "open d1", "open inner2"],
    // What n1 wraps is n1's to close; what n2 would have wrapped has no owner.
    ...["dispose inner2", "dispose d1", "dispose n1", "dispose d0", "dispose n0"],
  ]);
});

Deno.test("buildMachine() disposes once of what a recorder wraps that cannot be built", async () => {
  const spies = new Spies();
  const inner = { use: "spy", name: "inner" };
  const error = await spies.failure({
    devices: [device({ network: { use: "pcap", write: "/no/such/folder/out.pcap", inner } })],
  });
  assert(error instanceof HostError);
  assertEquals(spies.log, ["open inner", "dispose inner"]);
});

Deno.test("buildMachine() disposes of a part that is refused, which owns what it wraps", async () => {
  const spies = new Spies();
  const inner = { use: "spy", name: "inner" };
  const error = await spies.failure({
    devices: [device({ network: { use: "spy", name: "odd", fails: "shape", inner } })],
  });
  assert(error instanceof PluginError);
  assertEquals(spies.log, ["open inner", "open odd", "dispose odd"]);
});

Deno.test("buildMachine() tells what failed first, even if something does not close", async () => {
  const spies = new Spies();
  const error = await spies.failure({
    devices: [
      device({ network: { use: "spy", name: "n0" } }),
      device({ network: { use: "spy", name: "sticky" } }),
      device({
        driver: { use: "spy", name: "d", fails: "no memory left" },
        network: { use: "spy", name: "n2" },
      }),
    ],
  });
  assertEquals(
    error.message,
    'build_test.ts:1:188: $.devices[2].driver: plugin "spy" failed in create: no memory left',
  );
  assertEquals(spies.log.slice(3), ["dispose n2", "dispose sticky", "dispose n0"]);
});

Deno.test("buildMachine() names the plugin that fails, its hook and the cause", async () => {
  const cases: [object, string, string, string][] = [
    [
      device({ network: { use: "spy", name: "n", fails: "x is undefined" } }),
      "spy",
      "create",
      "x is undefined",
    ],
    [
      device({ driver: { use: "spy", name: "d", fails: "y is undefined" } }),
      "spy",
      "create",
      "y is undefined",
    ],
    [device({ offloads: ["bad-stage"] }), "bad-stage", "create", "no memory"],
    [{ use: "no-facts", driver: "loopback" }, "no-facts", "create", "it has no queues"],
    [{ use: "no-facts", driver: "loopback", fails: true }, "no-facts", "facts", "it has no facts"],
    [{ use: "no-guest", driver: "loopback" }, "no-guest", "driver.create", "it has no guest"],
  ];
  for (const [one, plugin, hook, text] of cases) {
    const error = await new Spies().failure({ devices: [one] });
    assert(error instanceof PluginError, `${error}`);
    assertEquals([error.plugin, error.hook], [plugin, hook]);
    assert(error.cause instanceof Error);
    assertEquals(error.cause.message, text);
  }
});

Deno.test("buildMachine() resolves paths against the configuration file, whatever is in their names", async () => {
  const cases: [string, string, string][] = [
    ["file:///etc/net/config.json", "net0.pcap", "/etc/net/net0.pcap"],
    ["file:///etc/net/config.json", "sub/../a.pcap", "/etc/net/sub/../a.pcap"],
    ["file:///etc/net/config.json", "../a.pcap", "/etc/a.pcap"],
    ["file:///etc/net/config.json", "/var/a.pcap", "/var/a.pcap"],
    ["file:///etc/net/", "a.pcap", "/etc/net/a.pcap"],
    ["file:///etc/my%20net/config.json", "a b.pcap", "/etc/my net/a b.pcap"],
    ["file:///etc/100%25/config.json", "50%.pcap", "/etc/100%/50%.pcap"],
    ["file:///etc/config.json", "50%20.pcap", "/etc/50%20.pcap"],
    ["file:///etc/config.json", "#1?.pcap", "/etc/#1?.pcap"],
    ["file:///etc/config.json", "a:b.pcap", "/etc/a:b.pcap"],
    ["file:///etc/config.json", "ä/漢.pcap", "/etc/ä/漢.pcap"],
    ["file:///etc/config.json", "c:\\d.pcap", "/etc/c:\\d.pcap"],
    ["https://example.com/config.json", "/var/a.pcap", "/var/a.pcap"],
  ];
  for (const [baseUrl, written, expected] of cases) {
    const spies = new Spies();
    await using _machine = await spies.build(
      { devices: [device({ network: { use: "spy", name: "n" } })] },
      baseUrl,
    );
    assertEquals(spies.contexts[0].resolvePath(written), expected, `${written} in ${baseUrl}`);
  }
});

Deno.test("buildMachine() cannot resolve a relative path against what is no file, and says so", async () => {
  const spies = new Spies();
  const config = { devices: [device({ network: { use: "spy", name: "n" } })] };
  await using _machine = await spies.build(config, "https://example.com/config.json");
  const error = assertThrows(() => spies.contexts[0].resolvePath("a.pcap"), HostError);
  assertEquals(
    error.message,
    '$.devices[0].network: the path "a.pcap" is relative to https://example.com/config.json, which is no file; ' +
      "write an absolute path",
  );
});

Deno.test("buildMachine() tells transports where they stand and whom they serve, and shares by key", async () => {
  const spies = new Spies();
  await using machine = await spies.build({
    devices: [
      device({
        mac: MACS[1],
        queuePairs: 4,
        network: { use: "spy", name: "n", inner: { use: "spy", name: "inner" } },
        driver: { use: "spy", name: "d" },
      }),
    ],
  });
  const [inner, network, driver] = spies.contexts;
  assertEquals([network.path, inner.path, driver.path], [
    "$.devices[0].network",
    "$.devices[0].network.inner",
    "$.devices[0].driver",
  ]);
  assertEquals("pool" in driver, false, "drivers move no frames");
  assertStrictEquals(driver.clock, machine.parts.reactor.clock);
  for (const { guestMac, queuePairs, pool, clock } of [inner, network]) {
    assertEquals([guestMac, queuePairs], [Uint8Array.of(0x52, 0x54, 0, 0, 0, 2), 4]);
    const frame = pool.take(60)!;
    assertEquals(framePool(machine.parts.scope).inUse, 1, "it is the machine's pool, lent");
    frame.release();
    assertStrictEquals(clock, machine.parts.reactor.clock);
  }
  let made = 0;
  const make = () => ({ number: ++made });
  assertStrictEquals(network.shared("thing", make), inner.shared("thing", make));
  assertEquals([driver.shared("other", make), made], [{ number: 2 }, 2]);
});

Deno.test("buildMachine() gives every group of counters a name of its own", async () => {
  const spies = new Spies();
  await using machine = await spies.build({
    devices: [
      device({
        name: "constructor",
        mac: MACS[0],
        network: { use: "spy", name: "n", inner: { use: "spy", name: "inner" } },
        offloads: ["plain", "rsc-v4", "plain", "checksum"],
      }),
      device({ mac: MACS[1], rules: "qemu", offloads: ["rsc-v4"] }),
    ],
  });
  const [inner, network] = spies.contexts;
  const [, second, third] = [network.publish({ a: 0 }), network.publish({ a: 0 }), inner.publish({ a: 0 })];
  const groups = machine.counters;
  const own = ["toGuest", "fromGuest", "filter", "control", "driver"];
  const expected = [
    "constructor",
    ...own.map((part) => `constructor.${part}`),
    "constructor.plain",
    "constructor.rsc-v4",
    "constructor.plain#2",
    "constructor.checksum.toGuest",
    "constructor.checksum.fromGuest",
    "constructor.network",
    "constructor.network#2",
    "constructor.network.inner",
    "net0",
    ...own.map((part) => `net0.${part}`),
    "net0.network",
    "net0.rsc-v4",
  ];
  assertEquals(Object.keys(groups).sort(), expected.sort());
  assertStrictEquals(groups["constructor.network#2"], second);
  third.a = 7;
  assertEquals(groups["constructor.network.inner"], { a: 7 });
});

Deno.test("buildMachine() builds a stage from a module that stands beside the configuration file", async () => {
  const examples = new URL("../../examples/config.json", import.meta.url);
  await using machine = await new Spies().build({
    devices: [device({ mac: MACS[0], offloads: [{ use: "./drop_every.ts", nth: 3 }, "rsc-v4"] })],
  }, examples);
  const [{ driver, parts: { network } }] = machine.devices;
  const ids: number[] = [];
  (driver as LoopbackDriver<NetGuest>).hooks.onPacket = ({ bytes }) =>
    void ids.push(bytes[18] << 8 | bytes[19]);
  machine.start();
  machine.parts.reactor.settle();
  for (let id = 1; id <= 10; id++) (network as CablePort).inject(tcp({ destinationMac: MACS[0], id }));
  machine.parts.reactor.advanceTo(1e9);
  assertEquals(ids, [1, 2, 4, 5, 7, 8, 10]);
  assertEquals(machine.counters["net0.drop-every"].dropped, 3);
});

Deno.test("buildMachine() hands explanations to a caller that asked for them, and else spends nothing on them", async () => {
  const registry = new PluginRegistry(builtIns(BUILT_IN_PLUGINS));
  const text = JSON.stringify({
    clock: "virtual",
    devices: [device({ mac: MACS[0], offloads: ["rsc-v4"] })],
  });
  const config = await parseConfig(text, import.meta.url, registry);
  const notes: string[] = [];
  await using machine = buildMachine(config, {
    verdicts: { note: (frame, stage, { verdict }) => void notes.push(`${frame} ${stage} ${verdict}`) },
  });
  machine.start();
  machine.parts.reactor.settle();
  (machine.devices[0].parts.network as CablePort).inject(tcp({ destinationMac: MACS[0], flags: ["SYN"] }));
  machine.parts.reactor.settle();
  assertEquals(notes, ["1 rsc-v4 syn"]);
});

Deno.test("buildMachine() refuses flushOnIdle with the rules of the reference, wherever they stand", async () => {
  const idle = { use: "rsc-v4", flushOnIdle: true };
  for (
    const one of [
      device({ rules: "qemu", offloads: [idle] }),
      device({ offloads: [{ ...idle, rules: "qemu" }] }),
    ]
  ) {
    const error = await new Spies().failure({ devices: [one] });
    assert(error instanceof ConfigError);
    assertEquals(error.issues.map(({ path, problem, remedy }) => [path, problem, remedy]), [[
      "$.devices[0].offloads[0].flushOnIdle",
      'true does not go with "rules": "qemu": the reference holds every segment for its interval',
      'leave it out, or write "rules": "strict" for this offload',
    ]]);
  }
  const right = [
    device({ rules: "qemu", offloads: [{ use: "rsc-v4", flushOnIdle: false }, "rsc-v6"] }),
    device({ rules: "qemu", offloads: [{ ...idle, rules: "strict" }] }),
  ];
  for (const one of right) {
    await using machine = await new Spies().build({ devices: [one] });
    assertEquals(machine.devices.length, 1);
  }
});
