import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  buildMachine,
  BUILT_IN_PLUGINS,
  builtIns,
  ConfigError,
  entropy,
  type Machine,
  newRegistry,
  parseConfig,
  PluginRegistry,
} from "../../../mod.ts";
import { defineDevice, type Device, HostError, QueueService } from "../../../plugin.ts";

async function build(device: object, driver: object, more: object = {}): Promise<Machine> {
  const written = {
    clock: "virtual",
    ...more,
    devices: [{ use: "entropy", ...device, driver: { use: "loopback", ...driver } }],
  };
  return buildMachine(await parseConfig(JSON.stringify(written), import.meta.url, newRegistry()));
}

for (const ring of ["split", "packed"]) {
  Deno.test(`a machine of an entropy device and its driver ends when the guest has its bytes (${ring})`, async () => {
    for (const clock of ["virtual", "system"]) {
      await using machine = await build({}, { ring, bytes: 10_007, requestBytes: 100, outstanding: 3 }, {
        clock,
      });
      machine.start();
      await machine.run(AbortSignal.timeout(20_000));
      const { requests, returned, writtenBytes, distinctValues, malformed } =
        machine.counters["entropy0.driver"];
      assertEquals([requests, returned, writtenBytes, malformed], [101, 101, 10_007, 0], clock);
      assert(distinctValues > 240, `${distinctValues} values`);
      assertEquals(machine.counters.entropy0.bytes, 10_007);
    }
  });
}

Deno.test("the driver of entropy waits as long as the rate limit says", async () => {
  await using machine = await build({ rateLimitBytesPerS: 1000, burstBytes: 100 }, { bytes: 1100 });
  machine.start();
  await machine.run(new AbortController().signal);
  assertEquals(machine.parts.reactor.clock.nowNs(), 1_000_000_000);
  assertEquals(machine.counters["entropy0.driver"].writtenBytes, 1100);
});

Deno.test("the driver of entropy asks on where a request was filled in part, and without end for 0 bytes", async () => {
  await using machine = await build({ rateLimitBytesPerS: 1000, burstBytes: 10 }, {
    bytes: 0,
    requestBytes: 25,
  });
  machine.start();
  machine.parts.reactor.advanceTo(10_000_000_000);
  const { shortened, writtenBytes, requests, returned } = machine.counters["entropy0.driver"];
  assertEquals([writtenBytes, shortened], [10_010, 1001]);
  assertEquals(requests, returned + 4);
});

Deno.test("the driver of entropy counts an answer without a byte as wrong, and asks no more", async () => {
  const silent = defineDevice({
    name: "silent",
    options: entropy.options,
    driver: entropy.driver!,
    create(context, options): Device {
      const device = entropy.create(context, options);
      const service = new QueueService({ handlers: [() => 0], wake: () => device.wake() });
      device.activate = (session) => service.activate(session);
      device.poll = (nowNs) => service.poll(nowNs);
      return device;
    },
  });
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, silent]));
  const text = '{ "clock": "virtual", "devices": [{ "use": "silent", "driver": "loopback" }] }';
  await using machine = buildMachine(await parseConfig(text, import.meta.url, registry));
  machine.start();
  await machine.run(new AbortController().signal);
  assertEquals(machine.counters["silent0.driver"].malformed, 4);
});

Deno.test("keys of another device's driver are errors, with the keys that there are", async () => {
  await assertRejects(
    () => build({}, { behaviour: "echo" }),
    ConfigError,
    "$.devices[0].driver.behaviour: unknown",
  );
  await assertRejects(
    () => build({}, { requestByte: 5 }),
    ConfigError,
    "requestBytes",
  );
});

Deno.test("the driver of entropy refuses a device whose ring it cannot drive", async () => {
  await using machine = await build({ packedRing: false }, { ring: "packed" });
  machine.start();
  await assertRejects(() => machine.run(new AbortController().signal), HostError, "RING_PACKED");
});
