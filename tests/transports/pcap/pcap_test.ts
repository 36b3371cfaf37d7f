import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { HostError } from "../../../core/errors.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { LoopbackCable } from "../../../transports/loopback.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import pcap, { type PcapOptions } from "../../../transports/pcap/pcap.ts";
import { described, enhanced, frameBytes, join, pcapHeader, record, section } from "./build.ts";
import { receive, send, TestContext } from "./kit.ts";

const NS = 0xa1b23c4d;

async function validate(options: unknown): Promise<PcapOptions> {
  const result = await pcap.options["~standard"].validate(options);
  if (result.issues !== undefined) {
    throw new TypeError(
      result.issues.map((issue) => `${issue.path?.join(".")}: ${issue.message}`).join("; "),
    );
  }
  return result.value;
}

async function open(context: TestContext, options: unknown): Promise<FrameTransport> {
  return pcap.create(context, await validate(options));
}

async function inTemporaryFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function numbers(received: { number: number }[]): number[] {
  return received.map((each) => each.number);
}

/**
 * Six packets at 0, 10, 20, … us: to the guest, from it, broadcast, the guest's own broadcast, multicast, to
 * another.
 */
function sixPackets(): Uint8Array {
  const broadcast = frameBytes(60, 3);
  broadcast.fill(255, 0, 6);
  const own = frameBytes(60, 4, 1, 1);
  own.fill(255, 0, 6);
  const multicast = frameBytes(60, 5);
  multicast.set([1, 0, 0x5e]);
  const list = [
    frameBytes(60, 1),
    frameBytes(60, 2, 2, 1),
    broadcast,
    own,
    multicast,
    frameBytes(60, 6, 9, 2),
  ];
  return join(pcapHeader(true, NS), ...list.map((bytes, i) => record(true, 1000, i * 10_000, bytes)));
}

Deno.test("pcap delivers at the recorded times, counted from the first receive()", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets());
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcap`, take: "all" });
    assertEquals(network.deadlineNs!(), 0);
    assertEquals(numbers(receive(network, 5_000)), [1]);
    assertEquals(network.deadlineNs!(), 15_000);
    assertEquals(numbers(receive(network, 14_999)), []);
    assertEquals(numbers(receive(network, 15_000)), [2]);
    assertEquals(numbers(receive(network, 45_000, 2)), [3, 4]);
    assertEquals(network.deadlineNs!(), 45_000);
    assertEquals(numbers(receive(network, 45_000)), [5]);
    assert(!network.finished);
    assertEquals(network.deadlineNs!(), 55_000);
    assertEquals(numbers(receive(network, 1e9)), [6]);
    assert(network.finished);
    assertEquals(network.deadlineNs!(), Infinity);
    assertEquals(numbers(receive(network, 2e9)), []);
    assertEquals([context.published[0].taken, context.published[0].read], [6, 6]);
    assertEquals(context.pool.inUse, 0);
    await network.close!();
  });
});

Deno.test("pcap takes only frames for the guest, and no echo of its own broadcasts", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets());
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcap`, pace: "fast" });
    assertEquals(numbers(receive(network, 0)), [1, 3, 5]);
    assert(network.finished);
    assertEquals([context.published[0].taken, context.published[0].notForGuest], [3, 3]);
    using other = await open(context, {
      read: `${folder}/in.pcap`,
      pace: "fast",
      guestMac: "52:54:00:00:00:02",
    });
    // As seen from 02, frame 2 is addressed to it, and only frame 4 of the broadcasts is not its own.
    assertEquals(numbers(receive(other, 0)), [2, 4]);
  });
});

Deno.test("pcap leaves out what is snapped, of another link type, too long or too short, and counts it", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(
      `${folder}/in.pcapng`,
      join(
        section(true),
        described(true),
        described(true, [], 113),
        enhanced(true, 0, 0n, frameBytes(60), [], 61),
        enhanced(true, 1, 0n, frameBytes(60)),
        enhanced(true, 0, 0n, frameBytes(69_633)),
        enhanced(true, 0, 0n, new Uint8Array(13)),
        enhanced(true, 0, 0n, frameBytes(69_632)),
        enhanced(true, 0, 0n, frameBytes(14)),
      ),
    );
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcapng`, pace: "fast" });
    const received = receive(network, 0);
    assertEquals(received.map(({ number, bytes }) => [number, bytes.length]), [[5, 69_632], [6, 14]]);
    const { read, taken, snapped, otherLinkType, tooLong, tooShort } = context.published[0];
    assertEquals([read, taken, snapped, otherLinkType, tooLong, tooShort], [6, 2, 1, 1, 1, 1]);
  });
});

Deno.test("pcap does a bounded amount of work per call and asks to be called again", async () => {
  await inTemporaryFolder(async (folder) => {
    const parts = [pcapHeader(true, NS)];
    for (let i = 0; i < 5000; i++) parts.push(record(true, 0, i, frameBytes(20, 0, 7)));
    parts.push(record(true, 1, 0, frameBytes(60)));
    await Deno.writeFile(`${folder}/in.pcap`, join(...parts));
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcap` });
    let calls = 0;
    while (context.published[0].read < 5001) {
      assertEquals(numbers(receive(network, 7)), []);
      if (context.published[0].read < 5001) assertEquals(network.deadlineNs!(), 7);
      calls++;
    }
    assert(calls >= 2 && calls < 10);
    assertEquals(network.deadlineNs!(), 7 + 1_000_000_000);
    assertEquals(numbers(receive(network, 1_000_000_007)), [5001]);
    assert(network.finished);
  });
});

Deno.test("pcap waits for frames of the pool and loses none", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets());
    const context = new TestContext();
    const small = new FramePool({ maxBytes: 0 });
    using network = await open(Object.assign(context, { pool: small }), {
      read: `${folder}/in.pcap`,
      take: "all",
    });
    assertEquals(numbers(receive(network, 1e9)), []);
    assert(!network.finished);
    assertEquals(context.published[0].taken, 0);
  });
});

Deno.test("pcap delivers a damaged capture up to the damage, then says what is wrong", async () => {
  await inTemporaryFolder(async (folder) => {
    const whole = sixPackets();
    await Deno.writeFile(`${folder}/in.pcap`, whole.subarray(0, 24 + 76 * 2 + 40));
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcap`, pace: "fast", take: "all" });
    assertEquals(numbers(receive(network, 0)), [1, 2]);
    assert(network.finished);
    assertEquals([context.published[0].damaged, context.published[0].cutOff], [1, 1]);
    await assertRejects(
      () => network.close!(),
      HostError,
      "at byte 176: a packet is cut off: 24 of 60 bytes are there",
    );

    await Deno.writeFile(`${folder}/in.pcap`, whole.subarray(0, 50));
    await assertRejects(() => open(context, { read: `${folder}/in.pcap` }), HostError, "at byte 24");
  });
});

Deno.test("pcap writes what the device sends, from the input's start on", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets());
    for (const name of ["out.pcap", "out.pcapng"]) {
      const context = new TestContext();
      const network = await open(context, {
        read: `${folder}/in.pcap`,
        write: `${folder}/${name}`,
        pace: "fast",
      });
      receive(network, 500);
      assertEquals(send(network, context.pool, 700, frameBytes(60, 1), frameBytes(1000, 2)), 2);
      assertEquals([context.published[0].sent, context.published[0].written], [2, 2]);
      await network.close!();
      network[Symbol.dispose]();
      using reader = CaptureReader.open(`${folder}/${name}`);
      assertEquals(reader.format, name.slice(4));
      assert(reader.next());
      assertEquals(reader.packet.toBytes(), frameBytes(60, 1));
      assertEquals(reader.startUnixNs, 1_000_000_000_200n);
      if (name === "out.pcapng") assertEquals([reader.packet.direction, reader.packet.interfaceId], [2, 1]);
      assert(reader.next());
      assertEquals(reader.packet.toBytes(), frameBytes(1000, 2));
      assert(!reader.next());
      assertEquals(context.pool.inUse, 0);
    }
  });
});

Deno.test("pcap without write releases what the device sends", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets());
    const context = new TestContext();
    using network = await open(context, { read: `${folder}/in.pcap` });
    assertEquals(send(network, context.pool, 0, frameBytes(60)), 1);
    assertEquals([context.published[0].sent, context.published[0].written], [1, 0]);
    assertEquals(context.pool.inUse, 0);
    assertEquals(network.capabilities, OffloadCapabilities.none);
  });
});

Deno.test("pcap records another network both ways, and only frames that it takes", async () => {
  await inTemporaryFolder(async (folder) => {
    const context = new TestContext();
    const cable = new LoopbackCable();
    const port = cable.plug({ pool: context.pool, largeFrames: true });
    using far = cable.plug({ pool: context.pool, queueFrames: 2, largeFrames: true });
    context.innerTransport = port;
    const network = await open(context, { write: `${folder}/out.pcapng`, inner: { use: "loopback" } });
    assertEquals(context.innerConfig, { use: "loopback" });
    assert(network.capabilities.tso4);
    assertEquals(network.maxFrameBytes, port.maxFrameBytes);
    assertEquals(network.deadlineNs!(), Infinity);
    assert(port.inject(frameBytes(60, 1), {}, 3_000));
    assertEquals(network.deadlineNs!(), 3_000);
    assertEquals(receive(network, 1_000), []);
    assertEquals(receive(network, 3_000).map((each) => each.bytes), [frameBytes(60, 1)]);
    // The far end has room for two: the third is neither sent nor written until there is.
    const frames = [frameBytes(70, 2), frameBytes(71, 3), frameBytes(72, 4)];
    assertEquals(send(network, context.pool, 4_000, ...frames), 2);
    assertEquals(receive(far, 4_000).map((each) => each.bytes), frames.slice(0, 2));
    assertEquals(send(network, context.pool, 5_000, frames[2]), 1);
    assertEquals(receive(far, 5_000).map((each) => each.bytes), [frames[2]]);
    assertEquals(context.published[0], { written: 4, writeDropped: 0 });
    await network.close!();
    network[Symbol.dispose]();
    using reader = CaptureReader.open(`${folder}/out.pcapng`);
    const seen = [];
    while (reader.next()) seen.push([reader.packet.length, reader.packet.direction, reader.packet.timeNs]);
    assertEquals(seen, [[60, 1, 0], [70, 2, 1_000], [71, 2, 1_000], [72, 2, 2_000]]);
    assertEquals(reader.startUnixNs, 2_000n);
    assertEquals(context.pool.inUse, 0);
  });
});

Deno.test("pcap as a recorder of a replay keeps its start, its end and its failure", async () => {
  await inTemporaryFolder(async (folder) => {
    await Deno.writeFile(`${folder}/in.pcap`, sixPackets().subarray(0, 24 + 76 * 3 + 10));
    const context = new TestContext();
    context.innerTransport = await open(context, { read: `${folder}/in.pcap`, take: "all", pace: "fast" });
    const network = await open(context, { write: `${folder}/out.pcap`, inner: {} });
    assert(!network.finished);
    assertEquals(receive(network, 0).length, 3);
    assert(network.finished);
    await assertRejects(() => network.close!(), HostError, "a record header is cut off");
    network[Symbol.dispose]();
    using reader = CaptureReader.open(`${folder}/out.pcap`);
    assert(reader.next());
    assertEquals(reader.startUnixNs, 1_000_000_000_000n);
  });
});

Deno.test("pcap as a recorder of a replay writes the flags of its packets back", async () => {
  await inTemporaryFolder(async (folder) => {
    const word = (
      value: number,
    ): [number, number[]] => [2, [0, 8, 16, 24].map((shift) => value >>> shift & 255)];
    // Reception type, a checksum that is not ready and one that is right, segmentation, an error of the link,
    // an FCS.
    const all = [0, 1, 2 | 1 << 2, 1 << 9, 1 << 10, 1 << 11, 1 << 24 | 1 << 10, 4 << 5 | 1 << 10];
    const blocks = all.map((flags) => enhanced(true, 0, 0n, frameBytes(64), [word(flags)]));
    await Deno.writeFile(`${folder}/in.pcapng`, join(section(true), described(true), ...blocks));
    const context = new TestContext();
    context.innerTransport = await open(context, { read: `${folder}/in.pcapng`, take: "all", pace: "fast" });
    const network = await open(context, { write: `${folder}/out.pcapng`, inner: {} });
    assertEquals(receive(network, 0).length, all.length);
    await network.close!();
    network[Symbol.dispose]();
    using reader = CaptureReader.open(`${folder}/out.pcapng`);
    const flags = [];
    while (reader.next()) flags.push(reader.packet.flags);
    // Towards the guest, and without the FCS, which was taken away.
    assertEquals(flags, all.map((each) => each & ~3 & ~(15 << 5) | 1));
  });
});

Deno.test("pcap refuses options that make no sense, by name", async () => {
  const refuses = (options: unknown, text: string) => assertRejects(() => validate(options), TypeError, text);
  await refuses({}, "read: or write is needed");
  await refuses({ read: "a", inner: {} }, "read: cannot stand beside inner");
  await refuses({ read: "a", inner: {} }, "write: is needed beside inner");
  await refuses({ read: "a", guestMac: "52:54:00:00:00" }, "guestMac: must be a MAC address");
  await refuses({ read: "a", pace: "slow" }, "pace:");
  await refuses({ read: "a", papce: "fast" }, "papce");
  assertEquals(await validate({ read: "a" }), { read: "a", pace: "recorded", take: "guest" });
  const context = new TestContext();
  const same = await validate({ read: "/x.pcap", write: "/x.pcap" });
  assertThrows(() => pcap.create(context, same), HostError, 'cannot write to "/x.pcap" while reading it');
  const missing = await validate({ read: "/no/such.pcap" });
  assertThrows(() => pcap.create(context, missing), HostError, 'Cannot open capture "/no/such.pcap"');
});
