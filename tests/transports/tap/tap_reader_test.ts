import { assert, assertEquals } from "@std/assert";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import type { Frame } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import { MAX_FRAME_BYTES } from "../../../pipeline/frame.ts";
import { bothWays, factsOf, NO_FACTS, pattern, pieces, Rig } from "./support/rig.ts";

for (const headerBytes of [12, 10]) {
  bothWays(`receive() delivers frames with the facts of their ${headerBytes}-byte headers`, () => {
    using rig = new Rig({ headerBytes });
    const partial = { flags: 1, csumStart: 34, csumOffset: 16 };
    const large = { ...partial, gsoType: 1, hdrLen: 54, gsoSize: 1448 };
    rig.arrive(pattern(60));
    rig.arrive(pattern(1514, 2), partial);
    rig.arrive(pattern(1999, 3), large);
    rig.arrive(pattern(70, 4), { flags: 2 });
    const frames = rig.receive();
    assertEquals(
      frames.map(factsOf),
      [{}, partial, large, { flags: 2 }].map((facts) => ({ ...NO_FACTS, ...facts })),
    );
    assertEquals(frames.map((frame) => frame.toBytes()), [
      pattern(60),
      pattern(1514, 2),
      pattern(1999, 3),
      pattern(70, 4),
    ]);
    assert(frames.every((frame) => frame.next === null && frame.length === frame.total));
    for (const frame of frames) frame.release();
    assertEquals([rig.counters.read, rig.counters.readBytes], [4, 60 + 1514 + 1999 + 70]);
  });
}

bothWays("receive() without headers delivers frames without facts", () => {
  using rig = new Rig({ headerBytes: 0 });
  rig.arrive(pattern(200));
  const [frame] = rig.receive();
  assertEquals([factsOf(frame), frame.toBytes()], [NO_FACTS, pattern(200)]);
  frame.release();
  assertEquals(rig.transport.capabilities, OffloadCapabilities.none);
});

bothWays("receive() delivers frames of every length in one piece, in a slot of their size", () => {
  using rig = new Rig();
  for (const length of [74, 2046, 2047, 5000, 9216, 9400, 11_389, 65_549, MAX_FRAME_BYTES]) {
    rig.arrive(pattern(length, length), {
      flags: 1,
      gsoType: 4,
      gsoSize: 1400,
      csumStart: 54,
      csumOffset: 16,
    });
    const [frame] = rig.receive();
    assertEquals(frame.total, length);
    assertEquals(pieces(frame), [length]);
    const plain = rig.pool.take(length)!;
    assertEquals(frame.capacity, plain.capacity);
    plain.release();
    assertEquals(frame.toBytes(), pattern(length, length));
    assertEquals(frame.header.gsoSize, 1400);
    frame.release();
  }
});

bothWays("receive() says nothing of a finished frame, whatever came before it", () => {
  const pool = new FramePool({ maxBytes: 2 * 1024 * 1024 });
  using rig = new Rig({ pool });
  const large = { flags: 1, gsoType: 1, gsoSize: 1448, csumStart: 34, csumOffset: 16 };
  rig.arrive(pattern(3000, 1), large);
  rig.arrive(pattern(60, 2), { hdrLen: 66 });
  rig.arrive(pattern(60_000, 3));
  const frames = rig.receive();
  assertEquals(frames.map(factsOf), [{ ...NO_FACTS, ...large }, NO_FACTS, NO_FACTS]);
  for (const frame of frames) frame.release();
  // A short frame in the scratch frame itself: there is no smaller slot left for it.
  rig.arrive(pattern(3000, 4), large);
  for (const frame of rig.receive()) frame.release();
  const taken: Frame[] = [];
  for (let frame = pool.take(60); frame !== null; frame = pool.take(60)) taken.push(frame);
  rig.arrive(pattern(60, 5));
  const [last] = rig.receive();
  assertEquals([factsOf(last), last.toBytes()], [NO_FACTS, pattern(60, 5)]);
  for (const frame of [last, ...taken]) frame.release();
});

bothWays("receive() keeps frames of a large MTU in one piece", () => {
  using rig = new Rig({ mtu: 9000 });
  rig.arrive(pattern(9018));
  rig.arrive(pattern(60));
  const frames = rig.receive();
  assertEquals(frames.map(pieces), [[9018], [60]]);
  for (const frame of frames) frame.release();
});

bothWays("receive() takes no more than it is asked for, and loses nothing of the rest", () => {
  using rig = new Rig();
  for (let i = 0; i < 5; i++) rig.arrive(pattern(100, i));
  for (const [limit, seeds] of [[2, [0, 1]], [2, [2, 3]], [64, [4]], [64, []]] as const) {
    const frames = rig.receive(limit);
    assertEquals(frames.map((frame) => frame.toBytes()), seeds.map((seed) => pattern(100, seed)));
    for (const frame of frames) frame.release();
  }
  assertEquals(rig.transport.deadlineNs(), Infinity);
});

bothWays("receive() drops what was cut, what is too long and what contradicts itself, and counts it", () => {
  using rig = new Rig();
  rig.arriveRaw(new Uint8Array(95_000));
  rig.arrive(pattern(MAX_FRAME_BYTES + 1));
  rig.arriveRaw(new Uint8Array(5));
  rig.arriveRaw(new Uint8Array(12 + 13));
  rig.arrive(pattern(100), { flags: 1, csumStart: 90, csumOffset: 9 });
  rig.arrive(pattern(100), { flags: 1, csumStart: 65_535, csumOffset: 65_535 });
  rig.arrive(pattern(100), { gsoType: 2, gsoSize: 100 });
  rig.arrive(pattern(100), { gsoType: 1 });
  // Unknown flags are taken off, and where nothing is to be checksummed it does not matter where.
  rig.arrive(pattern(100, 9), { flags: 0xfe, csumStart: 65_535 });
  const frames = rig.receive();
  assertEquals(frames.map((frame) => frame.toBytes()), [pattern(100, 9)]);
  assertEquals(factsOf(frames[0]), { ...NO_FACTS, flags: 2 });
  frames[0].release();
  const { truncated, tooLong, badHeader, read } = rig.counters;
  assertEquals({ truncated, tooLong, badHeader, read }, { truncated: 1, tooLong: 1, badHeader: 6, read: 1 });
});

bothWays("receive() asks to be called again at once if all it read was dropped", () => {
  using rig = new Rig();
  for (let i = 0; i < 3; i++) rig.arriveRaw(new Uint8Array(5));
  rig.arrive(pattern(60));
  assertEquals(rig.receive(3, 777), []);
  assertEquals(rig.transport.deadlineNs(), 777);
  const [frame] = rig.receive(3, 800);
  assertEquals(frame.toBytes(), pattern(60));
  frame.release();
  assertEquals(rig.transport.deadlineNs(), Infinity);
});

bothWays("receive() reads nothing while the pool is empty, so that nothing is lost", () => {
  const pool = new FramePool({ maxBytes: 2 * 1024 * 1024 });
  using rig = new Rig({ pool });
  for (let i = 0; i < 3; i++) rig.arrive(pattern(3000, i));
  const taken: Frame[] = [];
  for (let frame = pool.take(60_000); frame !== null; frame = pool.take(60_000)) taken.push(frame);
  const refusals = pool.refusals;
  assertEquals(rig.receive(), []);
  assert(pool.refusals > refusals, "it cannot be seen that frames are wanted");
  assertEquals(rig.counters.read, 0);
  for (const frame of taken) frame.release();
  const frames = rig.receive();
  assertEquals(frames.map((frame) => frame.toBytes()), [0, 1, 2].map((seed) => pattern(3000, seed)));
  for (const frame of frames) frame.release();
});
