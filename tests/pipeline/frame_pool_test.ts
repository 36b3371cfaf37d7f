import { Arena } from "../../rings/arena.ts";
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { Frame } from "../../pipeline/frame.ts";
import { FRAME_HEADROOM_BYTES, FramePool } from "../../pipeline/frame_pool.ts";
import { MAX_FRAME_BYTES } from "../../pipeline/frame.ts";

const MIB = 1024 * 1024;

function takeAll(pool: FramePool, length: number): Frame[] {
  const frames: Frame[] = [];
  for (let frame = pool.take(length); frame !== null; frame = pool.take(length)) frames.push(frame);
  return frames;
}

Deno.test("FramePool.take() makes a frame with headroom, whose IP header is aligned", () => {
  const pool = new FramePool();
  for (const length of [0, 1, 60, 1514, 2046, 2047, 9018, 9342, 9343, 65_549, MAX_FRAME_BYTES]) {
    const frame = pool.take(length)!;
    assertEquals([frame.length, frame.total, frame.queuePair, frame.number], [length, length, 0, 0]);
    assertEquals(frame.start - frame.slot, FRAME_HEADROOM_BYTES);
    assertEquals((frame.start + 14) % 4, 0);
    assert(frame.slot + frame.capacity <= frame.bytes.length);
    assert(frame.tailRoom >= 0, `a frame of ${length} bytes has no room in its slot`);
    frame.release();
  }
  assertEquals(pool.inUse, 0);
});

Deno.test("FramePool.take() refuses lengths that no frame has", () => {
  const pool = new FramePool();
  for (const length of [-1, MAX_FRAME_BYTES + 1, 1e9, Infinity, NaN]) {
    assertThrows(
      () => pool.take(length),
      RangeError,
      `Cannot take a frame of ${length} bytes: it must have 0 to 69632`,
    );
  }
  assertEquals([pool.inUse, pool.refusals, pool.reservedBytes], [0, 0, 0]);
});

Deno.test("FramePool.take() clears what the last owner wrote beside the bytes", () => {
  const pool = new FramePool();
  const frame = pool.take(60)!;
  const tail = pool.take(60)!;
  frame.append(tail);
  frame.header.flags = 7;
  frame.header.gsoSize = 1448;
  frame.queuePair = 3;
  frame.number = 99;
  frame.mark = 1;
  frame.start += 20;
  frame.release();
  for (let i = 0; i < 2; i++) {
    const again = pool.take(100)!;
    assertEquals([again.queuePair, again.number, again.mark, again.next, again.length], [
      0,
      0,
      0,
      null,
      100,
    ]);
    assertEquals([again.total, again.start - again.slot], [100, FRAME_HEADROOM_BYTES]);
    assertStrictEquals(again.last, again);
    assertEquals(Object.values({ ...again.header }), [0, 0, 0, 0, 0, 0]);
  }
});

Deno.test("FramePool.take() hands out the slot that was given back last", () => {
  const pool = new FramePool();
  const frames = [pool.take(60)!, pool.take(60)!, pool.take(60)!];
  for (const frame of frames) frame.release();
  assertStrictEquals(pool.take(60), frames[2]);
  assertStrictEquals(pool.take(60), frames[1]);
});

Deno.test("FramePool never lets two frames share a byte", () => {
  const lengths = fc.array(fc.oneof(fc.nat(2046), fc.nat(9342), fc.nat(MAX_FRAME_BYTES)), { maxLength: 60 });
  fc.assert(
    fc.property(lengths, (wanted) => {
      const pool = new FramePool();
      const frames = wanted.map((length) => pool.take(length)!);
      frames.forEach((frame, i) => frame.bytes.fill(i & 0xff, frame.slot, frame.slot + frame.capacity));
      frames.forEach((frame, i) => {
        const own = frame.bytes.subarray(frame.slot, frame.slot + frame.capacity);
        assert(own.every((byte) => byte === (i & 0xff)), `slot ${i} was written by another owner`);
        frame.release();
      });
      assertEquals(pool.inUse, 0);
    }),
    { numRuns: 20 },
  );
});

Deno.test("FramePool.take() answers null at the limit, counts that, and goes on when a frame is back", () => {
  const pool = new FramePool({ maxBytes: MIB });
  const frames = takeAll(pool, 1514);
  assert(frames.length >= 250, `only ${frames.length} frames`);
  assertEquals([pool.inUse, pool.refusals], [frames.length, 1]);
  assert(pool.reservedBytes <= MIB);
  assertEquals(pool.takeCopy(new Uint8Array(100)), null);
  assertEquals(pool.refusals, 2);
  frames[7].release();
  assertStrictEquals(pool.take(60), frames[7]);
  for (const frame of frames) frame.release();
  assertEquals(pool.inUse, 0);
  assertEquals(takeAll(pool, 1514).length, frames.length);
});

Deno.test("FramePool keeps to its limit whatever sizes are asked for, and made counts its slots", () => {
  const order = fc.array(fc.constantFrom(60, 9000, 65_000), { minLength: 1, maxLength: 300 });
  fc.assert(
    fc.property(order, fc.integer({ min: 0, max: 4 * MIB }), (lengths, maxBytes) => {
      const pool = new FramePool({ maxBytes });
      const taken = lengths.map((length) => pool.take(length)).filter((frame) => frame !== null);
      assert(pool.reservedBytes <= maxBytes);
      assert(pool.made >= taken.length);
      assertEquals([pool.inUse, pool.refusals], [taken.length, lengths.length - taken.length]);
      for (const frame of taken) frame.release();
      assertEquals(pool.inUse, 0);
    }),
    { numRuns: 40 },
  );
});

Deno.test("FramePool of 1 MiB has large frames, also after small ones have taken all they could", () => {
  for (const small of [60, 1514, 9000]) {
    const pool = new FramePool({ maxBytes: MIB });
    const frames = takeAll(pool, small);
    for (const frame of frames) frame.release();
    const large = takeAll(pool, MAX_FRAME_BYTES);
    assert(large.length >= 4, `${large.length} large frames after ${small} bytes`);
  }
});

Deno.test("FramePool of 1 MiB has small frames while large ones have taken all they could", () => {
  for (const length of [9000, 65_000]) {
    const pool = new FramePool({ maxBytes: MIB });
    const large = takeAll(pool, length);
    assert(large.length >= 10);
    const small = takeAll(pool, 60);
    assert(small.length >= 16, `${small.length} small frames beside ${large.length} of ${length} bytes`);
    for (const frame of large) frame.release();
    assert(takeAll(pool, 60).length >= large.length);
  }
});

Deno.test("FramePool without memory refuses everything", () => {
  const pool = new FramePool({ maxBytes: 0 });
  assertEquals([pool.take(0), pool.take(60), pool.take(MAX_FRAME_BYTES)], [null, null, null]);
  assertEquals([pool.refusals, pool.made, pool.reservedBytes], [3, 0, 0]);
});

Deno.test("FramePool.takeCopy() copies", () => {
  const pool = new FramePool();
  const source = Uint8Array.of(1, 2, 3, 4);
  const frame = pool.takeCopy(source)!;
  source.fill(9);
  assertEquals(frame.toBytes(), Uint8Array.of(1, 2, 3, 4));
  frame.release();
});

Deno.test("FramePool reserves nothing before it is needed, and no more for equal work", () => {
  const pool = new FramePool();
  assertEquals([pool.reservedBytes, pool.made], [0, 0]);
  for (let round = 0; round < 3; round++) {
    const frames = Array.from({ length: 400 }, () => pool.take(1514)!);
    for (const frame of frames) frame.release();
    assertEquals([pool.made, pool.inUse], [512, 0]);
  }
});

Deno.test("the frames of two pools lie in one arena as long as there is room for a pool, and elsewhere then", () => {
  const arena = Arena.reserve();
  assert(arena !== null);
  const pools = [1, 2].map(() => new FramePool({ maxBytes: 16 * 1024 * 1024, arena }));
  const frames = pools.flatMap((pool) => Array.from({ length: 3000 }, () => pool.take(1500)!));
  const places = frames.map(({ slot, capacity }) => [slot, slot + capacity]).sort((a, b) => a[0] - b[0]);
  for (const [i, [start]] of places.entries()) {
    assert(start >= (places[i - 1]?.[1] ?? 65_536), "two frames share a place");
  }
  for (const frame of frames) assert(frame.bytes === arena.bytes);
  const large = new FramePool({ maxBytes: 3 * 2 ** 30, arena });
  const elsewhere = large.take(1500)!;
  assertEquals([large.arena, elsewhere.bytes === arena.bytes], [null, false]);
  for (const frame of [...frames, elsewhere]) frame.release();
  assertEquals([...pools, large].map(({ inUse }) => inUse), [0, 0, 0]);
});
