import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { OpeningOrder } from "../../offloads/rsc_chain/qemu_chain.ts";

/** Runs adds (null) and removals (which of those left, as a fraction) against a plain list of numbers. */
function compare(steps: readonly (number | null)[]): void {
  const order = new OpeningOrder();
  const list: number[] = [];
  for (const step of steps) {
    if (step === null) list.push(order.add());
    else if (list.length > 0) {
      const [gone] = list.splice(Math.floor(step * list.length), 1);
      order.remove(gone);
    }
    for (const [place, number] of list.entries()) assertEquals(order.before(number), place);
  }
}

const step = fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, {
  weight: 2,
  arbitrary: fc.double({ min: 0, max: 0.999, noNaN: true }),
});

Deno.test("OpeningOrder.before() counts what a plain list counts", () => {
  fc.assert(fc.property(fc.array(step, { maxLength: 120 }), compare), { numRuns: 60 });
});

Deno.test("OpeningOrder.before() counts right across every growth of its tree", () => {
  const steps: (number | null)[] = [];
  for (let i = 0; i < 300; i++) {
    steps.push(null);
    if (i % 3 === 2) steps.push((i * 7 % 100) / 100);
  }
  compare(steps);
});

Deno.test("OpeningOrder.before() counts right if entries go only after many have come", () => {
  const order = new OpeningOrder();
  for (let i = 0; i < 5000; i++) assertEquals(order.add(), i);
  for (let i = 0; i < 5000; i += 2) order.remove(i);
  for (let i = 1; i < 5000; i += 2) assertEquals(order.before(i), (i - 1) / 2);
});

Deno.test("OpeningOrder.clear() starts anew", () => {
  const order = new OpeningOrder();
  for (let i = 0; i < 100; i++) order.add();
  for (let i = 0; i < 50; i++) order.remove(i);
  order.clear();
  assertEquals([order.add(), order.add(), order.before(0), order.before(1)], [0, 1, 0, 1]);
});

Deno.test("OpeningOrder.wantsRenumbering() asks only when far more were added than are left", () => {
  const order = new OpeningOrder();
  for (let i = 0; i < 1024; i++) order.add();
  assertEquals(order.wantsRenumbering(1), false);
  order.add();
  assertEquals(order.wantsRenumbering(1), true);
  assertEquals(order.wantsRenumbering(257), false);
});
