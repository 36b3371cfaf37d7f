import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { GuestError, type GuestFault } from "../../rings/guest_error.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import { splitEventDue, type VirtqueueSetup } from "../../rings/virtqueue.ts";
import { garbage, rounds, workGarbage } from "../core/support/arbitraries.ts";
import { setupAt, SplitDriver } from "../core/support/drivers.ts";
import { TestGuest } from "../core/support/guest.ts";
import { runTraffic } from "../core/support/traffic.ts";

const RING = 0x1_0000_0000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

function fault(action: () => unknown): GuestFault {
  return assertThrows(action, GuestError).fault;
}

/** A ring of 8 in which descriptors and available entries are written by hand. */
function rig(changes: Partial<VirtqueueSetup> = {}, start = 0) {
  const guest = new TestGuest();
  const setup = { ...setupAt(RING, 8), ...changes };
  guest.setNumber(setup.driver + 2, 2, start);
  guest.setNumber(setup.device + 2, 2, start);
  const queue = new SplitVirtqueue(guest.memory, setup);
  let index = start;
  return {
    guest,
    setup,
    queue,
    chain: new DescriptorChain(),
    descriptor(
      i: number,
      address: number,
      length: number,
      flags: number,
      next = 0,
      table = setup.descriptors,
    ) {
      guest.setDescriptor(table + 16 * i, address, length, flags, next);
    },
    offer(...heads: number[]) {
      for (const head of heads) {
        guest.setNumber(setup.driver + 4 + 2 * (index % setup.size), 2, head);
        index = (index + 1) % 65536;
      }
      guest.setNumber(setup.driver + 2, 2, index);
    },
    setIndex(value: number) {
      guest.setNumber(setup.driver + 2, 2, value);
    },
  };
}

Deno.test("SplitVirtqueue refuses a size that is no power of two up to 32768", () => {
  for (const size of [0, -1, 3, 6, 1000, 65536, 1.5, NaN, Infinity]) {
    assertEquals(fault(() => rig({ size })), "queue-size-invalid", `${size}`);
  }
});

Deno.test("SplitVirtqueue refuses misaligned and misplaced rings", () => {
  for (const part of [{ descriptors: RING + 8 }, { driver: RING + 129 }, { device: RING + 150 }]) {
    assertEquals(fault(() => rig(part)), "ring-misaligned");
  }
  const end = RING + 0x4000;
  for (const part of [{ descriptors: end - 112 }, { driver: end - 20 }, { device: end - 68 }]) {
    assertEquals(fault(() => rig(part)), "address-out-of-range");
  }
  // Without EVENT_IDX the event field need not be there.
  assertEquals(rig({ driver: end - 20, eventIndex: false }).queue.size, 8);
  assertEquals(rig({ device: end - 68, eventIndex: false }).queue.size, 8);
});

Deno.test("SplitVirtqueue.pop() gives nothing while nothing is available", () => {
  const { queue, chain } = rig();
  assertEquals(queue.pop(chain), false);
  assertEquals(queue.publish(), false);
});

Deno.test("SplitVirtqueue.pop() follows a chain across the table", () => {
  const { queue, chain, descriptor, offer } = rig();
  descriptor(5, 0x10000, 10, NEXT, 0);
  descriptor(0, 0x10100, 20, NEXT, 7);
  descriptor(7, 0x10200, 30, WRITE);
  offer(5);
  assertEquals(queue.pop(chain), true);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes, chain.writableBytes], [5, 3, 30, 30]);
  assertEquals(queue.pop(chain), false);
});

Deno.test("SplitVirtqueue.pop() takes a table alone and after direct descriptors", () => {
  const { queue, chain, descriptor, offer } = rig();
  descriptor(3, 0x10400, 48, INDIRECT | WRITE);
  descriptor(0, 0x10000, 1, NEXT, 2, 0x10400);
  descriptor(2, 0x10000, 2, NEXT | WRITE, 1, 0x10400);
  descriptor(1, 0x10000, 4, WRITE, 0, 0x10400);
  descriptor(4, 0x10000, 8, NEXT, 3);
  offer(3, 4);
  assertEquals(queue.pop(chain), true);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes, chain.writableBytes], [3, 1, 1, 6]);
  assertEquals(queue.pop(chain), true);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes, chain.writableBytes], [4, 2, 9, 6]);
});

Deno.test("SplitVirtqueue.pop() takes a table that lies across two regions, at an odd address", () => {
  const { queue, chain, descriptor, offer } = rig();
  for (const table of [0x13ff3, 0x14000 - 16, 0x14000 - 1]) {
    descriptor(0, table, 32, INDIRECT);
    descriptor(0, 0x10000, 3, NEXT, 1, table);
    descriptor(1, RING + 0x3000, 5, WRITE, 0, table);
    offer(0);
    assertEquals(queue.pop(chain), true);
    assertEquals([chain.readableBytes, chain.writableBytes], [3, 5]);
  }
});

Deno.test("SplitVirtqueue.pop() allows a table longer than the queue, of which a short chain uses a part", () => {
  const { queue, chain, descriptor, offer } = rig();
  descriptor(0, 0x10400, 16 * 20, INDIRECT);
  descriptor(0, 0x10000, 3, NEXT, 19, 0x10400);
  descriptor(19, 0x10000, 5, 0, 0, 0x10400);
  offer(0);
  assertEquals(queue.pop(chain), true);
  assertEquals(chain.readableBytes, 8);
});

Deno.test("SplitVirtqueue.pop() refuses a loop", () => {
  const direct = rig();
  direct.descriptor(1, 0x10000, 1, NEXT, 2);
  direct.descriptor(2, 0x10000, 1, NEXT, 1);
  direct.offer(1);
  assertEquals(fault(() => direct.queue.pop(direct.chain)), "descriptor-loop");
  const table = rig();
  table.descriptor(0, 0x10400, 32, INDIRECT);
  table.descriptor(0, 0x10000, 1, NEXT, 1, 0x10400);
  table.descriptor(1, 0x10000, 1, NEXT, 0, 0x10400);
  table.offer(0);
  assertEquals(fault(() => table.queue.pop(table.chain)), "descriptor-loop");
  const itself = rig();
  itself.descriptor(3, 0x10000, 1, NEXT, 3);
  itself.offer(3);
  assertEquals(fault(() => itself.queue.pop(itself.chain)), "descriptor-loop");
});

Deno.test("SplitVirtqueue.pop() takes a chain as long as the queue, and with a table 1024 elements", () => {
  const whole = rig();
  for (let i = 0; i < 8; i++) whole.descriptor(i, 0x10000, 1, i < 7 ? NEXT : 0, i + 1);
  whole.offer(0);
  assertEquals(whole.queue.pop(whole.chain), true);
  assertEquals(whole.chain.descriptors, 8);
  // Linux does not look at the size of the queue when it fills a table.
  for (
    const [direct, inTable, ok] of [[0, 9, true], [0, 1024, true], [2, 1022, true], [0, 1025, false], [
      2,
      1023,
      false,
    ]] as const
  ) {
    const { queue, chain, descriptor, offer } = rig();
    for (let i = 0; i < direct; i++) descriptor(i, 0x10000, 1, NEXT, i + 1);
    descriptor(direct, 0x10400, 16 * inTable, INDIRECT);
    for (let i = 0; i < inTable; i++) descriptor(i, 0x10000, 1, i < inTable - 1 ? NEXT : 0, i + 1, 0x10400);
    offer(0);
    if (!ok) assertEquals(fault(() => queue.pop(chain)), "chain-too-long");
    else assertEquals([queue.pop(chain), chain.readableBytes], [true, direct + inTable]);
  }
});

Deno.test("SplitVirtqueue.pop() refuses each broken descriptor by its name", () => {
  const cases: [GuestFault, (r: ReturnType<typeof rig>) => void][] = [
    ["descriptor-index-out-of-range", (r) => r.offer(8)],
    ["descriptor-index-out-of-range", (r) => r.offer(0xffff)],
    ["descriptor-index-out-of-range", (r) => (r.descriptor(0, 0x10000, 1, NEXT, 8), r.offer(0))],
    ["descriptor-zero-length", (r) => (r.descriptor(0, 0x10000, 0, 0), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0x18000, 1, 0), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0x17fff, 2, 0), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0, 1, WRITE), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 2 ** 53, 1, 0), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 2 ** 64 - 4096, 1, 0), r.offer(0))],
    ["descriptor-readable-after-writable", (r) => {
      r.descriptor(0, 0x10000, 1, WRITE | NEXT, 1);
      r.descriptor(1, 0x10000, 1, 0);
      r.offer(0);
    }],
    ["descriptor-readable-after-writable", (r) => {
      r.descriptor(0, 0x10000, 1, WRITE | NEXT, 1);
      r.descriptor(1, 0x10400, 16, INDIRECT);
      r.descriptor(0, 0x10000, 1, 0, 0, 0x10400);
      r.offer(0);
    }],
    ["descriptor-flags-invalid", (r) => (r.descriptor(0, 0x10400, 16, INDIRECT | NEXT, 1), r.offer(0))],
    ["indirect-nested", (r) => {
      r.descriptor(0, 0x10400, 16, INDIRECT);
      r.descriptor(0, 0x10400, 16, INDIRECT, 0, 0x10400);
      r.offer(0);
    }],
    ["descriptor-index-out-of-range", (r) => {
      r.descriptor(0, 0x10400, 32, INDIRECT);
      r.descriptor(0, 0x10000, 1, NEXT, 2, 0x10400);
      r.offer(0);
    }],
    ["descriptor-zero-length", (r) => (r.descriptor(0, 0x10400, 16, INDIRECT), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0x17ff0, 32, INDIRECT), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0x20000, 16, INDIRECT), r.offer(0))],
    ["address-out-of-range", (r) => (r.descriptor(0, 0x10400, 0xfffffff0, INDIRECT), r.offer(0))],
  ];
  for (const [name, spoil] of cases) {
    const broken = rig();
    spoil(broken);
    assertEquals(fault(() => broken.queue.pop(broken.chain)), name, spoil.toString());
    // The queue stays where it was.
    assertEquals(broken.queue.inFlight, 0);
  }
});

Deno.test("SplitVirtqueue.pop() refuses a table whose length is nothing or no multiple of 16", () => {
  for (const length of [0, 1, 15, 17, 24, 0xffffffff]) {
    const { queue, chain, descriptor, offer } = rig();
    descriptor(0, 0x10400, length, INDIRECT);
    offer(0);
    assertEquals(fault(() => queue.pop(chain)), "indirect-table-invalid", `${length}`);
  }
});

Deno.test("SplitVirtqueue.pop() refuses a table if that was not negotiated", () => {
  const { queue, chain, descriptor, offer } = rig({ indirect: false });
  descriptor(0, 0x10400, 16, INDIRECT);
  offer(0);
  assertEquals(fault(() => queue.pop(chain)), "indirect-not-negotiated");
});

Deno.test("SplitVirtqueue.pop() refuses an available index that is too far ahead or goes back", () => {
  for (const start of [0, 65530]) {
    const { queue, chain, descriptor, offer, setIndex } = rig({}, start);
    for (let i = 0; i < 8; i++) descriptor(i, 0x10000, 1, 0);
    offer(0, 1, 2, 3);
    for (let i = 0; i < 3; i++) assertEquals(queue.pop(chain), true);
    queue.push(0, 0);
    queue.push(1, 0);
    queue.publish();
    assertEquals(queue.pop(chain), true);
    for (const ahead of [11, 12, 300, 32768, 65535, -2]) {
      setIndex((start + ahead) & 0xffff);
      assertEquals(fault(() => queue.pop(chain)), "available-index-too-far", `${ahead}`);
    }
    // Back behind what was popped, but not behind what is published.
    setIndex((start + 3) & 0xffff);
    assertEquals(fault(() => queue.pop(chain)), "available-index-too-far");
    // Two were returned, so that eight more may be out than those.
    setIndex((start + 10) & 0xffff);
    assertEquals(queue.pop(chain), true);
  }
});

Deno.test("SplitVirtqueue.pop() loads the available index once a burst", () => {
  const { queue, chain, descriptor, offer, setIndex } = rig();
  for (let i = 0; i < 8; i++) descriptor(i, 0x10000, 1, 0);
  offer(0, 1, 2);
  assertEquals(queue.pop(chain), true);
  setIndex(12345);
  assertEquals(queue.pop(chain), true);
  assertEquals(queue.pop(chain), true);
  assertEquals(fault(() => queue.pop(chain)), "available-index-too-far");
});

Deno.test("SplitVirtqueue.push() shows nothing before publish(), then all", () => {
  const { guest, setup, queue, chain, descriptor, offer } = rig();
  for (let i = 0; i < 3; i++) descriptor(i, 0x10000, 100, WRITE);
  offer(2, 0, 1);
  for (let i = 0; i < 3; i++) queue.pop(chain);
  queue.push(1, 11);
  queue.push(2, 4_000_000_000);
  assertEquals(guest.number(setup.device + 2, 2), 0);
  assertEquals(queue.publish(), true);
  assertEquals(guest.number(setup.device + 2, 2), 2);
  assertEquals([4, 8, 12, 16].map((at) => guest.number(setup.device + at, 4)), [1, 11, 2, 4_000_000_000]);
  assertEquals(queue.publish(), false);
});

Deno.test("SplitVirtqueue.push() and unpop() refuse what the device does not have", () => {
  const { queue, chain, descriptor, offer } = rig();
  for (let i = 0; i < 4; i++) descriptor(i, 0x10000, 1, 0);
  assertThrows(() => queue.push(0, 0), RangeError);
  assertThrows(() => queue.unpop(1), RangeError);
  offer(0, 1, 2);
  for (let i = 0; i < 3; i++) queue.pop(chain);
  assertThrows(() => queue.unpop(4), RangeError);
  assertThrows(() => queue.unpop(-1), RangeError);
  assertThrows(() => queue.unpop(NaN), RangeError);
  queue.push(0, 0);
  assertThrows(() => queue.unpop(1), RangeError);
  queue.push(1, 0);
  queue.push(2, 0);
  assertThrows(() => queue.push(2, 0), RangeError);
});

Deno.test("SplitVirtqueue.unpop() gives the same chains again, across the wrap", () => {
  const { queue, chain, descriptor, offer } = rig({}, 65533);
  for (let i = 0; i < 8; i++) descriptor(i, 0x10000, i + 1, WRITE);
  offer(3, 1, 4, 0, 5, 2);
  const heads = () => {
    const all: number[] = [];
    while (queue.pop(chain)) all.push(chain.head);
    return all;
  };
  assertEquals(heads(), [3, 1, 4, 0, 5, 2]);
  queue.unpop(4);
  assertEquals(queue.inFlight, 2);
  assertEquals(heads(), [4, 0, 5, 2]);
  queue.unpop(6);
  queue.unpop(0);
  assertEquals([queue.inFlight, queue.base], [0, 65533]);
  assertEquals(heads(), [3, 1, 4, 0, 5, 2]);
});

Deno.test("SplitVirtqueue.enableKicks() does not count chains that were put back", () => {
  const { guest, setup, queue, chain, descriptor, offer } = rig();
  for (let i = 0; i < 8; i++) descriptor(i, 0x10000, 1, WRITE);
  offer(0, 1, 2);
  while (queue.pop(chain));
  queue.unpop(3);
  assertEquals(queue.enableKicks(), false);
  assertEquals(guest.number(setup.device + 4 + 64, 2), 3);
  offer(3);
  assertEquals(queue.enableKicks(), true);
  assertEquals([queue.pop(chain), chain.head], [true, 0]);
  assertEquals(queue.enableKicks(), true);
  for (let i = 0; i < 3; i++) assertEquals(queue.pop(chain), true);
  assertEquals(queue.enableKicks(), false);
  assertEquals(guest.number(setup.device + 4 + 64, 2), 4);
});

Deno.test("SplitVirtqueue.enableKicks() writes avail_event and looks again, with EVENT_IDX", () => {
  const { guest, setup, queue, chain, descriptor, offer } = rig({}, 65535);
  descriptor(0, 0x10000, 1, 0);
  offer(0);
  assertEquals(queue.enableKicks(), true);
  assertEquals(guest.number(setup.device + 68, 2), 65535);
  queue.pop(chain);
  assertEquals(queue.enableKicks(), false);
  assertEquals(guest.number(setup.device + 68, 2), 0);
  queue.disableKicks();
  // The flags must stay 0 with EVENT_IDX (section 2.7.10.1). An event in the past is not reached.
  assertEquals([guest.number(setup.device, 2), guest.number(setup.device + 68, 2)], [0, 65535]);
});

Deno.test("SplitVirtqueue.peek() sees what has come since enableKicks(), and nothing that is known", () => {
  for (const eventIndex of [false, true]) {
    const { queue, chain, descriptor, offer } = rig({ eventIndex });
    descriptor(0, 0x10000, 1, 0);
    assertEquals([queue.enableKicks(), queue.peek()], [false, false]);
    queue.disableKicks();
    assertEquals(queue.peek(), false);
    offer(0);
    assertEquals([queue.peek(), queue.peek()], [true, true]);
    assertEquals([queue.pop(chain), queue.peek()], [true, false]);
    queue.unpop(1);
    assertEquals([queue.enableKicks(), queue.peek()], [false, false], "it was put back");
  }
});

Deno.test("SplitVirtqueue kicks go by the flag without EVENT_IDX", () => {
  const { guest, setup, queue, chain, descriptor, offer } = rig({ eventIndex: false });
  guest.setNumber(setup.device + 68, 2, 0xabcd);
  descriptor(0, 0x10000, 1, 0);
  queue.disableKicks();
  assertEquals(guest.number(setup.device, 2), 1);
  offer(0);
  assertEquals(queue.enableKicks(), true);
  assertEquals(guest.number(setup.device, 2), 0);
  queue.pop(chain);
  assertEquals(queue.enableKicks(), false);
  assertEquals(guest.number(setup.device + 68, 2), 0xabcd);
});

Deno.test("SplitVirtqueue.publish() goes by NO_INTERRUPT without EVENT_IDX, and not with it", () => {
  for (const [eventIndex, flags, wanted] of [[false, 0, true], [false, 1, false], [true, 1, true]] as const) {
    const { guest, setup, queue, chain, descriptor, offer } = rig({ eventIndex });
    guest.setNumber(setup.driver, 2, flags);
    descriptor(0, 0x10000, 1, 0);
    offer(0);
    queue.pop(chain);
    queue.push(0, 0);
    assertEquals(queue.publish(), wanted);
  }
});

Deno.test("SplitVirtqueue.publish() interrupts when it passes used_event, and only then", () => {
  for (const start of [0, 5, 65533]) {
    for (let event = -2; event < 8; event++) {
      const { guest, setup, queue, chain, descriptor, offer } = rig({}, start);
      for (let i = 0; i < 8; i++) descriptor(i, 0x10000, 1, 0);
      offer(0, 1, 2, 3, 4, 5, 6, 7);
      const burst = (count: number): boolean => {
        for (let i = 0; i < count; i++) {
          queue.pop(chain);
          queue.push(chain.head, 0);
        }
        return queue.publish();
      };
      burst(2);
      guest.setNumber(setup.driver + 4 + 16, 2, (start + event) & 0xffff);
      assertEquals(burst(3), event >= 2 && event < 5, `event ${event} from ${start}`);
      assertEquals(burst(1), event === 5, `event ${event} from ${start}, then`);
    }
  }
});

Deno.test("splitEventDue() is true for exactly the elements passed", () => {
  for (const from of [0, 1, 100, 65530, 65535]) {
    for (const count of [0, 1, 2, 7, 32768]) {
      for (const ahead of [-32768, -1, 0, 1, 6, 7, 32767]) {
        const due = splitEventDue((from + ahead) & 0xffff, from, (from + count) & 0xffff);
        assertEquals(due, ahead >= 0 && ahead < count, `${from} + ${count}, event at ${ahead}`);
      }
    }
  }
});

Deno.test("SplitVirtqueue takes a ring over where it was left", () => {
  const guest = new TestGuest();
  const setup = setupAt(RING, 8);
  for (let i = 0; i < 8; i++) guest.setDescriptor(setup.descriptors + 16 * i, 0x10000, i + 1, WRITE, 0);
  guest.setNumber(setup.driver + 2, 2, 2);
  guest.setNumber(setup.device + 2, 2, 65534);
  for (let i = 0; i < 8; i++) guest.setNumber(setup.driver + 4 + 2 * i, 2, i);
  const chain = new DescriptorChain();
  const heads = (queue: SplitVirtqueue) => {
    const all: number[] = [];
    while (queue.pop(chain)) all.push(chain.head);
    return all;
  };
  const again = new SplitVirtqueue(guest.memory, setup);
  assertEquals(again.base, 65534);
  assertEquals(heads(again), [6, 7, 0, 1]);
  const further = new SplitVirtqueue(guest.memory, setup, 0);
  assertEquals(further.inFlight, 2);
  assertEquals(heads(further), [0, 1]);
  assertEquals(further.base, 2);
  further.push(6, 0);
  // The interrupt for what was published before the restart may have been lost.
  guest.setNumber(setup.driver + 20, 2, 65530);
  assertEquals(further.publish(), true);
  assertEquals(guest.number(setup.device + 2, 2), 65535);
  for (const base of [8, 65533, -1, 65536, 1.5, NaN]) {
    assertEquals(fault(() => new SplitVirtqueue(guest.memory, setup, base)), "ring-state-invalid", `${base}`);
  }
});

Deno.test("SplitVirtqueue carries more than 3 x 65536 buffers through rings of 1, 8 and 256", () => {
  for (const size of [1, 8, 256]) {
    const { guest, setup, queue, chain, descriptor } = rig({ ...setupAt(RING, size) });
    const window = guest.memory.window(setup.driver, 4 + 2 * size, 2).u16;
    for (let i = 0; i < size; i++) {
      descriptor(i, 0x10000 + i, 1, WRITE);
      window[2 + i] = i;
    }
    let done = 0;
    for (let index = 0; done < 3 * 65536 + 5;) {
      window[1] = index += size;
      for (let i = 0; i < size; i++, done++) {
        if (!queue.pop(chain) || chain.head !== i) throw new Error(`Chain ${chain.head} at ${done}`);
        queue.push(i, 1);
      }
      assert(!queue.pop(chain));
      queue.publish();
      if (guest.number(setup.device + 2, 2) !== (index & 0xffff)) throw new Error(`Used index at ${done}`);
    }
  }
});

Deno.test("SplitVirtqueue works at its largest size", () => {
  const guest = new TestGuest([[0, 0x200000]]);
  const setup = setupAt(0x10000, 32768);
  const { u32 } = guest.memory.window(setup.descriptors, 16 * 32768, 16);
  const { u16 } = guest.memory.window(setup.driver, 6 + 65536, 2);
  for (let i = 0; i < 32768; i++) {
    u32.set([i, 0, 1, WRITE], 4 * i);
    u16[2 + i] = 32767 - i;
  }
  const queue = new SplitVirtqueue(guest.memory, setup);
  const chain = new DescriptorChain();
  for (let lap = 1; lap < 4; lap++) {
    u16[1] = 32768 * lap;
    let pops = 0;
    while (queue.pop(chain)) {
      if (chain.head !== 32767 - pops++) throw new Error(`Chain ${chain.head} after ${pops} pops`);
    }
    assertEquals([pops, queue.inFlight], [32768, 32768]);
    for (let i = 0; i < 32768; i++) queue.push(i, 1);
    // used_event is 0: passed by the first lap, and again by the third.
    assertEquals(queue.publish(), lap !== 2);
    assertEquals(guest.number(setup.device + 2, 2), 32768 * lap % 65536);
  }
});

Deno.test("SplitVirtqueue carries any traffic whole (property)", () => {
  let total = 0;
  fc.assert(
    fc.property(
      rounds(true),
      fc.constantFrom(1, 4, 16, 64),
      fc.constantFrom(0, 65520),
      (traffic, size, start) => {
        const guest = new TestGuest();
        const driver = new SplitDriver(guest, setupAt(RING, size), start);
        const queue = new SplitVirtqueue(guest.memory, driver.setup);
        total += runTraffic(guest, driver, queue, [0x13000, 0x2000], traffic);
        assertEquals(queue.inFlight, 0);
      },
    ),
    { numRuns: 50 },
  );
  assert(total > 800, `only ${total} buffers went through`);
});

Deno.test("SplitVirtqueue meets garbage with GuestErrors only, and always ends (property)", () => {
  let pops = 0;
  fc.assert(
    fc.property(
      garbage("split"),
      fc.constantFrom(1, 2, 8, 16),
      fc.boolean(),
      fc.boolean(),
      (input, size, event, indirect) => {
        pops += workGarbage(input, (guest) => {
          const setup = setupAt(0, size, event, indirect);
          guest.setNumber(setup.device + 2, 2, 0);
          guest.setNumber(setup.driver + 2, 2, input.index % (size + 2));
          input.entries.forEach((entry, i) =>
            guest.setNumber(setup.driver + 4 + 2 * (i % size), 2, entry % (size + 1))
          );
          return new SplitVirtqueue(guest.memory, setup);
        });
      },
    ),
    { numRuns: 1500 },
  );
  assert(pops > 150, `only ${pops} chains were popped: the garbage is too bad`);
});
