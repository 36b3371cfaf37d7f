import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { fileURLToPath } from "node:url";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import { ManualClock, SystemClock } from "../../../core/clock.ts";
import { HostError } from "../../../core/errors.ts";
import { Reactor } from "../../../core/reactor.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { buildMachine } from "../../../machine/build.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import pcap, { type PcapOptions } from "../../../transports/pcap/pcap.ts";
import { frameBytes, join, pcapHeader, record } from "./build.ts";
import { receive, type Received, send, TestContext } from "./kit.ts";

/**
 * Captures from pipes: nothing is waited for in real time, and by a manual clock the result is that of a
 * file.
 */

const NS = 0xa1b23c4d;

async function withFifo(body: (fifo: string, folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const { success } = await new Deno.Command("mkfifo", { args: [`${folder}/fifo`] }).output();
    assert(success);
    await body(`${folder}/fifo`, folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function sumOf(path: string): Promise<string> {
  return createHash("sha256").update(await Deno.readFile(path)).digest("hex");
}

async function open(context: TestContext, options: unknown): Promise<FrameTransport> {
  const result = await pcap.options["~standard"].validate(options);
  assert(result.issues === undefined);
  return pcap.create(context, result.value as PcapOptions);
}

/** Receives for as long as frames come, and until `done` says that these are all. */
async function receiveUntil(
  network: FrameTransport,
  context: TestContext,
  nowNs: () => number,
  done: (received: Received[]) => boolean,
): Promise<Received[]> {
  const received: Received[] = [];
  for (let turns = 0; !done(received); turns++) {
    assert(turns < 1000, `${received.length} frames and no more, ${context.wakes} wakes`);
    received.push(...receive(network, nowNs()));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return received;
}

const frames = [frameBytes(60, 1), frameBytes(1514, 2), frameBytes(61, 3)];
const records = frames.map((bytes, i) => record(true, 1000, i * 10_000_000, bytes));

for (const isPacked of [false, true]) {
  Deno.test(`pcap in real time takes ${isPacked ? "a packed" : "a"} capture from a FIFO as it comes`, async () => {
    await withFifo(async (fifo, folder) => {
      const context = Object.assign(new TestContext(), { clock: new SystemClock() });
      // No program has opened the FIFO for writing yet.
      const network = await open(context, { read: fifo, write: `${folder}/out.pcapng`, take: "all" });
      assertEquals(receive(network, 5_000), []);
      assertEquals([network.deadlineNs!(), network.finished], [Infinity, false]);
      const file = await Deno.open(fifo, { write: true });
      const whole = join(pcapHeader(true, NS), ...records);
      const stream = new Blob([whole]).stream().pipeThrough(new CompressionStream("gzip"));
      const bytes = isPacked ? new Uint8Array(await new Response(stream).arrayBuffer()) : whole;
      // The first frame, and a part of the second; packed, there is no telling where the second begins.
      const cut = isPacked ? bytes.length : 24 + records[0].length + 700;
      await file.write(bytes.subarray(0, cut));
      const first = await receiveUntil(network, context, () => 7_000_000, (list) => list.length === 1);
      assertEquals(first.map(({ number, bytes }) => [number, bytes.length]), [[1, 60]]);
      assert(context.wakes > 0);
      if (!isPacked) {
        assertEquals(receive(network, 30_000_000), []);
        assertEquals(network.deadlineNs!(), Infinity);
        await file.write(bytes.subarray(cut));
      }
      // Time 0 of the capture is when its first frame was there; 20 ms later the last is due.
      const others = await receiveUntil(network, context, () => 27_000_000, (list) => list.length === 2);
      assertEquals(others.map(({ bytes }) => bytes), [frames[1], frames[2]]);
      assertEquals(send(network, context.pool, 28_000_000, frameBytes(64)), 1);
      file.close();
      await receiveUntil(network, context, () => 29_000_000, () => network.finished === true);
      assertEquals(network.deadlineNs!(), Infinity);
      await network.close!();
      network[Symbol.dispose]();
      assertEquals(context.pool.inUse, 0);
      using reader = CaptureReader.open(`${folder}/out.pcapng`);
      assert(reader.next());
      assertEquals(reader.startUnixNs, 1_000_021_000_000n);
    });
  });
}

Deno.test("pcap in real time says of a FIFO what is wrong with the capture", async () => {
  await withFifo(async (fifo) => {
    for (
      const [bytes, problem] of [[
        join(pcapHeader(true, NS), records[0], records[1].subarray(0, 99)),
        "cut off",
      ], [
        new TextEncoder().encode("no capture at all"),
        "neither pcap nor pcapng",
      ], [new Uint8Array(0), "it has 0 bytes"]] as const
    ) {
      const context = Object.assign(new TestContext(), { clock: new SystemClock() });
      const network = await open(context, { read: fifo, pace: "fast", take: "all" });
      await Deno.writeFile(fifo, bytes);
      const received = await receiveUntil(network, context, () => 0, () => network.finished === true);
      assertEquals(received.length, problem === "cut off" ? 1 : 0);
      const { message } = await assertRejects(() => network.close!(), HostError);
      assertStringIncludes(message, problem);
      network[Symbol.dispose]();
    }
  });
});

Deno.test("pcap holds a manual clock while a FIFO has no more: the next frame's time must be known", async () => {
  await withFifo(async (fifo) => {
    const clock = new ManualClock();
    const context = Object.assign(new TestContext(), { clock });
    const network = await open(context, { read: fifo, take: "all" });
    assert(clock.isHeld);
    const file = await Deno.open(fifo, { write: true });
    const [first, ...others] = records;
    // Counted before: the reader may have the frame when the write returns.
    const { wakes } = context;
    await file.write(join(pcapHeader(true, NS), first));
    // The first frame is due; whether the second one is to leave with it is not known.
    while (context.wakes === wakes) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      assertEquals(receive(network, 0), []);
    }
    assert(clock.isHeld && !network.finished);
    await file.write(others[0]);
    const got = await receiveUntil(network, context, () => 0, (received) => received.length === 1);
    assertEquals(got.map(({ number }) => number), [1]);
    assertEquals([network.deadlineNs!(), clock.isHeld], [10_000_000, false]);
    assertEquals(receive(network, 10_000_000), []);
    assert(clock.isHeld);
    // Stopped: what is there gets out.
    clock.mayBeHeld = false;
    assertEquals(receive(network, 10_000_000).map(({ number }) => number), [2]);
    clock.mayBeHeld = true;
    assertEquals(receive(network, 20_000_000), []);
    assertThrows(() => new Reactor(clock).advanceTo(1), Error, "an input has not come");
    await file.write(others[1].subarray(0, 30));
    file.close();
    await receiveUntil(network, context, () => 20_000_000, () => network.finished === true);
    assert(!clock.isHeld);
    await assertRejects(() => network.close!(), HostError, "cut off");
    network[Symbol.dispose]();
    assertEquals(context.pool.inUse, 0);
  });
});

Deno.test("a machine by a virtual clock gives the same for a FIFO in any pieces as for a file", async () => {
  await withFifo(async (fifo, folder) => {
    const capture = new URL("../../captures/bulk_v4_timestamps.pcapng", import.meta.url);
    const bytes = await Deno.readFile(capture);
    const network = {
      pace: "recorded",
      guestMac: "52:54:00:12:34:56",
      write: `${folder}/out.pcapng`,
      take: "all",
    };
    const run = async (read: string, pace: string, flushOnIdle: boolean) => {
      const devices = [{
        use: "net",
        driver: { use: "loopback", reuse: true, behaviour: "echo" },
        network: {
          use: "pcap",
          write: `${folder}/both.pcapng`,
          inner: { use: "pcap", ...network, pace, read },
        },
        offloads: [{ use: "rsc-v4", flushOnIdle }, { use: "rsc-v6", flushOnIdle }],
      }];
      const text = JSON.stringify({ clock: "virtual", devices });
      await using machine = buildMachine(await parseConfig(text, import.meta.url, newRegistry()));
      machine.start();
      await machine.run(new AbortController().signal);
      await machine.close();
      const counters = structuredClone(machine.counters) as Record<string, Record<string, number>>;
      // While a piece is waited for the device goes to sleep, and is woken.
      counters["net0.driver"].kicks = 0;
      return {
        nowNs: machine.parts.reactor.clock.nowNs(),
        counters,
        files: [await sumOf(`${folder}/out.pcapng`), await sumOf(`${folder}/both.pcapng`)],
      };
    };
    for (
      const [pace, idle] of [["recorded", false], ["fast", false], ["recorded", true], [
        "fast",
        true,
      ]] as const
    ) {
      const expected = await run(fileURLToPath(capture), pace, idle);
      // What is finished at a time leaves before the next, and that is known only when the next is.
      assertEquals(expected.counters["net0.rsc-v4"].drained_by_idle > 0, idle);
      assert(expected.counters["net0.toGuest"].packets > 10, JSON.stringify(expected.counters));
      for (const pieceBytes of [1999, 70_000]) {
        const writing = (async () => {
          using file = await Deno.open(fifo, { write: true });
          for (let at = 0; at < bytes.length;) {
            at += await file.write(bytes.subarray(at, at + pieceBytes));
            await new Promise((resolve) => setTimeout(resolve, 1));
          }
        })();
        assertEquals(
          await run(fifo, pace, idle),
          expected,
          `${pace}, idle ${idle}, ${pieceBytes} bytes a piece`,
        );
        await writing;
      }
    }
  });
});
