import { assertEquals } from "@std/assert";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { type DirtyLog, GuestMemory } from "../../rings/memory.ts";
import { PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";

const BASE = 0x1000;

class Marks implements DirtyLog {
  readonly seen: [number, number][] = [];

  mark(guestAddress: number, lengthBytes: number): void {
    this.seen.push([guestAddress, lengthBytes]);
  }

  take(): [number, number][] {
    return this.seen.splice(0);
  }
}

/** Two regions that touch each other at 0x3000. */
function newMemory(): GuestMemory {
  return new GuestMemory([0x1000, 0x3000].map((guestAddress) => {
    return { guestAddress, size: 0x2000, buffer: new ArrayBuffer(0x2000), bufferOffset: 0 };
  }));
}

Deno.test("GuestMemory.dirtyLog hears of every write, by guest address and length, and of no reads", () => {
  const memory = newMemory();
  const marks = new Marks();
  memory.writeU32(BASE, 1);
  memory.dirtyLog = marks;
  memory.writeU8(BASE + 1, 1);
  memory.writeU16(BASE + 2, 1);
  memory.writeU32(BASE + 4, 1);
  assertEquals(marks.take(), [[BASE + 1, 1], [BASE + 2, 2], [BASE + 4, 4]]);
  memory.writeU16(0x2fff, 0x0102);
  assertEquals(marks.take(), [[0x2fff, 1], [0x3000, 1]]);
  for (const length of [3, 100]) {
    memory.copyIn(0x2ffe, new Uint8Array(length), 0, length);
    assertEquals(marks.take(), [[0x2ffe, 2], [0x3000, length - 2]]);
  }
  memory.copyIn(BASE, new Uint8Array(0), 0, 0);
  memory.readU32(BASE);
  memory.copyOut(BASE, new Uint8Array(64), 0, 64);
  assertEquals(marks.take(), []);
  memory.dirtyLog = null;
  memory.writeU32(BASE, 1);
  assertEquals(marks.take(), []);
});

Deno.test("DescriptorChain.write() is logged by guest address", () => {
  const memory = newMemory();
  const marks = new Marks();
  memory.dirtyLog = marks;
  const chain = new DescriptorChain();
  chain.begin();
  chain.add(memory, 0x2fe0, 64, true);
  chain.finish(0, 1);
  chain.write(new Uint8Array(10), 0, 10);
  chain.write(new Uint8Array(40), 0, 40);
  assertEquals(marks.take(), [[0x2fe0, 10], [0x2fea, 22], [0x3000, 18]]);
});

const SETUP = { size: 4, descriptors: 0x1000, driver: 0x1100, device: 0x1200, indirect: false };
const LOGGED_AT = 0x9000;

/** Makes `count` chains of one descriptor available on a split ring, from index `from` on. */
function offer(memory: GuestMemory, from: number, count: number): void {
  for (let i = from; i < from + count; i++) {
    const slot = i % SETUP.size;
    memory.writeU32(SETUP.descriptors + 16 * slot, 0x4000);
    memory.writeU32(SETUP.descriptors + 16 * slot + 8, 8);
    memory.writeU16(SETUP.descriptors + 16 * slot + 12, 2);
    memory.writeU16(SETUP.driver + 4 + 2 * slot, slot);
  }
  memory.writeU16(SETUP.driver + 2, from + count);
}

function use(queue: SplitVirtqueue | PackedVirtqueue, count: number): void {
  const chain = new DescriptorChain();
  for (let i = 0; i < count; i++) {
    queue.pop(chain);
    queue.push(chain.head, 1);
  }
}

Deno.test("SplitVirtqueue.logTo() hears of used elements and index when they are published, also around the end", () => {
  const memory = newMemory();
  const marks = new Marks();
  const queue = new SplitVirtqueue(memory, { ...SETUP, eventIndex: false });
  offer(memory, 0, 3);
  queue.logTo(marks, LOGGED_AT);
  use(queue, 3);
  assertEquals(marks.take(), [], "nothing can be seen before it is published");
  queue.publish();
  assertEquals(marks.take(), [[LOGGED_AT + 4, 24], [LOGGED_AT + 2, 2]]);
  offer(memory, 3, 3);
  use(queue, 3);
  queue.publish();
  assertEquals(marks.take(), [[LOGGED_AT + 4 + 24, 8], [LOGGED_AT + 4, 16], [LOGGED_AT + 2, 2]]);
  queue.publish();
  assertEquals(marks.take(), []);
  queue.logTo(null, 0);
  offer(memory, 6, 1);
  use(queue, 1);
  queue.publish();
  assertEquals(marks.take(), []);
});

Deno.test("SplitVirtqueue.logTo() hears where kicks are asked for and refused", () => {
  for (const eventIndex of [false, true]) {
    const queue = new SplitVirtqueue(newMemory(), { ...SETUP, eventIndex });
    const marks = new Marks();
    queue.logTo(marks, LOGGED_AT);
    queue.enableKicks();
    const place = [[eventIndex ? LOGGED_AT + 4 + 8 * SETUP.size : LOGGED_AT, 2]];
    assertEquals(marks.take(), place);
    queue.disableKicks();
    assertEquals(marks.take(), place);
  }
});

Deno.test("PackedVirtqueue.logTo() hears of used descriptors where they are, and of event words where it is told", () => {
  const memory = newMemory();
  const marks = new Marks();
  const queue = new PackedVirtqueue(memory, { ...SETUP, eventIndex: false });
  for (let slot = 0; slot < 3; slot++) {
    const at = SETUP.descriptors + 16 * slot;
    memory.writeU32(at, 0x4000);
    memory.writeU32(at + 8, 8);
    memory.writeU16(at + 12, slot);
    memory.writeU16(at + 14, 0x80 | 2);
  }
  queue.logTo(marks, LOGGED_AT);
  use(queue, 3);
  queue.publish();
  const marked = marks.take().map(([address]) => address).sort((a, b) => a - b);
  assertEquals(marked, [0x1000, 0x1010, 0x1020]);
  queue.enableKicks();
  queue.disableKicks();
  assertEquals(marks.take(), [[LOGGED_AT, 4], [LOGGED_AT, 4]]);
});
