import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { type Frame, NetHeader } from "../../pipeline/frame.ts";
import { FRAME_HEADROOM_BYTES, FramePool } from "../../pipeline/frame_pool.ts";

function numbered(pool: FramePool, length: number, from = 0): Frame {
  return pool.takeCopy(Uint8Array.from({ length }, (_, i) => from + i))!;
}

function fill(header: NetHeader): void {
  Object.assign(header, { flags: 1, gsoType: 4, hdrLen: 66, gsoSize: 1448, csumStart: 34, csumOffset: 16 });
}

Deno.test("NetHeader.copyFrom() takes every field, and clear() sets every field to 0", () => {
  const header = new NetHeader();
  const other = new NetHeader();
  fill(other);
  header.copyFrom(other);
  assertEquals({ ...header }, {
    flags: 1,
    gsoType: 4,
    hdrLen: 66,
    gsoSize: 1448,
    csumStart: 34,
    csumOffset: 16,
  });
  header.clear();
  assertEquals(Object.values({ ...header }), [0, 0, 0, 0, 0, 0]);
});

Deno.test("Frame.toBytes() copies what lies between start and start + length", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 100);
  frame.start += 10;
  frame.length -= 10;
  frame.total -= 10;
  assertEquals(frame.toBytes(), Uint8Array.from({ length: 90 }, (_, i) => 10 + i));
  frame.release();
});

Deno.test("Frame.view shows the bytes of the frame in network order", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 20, 1);
  assertEquals(frame.view.getUint16(frame.start + 12), 0x0d0e);
  frame.release();
});

Deno.test("Frame.tailRoom counts what is free behind the data in its own slot", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 100);
  assertEquals(frame.tailRoom, frame.capacity - FRAME_HEADROOM_BYTES - 100);
  frame.start += 4;
  assertEquals(frame.tailRoom, frame.capacity - FRAME_HEADROOM_BYTES - 104);
  frame.release();
});

Deno.test("Frame.trim() shortens a single piece and never lengthens", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 100);
  frame.trim(100);
  frame.trim(101);
  assertEquals([frame.length, frame.total], [100, 100]);
  frame.trim(60);
  assertEquals([frame.length, frame.total], [60, 60]);
  const other = numbered(pool, 10);
  frame.append(other);
  frame.trim(20);
  assertEquals([frame.length, frame.total], [60, 70]);
  frame.release();
  assertEquals(pool.inUse, 0);
});

Deno.test("Frame.append() joins chains of pieces without a gap, and owns them", () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.nat(300), { minLength: 1, maxLength: 4 }), { minLength: 1 }),
      (groups) => {
        const pool = new FramePool();
        const expected: number[] = [];
        let whole: Frame | null = null;
        for (const lengths of groups) {
          let group: Frame | null = null;
          for (const length of lengths) {
            const piece = numbered(pool, length, expected.length);
            expected.push(...piece.toBytes());
            if (group === null) group = piece;
            else group.append(piece);
          }
          if (whole === null) whole = group;
          else whole.append(group!);
        }
        assertEquals(whole!.total, expected.length);
        assertEquals([...whole!.toBytes()], expected);
        const target = new Uint8Array(expected.length + 6).fill(0xee);
        assertEquals(whole!.copyTo(target, 3), expected.length);
        assertEquals([...target], [0xee, 0xee, 0xee, ...expected, 0xee, 0xee, 0xee]);
        assertEquals(pool.inUse, groups.flat().length);
        whole!.release();
        assertEquals(pool.inUse, 0);
      },
    ),
    { numRuns: 50 },
  );
});

Deno.test("Frame.release() throws for a frame that is in the pool already, and changes nothing", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 60);
  const other = numbered(pool, 60);
  frame.release();
  assertThrows(() => frame.release(), Error, "Cannot release a frame twice");
  assertEquals(pool.inUse, 1);
  assertStrictEquals(pool.take(60), frame);
  assertEquals(pool.take(60) === frame, false);
  other.release();
});

Deno.test("Frame.release() gives every piece back to the pool that it came from", () => {
  const left = new FramePool();
  const right = new FramePool();
  const frame = numbered(left, 60);
  const tail = numbered(right, 60);
  frame.append(tail);
  frame.release();
  assertEquals([left.inUse, right.inUse], [0, 0]);
  assertStrictEquals(left.take(60), frame);
  assertStrictEquals(right.take(60), tail);
});

Deno.test("Frame.release() throws for a piece of another frame, in use and in the pool", () => {
  const pool = new FramePool();
  const frame = numbered(pool, 60);
  const tail = numbered(pool, 60);
  frame.append(tail);
  assertThrows(() => tail.release(), Error, "or appended it");
  assertThrows(() => numbered(pool, 60).append(tail), Error, "Cannot append a frame");
  frame.release();
  assertThrows(() => tail.release(), Error, "Cannot release a frame twice");
  assertEquals(pool.inUse, 1);
});

Deno.test("merged frames of any sizes come apart in the pool: no piece is lost or handed out twice", () => {
  const size = fc.constantFrom(60, 1514, 5000, 60_000);
  const step = fc.oneof(
    fc.record({ take: size }),
    fc.record({ append: fc.nat(), to: fc.nat() }),
    fc.record({ release: fc.nat() }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const pool = new FramePool({ maxBytes: 1 << 25 });
      const held: Frame[][] = [];
      for (const step of steps) {
        if ("take" in step) {
          const frame = pool.take(step.take)!;
          assertEquals([frame.next, frame.pieces, frame.last === frame], [null, 1, true]);
          assert(!held.flat().includes(frame), "a frame in use was handed out");
          held.push([frame]);
        } else if (held.length > 0 && "release" in step) {
          held.splice(step.release % held.length, 1)[0][0].release();
        } else if (held.length > 1 && "to" in step) {
          const [pieces] = held.splice(step.append % held.length, 1);
          const to = held[step.to % held.length];
          to[0].append(pieces[0]);
          to.push(...pieces);
        }
        assertEquals(pool.inUse, held.flat().length);
      }
      const made = pool.made;
      for (const [frame] of held) frame.release();
      const again = held.flat().map((piece) =>
        pool.take(Math.min(piece.capacity - FRAME_HEADROOM_BYTES, 60_000))
      );
      assertEquals([pool.made, new Set(again).size], [made, again.length]);
    }),
    { numRuns: 100 },
  );
});
