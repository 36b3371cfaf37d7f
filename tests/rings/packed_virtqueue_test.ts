import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { GuestError, type GuestFault } from "../../rings/guest_error.ts";
import { PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { packedEventDue, type VirtqueueSetup } from "../../rings/virtqueue.ts";
import { garbage, rounds, workGarbage } from "../core/support/arbitraries.ts";
import { type Element, PackedDriver, setupAt } from "../core/support/drivers.ts";
import { TestGuest } from "../core/support/guest.ts";
import { runTraffic } from "../core/support/traffic.ts";

const RING = 0x1_0000_0000;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
/** AVAIL and USED of an available descriptor in the first lap, and in the second. */
const LAP1 = 0x0080;
const LAP2 = 0x8000;

function fault(action: () => unknown): GuestFault {
  return assertThrows(action, GuestError).fault;
}

/** A ring in which descriptors are written by hand. */
function rig(changes: Partial<VirtqueueSetup> = {}, base?: number) {
  const guest = new TestGuest();
  const setup = { ...setupAt(RING, 8), ...changes };
  const queue = new PackedVirtqueue(guest.memory, setup, base);
  return {
    guest,
    setup,
    queue,
    chain: new DescriptorChain(),
    descriptor(slot: number, address: number, length: number, id: number, flags: number) {
      guest.setDescriptor(setup.descriptors + 16 * slot, address, length, id, flags);
    },
    flags(slot: number): number {
      return guest.number(setup.descriptors + 16 * slot + 14, 2);
    },
  };
}

function element(length = 1, writable = false, address = 0x10000): Element {
  return { address, length, writable };
}

/** A ring that a driver of the tests works. */
function driven(size: number, changes: Partial<VirtqueueSetup> = {}) {
  const guest = new TestGuest();
  const driver = new PackedDriver(guest, { ...setupAt(RING, size), ...changes });
  const queue = new PackedVirtqueue(guest.memory, driver.setup);
  return {
    guest,
    driver,
    queue,
    setup: driver.setup,
    chain: new DescriptorChain(),
    /** Posts lists of so many elements each. */
    post(...lists: number[]): (number | null)[] {
      const ids = lists.map((count) =>
        driver.post({ elements: Array.from({ length: count }, () => element()), table: null, direct: 0 })
      );
      driver.expose();
      return ids;
    },
  };
}

Deno.test("PackedVirtqueue refuses a size outside 1 to 32768", () => {
  for (const size of [0, -1, 32769, 1.5, NaN, Infinity]) {
    assertEquals(fault(() => rig({ size })), "queue-size-invalid", `${size}`);
  }
});

Deno.test("PackedVirtqueue refuses misaligned and misplaced rings", () => {
  for (const part of [{ descriptors: RING + 8 }, { driver: RING + 130 }, { device: RING + 150 }]) {
    assertEquals(fault(() => rig(part)), "ring-misaligned");
  }
  const end = RING + 0x4000;
  for (const part of [{ descriptors: end - 112 }, { driver: end }, { device: 0x18000 }]) {
    assertEquals(fault(() => rig(part)), "address-out-of-range");
  }
});

Deno.test("PackedVirtqueue.pop() takes a descriptor only when AVAIL and USED say so", () => {
  for (const [flags, there] of [[0, false], [0x8080, false], [LAP2, false], [LAP1, true]] as const) {
    const { queue, chain, descriptor } = rig();
    descriptor(0, 0x10000, 5, 3, flags);
    assertEquals(queue.pop(chain), there);
  }
});

Deno.test("PackedVirtqueue.pop() follows a list over the end of the ring and takes the id of its last", () => {
  const { driver, queue, chain, post } = driven(7);
  assertEquals(post(5), [0]);
  queue.pop(chain);
  queue.push(0, 0);
  queue.publish();
  driver.collect();
  assertEquals(post(4), [1]);
  assertEquals(queue.pop(chain), true);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes, queue.inFlight], [1, 4, 4, 4]);
  assertEquals(queue.pop(chain), false);
});

Deno.test("PackedVirtqueue.pop() takes a table, and ignores all but WRITE in it", () => {
  const { guest, queue, chain, descriptor } = rig();
  for (const [lap, table] of [[0, 0x10400], [1, 0x13ff5]] as const) {
    guest.setDescriptor(table, 0x10000, 3, 0xffff, 0xffff & ~WRITE);
    guest.setDescriptor(table + 16, 0x10000, 4, 0, 0xffff);
    guest.setDescriptor(table + 32, 0x10000, 5, 0, WRITE);
    descriptor(lap, table, 48, 9 + lap, LAP1 | INDIRECT | WRITE);
    assertEquals(queue.pop(chain), true);
    assertEquals([chain.head, chain.descriptors, chain.readableBytes, chain.writableBytes], [
      9 + lap,
      1,
      3,
      9,
    ]);
  }
});

Deno.test("PackedVirtqueue.pop() reads all of a table up to its last readable element", () => {
  // The first is what DPDK 22.11 makes of a frame in two buffers: WRITE is left on the element of the header.
  const tables: [number[], readable: number][] = [
    [[WRITE, LAP1 | NEXT, LAP1], 3],
    [[WRITE, 0, WRITE], 2],
    [[0, WRITE, 0, WRITE, WRITE], 3],
    [[WRITE, WRITE], 0],
  ];
  for (const [flags, readable] of tables) {
    const { guest, queue, chain, descriptor } = rig();
    flags.forEach((flag, i) => guest.setDescriptor(0x10400 + 16 * i, 0x10000 + 2 * i, 2, 0, flag));
    guest.memory.copyIn(0x10000, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0, 10);
    descriptor(0, 0x10400, 16 * flags.length, 0, LAP1 | INDIRECT);
    assertEquals([queue.pop(chain), chain.inPackedTable], [true, true]);
    const bytes = [2 * readable, 2 * (flags.length - readable)];
    assertEquals([chain.readableBytes, chain.writableBytes], bytes);
    descriptor(1, 0x10000, 2, 1, LAP1);
    const read = new Uint8Array(10);
    assertEquals([chain.read(read, 0, 10), chain.write(new Uint8Array(10), 0, 10)], bytes);
    assertEquals(Array.from(read), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => n <= 2 * readable ? n : 0));
    // Only what stayed writable was written.
    assertEquals(
      Array.from(guest.bytes(0x10000, 10)),
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((n) => n <= 2 * readable || n > 2 * flags.length ? n : 0),
    );
    assertEquals([queue.pop(chain), chain.inPackedTable], [true, false]);
  }
});

Deno.test("PackedVirtqueue.pop() refuses each broken descriptor by its name", () => {
  const cases: [GuestFault, (r: ReturnType<typeof rig>) => void][] = [
    ["descriptor-zero-length", (r) => r.descriptor(0, 0x10000, 0, 0, LAP1)],
    ["address-out-of-range", (r) => r.descriptor(0, 0x18000, 1, 0, LAP1)],
    ["address-out-of-range", (r) => r.descriptor(0, 2 ** 53, 1, 0, LAP1)],
    ["descriptor-readable-after-writable", (r) => {
      r.descriptor(0, 0x10000, 1, 0, LAP1 | WRITE | NEXT);
      r.descriptor(1, 0x10000, 1, 0, LAP1);
    }],
    ["descriptor-flags-invalid", (r) => {
      // The second descriptor of the list is not available.
      r.descriptor(0, 0x10000, 1, 0, LAP1 | NEXT);
      r.descriptor(1, 0x10000, 1, 0, LAP2);
    }],
    ["descriptor-flags-invalid", (r) => {
      r.descriptor(0, 0x10400, 16, 0, LAP1 | INDIRECT | NEXT);
      r.descriptor(1, 0x10000, 1, 0, LAP1);
    }],
    ["descriptor-flags-invalid", (r) => {
      r.descriptor(0, 0x10000, 1, 0, LAP1 | NEXT);
      r.descriptor(1, 0x10400, 16, 0, LAP1 | INDIRECT);
    }],
    ["indirect-table-invalid", (r) => r.descriptor(0, 0x10400, 0, 0, LAP1 | INDIRECT)],
    ["indirect-table-invalid", (r) => r.descriptor(0, 0x10400, 24, 0, LAP1 | INDIRECT)],
    ["address-out-of-range", (r) => r.descriptor(0, 0x17ff0, 32, 0, LAP1 | INDIRECT)],
    ["address-out-of-range", (r) => r.descriptor(0, 0x10400, 0xfffffff0, 0, LAP1 | INDIRECT)],
    ["chain-too-long", (r) => r.descriptor(0, 0x10400, 16 * 1025, 0, LAP1 | INDIRECT)],
    ["descriptor-zero-length", (r) => r.descriptor(0, 0x10400, 16, 0, LAP1 | INDIRECT)],
    ["descriptor-loop", (r) => {
      for (let i = 0; i < 8; i++) r.descriptor(i, 0x10000, 1, 0, LAP1 | NEXT);
    }],
  ];
  for (const [name, spoil] of cases) {
    const broken = rig();
    spoil(broken);
    assertEquals(fault(() => broken.queue.pop(broken.chain)), name, spoil.toString());
    assertEquals(broken.queue.inFlight, 0);
  }
});

Deno.test("PackedVirtqueue.pop() refuses a table if that was not negotiated", () => {
  const { queue, chain, descriptor } = rig({ indirect: false });
  descriptor(0, 0x10400, 16, 0, LAP1 | INDIRECT);
  assertEquals(fault(() => queue.pop(chain)), "indirect-not-negotiated");
});

Deno.test("PackedVirtqueue.pop() refuses an id that is in use, until it is returned", () => {
  const { queue, chain, descriptor } = rig();
  for (const id of [0, 7, 8, 65535]) {
    const slot = queue.base & 0x7fff;
    descriptor(slot, 0x10000, 1, id, LAP1);
    descriptor(slot + 1, 0x10000, 1, id, LAP1);
    assertEquals([queue.pop(chain), chain.head], [true, id]);
    assertEquals(fault(() => queue.pop(chain)), "buffer-id-in-use");
    queue.push(id, 0);
    assertEquals([queue.pop(chain), chain.head], [true, id]);
    queue.push(id, 0);
  }
});

Deno.test("PackedVirtqueue.pop() refuses more buffers than the ring holds", () => {
  const list = rig();
  for (let i = 0; i < 6; i++) list.descriptor(i, 0x10000, 1, i, LAP1);
  for (let i = 0; i < 6; i++) assertEquals(list.queue.pop(list.chain), true);
  // A list of three over the two slots that are left: the third is still the device's.
  list.descriptor(6, 0x10000, 1, 6, LAP1 | NEXT);
  list.descriptor(7, 0x10000, 1, 6, LAP1 | NEXT);
  list.descriptor(0, 0x10000, 1, 6, LAP2);
  assertEquals(fault(() => list.queue.pop(list.chain)), "available-index-too-far");
  const single = rig();
  for (let i = 0; i < 8; i++) single.descriptor(i, 0x10000, 1, i, LAP1);
  for (let i = 0; i < 8; i++) assertEquals(single.queue.pop(single.chain), true);
  // A full ring is looked at no further, whatever stands there.
  single.descriptor(0, 0x10000, 1, 9, LAP2);
  assertEquals(single.queue.pop(single.chain), false);
  assertEquals(single.queue.enableKicks(), false);
});

Deno.test("PackedVirtqueue.pop() refuses a list that is taken back between look and pop", () => {
  const { queue, chain, descriptor } = rig();
  for (let i = 0; i < 3; i++) descriptor(i, 0x10000, 1, i, LAP1);
  assertEquals(queue.pop(chain), true);
  descriptor(1, 0x10000, 1, 1, 0);
  assertEquals(fault(() => queue.pop(chain)), "descriptor-flags-invalid");
});

Deno.test("PackedVirtqueue.publish() shows a batch by the flags of its first descriptor, written last", () => {
  const { driver, queue, chain, post, guest, setup } = driven(8);
  post(2, 1, 3);
  const heads: number[] = [];
  while (queue.pop(chain)) heads.push(chain.head);
  assertEquals(heads, [0, 1, 2]);
  // Out of order: 1 is written to the slot of 0, 0 behind it.
  queue.push(1, 11);
  queue.push(0, 0);
  queue.push(2, 4_000_000_000);
  assertEquals(driver.collect(), []);
  assertEquals(guest.number(setup.descriptors + 14, 2) & 0x8080, LAP1);
  assertEquals(queue.publish(), true);
  // Without WRITE the length does not count.
  assertEquals(driver.collect(), [{ id: 1, length: 11 }, { id: 0, length: 0 }, {
    id: 2,
    length: 4_000_000_000,
  }]);
  assertEquals(guest.number(setup.descriptors + 14, 2), 0x8082);
  assertEquals(guest.number(setup.descriptors + 16 + 14, 2), 0x8080);
  assertEquals(queue.publish(), false);
});

Deno.test("PackedVirtqueue.push() marks used descriptors by the lap", () => {
  const { queue, chain, descriptor, flags } = rig({ size: 3 });
  for (const [lap, used] of [[LAP1, 0x8080], [LAP2, 0], [LAP1, 0x8080]] as const) {
    for (let i = 0; i < 3; i++) descriptor(i, 0x10000, 1, i, lap);
    for (let i = 0; i < 3; i++) assertEquals(queue.pop(chain), true);
    assertEquals(queue.pop(chain), false);
    for (let i = 0; i < 3; i++) queue.push(i, i);
    queue.publish();
    assertEquals([flags(0), flags(1), flags(2)], [used, used | WRITE, used | WRITE]);
  }
});

Deno.test("PackedVirtqueue.push() and unpop() refuse what the device does not have", () => {
  const { queue, chain, descriptor } = rig();
  for (let i = 0; i < 4; i++) descriptor(i, 0x10000, 1, i + 10, LAP1);
  assertThrows(() => queue.push(10, 0), RangeError);
  for (let i = 0; i < 3; i++) queue.pop(chain);
  assertThrows(() => queue.push(13, 0), RangeError);
  assertThrows(() => queue.push(-1, 0), RangeError);
  assertThrows(() => queue.push(65546, 0), RangeError);
  assertThrows(() => queue.push(10.5, 0), RangeError);
  assertThrows(() => queue.unpop(4), RangeError);
  assertThrows(() => queue.unpop(-1), RangeError);
  queue.push(10, 0);
  assertThrows(() => queue.push(10, 0), RangeError);
  assertThrows(() => queue.unpop(1), RangeError);
});

Deno.test("PackedVirtqueue.unpop() gives the same lists again, across the wrap", () => {
  const { driver, queue, chain, post } = driven(7);
  const heads = (): number[] => {
    const all: number[] = [];
    while (queue.pop(chain)) all.push(chain.head);
    return all;
  };
  post(5);
  assertEquals(heads(), [0]);
  queue.push(0, 0);
  queue.publish();
  driver.collect();
  const before = queue.base;
  assertEquals(post(1, 3, 2), [1, 2, 3]);
  assertEquals(heads(), [1, 2, 3]);
  queue.unpop(2);
  assertEquals(queue.inFlight, 1);
  assertEquals(heads(), [2, 3]);
  queue.unpop(3);
  assertEquals([queue.inFlight, queue.base], [0, before]);
  assertEquals(heads(), [1, 2, 3]);
  assertEquals(post(1), [4]);
  assertEquals(heads(), [4]);
});

Deno.test("PackedVirtqueue.enableKicks() does not count lists that were put back", () => {
  const { guest, setup, queue, chain, post } = driven(7);
  post(2, 1);
  while (queue.pop(chain));
  queue.unpop(2);
  assertEquals(queue.enableKicks(), false);
  assertEquals([guest.number(setup.device, 2), guest.number(setup.device + 2, 2)], [0x8003, 2]);
  post(2, 2);
  assertEquals(queue.enableKicks(), true);
  assertEquals([queue.pop(chain), chain.head], [true, 0]);
  assertEquals(queue.enableKicks(), true);
  for (let i = 0; i < 3; i++) assertEquals(queue.pop(chain), true);
  assertEquals(queue.enableKicks(), false);
  // The ring is full, and the event lies in the next lap.
  assertEquals(guest.number(setup.device, 2), 0x0000);
  queue.unpop(4);
  assertEquals(queue.enableKicks(), false);
  assertEquals(guest.number(setup.device, 2), 0x0000);
});

Deno.test("PackedVirtqueue.enableKicks() and disableKicks() write the event word", () => {
  for (const [eventIndex, enabled] of [[true, [0x8000, 2]], [false, [0, 0]]] as const) {
    const { guest, setup, queue, chain, post } = driven(3, { eventIndex });
    const word = () => [guest.number(setup.device, 2), guest.number(setup.device + 2, 2)];
    queue.disableKicks();
    assertEquals(word(), [0, 1]);
    assertEquals(queue.enableKicks(), false);
    assertEquals(word(), [...enabled]);
    post(1);
    assertEquals(queue.enableKicks(), true);
    queue.pop(chain);
    assertEquals(queue.enableKicks(), false);
  }
});

Deno.test("PackedVirtqueue.peek() sees what has come since enableKicks(), and nothing that is known", () => {
  const { queue, chain, post } = driven(3, {});
  assertEquals([queue.enableKicks(), queue.peek()], [false, false]);
  queue.disableKicks();
  for (let lap = 0; lap < 3; lap++) {
    assertEquals(queue.peek(), false);
    post(1);
    assertEquals([queue.peek(), queue.peek()], [true, true]);
    assertEquals([queue.pop(chain), queue.peek()], [true, false]);
    queue.unpop(1);
    assertEquals([queue.enableKicks(), queue.peek()], [false, false], "it was put back");
    assertEquals(queue.pop(chain), true);
  }
  assertEquals(queue.peek(), false, "every slot is out");
});

Deno.test("PackedVirtqueue.publish() goes by the driver's event flags", () => {
  const cases = [
    // eventIndex, flags, wanted
    [true, 0, true],
    [true, 1, false],
    [false, 0, true],
    [false, 1, false],
    // Waiting for a slot has no meaning without EVENT_IDX, and 3 is reserved: rather one interrupt too many.
    [false, 2, true],
    [true, 3, true],
  ] as const;
  for (const [eventIndex, flags, wanted] of cases) {
    const { guest, setup, queue, chain, post } = driven(8, { eventIndex });
    guest.setNumber(setup.driver, 2, 0x8005);
    guest.setNumber(setup.driver + 2, 2, flags);
    post(1);
    queue.pop(chain);
    queue.push(0, 0);
    assertEquals(queue.publish(), wanted, `${eventIndex} ${flags}`);
  }
});

Deno.test("PackedVirtqueue.publish() interrupts when it passes the awaited slot, and only then", () => {
  const size = 5;
  for (let before = 1; before < 2 * size; before++) {
    for (let count = 1; count <= size; count++) {
      for (let ahead = -size + 1; ahead <= size; ahead++) {
        const { driver, guest, setup, queue, chain, post } = driven(size);
        const use = (lists: number): boolean => {
          for (let i = 0; i < lists; i++) {
            queue.pop(chain);
            queue.push(chain.head, 0);
          }
          const interrupt = queue.publish();
          driver.collect();
          return interrupt;
        };
        for (let i = 0; i < before; i++) {
          post(1);
          use(1);
        }
        for (let i = 0; i < count; i++) post(1);
        // `ahead` slots from where the next used descriptor will be, with its lap.
        const position = before + ahead;
        if (position < 0) continue;
        const wrap = Math.floor(position / size) % 2 === 0 ? 0x8000 : 0;
        guest.setNumber(setup.driver, 2, wrap | position % size);
        guest.setNumber(setup.driver + 2, 2, 2);
        assertEquals(
          use(count),
          ahead >= 0 && ahead < count,
          `${before} used, then ${count}, event ${ahead} ahead`,
        );
      }
    }
  }
});

Deno.test("PackedVirtqueue.publish() counts slots, not lists, when it looks for the awaited one", () => {
  for (const [event, wanted] of [[0x8003, false], [0x8004, true], [0x8006, true], [0x0000, false]] as const) {
    const { guest, setup, queue, chain, post } = driven(8);
    post(4, 3);
    queue.pop(chain);
    queue.push(0, 0);
    queue.publish();
    guest.setNumber(setup.driver, 2, event);
    guest.setNumber(setup.driver + 2, 2, 2);
    queue.pop(chain);
    queue.push(1, 0);
    assertEquals(queue.publish(), wanted, event.toString(16));
  }
});

Deno.test("PackedVirtqueue.publish() takes a slot of the next lap for one that is still to come, the first time too", () => {
  const { guest, setup, queue, chain, post } = driven(8);
  post(1, 1, 1);
  while (queue.pop(chain)) queue.push(chain.head, 0);
  guest.setNumber(setup.driver, 2, 0x0002);
  guest.setNumber(setup.driver + 2, 2, 2);
  assertEquals(queue.publish(), false);
});

Deno.test("packedEventDue() is true for a slot inside a list that was skipped", () => {
  const desc = 2 << 16 | 0x8000;
  assertEquals(packedEventDue(desc | 2, true, 4, true, 4, 8), true);
  assertEquals(packedEventDue(desc | 4, true, 4, true, 4, 8), false);
  // An offset that is no slot of the ring is never reached.
  assertEquals(packedEventDue(desc | 0x7fff, true, 4, true, 4, 8), false);
  assertEquals(packedEventDue(desc ^ 0x8000 | 0x7fff, true, 4, true, 8, 8), false);
});

Deno.test("PackedVirtqueue takes a ring over where it was left", () => {
  const { driver, guest, setup, queue, chain, post } = driven(7);
  assertEquals(queue.base, 0x80008000);
  post(5);
  queue.pop(chain);
  queue.push(0, 0);
  queue.publish();
  driver.collect();
  post(1, 3);
  queue.pop(chain);
  // Slots 6 (lap 1) to be popped, 5 (lap 1) to be used.
  assertEquals(queue.base, (0x8005 * 0x10000) + 0x8006);
  const next = new PackedVirtqueue(guest.memory, setup, queue.base);
  assertEquals([next.inFlight, next.base], [1, queue.base]);
  assertEquals([next.pop(chain), chain.head, chain.descriptors], [true, 2, 3]);
  // Two slots into the second lap.
  assertEquals(next.base, (0x8005 * 0x10000) + 0x0002);
  assertEquals(new PackedVirtqueue(guest.memory, setup, next.base).inFlight, 4);
});

Deno.test("PackedVirtqueue interrupts after a restart for what was used before", () => {
  const { guest, setup, queue, chain, post } = driven(7);
  post(1, 1, 1, 1);
  for (let i = 0; i < 4; i++) queue.pop(chain);
  for (const id of [0, 1, 2]) queue.push(id, 0);
  guest.setNumber(setup.driver, 2, 0x8001);
  guest.setNumber(setup.driver + 2, 2, 2);
  assertEquals(queue.publish(), true);
  // That interrupt may have been lost; the queue that goes on says it again, once.
  const next = new PackedVirtqueue(guest.memory, setup, queue.base - 1);
  next.pop(chain);
  next.push(3, 0);
  assertEquals(next.publish(), true);
  post(1, 1);
  next.pop(chain);
  next.push(chain.head, 0);
  assertEquals(next.publish(), false);
});

Deno.test("PackedVirtqueue refuses a position that cannot be", () => {
  const { guest, setup } = driven(7);
  const bad = [0x8000_8007, 0x8007_8000, 0x8003_8002, 0x0000_0000 + 0x0003_8004, -1, 2 ** 32, 1.5, NaN];
  for (const base of bad) {
    assertEquals(
      fault(() => new PackedVirtqueue(guest.memory, setup, base)),
      "ring-state-invalid",
      `${base}`,
    );
  }
  for (
    const [base, inFlight] of [[0x8003_0003, 7], [0x8000_8000, 0], [0x0000_0000, 0], [
      0x0006_8000,
      1,
    ]] as const
  ) {
    assertEquals(new PackedVirtqueue(guest.memory, setup, base).inFlight, inFlight);
  }
});

Deno.test("PackedVirtqueue carries more than 3 x 65536 buffers through rings of 1, 2, 3, 7 and 256", () => {
  for (const size of [1, 2, 3, 7, 256]) {
    const { guest, setup, queue, chain } = rig({ ...setupAt(RING, size) });
    const { u32 } = guest.memory.window(setup.descriptors, 16 * size, 16);
    let lap = LAP1;
    for (let done = 0; done < 3 * 65536 + 5; lap ^= 0x8080) {
      for (let i = 0; i < size; i++) {
        u32[4 * i] = 0x10000;
        u32[4 * i + 1] = 0;
        u32[4 * i + 2] = 1;
        u32[4 * i + 3] = (lap | WRITE) << 16 | i;
      }
      for (let i = 0; i < size; i++, done++) {
        if (!queue.pop(chain) || chain.head !== i) throw new Error(`Buffer ${chain.head} at ${done}`);
        queue.push(i, 1);
      }
      assert(!queue.pop(chain));
      queue.publish();
      const used = (lap === LAP1 ? 0x8080 : 0) | WRITE;
      if (u32[3] >>> 16 !== used || u32[4 * size - 1] >>> 16 !== used) throw new Error(`Flags at ${done}`);
    }
  }
});

Deno.test("PackedVirtqueue works at its largest size", () => {
  const guest = new TestGuest([[0, 0x100000]]);
  const setup = setupAt(0x10000, 32768);
  const { u32 } = guest.memory.window(setup.descriptors, 16 * 32768, 16);
  const queue = new PackedVirtqueue(guest.memory, setup);
  const chain = new DescriptorChain();
  for (const lap of [LAP1, LAP2, LAP1]) {
    for (let i = 0; i < 32768; i++) u32.set([0x10, 0, 1, lap << 16 | (32767 - i)], 4 * i);
    let pops = 0;
    while (queue.pop(chain)) {
      if (chain.head !== 32767 - pops++) throw new Error(`Buffer ${chain.head} after ${pops} pops`);
    }
    assertEquals([pops, queue.inFlight], [32768, 32768]);
    queue.unpop(32768);
    assertEquals(queue.inFlight, 0);
    while (queue.pop(chain));
    for (let i = 0; i < 32768; i++) queue.push(i, 1);
    assertEquals(queue.publish(), true);
    assertEquals(queue.inFlight, 0);
  }
  // One list that takes the whole ring.
  for (let i = 0; i < 32768; i++) u32.set([0x10, 0, 1, (LAP2 | (i < 32767 ? NEXT : 0)) << 16 | 5], 4 * i);
  assertEquals(queue.pop(chain), true);
  assertEquals([chain.head, chain.descriptors, chain.readableBytes], [5, 32768, 32768]);
  queue.push(5, 0);
  assertEquals(queue.publish(), true);
  assertEquals(u32[3] >>> 16, 0);
});

Deno.test("PackedVirtqueue carries any traffic whole (property)", () => {
  let total = 0;
  fc.assert(
    fc.property(
      rounds(false),
      fc.constantFrom(1, 2, 3, 7, 16, 100),
      fc.constantFrom(1, 7, 655),
      (traffic, size, step) => {
        const guest = new TestGuest();
        const driver = new PackedDriver(guest, setupAt(RING, size), step);
        const queue = new PackedVirtqueue(guest.memory, driver.setup);
        total += runTraffic(guest, driver, queue, [0x13000, 0x2000], traffic);
        assertEquals(queue.inFlight, 0);
      },
    ),
    { numRuns: 50 },
  );
  assert(total > 800, `only ${total} buffers went through`);
});

Deno.test("PackedVirtqueue meets garbage with GuestErrors only, and always ends (property)", () => {
  let pops = 0;
  fc.assert(
    fc.property(
      garbage("packed"),
      fc.constantFrom(1, 2, 3, 8, 17),
      fc.boolean(),
      fc.boolean(),
      (input, size, event, indirect) => {
        pops += workGarbage(
          input,
          (guest) => new PackedVirtqueue(guest.memory, setupAt(0, size, event, indirect)),
        );
      },
    ),
    { numRuns: 1500 },
  );
  assert(pops > 150, `only ${pops} buffers were popped: the garbage is too bad`);
});
