import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../../rings/arena.ts";
import { DescriptorChain } from "../../../rings/descriptor_chain.ts";
import { GuestError } from "../../../rings/guest_error.ts";
import { GuestMemory } from "../../../rings/memory.ts";
import { SplitVirtqueue } from "../../../rings/split_virtqueue.ts";
import { MemoryMapping, newMemoryFile } from "../../../host/memory_mapping.ts";
import { DescriptorBag, SystemHost } from "../../../transports/vhost_user/host.ts";
import { InFlightMemory, RecordedQueue } from "../../../transports/vhost_user/in_flight_memory.ts";
import { DirtyLogging, MemoryTable } from "../../../transports/vhost_user/memory_table.ts";

/**
 * The place in an arena that one front-end had is another's afterwards: what is left of the first must not
 * reach it.
 */

const BYTES = 0x10000;
const CANARY = 0x5a;
const SETUP = {
  size: 8,
  descriptors: 0x1000,
  driver: 0x2000,
  device: 0x3000,
  eventIndex: false,
  indirect: false,
};

function hostOf(arena: Arena): SystemHost {
  return new SystemHost({
    watch: () => ({ [Symbol.dispose]: () => {} }),
    arena,
    terms: { memory: "any", populate: false },
    risk: () => {},
    outOfReach: () => {},
  });
}

function region(guestAddress: number, size = BYTES) {
  return { guestAddress, size, userAddress: guestAddress, mapOffset: 0 };
}

/** Maps a guest that is full of canaries into the arena. */
function nextGuest(arena: Arena): { bytes: Uint8Array; at: number; mapping: MemoryMapping } {
  using file = newMemoryFile("dv-next", BYTES);
  const range = { offsetBytes: 0, lengthBytes: BYTES };
  const mapping = MemoryMapping.map(file.number, range, "memory", undefined, arena);
  const bytes = new Uint8Array(arena.buffer, mapping.bufferOffset, BYTES);
  bytes.fill(CANARY);
  return { bytes, at: mapping.bufferOffset, mapping };
}

function attempt(act: () => unknown): void {
  try {
    act();
  } catch (error) {
    assert(error instanceof GuestError || error instanceof RangeError, String(error));
  }
}

Deno.test("queues, chains and records of a front-end that has gone do not reach the next one's memory", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const host = hostOf(arena);
  const table = new MemoryTable(host);
  table.add(region(0), new DescriptorBag([newMemoryFile("dv-first", BYTES)]));
  const { memory } = table;
  const at = table.regions[0].mapping.bufferOffset;
  memory.writeU32(SETUP.descriptors, 0x6000);
  memory.writeU32(SETUP.descriptors + 8, 1000);
  memory.writeU16(SETUP.descriptors + 12, 2);
  memory.writeU16(SETUP.driver + 2, 2);
  const inFlight = new InFlightMemory(
    host.map(newMemoryFile("dv-record", BYTES), BYTES, 0),
    { sizeBytes: BYTES, offsetBytes: 0, queues: 1, queueSize: 8 },
  );
  const record = inFlight.record(0, 8, false)!;
  const recorded = new RecordedQueue(memory, SETUP, 0, undefined!, record);
  const queue = new SplitVirtqueue(memory, SETUP);
  const chain = new DescriptorChain();
  assert(queue.pop(chain));
  queue.push(0, 0);
  record.taken(3);
  record.returned(3);

  inFlight[Symbol.dispose]();
  table[Symbol.dispose]();
  const [first, second] = [nextGuest(arena), nextGuest(arena)];
  assertEquals(first.at, at, "the place is given again");
  const bytes = new Uint8Array(1000).fill(1);
  const attempts = [
    () => memory.writeU32(0, 1),
    () => memory.copyIn(0x100, bytes, 0, 1000),
    () => memory.copyOut(0x100, bytes, 0, 1000),
    () => chain.write(bytes, 0, 1000),
    () => queue.publish(),
    () => queue.pop(chain),
    () => queue.push(0, 0),
    () => queue.enableKicks(),
    () => queue.disableKicks(),
    () => recorded.pop(chain),
    () => recorded.push(0, 1),
    () => recorded.publish(),
    () => record.taken(1),
    () => record.untaken(),
    () => record.publishing(1),
    () => record.published(1),
  ];
  for (const act of attempts) {
    attempt(act);
    for (const next of [first, second]) {
      assert(next.bytes.every((byte) => byte === CANARY), `${act} reached the next guest`);
    }
    assert(!bytes.includes(CANARY), `${act} read the next guest`);
  }
  for (const next of [first, second]) next.mapping[Symbol.dispose]();
});

Deno.test("what is removed while a request is in flight keeps its memory, is logged there, and loses it with the request", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const host = hostOf(arena);
  let requests = 1;
  const table = new MemoryTable(host, () => requests > 0);
  table.add(region(0), new DescriptorBag([newMemoryFile("dv-old", BYTES)]));
  const before = table.memory;
  const logging = new DirtyLogging(host, (log) => table.logTo(log));
  table.add(region(0x10_0000), new DescriptorBag([newMemoryFile("dv-other", BYTES)]));
  assert(table.memory !== before && table.memory.regions[0] === before.regions[0]);
  table.remove(region(0));
  logging.switch(true);
  const log = newMemoryFile("dv-log", 4096);
  using seen = MemoryMapping.map(log.number, { offsetBytes: 0, lengthBytes: 4096 }, "log");
  logging.setBase(4096, 0, new DescriptorBag([log]));
  before.copyIn(0x3000, new Uint8Array(100), 0, 100);
  assertEquals(new Uint8Array(seen.buffer)[0], 1 << 3, "a write into removed memory is logged");
  const { dirtyLog } = before.regions[0];
  logging[Symbol.dispose]();
  const next = nextGuest(arena);
  before.copyIn(0x5000, new Uint8Array(100), 0, 100);
  attempt(() => dirtyLog!.mark(0x7000, 100));
  assert(next.bytes.every((byte) => byte === CANARY), "a log that is gone marks nothing");
  assertEquals(before.readU8(0x5000), 0, "the memory is still there");
  requests = 0;
  assert(table.release());
  attempt(() => before.writeU8(0x5000, 1));
  const last = nextGuest(arena);
  attempt(() => before.copyIn(0x3000, new Uint8Array(100), 0, 100));
  assert(last.bytes.every((byte) => byte === CANARY) && next.bytes.every((byte) => byte === CANARY));
  next.mapping[Symbol.dispose]();
  last.mapping[Symbol.dispose]();
  table[Symbol.dispose]();
});

Deno.test("memory that a front-end describes in vain is unmapped again", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  const live = MemoryMapping.live;
  const table = new MemoryTable(hostOf(arena));
  for (let i = 0; i < 3; i++) {
    const bag = new DescriptorBag([newMemoryFile("dv-a", BYTES), newMemoryFile("dv-b", BYTES)]);
    attempt(() => table.replace([region(0), region(0x8000)], bag));
  }
  assertEquals([table.size, MemoryMapping.live], [0, live]);
  assertEquals(new GuestMemory([]).regions.length, 0);
});
