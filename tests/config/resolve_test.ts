import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../config/errors.ts";
import { resolveConfig } from "../../config/resolve.ts";
import { defineNetwork } from "../../pipeline/plugin.ts";
import type { OptionsSchema } from "../../plugins/plugin.ts";
import { bad, BASE_URL, device, fakeRegistry, good, lines } from "./fakes.ts";
import { partsOfKind, type ResolvedDevice } from "../../plugins/plugin.ts";

const networkOf = (device: ResolvedDevice | undefined) => partsOfKind(device!, "network")[0];

Deno.test("resolveConfig() completes a configuration", async () => {
  const network = { use: "tap", interface: "tap0" };
  const config = await good({ devices: [{ use: "net", driver: "loopback", network }] });
  assertEquals([config.name, config.clock, config.baseUrl], ["machine", "system", BASE_URL]);
  assertStrictEquals(config.frameMemoryBytes, 128 * 1024 * 1024);
  const [net] = config.devices;
  assertStrictEquals(config.devices.length, 1);
  assertEquals([net!.name, net!.path, net!.plugin.name], ["net0", "$.devices[0]", "net"]);
  assertEquals(net!.options, { mac: "52:54:00:00:00:01", rules: "strict", queuePairs: 1 });
  assertEquals([net!.driver.path, net!.driver.plugin.kind], ["$.devices[0].driver", "driver"]);
  assertEquals(net!.driver.options, { ring: "split" });
  assertEquals([networkOf(net)!.path, networkOf(net)!.options], ["$.devices[0].network", {
    interface: "tap0",
  }]);
  assertEquals(net!.parts.offloads, []);
});

Deno.test("resolveConfig() takes every key", async () => {
  const config = await good({
    $schema: "./config.schema.json",
    name: "bridge",
    frameMemoryMiB: 4096,
    clock: "virtual",
    devices: [device({ name: "lan", rules: "qemu", offloads: [{ use: "drop-every", nth: 3 }] })],
  });
  assertEquals([config.name, config.clock, config.frameMemoryBytes], ["bridge", "virtual", 2 ** 32]);
  assertStrictEquals(config.devices[0]!.name, "lan");
  assertEquals((config.devices[0]!.options as { rules: string }).rules, "qemu");
  assertEquals(partsOfKind(config.devices[0]!, "offload")[0]!.options, { nth: 3 });
});

Deno.test("resolveConfig() keeps the order of offloads and leaves out what is switched off", async () => {
  const offloads = [
    "./good.ts",
    { use: "rsc-v4", enabled: false },
    { use: "rsc-v4", enabled: true, intervalUs: 5 },
    { use: "./throws.ts", enabled: false, whatever: 1 },
    "checksum",
  ];
  const [net] = (await good({ devices: [device({ offloads })] })).devices;
  assertEquals(partsOfKind(net!, "offload").map((one) => [one.plugin.name, one.path]), [
    ["good", "$.devices[0].offloads[0]"],
    ["rsc-v4", "$.devices[0].offloads[2]"],
    ["checksum", "$.devices[0].offloads[4]"],
  ]);
});

Deno.test("resolveConfig() validates a built-in offload even if it is switched off", async () => {
  assertEquals(
    await lines({ devices: [device({ offloads: [{ use: "drop-every", enabled: false, nht: 1 }] })] }),
    [
      '$.devices[0].offloads[0].nht: unknown key, did you mean "nth"?',
    ],
  );
});

Deno.test("resolveConfig() names devices by type and number, around the names that were given", async () => {
  const config = await good({
    devices: [
      device(),
      { use: "entropy", driver: "loopback" },
      device({ name: "net0" }),
      device(),
      device({ name: "x" }),
      { use: "entropy", driver: "loopback" },
    ],
  });
  assertEquals(config.devices.map((one) => one.name), ["net1", "entropy0", "net0", "net2", "x", "entropy1"]);
  assertStrictEquals(config.devices[1]!.parts.network, null);
});

Deno.test("resolveConfig() refuses a name given twice", async () => {
  assertEquals(await lines({ devices: [device({ name: "a" }), device({ name: "a" })] }), [
    '$.devices[1].name: "a" is the name of $.devices[0] already',
  ]);
});

Deno.test("resolveConfig() freezes everything plain", async () => {
  const config = await good({ devices: [device({ offloads: [{ use: "rsc-v4", ports: [1] }] })] });
  const [net] = config.devices;
  const [rsc] = partsOfKind(net!, "offload");
  for (
    const one of [
      config,
      config.devices,
      net,
      net!.driver,
      net!.parts,
      net!.parts.network,
      net!.parts.offloads,
      rsc,
      rsc!.options,
    ]
  ) {
    assert(Object.isFrozen(one));
  }
  assert(Object.isFrozen((rsc!.options as { ports: number[] }).ports));
  assert(!Object.isFrozen(rsc!.plugin));
});

Deno.test("resolveConfig() shows everything that is wrong at once, in order", async () => {
  assertEquals(
    await lines({
      clok: "system",
      frameMemoryMiB: 0,
      devices: [
        device({
          mac: "52:54:00",
          drivr: 4,
          offloads: ["checksum", { use: "drop-every", nht: 3 }, "rsc-v5"],
        }),
        { use: "nett", driver: "loopback" },
        { use: "net", driver: { use: "vhost-user" }, netwrk: "x", name: "A B" },
        7,
        "net",
      ],
    }),
    [
      "$.frameMemoryMiB: 0 is too small; at least 1 (Memory for frames in MiB, shared by all devices, taken at the start)",
      '$.clok: unknown key, did you mean "clock"?',
      '$.devices[0].mac: "52:54:00" is no MAC address; write six bytes such as "52:54:00:00:00:01"',
      '$.devices[0].drivr: unknown key, did you mean "driver"?',
      '$.devices[0].offloads[1].nht: unknown key, did you mean "nth"?',
      '$.devices[0].offloads[2]: unknown offload "rsc-v5", did you mean "rsc-v4"?',
      '$.devices[1].use: unknown device "nett", did you mean "net"?',
      '$.devices[2].name: "A B" is no name; ' +
      "use lower case letters, digits, hyphens and underscores, at most 40",
      '$.devices[2].netwrk: unknown key, did you mean "network"?',
      "$.devices[2].driver.socket: missing; write text in double quotes (Path of the socket)",
      '$.devices[3]: 7 is not a device; write one of "entropy", "net" or a module such as "./name.ts"',
      '$.devices[4].driver: missing; write one of "loopback", "vhost-user" or a module such as "./name.ts"',
    ],
  );
});

Deno.test("resolveConfig() says what belongs where something else stands", async () => {
  const offloads = 'write one of "checksum", "drop-every", "rsc-v4" or a module such as "./name.ts"';
  assertEquals(await lines({ devices: [device({ offloads: [5, {}, { use: 7 }, null, []] })] }), [
    `$.devices[0].offloads[0]: 5 is not an offload; ${offloads}`,
    `$.devices[0].offloads[1].use: missing; ${offloads}`,
    `$.devices[0].offloads[2].use: 7 is not an offload; ${offloads}`,
    `$.devices[0].offloads[3]: null is not an offload; ${offloads}`,
    `$.devices[0].offloads[4]: [] is not an offload; ${offloads}`,
  ]);
  assertEquals(await lines({ devices: [device({ offloads: "checksum" })] }), [
    '$.devices[0].offloads: "checksum" is not what belongs here; ' +
    "write a list in [] (The steps that frames go through, in order of execution)",
  ]);
  const about = "(The devices that this machine runs)";
  assertEquals(await lines({}), [`$.devices: missing; write a list in [] ${about}`]);
  assertEquals(await lines({ devices: [] }), [`$.devices: [] has too few items; at least 1 ${about}`]);
  assertEquals(await lines({ devices: {} }), [
    `$.devices: {} is not what belongs here; write a list in [] ${about}`,
  ]);
  assertEquals(await lines([]), ["$: is not what belongs here; write an object in {}"]);
});

Deno.test("resolveConfig() looks at no more devices than there may be", async () => {
  const error = await bad({ devices: Array(1000).fill(7) });
  assertStrictEquals(error.issues.length, 257);
  assert(error.message.startsWith("$.devices: [7,7,"));
  assert(error.message.includes(" has too many items; at most 256 ("));
});

Deno.test("resolveConfig() takes a value, copies it, and refuses what JSON cannot say", async () => {
  const written = { devices: [device()] };
  const config = await resolveConfig(written, BASE_URL, fakeRegistry());
  assertStrictEquals(config.devices[0]!.name, "net0");
  assert(!Object.isFrozen(written.devices[0]));
  const error = await assertRejects(
    () => resolveConfig({ devices: [device({ mac: 1n })] }, BASE_URL, fakeRegistry()),
    ConfigError,
  );
  assertStrictEquals(
    error.message,
    "$.devices[0].mac: 1n cannot stand in a configuration; write what JSON can say",
  );
});

Deno.test("ResolvedConfig.resolvePart() gives what was resolved with the whole", async () => {
  const inner = { use: "pcap", read: "a.pcap", inner: { use: "./network.ts", length: 3 } };
  const config = await good({ devices: [device({ network: { use: "pcap", inner } })] });
  const outer = networkOf(config.devices[0])!.options as { inner: unknown };
  const middle = config.resolvePart("network", outer.inner, "$.devices[0].network.inner");
  assertEquals([middle.plugin.name, middle.path], ["pcap", "$.devices[0].network.inner"]);
  const core = (middle.options as { inner: unknown }).inner;
  const last = config.resolvePart("network", core, "$.devices[0].network.inner.inner");
  assertEquals([last.plugin.name, last.options], ["wire", { length: 3 }]);
});

Deno.test("ResolvedConfig.resolvePart() resolves what a plugin has put together, without waiting", async () => {
  const config = await good({ devices: [device({ network: { use: "pcap", inner: "loopback" } })] });
  const path = "$.devices[0].network.inner";
  assertEquals(config.resolvePart("network", "loopback", path).options, { cable: "default" });
  assertEquals(config.resolvePart("network", { use: "loopback", cable: "b" }, path).options, { cable: "b" });
  assertEquals(config.resolvePart("network", { use: "tap", interface: "t" }, "$.elsewhere").options, {
    interface: "t",
  });
  const message = (written: unknown) =>
    assertThrows(() => config.resolvePart("network", written, path), ConfigError).message;
  assertStrictEquals(
    message({ use: "loopback", cabel: 1 }),
    `${path}.cabel: unknown key, did you mean "cable"?`,
  );
  assertStrictEquals(message("lopback"), `${path}: unknown network "lopback", did you mean "loopback"?`);
  assert(message("./network.ts").startsWith(`${path}: module "./network.ts" has not been loaded`));
  assert(message(5).startsWith(`${path}: 5 is not a network transport; `));
  assert(
    message({ use: "loopback", cable: () => 1 }).startsWith(`${path}.cable: a function cannot stand in `),
  );
});

Deno.test("resolveConfig() resolves inner networks, in lists as well, before the start", async () => {
  assertEquals(
    await lines({
      devices: [
        device({ network: { use: "pcap", inner: { use: "tap", interfce: "x" } } }),
        device({ network: { use: "pcap", inner: "tpa" } }),
        device({ network: { use: "pcap", inner: ["loopback", "./throws.ts"] } }),
        device({ network: { use: "tap", interface: "t", inner: "tpa" } }),
      ],
    }),
    [
      "$.devices[0].network.inner.interface: missing; write text in double quotes",
      '$.devices[0].network.inner.interfce: unknown key, did you mean "interface"?',
      '$.devices[1].network.inner: unknown network "tpa", did you mean "tap"?',
      '$.devices[2].network.inner[1]: module "./throws.ts" failed while it was loaded: the cupboard is bare',
      // A key that the plugin does not have is only that.
      '$.devices[3].network.inner: unknown key; known are "interface"',
    ],
  );
});

Deno.test("resolveConfig() follows no endless list of inner networks", async () => {
  const found = await lines({
    devices: [device({ network: { use: "pcap", inner: Array(65).fill("loopback") } })],
  });
  assertEquals(found, ["$.devices[0].network.inner: has more than 64 items"]);
});

Deno.test("resolveConfig() waits for asynchronous schemas, also of inner networks", async () => {
  const options: OptionsSchema<unknown> = {
    "~standard": {
      version: 1,
      vendor: "hand",
      validate: async (value) => {
        await Promise.resolve();
        return { value: { ...value as object, checked: true } };
      },
    },
  };
  const slow = defineNetwork({
    name: "slow",
    options,
    create() {
      throw new Error("not in this test");
    },
  });
  const registry = fakeRegistry(slow);
  const config = await good(
    { devices: [device({ network: { use: "slow", inner: { use: "slow" } } })] },
    registry,
  );
  const outer = networkOf(config.devices[0])!.options as { inner: unknown };
  assertEquals(outer, { inner: { use: "slow" }, checked: true } as unknown);
  const inner = config.resolvePart("network", outer.inner, "$.devices[0].network.inner");
  assertEquals(inner.options, { checked: true });
  assertThrows(() => config.resolvePart("network", "slow", "$.other"), ConfigError, "asynchronously");
});
