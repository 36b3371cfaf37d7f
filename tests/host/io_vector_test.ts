import { assertEquals, assertNotEquals } from "@std/assert";
import { addressOf, libc } from "../../host/libc.ts";
import { FrameAddresses, MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { IoVector } from "../../host/libc.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";

Deno.test("FrameAddresses finds the storage of every frame, also when it changes", () => {
  const pool = new FramePool();
  const addresses = new FrameAddresses();
  const frames = [pool.take(60)!, pool.take(9000)!, pool.take(61)!, pool.take(60_000)!, pool.take(9000)!];
  for (let round = 0; round < 2; round++) {
    for (const { bytes } of frames) assertEquals(BigInt(addresses.of(bytes)), addressOf(bytes));
  }
  assertEquals(addresses.of(frames[0].bytes), addresses.of(frames[2].bytes));
  assertNotEquals(addresses.of(frames[0].bytes), addresses.of(frames[1].bytes));
  const late = new Uint8Array(100).subarray(50);
  assertEquals(BigInt(addresses.of(late)), addressOf(late));
  for (const frame of frames) frame.release();
});

Deno.test("IoVector writes and reads several ranges in one call, in order", () => {
  const addresses = new FrameAddresses();
  using file = newMemoryFile("dv-vector", 4096);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 4096 }, "memory");
  const parts = ["first ", "and ", "last"].map((text) => new TextEncoder().encode(text));
  const vector = new IoVector(3);
  assertEquals(vector.capacity, 3);
  parts.forEach((part, i) => vector.set(i, addresses.of(part), part.length));
  assertEquals(libc().writev(file.number, vector.address, 3), 14);
  assertEquals(new TextDecoder().decode(mapping.buffer.slice(0, 14)), "first and last");
  const target = new Uint8Array(4082);
  vector.set(0, addresses.of(target) + 10, 4);
  vector.set(1, addresses.of(target), 2);
  new Uint8Array(mapping.buffer).set([1, 2, 3, 4, 5, 6], 14);
  assertEquals(libc().readv(file.number, vector.address, 2), 6);
  assertEquals([...target.subarray(0, 2), ...target.subarray(10, 14)], [5, 6, 1, 2, 3, 4]);
});
