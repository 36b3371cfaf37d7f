import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import {
  BAD_USED,
  BufferList,
  chainCapacity,
  NOTHING_USED,
  SplitDriverRing,
} from "../../guest/driver_ring.ts";
import {
  descriptorAt,
  DESCRIPTORS,
  DEVICE,
  DRIVER,
  placeRing,
  TABLES,
  useSplit,
} from "./support/ring_memory.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

function listOf(...pieces: [address: number, length: number, writable: boolean][]): BufferList {
  const list = new BufferList(8);
  for (const [address, length, writable] of pieces) {
    if (writable) list.addWritable(address, length);
    else list.addReadable(address, length);
  }
  return list;
}

Deno.test("SplitDriverRing.add() writes a chain as section 2.7.5 has it, and publish() shows it", () => {
  const { memory, place } = placeRing(4, false);
  const ring = new SplitDriverRing(memory, place);
  assert(ring.add(listOf([0x1_2345_6789, 2, false], [0x5000, 30, false], [0x6000, 1, true]), 7));
  assertEquals(descriptorAt(memory, DESCRIPTORS), [0x1_2345_6789, 2, NEXT, 1]);
  assertEquals(descriptorAt(memory, DESCRIPTORS + 16), [0x5000, 30, NEXT, 2]);
  assertEquals(descriptorAt(memory, DESCRIPTORS + 32), [0x6000, 1, WRITE, 0]);
  assertEquals(memory.readU16(DRIVER + 4), 0);
  assertEquals(memory.readU16(DRIVER + 2), 0, "nothing is to be seen before publish()");
  assert(ring.publish());
  assertEquals(memory.readU16(DRIVER + 2), 1);
  assert(!ring.publish(), "nothing new, no kick");
  assert(!ring.add(listOf([0x5000, 1, false], [0x6000, 1, true]), 8), "one descriptor is left");
  assert(ring.add(listOf([0x7000, 9, true]), 8));
  assertEquals(memory.readU16(DRIVER + 6), 3);
  assertEquals(ring.inFlight, 2);
});

Deno.test("SplitDriverRing.add() puts chains into a table as section 2.7.5.3 has it", () => {
  const { memory, place } = placeRing(4, false, "chains");
  const ring = new SplitDriverRing(memory, place);
  assert(ring.add(listOf([0x4000, 5, true]), 0), "a single piece goes directly");
  assertEquals(descriptorAt(memory, DESCRIPTORS), [0x4000, 5, WRITE, 0]);
  assert(ring.add(listOf([0x5000, 6, false], [0x6000, 7, true]), 1));
  const table = TABLES + 1 * 4 * 16;
  assertEquals(descriptorAt(memory, DESCRIPTORS + 16), [table, 32, INDIRECT, 0]);
  assertEquals(descriptorAt(memory, table), [0x5000, 6, NEXT, 1]);
  assertEquals(descriptorAt(memory, table + 16), [0x6000, 7, WRITE, 0]);
  const long = listOf([1, 1, false], [2, 1, false], [3, 1, false], [4, 1, false], [5, 1, false]);
  assert(!ring.add(long, 2), "longer than the table");
});

Deno.test("SplitDriverRing.add() always goes by table if it is told to", () => {
  const { memory, place } = placeRing(2, false, "always");
  const ring = new SplitDriverRing(memory, place);
  assert(ring.add(listOf([0x4000, 5, true]), 0));
  assertEquals(descriptorAt(memory, DESCRIPTORS), [TABLES, 16, INDIRECT, 0]);
  assertEquals(descriptorAt(memory, TABLES), [0x4000, 5, WRITE, 0]);
});

Deno.test("SplitDriverRing.takeUsed() returns tokens in the device's order and frees whole chains", () => {
  const { memory, place } = placeRing(4, false);
  const ring = new SplitDriverRing(memory, place);
  assert(ring.add(listOf([0x4000, 5, true], [0x5000, 5, true]), 100));
  assert(ring.add(listOf([0x6000, 5, true], [0x7000, 5, true]), 200));
  ring.publish();
  assertEquals(ring.takeUsed(), NOTHING_USED);
  useSplit(memory, 4, 0, 2, 6);
  useSplit(memory, 4, 1, 0, 10);
  assertEquals(ring.takeUsed(), 200);
  assertEquals(ring.usedBytes, 6);
  assertEquals(ring.takeUsed(), 100);
  assertEquals(ring.usedBytes, 10);
  assertEquals(ring.takeUsed(), NOTHING_USED);
  assertEquals(ring.inFlight, 0);
  for (let i = 0; i < 4; i++) assert(ring.add(listOf([0x4000, 5, true]), i));
});

Deno.test("SplitDriverRing.takeUsed() tells of an id that is not in flight, and goes on", () => {
  const { memory, place } = placeRing(4, false);
  const ring = new SplitDriverRing(memory, place);
  for (let i = 0; i < 3; i++) assert(ring.add(listOf([0x4000, 5, true]), i));
  ring.publish();
  useSplit(memory, 4, 0, 3, 5);
  assertEquals(ring.takeUsed(), BAD_USED);
  assertMatch(ring.fault, /used element 0 has id 3, which is not in flight/);
  useSplit(memory, 4, 1, 0xffff_ffff, 5);
  assertEquals(ring.takeUsed(), BAD_USED);
  useSplit(memory, 4, 2, 1, 5);
  assertEquals(ring.takeUsed(), 1);
  assert(!ring.broken);
});

Deno.test("SplitDriverRing.takeUsed() gives a ring up whose used index runs ahead of what is in flight", () => {
  const { memory, place } = placeRing(4, false);
  const ring = new SplitDriverRing(memory, place);
  assert(ring.add(listOf([0x4000, 5, true]), 0));
  ring.publish();
  memory.writeU16(DEVICE + 2, 2);
  assertEquals(ring.takeUsed(), BAD_USED);
  assertMatch(ring.fault, /used index 2 shows 2 chains of 1 in flight/);
  assert(ring.broken);
  assertEquals(ring.takeUsed(), NOTHING_USED);
  assert(!ring.enableInterrupts());
});

Deno.test("SplitDriverRing.publish() obeys the flag without an event index, and ignores it with one", () => {
  for (const eventIndex of [false, true]) {
    const { memory, place } = placeRing(8, eventIndex);
    const ring = new SplitDriverRing(memory, place);
    memory.writeU16(DEVICE, 1);
    memory.writeU16(DEVICE + 4 + 8 * 8, 0);
    ring.add(listOf([0x4000, 5, true]), 0);
    assertEquals(ring.publish(), eventIndex);
    memory.writeU16(DEVICE, 0);
    ring.add(listOf([0x4000, 5, true]), 0);
    assertEquals(ring.publish(), !eventIndex, "entry 1 is not entry 0");
  }
});

Deno.test("SplitDriverRing.publish() kicks if and only if the awaited entry is among those added", () => {
  // Entry numbers run freely, so the rule must hold wherever they wrap.
  for (const start of [0, 5, 65530, 65535]) {
    for (let added = 1; added <= 4; added++) {
      for (let ahead = -3; ahead <= 6; ahead++) {
        const { memory, place } = placeRing(4, true);
        const ring = new SplitDriverRing(memory, place);
        turn(memory, ring, start);
        memory.writeU16(DEVICE + 4 + 8 * 4, (start + ahead) & 0xffff);
        for (let i = 0; i < added; i++) ring.add(listOf([0x4000, 5, true]), i);
        assertEquals(ring.publish(), ahead >= 0 && ahead < added, `${start} ${added} ${ahead}`);
      }
    }
  }
});

Deno.test("SplitDriverRing refuses and asks for interrupts in the form that was negotiated", () => {
  const flags = placeRing(4, false);
  const plain = new SplitDriverRing(flags.memory, flags.place);
  plain.disableInterrupts();
  assertEquals(flags.memory.readU16(DRIVER), 1);
  assert(!plain.enableInterrupts());
  assertEquals(flags.memory.readU16(DRIVER), 0);

  const events = placeRing(4, true);
  const ring = new SplitDriverRing(events.memory, events.place);
  const usedEvent = DRIVER + 4 + 2 * 4;
  turn(events.memory, ring, 3);
  ring.disableInterrupts();
  assertEquals(events.memory.readU16(DRIVER), 0, "the flag stays 0 with an event index");
  assertEquals(events.memory.readU16(usedEvent), 3 + 0x8000);
  ring.add(listOf([0x4000, 5, true]), 0);
  ring.publish();
  assert(!ring.enableInterrupts());
  assertEquals(events.memory.readU16(usedEvent), 3);
  useSplit(events.memory, 4, 3, events.memory.readU16(DRIVER + 4 + 2 * 3), 1);
  assert(ring.enableInterrupts(), "there is one already");
});

Deno.test("SplitDriverRing survives a device that writes garbage over everything", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 40 }), fc.boolean(), (noise, eventIndex) => {
      const { memory, place } = placeRing(8, eventIndex, "chains");
      const ring = new SplitDriverRing(memory, place);
      const list = listOf([0x4000, 5, false], [0x5000, 5, true]);
      const single = listOf([0x4000, 5, true]);
      for (const number of noise) {
        ring.add(number % 2 === 0 ? list : single, number);
        ring.publish();
        memory.writeU32(DESCRIPTORS + (number % 128) * 4 % 128, number);
        memory.writeU16(DEVICE + 2, (memory.readU16(DEVICE + 2) + number % 3) & 0xffff);
        memory.writeU32(DEVICE + 4 + 8 * (number % 8), number % 11);
        let taken = 0;
        while (ring.takeUsed() !== NOTHING_USED) assert(++taken <= 16, "taking comes to no end");
        assert(ring.inFlight >= 0 && ring.inFlight <= 8);
        ring.enableInterrupts();
      }
    }),
    { numRuns: 200 },
  );
});

Deno.test("chainCapacity() counts chains, not descriptors", () => {
  assertEquals(chainCapacity("never", 256, 3), 85);
  assertEquals(chainCapacity("chains", 256, 3), 256);
  assertEquals(chainCapacity("chains", 256, 1), 256);
  assertEquals(chainCapacity("always", 1, 9), 1);
  assertEquals(chainCapacity("never", 2, 3), 0);
});

Deno.test("BufferList.addCut() leaves no byte out and makes no empty piece", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5000 }),
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 1, max: 20 }),
      fc.boolean(),
      (length, pieces, head, writable) => {
        const list = new BufferList(64);
        list.addCut(1000, length, pieces, head, writable);
        assert(list.count >= 1 && list.count <= pieces);
        let at = 1000;
        for (let i = 0; i < list.count; i++) {
          assertEquals(list.addresses[i], at);
          assert(list.lengths[i] > 0);
          at += list.lengths[i];
        }
        assertEquals(at, 1000 + length);
        if (pieces > 1) assertEquals(list.lengths[0], Math.min(head, length));
        assertEquals(list.readable, writable ? 0 : list.count);
      },
    ),
  );
});

/** Moves all indices of a ring on to `index`, by used chains. */
function turn(memory: Parameters<typeof useSplit>[0], ring: SplitDriverRing, index: number): void {
  const list = listOf([0x4000, 5, true]);
  for (let i = 0; i < index; i++) {
    ring.add(list, 0);
    ring.publish();
    useSplit(memory, ring.size, i, memory.readU16(DRIVER + 4 + 2 * (i % ring.size)), 1);
    assertEquals(ring.takeUsed(), 0);
  }
}
