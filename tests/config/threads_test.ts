/**
 * What keeps devices from being worked by threads, and how threads are talked to.
 */
import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { buildMachine } from "../../config/build.ts";
import { newRegistry } from "../../config/builtins.ts";
import { CounterBook } from "../../config/counter_book.ts";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { Mailbox, NOTICE_FAULT, NOTICE_READY } from "../../config/threads/mailbox.ts";
import { readError, writeError } from "../../config/threads/orders.ts";
import { Tally } from "../../config/threads/tally.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import { GuestError, HostError, PluginError } from "../../core/errors.ts";
import { featureBit } from "../../wire/net_features.ts";
import { hostTest, linux } from "../host/support/require.ts";

const SOCKETS = new URL("../host/support/socket_network.ts", import.meta.url).href;
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
    again.devices[0].offloads.map(({ plugin, options }) => [plugin.name, options]),
    config.devices[0].offloads.map(({ plugin, options }) => [plugin.name, options]),
  );
});

Deno.test("what cannot be done by threads is refused, all at once", async () => {
  assertEquals(await refusals({ ...RIGHT, driver: "loopback" }), [
    ["$.devices[0].driver", '"loopback" cannot lend its rings to threads'],
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
      ["$.devices[0].driver", '"loopback" cannot lend its rings to threads'],
      ["$.devices[0].network", "there is no network whose queues threads could have"],
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

Deno.test("Mailbox carries orders one way and answers the other", () => {
  const main = new Mailbox();
  const worker = new Mailbox(main.buffer);
  for (let i = 0; i < 3; i++) {
    assertEquals(worker.hasOrder, false);
    main.order({ kind: "count", text: `é${i}` });
    assertEquals(worker.hasOrder, true);
    assertEquals(worker.takeOrder(), { kind: "count", text: `é${i}` });
    assertEquals(worker.hasOrder, false);
    worker.reply({ answer: i });
    assertEquals(main.answer(1000), { answer: i });
  }
});

Deno.test("Mailbox waits for an answer only so long", () => {
  const main = new Mailbox();
  main.order({});
  assertEquals(main.answer(20), null);
  assertEquals(main.hasEnded, false);
});

Deno.test("Mailbox has the last words of a thread that has ended, whatever it has answered before", () => {
  const main = new Mailbox();
  const worker = new Mailbox(main.buffer);
  main.order({});
  worker.takeOrder();
  worker.reply({ answer: 1 });
  worker.end({ counters: {} });
  assert(main.hasEnded);
  for (let i = 0; i < 2; i++) assertEquals(main.answer(10_000), { counters: {} });
});

Deno.test("Mailbox collects notices and says when the main thread must be woken for them", () => {
  const main = new Mailbox();
  const worker = new Mailbox(main.buffer);
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

Deno.test("Mailbox refuses what does not fit, and is still good for the next order", () => {
  const main = new Mailbox();
  const worker = new Mailbox(main.buffer);
  assertThrows(() => main.order("x".repeat(300_000)), RangeError, "Cannot pass 300002 bytes on to a thread");
  assertEquals(worker.hasOrder, false);
  main.order("y".repeat(200_000));
  assertEquals(worker.takeOrder(), "y".repeat(200_000));
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

Deno.test("Tally tells by how much counters have grown, also those that came later", () => {
  const book = new CounterBook();
  const counters: Record<string, number> = book.publish("net0", { packets: 3, drops: 0 });
  const tally = new Tally(book.groups);
  assertEquals(tally.take(), { net0: { packets: 3 } });
  assertEquals(tally.take(), {});
  counters.packets += 2;
  counters.write_EIO = 1;
  assertEquals(book.publish("net0", { other: 4 }), { other: 4 });
  assertEquals(tally.take(), { net0: { packets: 2, write_EIO: 1 }, "net0#2": { other: 4 } });
});
