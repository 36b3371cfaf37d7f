import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { GuestError } from "../../../../rings/guest_error.ts";
import { HostError } from "../../../../core/errors.ts";
import { FeatureSet } from "../../../../core/features.ts";
import type { NetGuest, ReceivedPacket } from "../../../../devices/net/driver/mod.ts";
import { FakeNetDevice } from "./support/fake_net_device.ts";
import { frameOf, makeRig, OFFERED } from "./support/rig.ts";

Deno.test("NetGuest.attach() accepts everything that is offered and understood", () => {
  // 27, 35 and 62 are offered, but the guest does not know what to do with them.
  const { guest, device } = makeRig({}, new FakeNetDevice(OFFERED.with(27, 35, 57, 60, 62)));
  const session = guest.attach(device);
  assertEquals(session.status, 1 | 2 | 4 | 8);
  assertEquals([...guest.features], [...OFFERED.without(34).with(57, 60)]);
  assertEquals(session.features, guest.features);
  assertEquals(session.faults, {});
});

Deno.test("NetGuest.attach() accepts by name and bit, and lets options decide the ring's features", () => {
  const { guest, device } = makeRig({
    accept: ["GUEST_CSUM", "GUEST_TSO4", 61, "MRG_RXBUF", 28],
    mergeable: false,
    indirect: false,
    ring: "packed",
  });
  guest.attach(device);
  assertEquals([...guest.features], [1, 7, 29, 32, 34, 61]);
});

Deno.test("NetGuest.attach() says what is missing and what to do", () => {
  const refused: [ConstructorParameters<typeof NetGuest>[0], FakeNetDevice, RegExp][] = [
    [{}, new FakeNetDevice(OFFERED.without(32)), /does not offer VERSION_1: write "legacy": true/],
    [{ ring: "packed" }, new FakeNetDevice(OFFERED.without(34)), /RING_PACKED: write "ring": "split"/],
    [{ accept: ["RSS", 57] }, new FakeNetDevice(OFFERED), /Cannot accept HASH_REPORT, RSS, which the device/],
    [{ queuePairs: 2, accept: [] }, new FakeNetDevice(OFFERED, 64, 2), /without feature MQ/],
    [{ queuePairs: 3 }, new FakeNetDevice(OFFERED, 64, 2), /Cannot use 3 queue pairs, the device has 2/],
    [{ descriptorsPerBuffer: 9 }, new FakeNetDevice(OFFERED, 8), /9 descriptors into queue 0 of 8 entries/],
    [{ queueSize: 32768, receiveBufferBytes: 65601 }, new FakeNetDevice(OFFERED, 32768), /MiB of memory/],
    [
      { queueSize: 2, behaviour: { send: { frameBytes: 9000 } } },
      new FakeNetDevice(OFFERED),
      /Cannot send frames of 9000 bytes/,
    ],
  ];
  for (const [options, device, reason] of refused) {
    const { guest } = makeRig(options!, device);
    const error = assertThrows(() => guest.attach(device), HostError);
    assertMatch(error.message, reason);
    assert(!guest.attached);
    assertEquals(device.session, null);
  }
});

Deno.test("NetGuest.attach() reports why a device refuses, and leaves it reset", () => {
  const { guest, device } = makeRig({});
  device.refuses = new GuestError("features-dependency-missing", "RSC_EXT needs GUEST_TSO4");
  const error = assertThrows(() => guest.attach(device), HostError, "refuses to be driven with features 0x");
  assertMatch(error.message, /RSC_EXT needs GUEST_TSO4/);
  assertEquals(guest.session.status, 0);
  assert(!guest.attached);
  device.refuses = null;
  assertEquals(guest.attach(device).status, 15);
});

Deno.test("NetGuest.attach() refuses a device that breaks at DRIVER_OK, as it must for a legacy driver", () => {
  const { guest, device } = makeRig({ legacy: true });
  device.refuses = new GuestError("features-dependency-missing", "no");
  assertThrows(() => guest.attach(device), HostError, "refuses to be started");
  assert(!guest.attached);
});

Deno.test("NetGuest has a header of 10, 12 or 20 bytes as the features want it", () => {
  const cases = [
    { options: { legacy: true, mergeable: false }, offered: OFFERED, headerBytes: 10 },
    { options: { legacy: true }, offered: OFFERED, headerBytes: 12 },
    { options: { mergeable: false }, offered: OFFERED, headerBytes: 12 },
    { options: {}, offered: OFFERED.with(57), headerBytes: 20 },
  ];
  for (const { options, offered, headerBytes } of cases) {
    const rig = makeRig({ ...options, descriptorsPerBuffer: 2 }, new FakeNetDevice(offered));
    rig.guest.attach(rig.device);
    assertEquals(rig.guest.features.has(32), !("legacy" in options));
    const header = Uint8Array.of(5, 1, 54, 0, 0xb4, 5, 3, 0, 1, 0, 0, 0, 0x78, 0x56, 0x34, 0xf2, 2, 0, 0, 0);
    rig.device.deliver(frameOf(200, 1), header);
    assert(
      rig.guest.send(frameOf(100, 2), {
        flags: 1,
        gsoType: 4,
        hdrLen: 0x102,
        gsoSize: 0x304,
        csumStart: 0x506,
      }),
    );
    rig.run();
    assertEquals(rig.guest.errors, []);
    const [packet] = rig.packets;
    assertEquals(packet.bytes, frameOf(200, 1));
    const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, numBuffers, numBuffersWritten } = packet;
    assertEquals(
      { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset, numBuffers, numBuffersWritten },
      {
        flags: 5,
        gsoType: 1,
        hdrLen: 54,
        gsoSize: 1460,
        csumStart: 3,
        csumOffset: 1,
        numBuffers: 1,
        numBuffersWritten: headerBytes > 10,
      },
    );
    assertEquals(packet.hash, headerBytes === 20 ? { value: 0xf2345678, report: 2 } : null);
    const sent = rig.device.sent[0];
    assertEquals(sent.bytes, frameOf(100, 2));
    assertEquals([...sent.header.subarray(0, 10)], [1, 4, 2, 1, 4, 3, 6, 5, 0, 0]);
    assertEquals([...sent.header.subarray(10)], new Array(headerBytes - 10).fill(0));
  }
});

Deno.test("NetGuest posts buffers for the largest packet when it cannot merge them", () => {
  const cases = [
    { accept: ["GUEST_CSUM", "GUEST_TSO6"], bytes: 65601 },
    { accept: ["GUEST_CSUM", "GUEST_TSO6", "HASH_REPORT"], bytes: 65609 },
    { accept: ["GUEST_CSUM"], bytes: 1526 },
  ];
  for (const { accept, bytes } of cases) {
    const rig = makeRig({ accept, mergeable: false, queueSize: 2 }, new FakeNetDevice(OFFERED.with(57)));
    rig.guest.attach(rig.device);
    const longest = bytes - (accept.length === 3 ? 20 : 12);
    rig.device.deliver(frameOf(longest, 3));
    rig.device.deliver(frameOf(longest + 1, 4));
    rig.run();
    assertEquals(rig.packets.map((packet) => packet.bytes), [frameOf(longest, 3)]);
    assertEquals(rig.device.toDeliver.length, 1);
  }
});

Deno.test("NetGuest sends and receives the largest packet in pieces", () => {
  const rig = makeRig({ memoryRegions: 3 });
  rig.guest.attach(rig.device);
  const frame = frameOf(65589, 5);
  rig.device.deliver(frame);
  assert(rig.guest.send(frame));
  rig.run();
  assertEquals(rig.packets[0].bytes, frame);
  assertEquals(rig.packets[0].buffers, Math.ceil((65589 + 12) / 2048));
  assertEquals(rig.device.sent[0].bytes, frame);
  assertEquals(rig.guest.errors, []);
});

Deno.test("NetGuest.send() throws for a frame that can never fit", () => {
  const rig = makeRig({ queueSize: 4, transmitBufferBytes: 256 });
  rig.guest.attach(rig.device);
  assert(rig.guest.send(frameOf(4 * 256 - 12, 1)));
  assertThrows(
    () => rig.guest.send(frameOf(4 * 256 - 11, 1)),
    RangeError,
    "Cannot send a frame of 1013 bytes in 4 buffers of 256 bytes: raise transmitBufferBytes or queueSize",
  );
});

Deno.test("NetGuest starves as told, and postReceiveBuffers() ends it", () => {
  const rig = makeRig({ receiveBuffers: 2, receiveBufferBytes: 256 });
  rig.guest.attach(rig.device);
  for (let i = 0; i < 5; i++) rig.device.deliver(frameOf(100, i));
  rig.run();
  assertEquals(rig.packets.length, 2);
  assertEquals(rig.device.toDeliver.length, 3);
  assertEquals(rig.guest.postReceiveBuffers(1), 1);
  rig.run();
  assertEquals(rig.packets.length, 3);
  assertEquals(rig.guest.postReceiveBuffers(10_000), 256, "as many as the ring holds");
  rig.run();
  assertEquals(rig.packets.map((packet) => packet.bytes), [0, 1, 2, 3, 4].map((i) => frameOf(100, i)));
});

Deno.test("NetGuest without a receive buffer receives nothing", () => {
  const rig = makeRig({ receiveBuffers: 0 });
  rig.guest.attach(rig.device);
  rig.device.deliver(frameOf(100, 1));
  rig.run();
  assertEquals(rig.packets, []);
});

Deno.test("NetGuest uses several queue pairs, and tells the device so", () => {
  const rig = makeRig({ queuePairs: 3, queueSize: 16 }, new FakeNetDevice(OFFERED, 64, 4));
  rig.guest.attach(rig.device);
  rig.run();
  assertEquals(
    rig.device.commands.map(({ commandClass, command, data }) => [commandClass, command, ...data]),
    [
      [4, 0, 3, 0],
    ],
  );
  assertEquals(rig.guest.rings.map((ring) => ring?.size ?? 0), [16, 16, 16, 16, 16, 16, 0, 0, 16]);
  for (let pair = 0; pair < 3; pair++) {
    rig.device.deliver(frameOf(100, pair), new Uint8Array(20), pair);
    assert(rig.guest.send(frameOf(100, 10 + pair), {}, pair));
  }
  rig.run();
  assertEquals(rig.packets.map((packet) => [packet.queuePair, packet.bytes[0]]), [[0, 0], [1, 31], [2, 62]]);
  assertEquals(rig.device.sent.map((sent) => sent.queue), [0, 1, 2]);
  assertThrows(() => rig.guest.send(frameOf(60, 1), {}, 3), RangeError, "must be from 0 to 2");
});

Deno.test("NetGuest takes the largest size that a device offers", () => {
  const split = makeRig({ queueSize: 256 }, new FakeNetDevice(OFFERED, 100));
  split.guest.attach(split.device);
  assertEquals(split.guest.rings[0]!.size, 64);
  const packed = makeRig({ queueSize: 256, ring: "packed" }, new FakeNetDevice(OFFERED, 100));
  packed.guest.attach(packed.device);
  assertEquals(packed.guest.rings[0]!.size, 100);
});

Deno.test("NetGuest can be detached and attached again, also to another device", () => {
  const rig = makeRig({ queueSize: 8 });
  const other = new FakeNetDevice(OFFERED);
  for (const device of [rig.device, rig.device, other, rig.device]) {
    const session = rig.guest.attach(device);
    device.deliver(frameOf(100, 1));
    assert(rig.guest.send(frameOf(100, 2)));
    rig.run();
    assertEquals(session.status, 15);
  }
  assertEquals(rig.packets.length, 4);
  assertEquals([rig.device.sent.length, other.sent.length], [3, 1]);
  rig.guest.detach();
  assertEquals([rig.device.resets, other.resets], [3, 1]);
  assertEquals(rig.guest.session.status, 0);
  assert(!rig.guest.poll(0));
  assertEquals(rig.guest.deadlineNs(), Infinity);
  assertThrows(() => rig.guest.send(frameOf(60, 1)), Error, "not attached");
  rig.guest.detach();
  assertEquals(rig.device.resets, 3);
});

Deno.test("NetGuest may be detached from within a hook", () => {
  const rig = makeRig({}, undefined, { onPacket: () => rig.guest.detach() });
  rig.guest.attach(rig.device);
  for (let i = 0; i < 3; i++) rig.device.deliver(frameOf(100, i));
  rig.run();
  assertEquals(rig.packets.length, 1);
  assert(!rig.guest.attached);
  assertEquals(rig.device.resets, 1);
});

Deno.test("NetGuest reads the configuration, and defaults where a feature is missing", () => {
  const rig = makeRig({}, new FakeNetDevice(OFFERED, 64, 5));
  rig.guest.attach(rig.device);
  assertEquals(rig.guest.mac, Uint8Array.of(0x52, 0x54, 0, 0, 0, 0x77));
  assertEquals(
    { status: rig.guest.status, mtu: rig.guest.mtu, pairs: rig.guest.maxQueuePairs },
    { status: 1, mtu: 1500, pairs: 5 },
  );
  const bare = makeRig({ accept: [] });
  bare.guest.attach(bare.device);
  bare.device.config.fill(0xff);
  assertEquals(
    [bare.guest.mac, bare.guest.status, bare.guest.mtu, bare.guest.maxQueuePairs],
    [null, 1, null, 1],
  );
  assertThrows(() => bare.guest.announceAck(), Error, "feature CTRL_VQ was not negotiated");
});

Deno.test("NetGuest hears of configuration changes", () => {
  let told = 0;
  const rig = makeRig({}, undefined, { onConfigChanged: () => told++ });
  rig.guest.attach(rig.device);
  rig.device.session!.configChanged();
  assertEquals([told, rig.guest.counters.configChanges], [1, 1]);
});

Deno.test("NetGuest writes commands as section 5.1.6.5 has them", () => {
  const answers: number[][] = [];
  const rig = makeRig({}, undefined, {
    onControl: ({ commandClass, command, ack }) => answers.push([commandClass, command, ack!]),
  });
  rig.guest.attach(rig.device);
  rig.guest.setGuestOffloads(FeatureSet.of(1, 7, 61));
  for (const mode of ["promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"] as const) {
    rig.guest.setReceiveMode(mode, mode !== "nouni");
  }
  rig.guest.setMacTable([Uint8Array.of(2, 1, 1, 1, 1, 1)], [
    Uint8Array.of(1, 2, 2, 2, 2, 2),
    Uint8Array.of(1, 3, 3, 3, 3, 3),
  ]);
  rig.guest.setMac(Uint8Array.of(2, 9, 9, 9, 9, 9));
  rig.guest.setVlan(0x123, true);
  rig.guest.setVlan(4095, false);
  rig.guest.setQueuePairs(0x102);
  rig.guest.announceAck();
  rig.run();
  const expected = [
    [5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0x20],
    [0, 0, 1],
    [0, 1, 1],
    [0, 2, 1],
    [0, 3, 1],
    [0, 4, 0],
    [0, 5, 1],
    [1, 0, ...[1, 0, 0, 0, 2, 1, 1, 1, 1, 1], ...[2, 0, 0, 0, 1, 2, 2, 2, 2, 2, 1, 3, 3, 3, 3, 3]],
    [1, 1, 2, 9, 9, 9, 9, 9],
    [2, 0, 0x23, 1],
    [2, 1, 0xff, 0x0f],
    [4, 0, 2, 1],
    [3, 0],
  ];
  assertEquals(
    rig.device.commands.map(({ commandClass, command, data }) => [commandClass, command, ...data]),
    expected,
  );
  assertEquals(answers, expected.map(([commandClass, command]) => [commandClass, command, 0]));
});

Deno.test("NetGuest.control() says when it has no room, and fits into small rings", () => {
  const rig = makeRig({ queueSize: 256 });
  rig.guest.attach(rig.device);
  for (let i = 0; i < 16; i++) rig.guest.announceAck();
  assertThrows(() => rig.guest.announceAck(), Error, "16 are waiting for the device");
  rig.run();
  assertEquals(rig.guest.control(1, 0, new Uint8Array(8192)).ack, null);
  assertThrows(() => rig.guest.control(1, 0, new Uint8Array(8193)), RangeError, "the limit is 8192");
  const small = makeRig({ queueSize: 2, indirect: false });
  small.guest.attach(small.device);
  const command = small.guest.setVlan(7, true);
  small.run();
  assertEquals(command.ack, 0);
  assertEquals(small.device.commands[0], {
    commandClass: 2,
    command: 0,
    data: Uint8Array.of(7, 0),
    descriptors: 2,
  });
  const tiny = makeRig({ queueSize: 1, indirect: false });
  tiny.guest.attach(tiny.device);
  assertThrows(() => tiny.guest.setVlan(7, true), Error, "control queue of 1 entries has no room");
});

Deno.test("NetGuest tells of transmitted frames by queue pair", () => {
  const used: number[] = [];
  const rig = makeRig({ queuePairs: 2 }, new FakeNetDevice(OFFERED, 64, 2), {
    onUsedTransmit: (queue) => used.push(queue),
  });
  rig.guest.attach(rig.device);
  rig.guest.send(frameOf(60, 1), {}, 1);
  rig.guest.send(frameOf(60, 1), {}, 0);
  rig.run();
  assertEquals(used, [0, 1]);
});

Deno.test("NetGuest hands every packet over in a copy of its own, unless told to reuse", () => {
  const rig = makeRig({});
  rig.guest.attach(rig.device);
  rig.device.deliver(frameOf(100, 1));
  rig.device.deliver(frameOf(100, 2));
  rig.run();
  assert(rig.packets[0] !== rig.packets[1]);
  assertEquals(rig.packets.map((packet) => packet.bytes), [frameOf(100, 1), frameOf(100, 2)]);

  const seen: Uint8Array[] = [];
  const reusing = makeRig({ reuse: true }, undefined, {
    onPacket: (packet: ReceivedPacket) => seen.push(packet.bytes.slice()),
  });
  reusing.guest.attach(reusing.device);
  for (const [length, seed] of [[100, 1], [90, 2], [100, 3]]) reusing.device.deliver(frameOf(length, seed));
  reusing.run();
  assertEquals(seen, [frameOf(100, 1), frameOf(90, 2), frameOf(100, 3)]);
  assert(reusing.packets[0] === reusing.packets[2]);
  assert(reusing.packets[0].bytes === reusing.packets[2].bytes, "views are kept by length");
});

Deno.test("NetGuest leaves a queue alone until it is interrupted", () => {
  const rig = makeRig({});
  rig.guest.attach(rig.device);
  rig.run();
  const interrupt = rig.device.session!.interrupt.bind(rig.device.session!);
  rig.device.session!.interrupt = () => {};
  rig.device.deliver(frameOf(100, 1));
  rig.run();
  assertEquals(rig.packets.length, 0);
  assertEquals(rig.guest.deadlineNs(), Infinity);
  interrupt(0);
  assertEquals(rig.guest.deadlineNs(), 0);
  rig.run();
  assertEquals(rig.packets.length, 1);
});

Deno.test("NetGuest refuses interrupts while it has more work than a turn allows", () => {
  for (const eventIndex of [false, true]) {
    for (const ring of ["split", "packed"] as const) {
      const rig = makeRig({ eventIndex, ring });
      const { guest, device } = rig;
      guest.attach(device);
      for (let i = 0; i < 200; i++) device.deliver(frameOf(60, i));
      guest.session.poll(0);
      assertEquals(guest.counters.interrupts, 1);
      assert(guest.poll(0));
      assertEquals(rig.packets.length, 64);
      device.deliver(frameOf(60, 200));
      guest.session.poll(0);
      assertEquals(guest.counters.interrupts, 1, "interrupts are refused in between");
      rig.run();
      assertEquals(rig.packets.length, 201);
      device.deliver(frameOf(60, 201));
      rig.run();
      assertEquals(guest.counters.interrupts, 2);
      assertEquals(guest.counters.unwantedInterrupts, 0);
    }
  }
});

Deno.test("NetGuest stops at a device that needs a reset, and starts anew when attached", () => {
  const rig = makeRig({});
  rig.guest.attach(rig.device);
  rig.device.breaks = new GuestError("descriptor-loop", "made up");
  rig.device.deliver(frameOf(60, 1));
  rig.run();
  rig.guest.poll(1);
  assertEquals(rig.guest.counters.needsReset, 1);
  assertEquals(rig.guest.errors, ['the device needs a reset: {"descriptor-loop":1}']);
  assertEquals(rig.guest.deadlineNs(), Infinity);
  rig.device.breaks = null;
  rig.guest.attach(rig.device);
  rig.run();
  assertEquals(rig.packets.length, 1);
});
