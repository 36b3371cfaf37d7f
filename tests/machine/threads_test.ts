import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import { buildMachine, CounterBook } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import {
  CommandChannel,
  NOTICE_FAULT,
  NOTICE_READY,
  readError,
  SharedChannelMemory,
  writeError,
} from "../../machine/threads/command_channel.ts";
import { CounterDeltas } from "../../machine/threads/queue_set_runner.ts";
import { featureBit } from "../../wire/net_features.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { partsOfKind } from "../../plugins/plugin.ts";

/**
 * What keeps devices from being worked by threads, and how threads are talked to.
 */

const SOCKETS = new URL("../peers/support/socket_network.ts", import.meta.url).href;
const RIGHT = {
  use: "net",
  mode: "threads",
  driver: { use: "vhost-user", socket: "net0.sock" },
  network: { use: "tap", interface: "tap0" },
};

async function resolved(device: unknown, whole: Record<string, unknown> = {}): Promise<ResolvedConfig> {
  return await parseConfig(JSON.stringify({ ...whole, devices: [device] }), import.meta.url, newRegistry());
}

/** The path of everything that is wrong, and what is said of it. */
async function refusals(device: unknown, whole?: Record<string, unknown>): Promise<string[][]> {
  const error = await assertRejects(() => resolved(device, whole), ConfigError);
  for (const { remedy } of error.issues) assert(remedy?.endsWith(', or leave "mode": "threads" out'), remedy);
  return error.issues.map(({ path, problem }) => [path, problem]);
}

Deno.test("a device is worked by the main thread unless it says otherwise", async () => {
  const { mode: _mode, ...device } = RIGHT;
  assertEquals((await resolved(device)).devices[0].mode, "loop");
  assertEquals((await resolved({ ...device, mode: "loop" })).devices[0].mode, "loop");
  assertEquals((await resolved(RIGHT)).devices[0].mode, "threads");
  const error = await assertRejects(() => resolved({ ...device, mode: "thread" }), ConfigError);
  assertEquals(error.issues.map(({ path }) => path), ["$.devices[0].mode"]);
});

Deno.test("a configuration can be resolved anew from what it says of itself", async () => {
  const config = await resolved({ ...RIGHT, offloads: ["checksum", { use: "rsc-v4", intervalUs: 40 }] });
  const again = await parseConfig(config.text, config.baseUrl, newRegistry());
  assertEquals(again.text, config.text);
  assertEquals(
    partsOfKind(again.devices[0], "offload").map(({ plugin, options }) => [plugin.name, options]),
    partsOfKind(config.devices[0], "offload").map(({ plugin, options }) => [plugin.name, options]),
  );
});

Deno.test("what cannot be done by threads is refused, all at once", async () => {
  assertEquals(await refusals({ ...RIGHT, driver: "loopback" }), [
    ["$.devices[0].driver", '"loopback" cannot have its rings served by threads'],
  ]);
  assertEquals(await refusals({ ...RIGHT, network: "loopback" }), [
    ["$.devices[0].network", '"loopback" cannot give its queues to threads'],
  ]);
  const recorded = { use: "pcap", write: "/nowhere/x.pcapng", inner: RIGHT.network };
  assertEquals(await refusals({ ...RIGHT, network: recorded }), [
    ["$.devices[0].network", '"pcap" cannot give its queues to threads'],
  ]);
  assertEquals(await refusals(RIGHT, { clock: "virtual" }), [
    ["$.devices[0].mode", "threads cannot go by a virtual clock"],
  ]);
  assertEquals(
    await refusals({ use: "entropy", mode: "threads", driver: "loopback" }, { clock: "virtual" }),
    [
      ["$.devices[0].mode", "threads cannot go by a virtual clock"],
      ["$.devices[0].use", '"entropy" cannot be worked by several threads'],
      ["$.devices[0].driver", '"loopback" cannot have its rings served by threads'],
    ],
  );
});

hostTest("a network with fewer queues than the device has pairs is refused", [linux], async () => {
  const config = await resolved({ ...RIGHT, queuePairs: 3, network: { use: SOCKETS, queues: 2 } });
  const { issues } = assertThrows(() => buildMachine(config), ConfigError);
  assertEquals(issues, [{
    file: "threads_test.ts",
    line: 1,
    column: 94,
    path: "$.devices[0].network",
    problem: "has 2 queues for the 3 pairs of net0, each of which is worked by a thread",
    remedy: "give the network a queue for each pair, or the device fewer pairs",
  }]);
});

hostTest("a device whose pairs are worked by threads does not offer RSS", [linux], async () => {
  const offers = async (mode: string) => {
    const config = await resolved({ ...RIGHT, mode, rss: true, queuePairs: 2, network: { use: SOCKETS } });
    await using machine = buildMachine(config);
    return machine.devices[0].device.features.has(featureBit("RSS")!);
  };
  assertEquals([await offers("loop"), await offers("threads")], [true, false]);
});

/** Both ends of a channel, in one thread. */
function bothEnds(memory = new SharedChannelMemory()): [main: CommandChannel, worker: CommandChannel] {
  return [new CommandChannel(memory), new CommandChannel(new SharedChannelMemory(memory.buffer))];
}

Deno.test("CommandChannel carries commands one way and replies the other", () => {
  const [main, worker] = bothEnds();
  for (let i = 0; i < 3; i++) {
    assertEquals(worker.hasCommand, false);
    main.command({ kind: "count", text: `é${i}` });
    assertEquals(worker.hasCommand, true);
    assertEquals(worker.takeCommand(), { kind: "count", text: `é${i}` });
    assertEquals(worker.hasCommand, false);
    worker.answer({ answer: i });
    assertEquals(main.reply(1000), { answer: i });
  }
});

Deno.test("CommandChannel goes on where its numbers begin anew", () => {
  const memory = new SharedChannelMemory();
  const LAST_NUMBER = 0x3fff_ffff;
  memory.store(0, LAST_NUMBER - 1);
  memory.store(1, 2 * (LAST_NUMBER - 1));
  const [main, worker] = bothEnds(memory);
  for (let i = 0; i < 4; i++) {
    assertEquals(worker.hasCommand, false);
    main.command(i);
    assertEquals(main.reply(0), null);
    assertEquals(worker.hasCommand, true);
    assertEquals(worker.takeCommand(), i);
    worker.answer(10 + i);
    assertEquals(main.reply(0), 10 + i);
  }
  assertEquals(memory.load(0), 3);
});

Deno.test("CommandChannel waits for a reply only so long, and takes a late one for no other", () => {
  const [main, worker] = bothEnds();
  main.command("first");
  assertEquals(main.reply(20), null);
  assertEquals(main.hasEnded, false);
  // The worker may be reading the text of the first.
  assertThrows(() => main.command("second"), Error, "it has not answered the last one");
  assertEquals(worker.takeCommand(), "first");
  worker.answer("to the first, late");
  main.command("second");
  assertEquals(main.reply(0), null);
  assertEquals(worker.takeCommand(), "second");
  worker.answer("to the second");
  assertEquals(main.reply(0), "to the second");
});

Deno.test("CommandChannel has the last words of a thread that has ended, and the reply it gave before", () => {
  const [main, worker] = bothEnds();
  main.command({});
  worker.takeCommand();
  worker.answer({ answer: 1 });
  worker.end({ counters: {} });
  assert(main.hasEnded);
  assertEquals(main.reply(10_000), { answer: 1 });
  assertEquals(main.lastWords, { counters: {} });
  // Whatever it is told then, nothing is waited for.
  for (let i = 0; i < 2; i++) {
    main.command({});
    assertEquals(main.reply(10_000), null);
  }
});

Deno.test("CommandChannel tells a worker to stop although it has not answered", () => {
  const [main, worker] = bothEnds();
  main.command("first");
  assertEquals(worker.mustStop, false);
  main.stop();
  assertEquals(worker.mustStop, true);
  worker.end("over");
  assertEquals([main.hasEnded, main.lastWords], [true, "over"]);
});

Deno.test("CommandChannel collects notices and says when the main thread must be woken for them", () => {
  const [main, worker] = bothEnds();
  assertEquals(main.takeNotices(), 0);
  assertEquals([worker.notice(NOTICE_READY), worker.notice(NOTICE_FAULT), worker.notice(NOTICE_FAULT)], [
    true,
    false,
    false,
  ]);
  assertEquals(main.takeNotices(), NOTICE_READY | NOTICE_FAULT);
  assertEquals(main.takeNotices(), 0);
  assertEquals(worker.notice(NOTICE_FAULT), true);
});

Deno.test("CommandChannel refuses what does not fit, and is still good for the next command", () => {
  const [main, worker] = bothEnds();
  assertThrows(
    () => main.command("x".repeat(300_000)),
    RangeError,
    "Cannot pass 300002 bytes on to a thread",
  );
  assertEquals(worker.hasCommand, false);
  main.command("y".repeat(200_000));
  assertEquals(worker.takeCommand(), "y".repeat(200_000));
  assertThrows(
    () => worker.answer("x".repeat(300_000)),
    RangeError,
    "Cannot pass 300002 bytes on to a thread",
  );
  assertThrows(() => worker.end("x".repeat(300_000)), RangeError, "Cannot pass 300002 bytes on to a thread");
  assertEquals([main.reply(0), main.hasEnded], [null, false]);
});

Deno.test("errors go from thread to thread as they are", () => {
  const errors = [
    new GuestError("descriptor-loop", "The chain has no end"),
    new HostError("Cannot open it: it is not there"),
    new PluginError("drop-every", "process", new Error("nothing left")),
    new RangeError("Too far"),
  ];
  for (const error of errors) {
    const copy = readError(JSON.parse(JSON.stringify(writeError(error))));
    assertEquals(copy.message, error.message);
    assertEquals(copy.name, error instanceof RangeError ? "Error" : error.name);
  }
  const guest = readError(writeError(errors[0]));
  assertInstanceOf(guest, GuestError);
  assertEquals(guest.fault, "descriptor-loop");
  assertEquals(readError(writeError("words")).message, "words");
});

Deno.test("whatever is thrown in a thread can be written down, and there is room for it", () => {
  const odd = Object.assign(new Error(), { message: 7 });
  assertEquals(readError(writeError(odd)).message, "7");
  assertEquals(readError(writeError(Object.create(null))).message, "something that cannot be shown");
  assertEquals(readError(writeError(null)).message, "null");
  for (const error of [new Error("x".repeat(1e6)), new HostError("x".repeat(1e6))]) {
    assertEquals(readError(writeError(error)).message.length, 16_384);
  }
  const plugin = readError(writeError(new PluginError("drop-every", "process", "no error at all")));
  assertEquals(plugin.message, 'plugin "drop-every" failed in process: no error at all');
  // What came up while cleaning up hides nothing.
  const both = new SuppressedError(
    new Error("second"),
    new PluginError("drop-every", "flush", new Error("first")),
  );
  assertEquals(readError(writeError(both)).message, 'plugin "drop-every" failed in flush: first');
});

Deno.test("CounterDeltas tells by how much counters have grown, also those that came later", () => {
  const book = new CounterBook();
  const counters: Record<string, number> = book.publish("net0", { packets: 3, drops: 0 });
  const deltas = new CounterDeltas(book.groups);
  assertEquals(deltas.take(), { net0: { packets: 3 } });
  assertEquals(deltas.take(), {});
  counters.packets += 2;
  counters.write_EIO = 1;
  assertEquals(book.publish("net0", { other: 4 }), { other: 4 });
  assertEquals(deltas.take(), { net0: { packets: 2, write_EIO: 1 }, "net0#2": { other: 4 } });
});

/**
 * Runs `use` on a machine whose disk, of a plugin of its own, is worked by threads.
 * @param more members of the plugin
 */
async function withOddDisk(
  give: string,
  more: string,
  use: (machine: Machine) => Promise<void> | void,
): Promise<void> {
  const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-given-" });
  try {
    const ram = new URL("../../examples/async_disk_ram.ts", import.meta.url).href;
    Deno.writeTextFileSync(
      `${folder}/ram.ts`,
      `import ram from "${ram}";
      const make = (context, options) => ({ ...ram.create(context, options), ${give} });
      export default { ...ram, name: "odd-ram", create: make, ${more} };`,
    );
    const config = await resolved({
      use: new URL("../../examples/async_disk.ts", import.meta.url).href,
      mode: "threads",
      driver: { use: "vhost-user", socket: `${folder}/disk.sock` },
      disk: { use: `file://${folder}/ram.ts` },
    });
    const machine = buildMachine(config);
    try {
      await use(machine);
    } finally {
      await machine.close().catch(() => {});
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

for (
  const [what, given] of [
    ["throws", '() => { throw new Error("no ram left"); }'],
    ["returns a promise", "async () => ({})"],
    ["returns what cannot be copied to a thread", "() => ({ sectors: 8, answer: () => 42 })"],
  ]
) {
  hostTest(
    `a part that ${what} when it is asked for what workers get is named with its place`,
    [linux],
    async () => {
      await withOddDisk(`giveToWorker: ${given}`, "", (machine) => {
        const error = assertThrows(() => machine.start(), PluginError);
        assertEquals([error.plugin, error.hook, error.path], [
          "odd-ram",
          "giveToWorker",
          "$.devices[0].disk",
        ]);
      });
    },
  );
}

for (
  const [what, create] of [
    ["throws", '() => { throw new Error("no ram left"); }'],
    ["returns a promise", "async () => ({})"],
  ]
) {
  hostTest(`a part that ${what} in the thread of a worker is named with its place`, [linux], async () => {
    await withOddDisk("", `createInWorker: ${create}`, async (machine) => {
      machine.start();
      const error = await assertRejects(() => machine.run(AbortSignal.timeout(20_000)), PluginError);
      assertEquals([error.plugin, error.hook, error.path], [
        "odd-ram",
        "createInWorker",
        "$.devices[0].disk",
      ]);
    });
  });
}
