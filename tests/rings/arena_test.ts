import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { Burst } from "../../rings/burst.ts";
import { GuestMemory } from "../../rings/memory.ts";

function reserve(): Arena {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  return arena;
}

Deno.test("Arena allocates zeros from cache lines' starts, never the same twice, and says when there is no room", () => {
  const arena = reserve();
  const first = arena.allocate(100)!;
  const second = arena.allocate(1)!;
  assert(first >= 65_536 && first % 64 === 0 && second >= first + 100 && second % 64 === 0);
  assert(arena.bytes.subarray(first, first + 100).every((byte) => byte === 0));
  assertEquals(arena.allocate(2 ** 31), null);
  assert(arena.allocate(64) !== null, "a refusal takes nothing");
});

Deno.test("Arena gives ranges for guests that never overlap, aligned as wanted, and joins what comes back", () => {
  const arena = reserve();
  const sizes = [4096, 3 * 2 ** 20, 2 ** 30, 65_536, 12_288];
  const highBytes = arena.sizeBytes - arena.bytes.length;
  const before = arena.takeRange(highBytes, 4096);
  assert(before !== null, "all of the high part can be taken");
  arena.giveRange(before, highBytes);
  const taken = sizes.map((bytes, i) => {
    const alignment = i % 2 === 0 ? 4096 : 2 ** 21;
    const start = arena.takeRange(bytes, alignment, i === 3 ? 8192 : 0)!;
    assertEquals(start % alignment, i === 3 ? 8192 : 0);
    return [start, start + bytes];
  });
  const sorted = [...taken].sort((a, b) => a[0] - b[0]);
  for (let i = 1; i < sorted.length; i++) assert(sorted[i - 1][1] <= sorted[i][0]);
  assert(sorted[0][0] >= arena.bytes.length, "frames lie below guests");
  for (const i of [2, 0, 4, 1, 3]) arena.giveRange(taken[i][0], sizes[i]);
  assertEquals(arena.takeRange(highBytes, 4096), before, "nothing is lost");
  assertEquals(arena.takeRange(4096, 4096), null, "and there is no more");
});

Deno.test("an arena that another thread attaches is the same memory, and allocates in its own part", () => {
  const arena = reserve();
  const start = arena.allocate(4096)!;
  const attached = Arena.attach(arena.memory, { start, bytes: 4096 });
  const own = attached.allocate(64)!;
  assertEquals(own, start);
  attached.bytes[own] = 7;
  assertEquals(arena.bytes[own], 7);
  assertEquals(attached.allocate(8192), null);
  assertEquals(attached.takeRange(4096, 4096), null, "ranges are the main thread's to give");
});

Deno.test("a burst does not reach memory elsewhere, memory in too many regions, and memory whose writes are logged", () => {
  const arena = reserve();
  const burst = Burst.make(arena)!;
  const start = arena.takeRange(2 ** 20, 4096)!;
  const regions = (count: number, buffer = arena.buffer) =>
    Array.from({ length: count }, (_, i) => ({
      guestAddress: 8192 * i,
      size: 4096,
      buffer,
      bufferOffset: buffer === arena.buffer ? start + 8192 * i : 8192 * i,
    }));
  assert(burst.reaches(new GuestMemory(regions(64))));
  assertEquals(burst.reaches(new GuestMemory(regions(65))), false);
  assertEquals(burst.reaches(new GuestMemory(regions(2, new ArrayBuffer(2 ** 20)))), false);
  const mixed = [...regions(1), { ...regions(2, new ArrayBuffer(2 ** 20))[1] }];
  assertEquals(burst.reaches(new GuestMemory(mixed)), false);
  const memory = new GuestMemory(regions(1));
  memory.dirtyLog = { mark: () => {} };
  assertEquals(burst.reaches(memory), false);
  memory.dirtyLog = null;
  assert(burst.reaches(memory));
  assertEquals(Burst.make(null), null);
});

Deno.test("Arena.newBuffer() makes zeros in the low part, and elsewhere where there is no room or no arena", () => {
  const arena = reserve();
  const inArena = Arena.newBuffer(arena, 100);
  assert(inArena.buffer === arena.buffer && inArena.length === 100 && inArena.every((byte) => byte === 0));
  inArena.fill(1);
  assert(Arena.newBuffer(arena, 100).every((byte) => byte === 0), "each is its own");
  const large = Arena.newBuffer(arena, arena.bytes.length);
  assertEquals([large.buffer === arena.buffer, large.length], [false, arena.bytes.length]);
  assertEquals(Arena.newBuffer(null, 8), new Uint8Array(8));
  for (const bytes of [-1, 0.5, NaN, 2 ** 60]) assertThrows(() => Arena.newBuffer(arena, bytes), RangeError);
});
