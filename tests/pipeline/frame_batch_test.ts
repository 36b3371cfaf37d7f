import { assertEquals, assertStrictEquals } from "@std/assert";
import { type Frame, FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";

function filled(count: number): { pool: FramePool; batch: FrameBatch; frames: Frame[] } {
  const pool = new FramePool();
  const frames = Array.from({ length: count }, () => pool.take(60)!);
  const batch = new FrameBatch();
  for (const frame of frames) batch.push(frame);
  return { pool, batch, frames };
}

function contents(batch: FrameBatch): Frame[] {
  return Array.from({ length: batch.length }, (_, i) => batch.at(i));
}

Deno.test("FrameBatch keeps frames in order", () => {
  const { batch, frames } = filled(100);
  assertEquals(batch.length, 100);
  contents(batch).forEach((frame, i) => assertStrictEquals(frame, frames[i]));
});

Deno.test("FrameBatch.dropFirst() moves the rest to the front and releases nothing", () => {
  const { pool, batch, frames } = filled(5);
  batch.dropFirst(0);
  assertEquals(batch.length, 5);
  batch.dropFirst(2);
  assertEquals(contents(batch).map((frame) => frames.indexOf(frame)), [2, 3, 4]);
  batch.dropFirst(3);
  assertEquals([batch.length, pool.inUse], [0, 5]);
});

Deno.test("FrameBatch.set() and shorten() filter in place", () => {
  const { batch, frames } = filled(6);
  let kept = 0;
  for (let i = 0; i < batch.length; i++) if (i % 2 === 1) batch.set(kept++, batch.at(i));
  batch.shorten(kept);
  assertEquals(contents(batch).map((frame) => frames.indexOf(frame)), [1, 3, 5]);
});

Deno.test("FrameBatch.clear() forgets, and releaseAll() releases", () => {
  const { pool, batch, frames } = filled(3);
  batch.clear();
  assertEquals([batch.length, pool.inUse], [0, 3]);
  for (const frame of frames) batch.push(frame);
  batch.releaseAll();
  assertEquals([batch.length, pool.inUse], [0, 0]);
});

Deno.test("FrameBatch keeps its capacity whichever way it is emptied", () => {
  const { batch, frames } = filled(1000);
  const { capacity } = batch;
  assertEquals(capacity >= 1000, true);
  const empty = [
    () => batch.clear(),
    () => batch.dropFirst(1000),
    () => batch.shorten(0),
    () => batch.releaseAll(),
  ];
  for (const way of empty) {
    way();
    assertEquals([batch.length, batch.capacity], [0, capacity]);
    if (way !== empty.at(-1)) { for (const frame of frames) batch.push(frame); }
    assertEquals(batch.capacity, capacity);
  }
  assertEquals(new FrameBatch(7).capacity, 7);
});
