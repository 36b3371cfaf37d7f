import { assert, assertEquals } from "@std/assert";
import type { Burst } from "../../../rings/burst.ts";
import type { DescriptorChain } from "../../../rings/descriptor_chain.ts";
import { PackedVirtqueue } from "../../../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../../../rings/split_virtqueue.ts";
import type { Virtqueue } from "../../../rings/virtqueue.ts";
import { MACS, numbered, range, Rig, RINGS } from "./support/rig.ts";

/** Looks on how the queues of one layout are used, until it is disposed of. */
function watchOrder(queues: { prototype: Virtqueue }): Disposable & { returned: number; putBack: number } {
  const { prototype } = queues;
  const { pop, push, unpop, enqueueBurst, dequeueBurst } = prototype;
  const out = new Map<Virtqueue, number[]>();
  const watch = {
    returned: 0,
    putBack: 0,
    [Symbol.dispose]: () => void Object.assign(prototype, { pop, push, unpop, enqueueBurst, dequeueBurst }),
  };
  prototype.pop = function (this: Virtqueue, chain: DescriptorChain): boolean {
    const popped = pop.call(this, chain);
    if (popped) out.set(this, [...out.get(this) ?? [], chain.head]);
    return popped;
  };
  prototype.push = function (this: Virtqueue, head: number, writtenBytes: number): void {
    assertEquals(out.get(this)!.shift(), head, "the buffer that was popped first is returned first");
    watch.returned++;
    push.call(this, head, writtenBytes);
  };
  // Kernels return what they take at once, in the order of the ring: tests/kernels compares the bytes.
  for (const name of ["enqueueBurst", "dequeueBurst"] as const) {
    const original = prototype[name]!;
    prototype[name] = function (this: Virtqueue, burst: Burst): number {
      const done = original.call(this, burst);
      if (done > 0) watch.returned += burst.chains;
      return done;
    };
  }
  prototype.unpop = function (this: Virtqueue, count: number): void {
    out.get(this)!.splice(out.get(this)!.length - count);
    watch.putBack += count;
    unpop.call(this, count);
  };
  return watch;
}

for (const { name, guest } of RINGS) {
  Deno.test(`NetDevice returns buffers in the order in which they were made available (${name})`, async () => {
    using watch = watchOrder(guest.ring === "packed" ? PackedVirtqueue : SplitVirtqueue);
    const own = { ...guest, queueSize: 64, receiveBuffers: 0, receiveBufferBytes: 220, accept: ["CTRL_VQ"] };
    await using rig = await Rig.start([{ guest: own }]);
    const { one } = rig;
    // To the guest: frames in one buffer and in several, some that fit into none, and too few buffers, again
    // and again.
    for (let number = 1; number <= 40; number++) {
      assert(one.port.inject(numbered(number, number % 3 === 0 ? 500 : 60)));
      one.guest.postReceiveBuffers(number % 2);
      // From the guest: frames to be sent, frames too short to be one, and headers that say what was not
      // agreed to.
      const frame = number % 5 === 0 ? new Uint8Array(8) : numbered(number, 60 + number, MACS[1]);
      assert(one.guest.send(frame, number % 7 === 0 ? { gsoType: 1, gsoSize: 100, flags: 1 } : {}));
      if (number % 10 === 0) one.guest.control(0, 0, Uint8Array.of(1));
      rig.settle();
    }
    one.guest.postReceiveBuffers(31);
    rig.settle();
    one.guest.postReceiveBuffers(31);
    rig.settle();
    const whole = range(1, 40).filter((number) => guest.mergeable || number % 3 !== 0);
    assertEquals(one.numbers, whole);
    const { dropped_too_short, dropped_bad_header } = one.counters("fromGuest");
    assertEquals([dropped_too_short, dropped_bad_header, one.sent.length], [8, 4, 28]);
    const merged = guest.mergeable
      ? one.packets.reduce((sum, { buffers }) => sum + buffers, 0)
      : whole.length;
    assertEquals(watch.returned, merged + 40 + 4);
    assert(watch.putBack > 0);
    assertEquals([one.guest.errors, one.device.waitingFrames], [[], { toGuest: 0, fromGuest: 0 }]);
  });
}
