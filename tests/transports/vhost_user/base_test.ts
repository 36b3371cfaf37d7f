/**
 * Where a ring goes on that has been used by a back-end before, when the front-end says 0.
 * @module
 */
import { assertEquals } from "@std/assert";
import { Bench } from "./support/bench.ts";
import { frame, numbersOf } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE, HEADER, RING_SIZE } from "../../../rigs/vhost_user/guest.ts";

Deno.test("a split ring with base 0 goes on at its used index: virtio-user says 0 to each new back-end", () => {
  using bench = new Bench();
  bench.guest.ring(1);
  const { driver, device, descriptors } = bench.guest.place(1);
  const { memory } = bench.guest;
  memory.writeU16(driver + 2, 1001);
  memory.writeU16(driver + 4 + 2 * (1000 % RING_SIZE), 3);
  memory.writeU16(device + 2, 1000);
  memory.writeU32(descriptors + 3 * 16, GUEST_BASE + 0x70000);
  memory.writeU32(descriptors + 3 * 16 + 8, HEADER + 60);
  memory.copyIn(GUEST_BASE + 0x70000 + HEADER, frame(77), 0, 60);
  bench.front.setFeatures(usualFeatures(bench.front.features()) & ~(1n << 29n));
  bench.front.setMemoryTable();
  bench.front.describe(1, 0);
  bench.front.enable(1, true);
  bench.settle();
  assertEquals(bench.faults.counts, {});
  assertEquals(numbersOf(bench.rig.network.sent), [77]);
  assertEquals(memory.readU16(device + 2), 1001);
  assertEquals(bench.front.base(1), 1001);
});
