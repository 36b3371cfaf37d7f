import { assertEquals } from "@std/assert";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import {
  assertTcp,
  hasPartialChecksum,
  hasPayload,
  StageBench,
  streamBytes,
  tcp,
  TcpStream,
} from "../../testing/mod.ts";

/** A source address for every number. */
const address = (i: number) => `10.${i >>> 16 & 255}.${i >>> 8 & 255}.${i & 255}`;

Deno.test("a flood of flows is held within maxFlows, and the oldest make room in order", () => {
  using bench = new StageBench({ plugin: rscV4, options: { maxFlows: 100 } });
  for (let i = 0; i < 5000; i++) {
    bench.feed(tcp({ source: address(i), payload: 10 }));
    if (bench.pool.inUse > 100) throw new Error(`${bench.pool.inUse} frames are held`);
  }
  assertEquals(bench.out.map(({ number }) => number), Array.from({ length: 4900 }, (_, i) => i + 1));
  assertEquals(bench.counters["rsc-v4"].drained_for_room, 4900);
});

Deno.test("a flood of one-byte segments of several flows is held in a few frames, and none writes into another's", () => {
  using bench = new StageBench({ plugin: rscV4, options: { maxSegments: 65_535 } });
  const streams = [1, 2, 3].map((sourcePort) => new TcpStream({ sourcePort, seq: 1000 * sourcePort }));
  for (let i = 0; i < 20_000; i++) for (const stream of streams) bench.feed(stream.next(1));
  // A slot takes about 2000 bytes: ten or eleven for each flow.
  const { inUse } = bench.pool;
  assertEquals(inUse >= 30 && inUse <= 36, true, `${inUse} frames are held`);
  bench.advanceTo(300_000);
  assertEquals(bench.out.map(({ header }) => header.csumStart), [20_000, 20_000, 20_000]);
  for (const [i, { bytes }] of bench.out.entries()) {
    assertTcp(bytes, hasPayload(streamBytes(1000 * (i + 1), 20_000)), hasPartialChecksum());
  }
});

Deno.test("a flood of fragments flushes only flows of its own pair of addresses, in this direction", () => {
  using bench = new StageBench(rscV4);
  for (let i = 0; i < 1000; i++) bench.feed(tcp({ source: address(i), payload: 10 }));
  const reverse = { source: "10.0.0.2", destination: address(3), sourcePort: 80, destinationPort: 1111 };
  bench.feed(tcp({ ...reverse, payload: 10 }));
  for (let i = 0; i < 500; i++) bench.feed(tcp({ source: "99.0.0.1", fragmentOffset: i + 1, payload: 8 }));
  assertEquals(bench.out.length, 500);
  bench.feed(tcp({ source: address(3), fragmentOffset: 9, payload: 8 }));
  assertEquals(bench.out.slice(500).map(({ number }) => number), [4, 1502]);
  assertEquals(bench.counters["rsc-v4"].fragment, 501);
});

Deno.test("fragments flush no other pair's flows where more pairs are held than are told apart by hash", () => {
  using bench = new StageBench({ plugin: rscV4, options: { maxFlows: 10_000 } });
  for (let i = 0; i < 10_000; i++) bench.feed(tcp({ source: address(i), payload: 10 }));
  for (let i = 0; i < 100; i++) bench.feed(tcp({ source: address(97 * i), fragmentOffset: 1, payload: 8 }));
  const wanted = Array.from({ length: 100 }, (_, i) => [97 * i + 1, 10_001 + i]).flat();
  assertEquals(bench.out.map(({ number }) => number), wanted);
});

Deno.test("a flood of bad segments of one flow disturbs no other flow", () => {
  using bench = new StageBench(rscV4);
  const good = new TcpStream({ source: "10.0.0.7" });
  for (let i = 0; i < 20; i++) {
    bench.feed(good.next(1000));
    bench.feed(tcp({ payload: 100, checksum: "wrong" }));
    bench.feed(tcp({ payload: 100, dataOffset: 3 }));
    bench.feed(tcp({ payload: 100, flags: ["RST"] }));
  }
  bench.advanceTo(300_000);
  const merged = bench.out.filter(({ header }) => header.gsoType !== 0);
  assertEquals(merged.map(({ header }) => header.csumStart), [20]);
  assertEquals(bench.out.length, 61);
});

Deno.test("nothing is held longer than the interval, however busy its flow is", () => {
  using bench = new StageBench({ plugin: rscV4, options: { maxSegments: 65_535, intervalUs: 10 } });
  const stream = new TcpStream();
  for (let atNs = 0; atNs < 100_000; atNs += 500) {
    bench.advanceTo(atNs);
    bench.feed(stream.next(10));
  }
  bench.advanceTo(200_000);
  // At a deadline the timer is first: the segment that comes then opens the next packet.
  assertEquals(bench.out.map(({ atNs }) => atNs), Array.from({ length: 10 }, (_, i) => 10_000 * (i + 1)));
});

Deno.test("a frame pool that is at its limit is full again after a flood", () => {
  const pool = new FramePool({ maxBytes: 4 * 1024 * 1024 });
  using bench = new StageBench({ plugin: rscV4, options: { maxFlows: 1000 } }, { pool });
  for (let i = 0; i < 3000; i++) bench.feed(tcp({ source: address(i % 1500), payload: 100 }));
  bench.drain();
  assertEquals([pool.inUse, bench.out.length], [0, 3000]);
});
