import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { Burst } from "../../rings/burst.ts";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { GuestMemory, MemoryHolders } from "../../rings/memory.ts";
import { FRESH_RING, PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import type { VirtqueueSetup } from "../../rings/virtqueue.ts";

/**
 * After memory is taken away, nothing that was made of it reaches the place where it lay: it may be another
 * guest's.
 */

const BYTES = 0x10000;
const SIZE = 8;
const SETUP: VirtqueueSetup = {
  size: SIZE,
  descriptors: 0x1000,
  driver: 0x2000,
  device: 0x3000,
  eventIndex: true,
  indirect: true,
};
const TABLE = 0x4000;
const BUFFER = 0x5000;

/** What code that keeps too much may still do; what it throws is looked at, and not what it returns. */
type Attempt = readonly [what: string, act: () => unknown];

/** Makes two chains available, readable or writable, of two elements each, the second by a table. */
function offer(memory: GuestMemory, packed: boolean, writable: boolean): void {
  const write = writable ? 2 : 0;
  const descriptor = (at: number, address: number, length: number, flags: number, next: number) => {
    memory.writeU32(at, address);
    memory.writeU32(at + 4, 0);
    memory.writeU32(at + 8, length);
    memory.writeU16(at + 12, packed ? next : flags);
    memory.writeU16(at + 14, packed ? flags : next);
  };
  const turn = packed ? 0x80 : 0;
  const { descriptors, driver } = SETUP;
  descriptor(descriptors, BUFFER, 100, 1 | write | turn, packed ? 0 : 1);
  descriptor(descriptors + 16, BUFFER + 0x100, 100, write | turn, packed ? 0 : 0);
  descriptor(descriptors + 32, TABLE, 16, 4 | turn, packed ? 1 : 0);
  descriptor(TABLE, BUFFER + 0x200, 200, write, 0);
  descriptor(descriptors + 48, BUFFER + 0x300, 50, write | turn, packed ? 2 : 0);
  if (packed) return;
  [0, 2, 3].forEach((head, i) => memory.writeU16(driver + 4 + 2 * i, head));
  memory.writeU16(driver + 2, 3);
}

for (const packed of [false, true]) {
  for (const inArena of [false, true]) {
    const where = `${packed ? "packed" : "split"} ring, ${inArena ? "arena" : "plain buffer"}`;
    Deno.test(`revoked memory is out of reach of everything that was made of it: ${where}`, () => {
      const arena = Arena.reserve();
      assert(arena !== null, "no arena can be had here");
      const start = inArena ? arena.takeRange(BYTES, 4096)! : 0;
      const buffer = inArena ? arena.buffer : new ArrayBuffer(BYTES);
      const place = new Uint8Array(buffer, start, BYTES);
      for (const writable of [false, true]) {
        place.fill(0);
        // Rings and buffers lie in regions of their own: either can go alone.
        const regions = [[0, BUFFER], [BUFFER, BYTES - BUFFER]].map(([guestAddress, size]) => (
          {
            guestAddress,
            size,
            buffer,
            bufferOffset: start + guestAddress,
            hostAddress: 0x7000_0000 + guestAddress,
          }
        ));
        const memory = new GuestMemory(regions);
        offer(memory, packed, writable);
        const make = (base?: number) =>
          packed ? new PackedVirtqueue(memory, SETUP, base) : new SplitVirtqueue(memory, SETUP, base);
        const queue = make();
        const worked = make();
        const fresh = make();
        const burst = Burst.make(arena)!;
        const burst2 = Burst.make(arena)!;
        const frames = arena.allocate(4096)!;
        arena.bytes.fill(0xee, frames, frames + 4096);
        const chain = new DescriptorChain();
        const other = new DescriptorChain();
        assert(queue.pop(chain) && queue.pop(other));
        assert(worked.pop(new DescriptorChain()));
        worked.push(0, 5);
        assertEquals(burst.reaches(memory), inArena);
        const log: [number, number][] = [];
        memory.dirtyLog = { mark: (address, length) => void log.push([address, length]) };
        memory.dirtyLog = null;
        const bytes = new Uint8Array(300).fill(0xee);
        const window = memory.window(0x6000, 64, 16);
        assertEquals(window.u8.length, 64);

        memory.revoke();
        place.fill(0x11);
        const fill = (one: Burst) => {
          one.beginEnqueue(0, 0);
          one.addPiece(frames, 40, true);
        };
        const drain = (one: Burst) => {
          one.beginDequeue(0, 0, 1e9);
          one.addRoom(frames, 4096);
        };
        const attempts: Attempt[] = [
          ["readU8", () => memory.readU8(BUFFER)],
          ["writeU8", () => memory.writeU8(BUFFER, 1)],
          ["writeU16", () => memory.writeU16(BUFFER - 1, 1)],
          ["writeU32", () => memory.writeU32(BUFFER, 1)],
          ["copyIn", () => memory.copyIn(BUFFER, bytes, 0, 300)],
          ["copyIn short", () => memory.copyIn(BUFFER, bytes, 0, 3)],
          ["copyOut", () => memory.copyOut(BUFFER, bytes, 0, 300)],
          ["window", () => memory.window(BUFFER, 64, 16)],
          ["regions", () => memory.regions[1].bytes.fill(7)],
          ["region.view", () => memory.regions[1].view.setUint8(0, 7)],
          ["region.copyIn", () => memory.regions[1].copyIn(0, bytes, 0, 300)],
          ["region.copyOut", () => memory.regions[1].copyOut(0, bytes, 0, 300)],
          ["chain.write", () => chain.write(bytes, 0, 150)],
          ["chain.write short", () => other.write(bytes, 0, 3)],
          ["chain.write from the arena", () => other.write(arena.bytes, frames, 150)],
          ["chain.read", () => chain.read(bytes, 0, 150)],
          ["chain.read to the arena", () => other.read(arena.bytes, frames, 150)],
          ["chain.wroteInPlace", () => chain.wroteInPlace(100)],
          ["fill", () => (fill(burst), queue.enqueueBurst(burst))],
          ["drain", () => (drain(burst), queue.dequeueBurst(burst))],
          ["enqueueBurst of a burst that knew nothing", () => (fill(burst2), fresh.enqueueBurst(burst2))],
          ["dequeueBurst of a burst that knew nothing", () => (drain(burst2), fresh.dequeueBurst(burst2))],
          ["pop", () => queue.pop(new DescriptorChain())],
          ["pop of a fresh queue", () => fresh.pop(new DescriptorChain())],
          ["unpop", () => queue.unpop(1)],
          ["pop again", () => queue.pop(new DescriptorChain())],
          ["push", () => queue.push(0, 77)],
          ["publish", () => queue.publish()],
          ["publish of what was pushed before", () => worked.publish()],
          ["enableKicks", () => queue.enableKicks()],
          ["disableKicks", () => queue.disableKicks()],
          ["peek", () => queue.peek()],
          ["a new queue", () => make(packed ? FRESH_RING : 0)],
        ];
        for (const [what, act] of attempts) {
          try {
            act();
          } catch (error) {
            const isFit = error instanceof GuestError || error instanceof RangeError;
            assert(isFit, `${what} threw ${error}`);
          }
          assert(place.every((byte) => byte === 0x11), `${what} has written to memory that was revoked`);
          assert(!bytes.includes(0x11), `${what} has read memory that was revoked`);
          const seen = arena.bytes.subarray(frames, frames + 4096);
          assert(!seen.includes(0x11), `${what} has read memory that was revoked into a frame`);
        }
        assertEquals(log, []);
        assertEquals(chain.locate("writable", 0, 1, new Float64Array(2)), 0, "no address for the host");
        assertThrows(() => memory.readU8(BUFFER), GuestError, "No memory");
      }
    });
  }
}

Deno.test("a region that is revoked takes queues and bursts with it; the others of its guest stay", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const start = arena.takeRange(BYTES, 4096)!;
  const place = new Uint8Array(arena.buffer, start, BYTES);
  const regions = [[0, BUFFER], [BUFFER, BYTES - BUFFER]].map(([guestAddress, size]) => (
    { guestAddress, size, buffer: arena.buffer, bufferOffset: start + guestAddress }
  ));
  const memory = new GuestMemory(regions);
  offer(memory, false, true);
  const shared = new GuestMemory([memory.regions[0]]);
  const queue = new SplitVirtqueue(memory, SETUP);
  const burst = Burst.make(arena)!;
  assert(burst.reaches(memory));
  memory.regions[1].revoke();
  place.fill(0x11, BUFFER);
  const frame = arena.allocate(64)!;
  burst.beginEnqueue(0, 0);
  burst.addPiece(frame, 40, true);
  assertEquals(queue.enqueueBurst(burst), 0, "a kernel that was told of the region is told anew");
  assertThrows(() => queue.pop(new DescriptorChain()), GuestError, "No memory at guest address 0x5000");
  assert(place.subarray(BUFFER).every((byte) => byte === 0x11));
  shared.writeU32(0x100, 7);
  assertEquals(memory.readU32(0x100), 7, "the region that stays is the same one in both");
});

Deno.test("MemoryHolders tells all that are alive, once, however many there were", () => {
  const holders = new MemoryHolders();
  const told: number[] = [];
  const all = Array.from({ length: 100 }, (_, i) => ({ letGo: () => void told.push(i) }));
  for (const holder of all) holders.add(holder);
  holders.letGo();
  holders.letGo();
  assertEquals(told, all.map((_, i) => i));
});
