import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import type { GuestMemory } from "../../rings/memory.ts";
import { BAD_USED, BufferList, NOTHING_USED, PackedDriverRing } from "../../guest/driver_ring.ts";
import { descriptorAt, DESCRIPTORS, DEVICE, DRIVER, placeRing, TABLES } from "./support/ring_memory.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const AVAIL = 0x80;
const USED = 0x8000;

function listOf(...pieces: [address: number, length: number, writable: boolean][]): BufferList {
  const list = new BufferList(8);
  for (const [address, length, writable] of pieces) {
    if (writable) list.addWritable(address, length);
    else list.addReadable(address, length);
  }
  return list;
}

/** The device: writes a used descriptor with `id` at `slot`, in the round whose wrap counter is `wrap`. */
function use(
  memory: GuestMemory,
  slot: number,
  wrap: number,
  id: number,
  length: number,
  write = true,
): void {
  const at = DESCRIPTORS + 16 * slot;
  memory.writeU32(at + 8, length);
  memory.writeU16(at + 12, id);
  memory.writeU16(at + 14, (wrap === 1 ? AVAIL | USED : 0) | (write ? WRITE : 0));
}

Deno.test("PackedDriverRing.add() holds the first descriptor of a burst back until publish()", () => {
  const { memory, place } = placeRing(5, false);
  const ring = new PackedDriverRing(memory, place);
  assert(ring.add(listOf([0x1_2345_6789, 2, false], [0x6000, 1, true]), 7));
  assert(ring.add(listOf([0x7000, 3, true]), 8));
  assertEquals(descriptorAt(memory, DESCRIPTORS), [0x1_2345_6789, 2, 0, 0], "no flags, no id yet");
  assertEquals(descriptorAt(memory, DESCRIPTORS + 16), [0x6000, 1, 0, WRITE | AVAIL]);
  assertEquals(descriptorAt(memory, DESCRIPTORS + 32), [0x7000, 3, 1, WRITE | AVAIL]);
  assert(ring.publish());
  assertEquals(descriptorAt(memory, DESCRIPTORS), [0x1_2345_6789, 2, 0, NEXT | AVAIL]);
  assert(!ring.publish(), "nothing new, no kick");
  assertEquals(ring.inFlight, 2);
});

Deno.test("PackedDriverRing.add() turns the flags round with its wrap counter", () => {
  const { memory, place } = placeRing(3, false);
  const ring = new PackedDriverRing(memory, place);
  ring.add(listOf([0x4000, 1, true], [0x5000, 1, true]), 1);
  ring.publish();
  use(memory, 0, 1, 0, 2);
  assertEquals(ring.takeUsed(), 1);
  ring.add(listOf([0x6000, 1, true], [0x7000, 1, true]), 2);
  ring.publish();
  assertEquals(memory.readU16(DESCRIPTORS + 2 * 16 + 14), AVAIL | WRITE | NEXT);
  assertEquals(memory.readU16(DESCRIPTORS + 0 * 16 + 14), USED | WRITE, "the second round has begun");
  assertEquals(ring.takeUsed(), NOTHING_USED);
  use(memory, 2, 1, 0, 2);
  assertEquals(ring.takeUsed(), 2);
  ring.add(listOf([0x4000, 1, true]), 3);
  ring.publish();
  assertEquals(memory.readU16(DESCRIPTORS + 1 * 16 + 14), USED | WRITE);
  use(memory, 1, 0, 0, 1);
  assertEquals(ring.takeUsed(), 3);
});

Deno.test("PackedDriverRing.add() writes a table with no flag but the direction (section 2.8.8)", () => {
  const { memory, place } = placeRing(3, false, "chains");
  const ring = new PackedDriverRing(memory, place);
  assert(ring.add(listOf([0x5000, 6, false], [0x6000, 7, true]), 1));
  ring.publish();
  assertEquals(descriptorAt(memory, DESCRIPTORS), [TABLES, 32, 0, INDIRECT | AVAIL]);
  assertEquals(descriptorAt(memory, TABLES), [0x5000, 6, 0, 0]);
  assertEquals(descriptorAt(memory, TABLES + 16), [0x6000, 7, 0, WRITE]);
});

Deno.test("PackedDriverRing.takeUsed() skips the rest of a chain and takes ids in any order", () => {
  const { memory, place } = placeRing(5, false);
  const ring = new PackedDriverRing(memory, place);
  ring.add(listOf([0x4000, 1, true], [0x5000, 1, true], [0x6000, 1, true]), 10);
  ring.add(listOf([0x7000, 1, true], [0x7100, 1, true]), 20);
  ring.publish();
  assert(!ring.add(listOf([0x4000, 1, true]), 30), "all five descriptors are taken");
  use(memory, 0, 1, 1, 2);
  use(memory, 2, 1, 0, 3);
  assertEquals(ring.takeUsed(), 20);
  assertEquals(ring.usedBytes, 2);
  assertEquals(ring.takeUsed(), 10);
  assertEquals(ring.usedBytes, 3);
  assertEquals(ring.takeUsed(), NOTHING_USED);
});

Deno.test("PackedDriverRing.takeUsed() ignores the length of a descriptor without the write flag", () => {
  const { memory, place } = placeRing(2, false);
  const ring = new PackedDriverRing(memory, place);
  ring.add(listOf([0x4000, 8, false]), 1);
  ring.publish();
  use(memory, 0, 1, 0, 1234, false);
  assertEquals(ring.takeUsed(), 1);
  assertEquals(ring.usedBytes, 0);
});

Deno.test("PackedDriverRing.takeUsed() gives a ring up at an id that is not in flight", () => {
  const { memory, place } = placeRing(4, false);
  const ring = new PackedDriverRing(memory, place);
  ring.add(listOf([0x4000, 8, true]), 1);
  ring.publish();
  use(memory, 0, 1, 3, 8);
  assertEquals(ring.takeUsed(), BAD_USED);
  assertMatch(ring.fault, /used descriptor 0 has id 3, which is not in flight/);
  assert(ring.broken);
  assertEquals(ring.takeUsed(), NOTHING_USED);
});

Deno.test("PackedDriverRing.publish() obeys enable and disable, and takes the reserved value for enable", () => {
  for (const [flags, kick] of [[0, true], [1, false], [3, true]] as const) {
    for (const eventIndex of [false, true]) {
      const { memory, place } = placeRing(4, eventIndex);
      const ring = new PackedDriverRing(memory, place);
      memory.writeU16(DEVICE + 2, flags);
      ring.add(listOf([0x4000, 8, true]), 1);
      assertEquals(ring.publish(), kick);
    }
  }
});

Deno.test("PackedDriverRing.publish() kicks if and only if the awaited descriptor is among those added", () => {
  for (const size of [1, 2, 5, 7]) {
    for (let start = 0; start < 3 * size; start++) {
      for (let added = 1; added <= size; added++) {
        for (let ahead = -size; ahead < size; ahead++) {
          const event = start + ahead;
          if (event < 0) continue;
          const { memory, place } = placeRing(size, true);
          const ring = new PackedDriverRing(memory, place);
          turn(memory, ring, start);
          const wrap = Math.floor(event / size) % 2 === 0 ? 1 : 0;
          memory.writeU16(DEVICE, event % size | wrap << 15);
          memory.writeU16(DEVICE + 2, 2);
          for (let i = 0; i < added; i++) ring.add(listOf([0x4000, 5, true]), i);
          assertEquals(ring.publish(), ahead >= 0 && ahead < added, `${size} ${start} ${added} ${ahead}`);
        }
      }
    }
  }
});

Deno.test("PackedDriverRing refuses and asks for interrupts in the form that was negotiated", () => {
  const flags = placeRing(3, false);
  const plain = new PackedDriverRing(flags.memory, flags.place);
  plain.disableInterrupts();
  assertEquals(flags.memory.readU16(DRIVER + 2), 1);
  assert(!plain.enableInterrupts());
  assertEquals(flags.memory.readU16(DRIVER + 2), 0);

  const events = placeRing(3, true);
  const ring = new PackedDriverRing(events.memory, events.place);
  turn(events.memory, ring, 4);
  ring.disableInterrupts();
  assertEquals(events.memory.readU16(DRIVER + 2), 1);
  ring.add(listOf([0x4000, 8, true]), 1);
  ring.publish();
  assert(!ring.enableInterrupts());
  assertEquals(events.memory.readU16(DRIVER), 1, "slot 1 of the second round");
  assertEquals(events.memory.readU16(DRIVER + 2), 2);
  use(events.memory, 1, 0, 0, 1);
  assert(ring.enableInterrupts(), "there is one already");
});

Deno.test("PackedDriverRing survives a device that writes garbage over everything", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 40 }), fc.boolean(), (noise, eventIndex) => {
      const { memory, place } = placeRing(7, eventIndex, "chains");
      const ring = new PackedDriverRing(memory, place);
      const list = listOf([0x4000, 5, false], [0x5000, 5, true]);
      const single = listOf([0x4000, 5, true]);
      for (const number of noise) {
        ring.add(number % 2 === 0 ? list : single, number);
        memory.writeU32(DEVICE, number);
        ring.publish();
        use(memory, number % 7, number & 1, number % 8, number);
        let taken = 0;
        while (ring.takeUsed() !== NOTHING_USED) assert(++taken <= 14, "taking comes to no end");
        assert(ring.inFlight >= 0 && ring.inFlight <= 7);
        ring.enableInterrupts();
      }
    }),
    { numRuns: 200 },
  );
});

/** Moves a ring on by `count` used chains of one descriptor. */
function turn(memory: GuestMemory, ring: PackedDriverRing, count: number): void {
  const list = listOf([0x4000, 5, true]);
  for (let i = 0; i < count; i++) {
    ring.add(list, 0);
    ring.publish();
    use(memory, i % ring.size, Math.floor(i / ring.size) % 2 === 0 ? 1 : 0, 0, 1);
    assertEquals(ring.takeUsed(), 0);
  }
}
