import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { type GuestOptionsInput, NetGuest } from "../../../../devices/net/driver/mod.ts";
import { FakeNetDevice, type Mischief } from "./support/fake_net_device.ts";
import { frameOf, makeRig, OFFERED, type Rig } from "./support/rig.ts";

/**
 * Does one thing wrong, then everything right, and expects the guest to notice the one and to get the other.
 */
function expectNoticed(options: GuestOptionsInput, mischief: Mischief, length: number, problem: RegExp): Rig {
  const rig = makeRig(options);
  const { guest, device, packets } = rig;
  guest.attach(device);
  device.mischief = mischief;
  device.deliver(frameOf(length, 1));
  rig.run();
  assertEquals(packets, []);
  assertEquals(guest.counters.malformed, guest.errors.length);
  assertMatch(guest.errors[0], problem);
  device.mischief = {};
  for (let i = 0; i < 300; i++) device.deliver(frameOf(length, i));
  rig.run();
  const got = packets.slice(-250).map((packet) => packet.bytes);
  assertEquals(got, Array.from({ length: 250 }, (_, i) => frameOf(length, i + 50)));
  return rig;
}

for (const ring of ["split", "packed"] as const) {
  const options = { ring, receiveBufferBytes: 256, queueSize: 64 };

  Deno.test(`NetGuest notices a length beyond the buffer (${ring})`, () => {
    const { guest } = expectNoticed(
      options,
      { addToLength: 1000 },
      100,
      /used length 1112 is beyond the buffer of 256/,
    );
    assertEquals(guest.counters.malformed, 1);
  });

  Deno.test(`NetGuest notices a packet shorter than its header (${ring})`, () => {
    expectNoticed(
      options,
      { addToLength: -101 },
      100,
      /packet of 11 bytes is too short for its header of 12/,
    );
  });

  Deno.test(`NetGuest notices num_buffers of 0, and that it was not written (${ring})`, () => {
    expectNoticed(options, { numBuffers: 0 }, 100, /num_buffers is 0, it must be 1 or more/);
    expectNoticed(options, { numBuffers: null }, 100, /num_buffers is not written/);
  });

  Deno.test(`NetGuest notices fewer buffers than num_buffers says (${ring})`, () => {
    expectNoticed(options, { numBuffers: 5 }, 700, /num_buffers is 5, but only 3 buffers have been used/);
  });

  Deno.test(`NetGuest notices a merged packet that leaves a buffer half empty (${ring})`, () => {
    const problem = /buffer 1 of 4 holds 206 of 256 bytes, all but the last must be full/;
    const { guest } = expectNoticed(options, { leaveEmpty: 50 }, 700, problem);
    assertEquals(guest.counters.malformed, 1, "the whole packet is one mistake");
  });

  Deno.test(`NetGuest takes whatever stands in num_buffers if it cannot merge (${ring})`, () => {
    for (const [numBuffers, seen] of [[null, 1], [7, 7]] as const) {
      const rig = makeRig({ ring, mergeable: false });
      rig.guest.attach(rig.device);
      rig.device.mischief = { numBuffers };
      rig.device.deliver(frameOf(100, 1));
      rig.run();
      const [packet] = rig.packets;
      assertEquals([packet.numBuffers, packet.numBuffersWritten, packet.buffers], [
        seen,
        numBuffers !== null,
        1,
      ]);
      assertEquals(rig.guest.errors, []);
    }
  });

  Deno.test(`NetGuest notices lengths of transmitted frames and commands, unless it is legacy (${ring})`, () => {
    const rig = makeRig({ ring });
    rig.guest.attach(rig.device);
    rig.device.mischief = { transmitLength: 72, ackLength: 4 };
    rig.guest.send(frameOf(60, 1));
    const command = rig.guest.announceAck();
    rig.run();
    assertEquals(command.ack, 0);
    assertEquals(rig.guest.counters.transmitted, 1);
    assert(rig.guest.errors.some((error) => /used length 72 of a transmitted frame/.test(error)));
    assert(rig.guest.errors.some((error) => /used length 4 of command 3\/0, its ack is 1 byte/.test(error)));
  });

  Deno.test(`NetGuest counts interrupts of queues that it does not have (${ring})`, () => {
    const rig = makeRig({ ring, accept: [] }, new FakeNetDevice(OFFERED, 64, 3));
    rig.guest.attach(rig.device);
    for (const index of [2, 6, 99]) rig.device.session!.interrupt(index);
    rig.run();
    assertEquals(rig.guest.counters.malformed, 3);
    assertMatch(rig.guest.errors[2], /interrupt of queue 99, which is not in use/);
  });
}

Deno.test("NetGuest that is legacy ignores the lengths that old devices got wrong", () => {
  const rig = makeRig({ legacy: true });
  rig.guest.attach(rig.device);
  rig.device.mischief = { transmitLength: 72, ackLength: 4 };
  rig.guest.send(frameOf(60, 1));
  const command = rig.guest.announceAck();
  rig.run();
  assertEquals([command.ack, rig.guest.counters.transmitted, rig.guest.errors.length], [0, 1, 0]);
});

Deno.test("NetGuest keeps a hundred errors and counts the rest", () => {
  const rig = makeRig({ receiveBufferBytes: 256 });
  rig.guest.attach(rig.device);
  rig.device.mischief = { numBuffers: 0 };
  for (let i = 0; i < 150; i++) rig.device.deliver(frameOf(60, i));
  rig.run();
  assertEquals([rig.guest.errors.length, rig.guest.counters.malformed], [100, 150]);
});

Deno.test("NetGuest survives a device that writes garbage into its memory", () => {
  const hit = fc.record({ address: fc.nat(20_000), value: fc.nat(0xffff_ffff) });
  const shape = fc.record({
    ring: fc.constantFrom("split" as const, "packed" as const),
    eventIndex: fc.boolean(),
    mergeable: fc.boolean(),
    polling: fc.boolean(),
    behaviour: fc.constantFrom("sink" as const, "echo" as const),
  });
  fc.assert(
    fc.property(shape, fc.array(hit, { maxLength: 60 }), (options, hits) => {
      const guest = new NetGuest({ ...options, queueSize: 8, receiveBufferBytes: 256 });
      const device = new FakeNetDevice(OFFERED);
      guest.attach(device);
      const base = guest.memory.regions[0].guestAddress;
      for (const { address, value } of hits) {
        // Rings come first in memory: most hits land in them, some in buffers.
        guest.memory.writeU32(base + address % (value % 2 === 0 ? 1500 : 20_000), value);
        for (let index = 0; index < guest.rings.length; index++) device.session!.interrupt(index);
        let turns = 0;
        while (guest.poll(0)) assert(++turns < 1000, "the guest comes to no end");
        guest.send(frameOf(60, value));
        if (value % 3 === 0 && guest.rings[2]!.inFlight < 2) guest.announceAck();
      }
    }),
    { numRuns: 300 },
  );
});
