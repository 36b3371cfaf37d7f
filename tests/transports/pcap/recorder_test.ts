import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import type { Pollable } from "../../../core/reactor.ts";
import { FrameBatch } from "../../../pipeline/frame.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { pcap } from "../../../transports/pcap/mod.ts";
import { PcapRecorder } from "../../../transports/pcap/recorder.ts";
import { TestContext } from "./kit.ts";

const CAPABILITIES = OffloadCapabilities.of("csum", "tso4", "uso4", "uso6");

/**
 * Whatever a network may have; but a recorder keeps its queues, to see their frames. What joins has to be
 * passed on, too.
 */
type Everything = Required<Omit<FrameTransport, "giveToWorker">>;

/** A network with every member that a network may have; says what was asked of it. */
class Listening implements Everything, Pollable {
  readonly heard: unknown[] = [];
  readonly maxFrameBytes = 4321;
  readonly capabilities = OffloadCapabilities.of("csum", "uso4", "uso6");
  readonly queuePairs = 3;
  readonly finished = true;
  readonly isBehind = true;

  receive(_out: FrameBatch, limit: number, queue: number, nowNs: number): number {
    this.heard.push(["receive", limit, queue, nowNs]);
    return 0;
  }

  send(batch: FrameBatch, queue: number, nowNs: number): number {
    this.heard.push(["send", batch.length, queue, nowNs]);
    return 0;
  }

  guestCapabilities(capabilities: OffloadCapabilities): void {
    this.heard.push(["guestCapabilities", capabilities]);
  }

  hasGuest(present: boolean): void {
    this.heard.push(["hasGuest", present]);
  }

  useQueuePairs(pairs: number): void {
    this.heard.push(["useQueuePairs", pairs]);
  }

  poll(nowNs: number): boolean {
    this.heard.push(["poll", nowNs]);
    return true;
  }

  deadlineNs(): number {
    return 77;
  }

  close(): Promise<void> {
    this.heard.push("close");
    return Promise.resolve();
  }

  [Symbol.dispose](): void {
    this.heard.push("dispose");
  }
}

/** A recorder around a network. */
async function around(inner: FrameTransport, folder: string): Promise<Everything & Pollable> {
  const context = new TestContext();
  context.innerTransport = inner;
  const options = await pcap.options["~standard"].validate({ write: `${folder}/all.pcapng`, inner: "any" });
  if (options.issues !== undefined) throw new TypeError(options.issues[0].message);
  const recorder = pcap.create(context, options.value);
  assert(recorder instanceof PcapRecorder);
  return recorder;
}

Deno.test("a recorder is to its device what the network behind it is, and passes everything on", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const inner = new Listening();
    const recorder = await around(inner, folder);
    const { maxFrameBytes, capabilities, queuePairs, finished, isBehind } = recorder;
    assertEquals([maxFrameBytes, queuePairs, finished, isBehind], [4321, 3, true, true]);
    assertStrictEquals(capabilities, inner.capabilities);
    recorder.guestCapabilities(CAPABILITIES);
    recorder.hasGuest(true);
    recorder.useQueuePairs(2);
    assertEquals(recorder.poll(5), true);
    assertEquals(recorder.deadlineNs(), 77);
    assertEquals(recorder.receive(new FrameBatch(), 9, 2, 6), 0);
    assertEquals(recorder.send(new FrameBatch(), 1, 7), 0);
    await recorder.close();
    recorder[Symbol.dispose]();
    assertEquals(inner.heard, [
      ["guestCapabilities", CAPABILITIES],
      ["hasGuest", true],
      ["useQueuePairs", 2],
      ["poll", 5],
      ["receive", 9, 2, 6],
      "close",
      "dispose",
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a recorder takes what a network behind it leaves out for what is usual", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const plain: FrameTransport = {
      maxFrameBytes: 1514,
      capabilities: OffloadCapabilities.none,
      queuePairs: 1,
      receive: () => 0,
      send: () => 0,
      [Symbol.dispose]: () => {},
    };
    using recorder = await around(plain, folder);
    recorder.guestCapabilities(CAPABILITIES);
    recorder.useQueuePairs(1);
    assertEquals([recorder.finished, recorder.isBehind], [false, false]);
    assertEquals([recorder.deadlineNs(), recorder.poll(0)], [Infinity, false]);
    await recorder.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
