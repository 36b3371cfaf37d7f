/**
 * Captures from pipes: nothing is waited for in real time, and by a manual clock the result is that of a file.
 */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { SystemClock } from "../../../core/clock.ts";
import { HostError } from "../../../core/errors.ts";
import type { FrameTransport } from "../../../core/transport.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import pcap, { type PcapOptions } from "../../../transports/pcap/pcap.ts";
import { frameBytes, join, pcapHeader, record } from "./build.ts";
import { receive, type Received, send, TestContext } from "./kit.ts";

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
      // Nobody has opened the FIFO for writing yet.
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

Deno.test("pcap by a manual clock waits for a FIFO: the next frame's time must be known", async () => {
  await withFifo(async (fifo) => {
    const script = `for part in "$@"; do printf "$part" > /dev/stdout; sleep 0.1; done > '${fifo}'`;
    const octal = (bytes: Uint8Array) =>
      [...bytes].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
    const child = new Deno.Command("bash", {
      args: [
        "-c",
        script,
        "bash",
        octal(join(pcapHeader(true, NS), records[0])),
        octal(records[1]),
        octal(records[2]),
      ],
    }).spawn();
    const context = new TestContext();
    using network = await open(context, { read: fifo, take: "all" });
    assertEquals(receive(network, 0).map(({ number }) => number), [1]);
    assertEquals(network.deadlineNs!(), 10_000_000);
    assertEquals(receive(network, 20_000_000).map(({ number }) => number), [2, 3]);
    assert(network.finished);
    await child.status;
  });
});
