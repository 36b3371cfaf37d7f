import type { NetGuest } from "../../devices/net/driver/mod.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import { defineDriver, type Plugin } from "../../plugins/plugin.ts";
import { defineNetwork, defineOffload } from "../../pipeline/plugin.ts";
import type { Stage } from "../../pipeline/stage.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import { tcp, TcpStream } from "../../testing/mod.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { framePool } from "../../pipeline/kinds.ts";

const MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"];

/** A stage that throws in one hook. */
const failing = defineOffload<{ hook: string }>({
  name: "failing",
  direction: "both",
  options: z.strictObject({ hook: z.string() }),
  create: (_context, { hook }) => {
    const stage: Stage = {
      process: (input, output) => {
        for (let i = 0; i < input.length; i++) output.push(input.at(i));
      },
    };
    return Object.assign(stage, {
      [hook]: () => {
        throw new TypeError(`no ${hook} today`);
      },
    });
  },
});

/** A network that tells what is done with it, and fails when told to. */
function spyNetwork(log: string[]): Plugin {
  return defineNetwork({
    name: "spy",
    options: z.strictObject({
      name: z.string(),
      fails: z.string().default(""),
      finished: z.boolean().default(false),
    }),
    create: (_context, { name, fails, finished }) => ({
      maxFrameBytes: 1514,
      capabilities: OffloadCapabilities.none,
      queuePairs: 1,
      finished,
      receive: () => 0,
      send: (batch) => {
        for (let i = 0; i < batch.length; i++) batch.at(i).release();
        return batch.length;
      },
      close: async () => {
        await Promise.resolve();
        log.push(`close ${name}`);
        if (fails === "close") throw new HostError(`${name}: the disk is full`);
      },
      [Symbol.dispose]: () => {
        log.push(`dispose ${name}`);
        if (fails === "dispose") throw new HostError(`${name}: it does not close`);
      },
    }),
  });
}

async function build(config: object, more: readonly Plugin[] = []): Promise<Machine> {
  const registry = new PluginRegistry(builtIns([...BUILT_IN_PLUGINS, failing, ...more]));
  const text = JSON.stringify({ clock: "virtual", ...config });
  return buildMachine(await parseConfig(text, import.meta.url, registry));
}

function device(keys: object = {}): Record<string, unknown> {
  return { use: "net", mac: MACS[0], driver: "loopback", network: "loopback", ...keys };
}

const NEVER = new AbortController().signal;

function driverOf(machine: Machine, index = 0): LoopbackDriver<NetGuest> {
  return machine.devices[index].driver as LoopbackDriver<NetGuest>;
}

function portOf(machine: Machine, index = 0): CablePort {
  return machine.devices[index].parts.network as CablePort;
}

Deno.test("Machine.start() attaches guests in memory at once, and only once", async () => {
  await using machine = await build({ devices: [device()] });
  assertEquals(driverOf(machine).guest.attached, false);
  machine.start();
  assertEquals(driverOf(machine).guest.attached, true);
  assertThrows(() => machine.start(), Error, "Cannot start a machine twice");
});

Deno.test("Machine.run() ends by a virtual clock when nothing is left to wait for", async () => {
  const sender = {
    use: "loopback",
    behaviour: { send: { count: 20, intervalUs: 500, destination: MACS[1] } },
  };
  await using machine = await build({ devices: [device({ driver: sender }), device({ mac: MACS[1] })] });
  machine.start();
  await machine.run(NEVER);
  assertEquals(driverOf(machine, 1).guest.counters.received, 20);
  assertEquals(machine.parts.reactor.clock.nowNs(), 19 * 500_000);
});

Deno.test("Machine.run() ends in real time when every network is at its end, and not before", async () => {
  const log: string[] = [];
  const over = device({ network: { use: "spy", name: "a", finished: true } });
  const open = device({ network: { use: "spy", name: "b" } });
  await using finished = await build({ clock: "system", devices: [over, over] }, [spyNetwork(log)]);
  finished.start();
  await finished.run(NEVER);
  assertEquals(finished.isOver, true);
  await using running = await build({ clock: "system", devices: [over, open] }, [spyNetwork(log)]);
  running.start();
  assertEquals(running.isOver, false);
  const stop = new AbortController();
  let ended = false;
  const run = running.run(stop.signal).then(() => void (ended = true));
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(ended, false);
  stop.abort();
  await run;
});

Deno.test("Machine.run() in real time delivers what is held when it is due", async () => {
  await using machine = await build({
    clock: "system",
    devices: [device({ offloads: [{ use: "rsc-v4", intervalUs: 3000 }] })],
  });
  machine.start();
  const stream = new TcpStream({ destinationMac: MACS[0] });
  const stop = new AbortController();
  const lengths: number[] = [];
  driverOf(machine).hooks.onPacket = ({ bytes }) => {
    lengths.push(bytes.length);
    stop.abort();
  };
  const startNs = machine.parts.reactor.clock.nowNs();
  const timer = setTimeout(() => stop.abort(), 20_000);
  for (let i = 0; i < 4; i++) portOf(machine).inject(stream.next(100));
  await machine.run(stop.signal);
  clearTimeout(timer);
  assertEquals(lengths, [454]);
  assert(machine.parts.reactor.clock.nowNs() - startNs >= 3_000_000);
});

for (const hook of ["process", "negotiated", "flush", "reset"]) {
  for (const clock of ["virtual", "system"]) {
    Deno.test(`Machine rejects with what a stage throws in ${hook}, and is still closed whole (${clock} clock)`, async () => {
      const log: string[] = [];
      const machine = await build({
        clock,
        devices: [
          device({
            network: { use: "loopback", cable: "a" },
            offloads: ["rsc-v4", { use: "failing", hook }],
          }),
          device({ mac: MACS[1], network: { use: "spy", name: "other", finished: true } }),
        ],
      }, [spyNetwork(log)]);
      machine.start();
      portOf(machine).inject(tcp({ destinationMac: MACS[0], flags: ["SYN"] }));
      const stop = new AbortController();
      const timer = setTimeout(() => stop.abort(), 30);
      const run = async () => {
        await machine.run(stop.signal);
        await machine.close();
      };
      const error = await assertRejects(
        run,
        PluginError,
        `plugin "failing" failed in ${hook}: no ${hook} today`,
      );
      clearTimeout(timer);
      assertEquals([error.plugin, error.hook, error.cause instanceof TypeError], ["failing", hook, true]);
      await machine.close();
      assertEquals(log, ["close other", "dispose other"]);
      assertEquals(driverOf(machine).guest.attached, false);
      assertEquals(portOf(machine).inject(tcp()), false, "its port is off the cable");
      await machine.close();
      assertEquals(log.length, 2, "nothing is closed twice");
    });
  }
}

Deno.test("Machine.close() tries everything, and rejects with what failed first", async () => {
  const log: string[] = [];
  const spy = (name: string, fails?: string) =>
    device({ network: { use: "spy", name, ...(fails === undefined ? {} : { fails }) } });
  const machine = await build({ devices: [spy("a", "dispose"), spy("b", "close"), spy("c")] }, [
    spyNetwork(log),
  ]);
  machine.start();
  await assertRejects(() => machine.close(), HostError, "a: it does not close");
  const expected = ["a", "b", "c"].flatMap((name) => [`close ${name}`, `dispose ${name}`]);
  assertEquals(log, expected);
  await machine.close();
  assertEquals(log, expected);
});

Deno.test("Machine.close() may be called while it is closing, and then waits", async () => {
  const log: string[] = [];
  const machine = await build({ devices: [device({ network: { use: "spy", name: "a" } })] }, [
    spyNetwork(log),
  ]);
  machine.start();
  const first = machine.close();
  await machine.close();
  assertEquals(log, ["close a", "dispose a"]);
  await first;
});

Deno.test("Machine.close() closes a machine that was never started", async () => {
  const log: string[] = [];
  const machine = await build({ devices: [device({ network: { use: "spy", name: "a" } })] }, [
    spyNetwork(log),
  ]);
  await machine.close();
  assertEquals(log, ["close a", "dispose a"]);
});

Deno.test("Machine.close() delivers what is held before it detaches the guest", async () => {
  const machine = await build({ devices: [device({ offloads: ["rsc-v4"] })] });
  machine.start();
  const stream = new TcpStream({ destinationMac: MACS[0] });
  for (let i = 0; i < 3; i++) portOf(machine).inject(stream.next(100));
  machine.parts.reactor.settle();
  const lengths: number[] = [];
  driverOf(machine).hooks.onPacket = ({ bytes }) => void lengths.push(bytes.length);
  await machine.close();
  assertEquals([lengths, framePool(machine.parts.scope).inUse], [[354], 0]);
});

Deno.test("Machine.run() rejects with what keeps a guest from being attached", async () => {
  const driver = { use: "loopback", accept: ["RSC_EXT"] };
  const machine = await build({ devices: [device({ driver })] });
  machine.start();
  const run = () => machine.run(NEVER);
  const error = await assertRejects(run, HostError, "Cannot accept RSC_EXT, which the device does not offer");
  assertEquals(error.message.includes('take it out of "accept"'), true);
  await machine.close();
});

Deno.test("Machine stops every device when one transport fails, and tells its failure once", async () => {
  const failure = new HostError("$.devices[1].driver: the socket is gone");
  const lost = defineDriver({
    name: "lost",
    options: z.strictObject({}),
    create: () => ({
      serve: async () => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        throw failure;
      },
      [Symbol.dispose]: () => {},
    }),
  });
  const machine = await build(
    { clock: "system", devices: [device(), device({ mac: MACS[1], driver: "lost" })] },
    [lost],
  );
  machine.start();
  assertEquals(driverOf(machine).guest.attached, true);
  assertStrictEquals(await assertRejects(() => machine.run(NEVER)), failure);
  assertEquals(driverOf(machine).guest.attached, false);
  await machine.close();
});

Deno.test("Machine keeps from a guest what was sent to the one before it, and lets no sender wait meanwhile", async () => {
  const machine = await build({ clock: "virtual", devices: [device(), device({ mac: MACS[1] })] });
  machine.start();
  const { reactor } = machine.parts;
  const [left, right] = [driverOf(machine), driverOf(machine, 1)];
  const received: number[] = [];
  right.hooks.onPacket = ({ bytes }) => void received.push(bytes.length);
  const send = (payload: number) => {
    left.guest.send(tcp({ destinationMac: MACS[1], sourceMac: MACS[0], payload }));
    reactor.settle();
  };
  send(1);
  right.guest.detach();
  for (let i = 0; i < 2000; i++) send(2);
  right.guest.attach(machine.devices[1].device);
  send(3);
  assertEquals(received, [55, 57]);
  assertEquals(machine.counters["net1.network"].noGuest, 2000);
  assertEquals(left.guest.counters.transmitted, 2002, "the neighbour goes on");
  await machine.close();
});

Deno.test("Machine wakes its reactor when a guest kicks from outside", async () => {
  const machine = await build({ clock: "system", devices: [device(), device({ mac: MACS[1] })] });
  machine.start();
  const stop = new AbortController();
  const run = machine.run(stop.signal);
  await new Promise((resolve) => setTimeout(resolve, 15));
  const received = new Promise<number>((resolve) => {
    driverOf(machine, 1).hooks.onPacket = ({ bytes }) => resolve(bytes.length);
  });
  const startMs = performance.now();
  driverOf(machine).guest.send(tcp({ destinationMac: MACS[1], sourceMac: MACS[0], payload: 46 }));
  assertEquals(await received, 100);
  assert(performance.now() - startMs < 30_000, "close does not wait for the end of a minute's sleep");
  stop.abort();
  await run;
  await machine.close();
});

Deno.test("machines that were closed are collected: a program may build many, also in one turn", async () => {
  const script = new URL("fixtures/collected.ts", import.meta.url).pathname;
  const args = ["run", "--allow-read", "--no-check", "--v8-flags=--expose-gc", script];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  const leftMiB = Number(new TextDecoder().decode(stdout) || NaN);
  // The memory of 200 guests has 320 MiB.
  assert(leftMiB < 150, `${leftMiB} MiB are left\n${new TextDecoder().decode(stderr)}`);
});
