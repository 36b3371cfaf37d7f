/**
 * A front-end that stops the device by status 0 and asks only then where the rings stand, as QEMU 7 does for
 * `stop` and for a migration.
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Frame } from "../../../pipeline/frame.ts";
import { FRESH_RING } from "../../../rings/packed_virtqueue.ts";
import { defineOffload } from "../../../pipeline/plugin.ts";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { Bench } from "./support/bench.ts";
import { frame, numbersOf } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";

/** Holds every frame for a second. */
const hold = defineOffload({
  name: "hold",
  direction: "toGuest",
  options: { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } },
  create() {
    const held: Frame[] = [];
    let dueNs = Infinity;
    return {
      process(input, _output, nowNs) {
        if (held.length === 0) dueNs = nowNs + 1e9;
        for (let i = 0; i < input.length; i++) held.push(input.at(i));
      },
      deadlineNs: () => dueNs,
      flush(output) {
        for (const frame of held.splice(0)) output.push(frame);
        dueNs = Infinity;
      },
    };
  },
});

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";
  const extra = packed ? [34] : [];

  for (const [name, by] of [["status 0", "status"], ["RESET_DEVICE", "reset"]] as const) {
    Deno.test(`by ${name} what is held gets out, and ${layout} rings know afterwards where they stood`, () => {
      using bench = new Bench({ guest: { packed }, offloads: [{ plugin: hold, options: {} }] });
      const { front, guest } = bench;
      const features = usualFeatures(front.features(), ...extra);
      bench.start({ features });
      for (const number of [1, 2, 3]) bench.rig.network.inbox.push(frame(number));
      guest.send(1, frame(4));
      bench.kicks[1].kick();
      bench.settle();
      assertEquals(guest.received(0), []);
      assertEquals(numbersOf(bench.rig.network.sent), [4]);

      if (by === "status") front.setStatus(0);
      else front.say(Request.RESET_DEVICE);
      assertEquals(numbersOf(guest.received(0)), [1, 2, 3]);
      assertEquals(bench.rig.counters[""].discarded_at_reset, 0);
      const bases = [front.base(0), front.base(1)];
      const at = (slot: number) => packed ? 0x80008000 + slot * 0x10001 : slot;
      assertEquals(bases, [at(3), at(1)]);

      front.setFeatures(features);
      for (const ring of [0, 1]) front.describe(ring, bases[ring]);
      for (const ring of [0, 1]) front.enable(ring, true);
      bench.rig.network.inbox.push(frame(5));
      guest.send(1, frame(6));
      bench.kicks[1].kick();
      bench.settle();
      bench.nowNs = 1e9;
      bench.settle();
      assertEquals(numbersOf(guest.received(0)), [5]);
      assertEquals(numbersOf(bench.rig.network.sent), [4, 6]);
      assertEquals(bench.faults.counts, {});
    });
  }

  Deno.test(`${layout} rings that are described anew after a reset stand where they are told`, () => {
    using bench = new Bench({ guest: { packed } });
    const { front } = bench;
    bench.start({ features: usualFeatures(front.features(), ...extra) });
    bench.assertWorks();
    front.setStatus(0);
    const fresh = packed ? FRESH_RING : 0;
    for (const ring of [0, 1]) {
      front.setNum(ring);
      assertEquals(front.base(ring), 0);
      front.setBase(ring, fresh);
      assertEquals(front.base(ring), fresh);
    }
  });
}

Deno.test("a front-end that goes without a word gets nothing more written into its memory", () => {
  using bench = new Bench({ offloads: [{ plugin: hold, options: {} }] });
  bench.start();
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  bench.backend[Symbol.dispose]();
  assertEquals(bench.guest.received(0), []);
  assertEquals(bench.rig.counters[""].discarded_at_reset, 1);
});
