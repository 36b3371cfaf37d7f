import { assert, assertEquals } from "@std/assert";
import { ethernet, tcp } from "../../../testing/mod.ts";
import { MACS, numbered, range, Rig, RINGS } from "./support/rig.ts";

const NEEDS_CSUM = 1;
const LENGTHS = [14, 18, 60, 61, 1513, 1514, 2036, 2037, 4085, 9000, 65_535, 65_549];

for (const { name, guest } of RINGS) {
  Deno.test(`ToGuest delivers frames of every length unchanged and in order (${name})`, async () => {
    await using rig = await Rig.start([{
      guest: { ...guest, queueSize: 256, accept: ["GUEST_CSUM", "GUEST_TSO4"] },
    }]);
    const frames = LENGTHS.map((length, i) => numbered(i + 1, length));
    for (const frame of frames) assert(rig.one.port.inject(frame));
    rig.settle();
    assertEquals(rig.one.packets.map(({ bytes }) => bytes.length), LENGTHS);
    rig.one.packets.forEach(({ bytes }, i) => assertEquals(bytes, frames[i]));
    for (const packet of rig.one.packets) {
      assertEquals([packet.flags, packet.gsoType, packet.gsoSize, packet.numBuffers], [
        0,
        0,
        0,
        packet.buffers,
      ]);
    }
    const { packets, bytes, buffers, starved } = rig.one.counters("toGuest");
    const all = LENGTHS.reduce((sum, length) => sum + length, 0);
    assertEquals([packets, bytes, starved], [LENGTHS.length, all, 0]);
    assertEquals(buffers, rig.one.packets.reduce((sum, packet) => sum + packet.buffers, 0));
    assertEquals(buffers > LENGTHS.length, guest.mergeable);
    assertEquals(rig.one.guest.errors, []);
  });

  Deno.test(`ToGuest lets frames wait for buffers, loses none and keeps their order (${name})`, async () => {
    const own = { ...guest, queueSize: 64, receiveBuffers: 0, accept: ["GUEST_CSUM"] };
    await using rig = await Rig.start([{ guest: own, network: { queueFrames: 16 } }]);
    const { one } = rig;
    let next = 1;
    // Fills the device, up to its burst, and then the cable.
    for (let round = 0; round < 10; round++) {
      while (one.port.inject(numbered(next))) next++;
      rig.settle();
    }
    assertEquals(one.numbers, []);
    assertEquals([next - 1, one.port.waiting, one.device.waitingFrames.toGuest], [32, 16, 16]);
    assertEquals(rig.machine.parts.reactor.turn(), false, "a starved device sleeps");
    assertEquals(one.counters("toGuest").starved, 1);
    let got = 0;
    for (const buffers of [1, 3, 7, 1]) {
      const { kicks } = one.guest.counters;
      assertEquals(one.guest.postReceiveBuffers(buffers), buffers);
      assertEquals(one.guest.counters.kicks, kicks + 1, "a starved device wants to hear of buffers");
      rig.settle();
      got += buffers;
      assertEquals(one.numbers, range(1, got));
    }
    one.guest.postReceiveBuffers(32);
    rig.settle();
    assertEquals(one.numbers, range(1, 32));
    assertEquals([rig.inUse, one.device.waitingFrames], [0, { toGuest: 0, fromGuest: 0 }]);
    assertEquals(one.guest.errors, []);
  });
}

for (const ring of ["split", "packed"]) {
  for (const eventIndex of [false, true]) {
    const name = `${ring}, ${eventIndex ? "event index" : "flags"}`;
    Deno.test(`ToGuest waits for the last of several buffers, and wants to hear of each (${name})`, async () => {
      const guest = {
        ring,
        eventIndex,
        queueSize: 16,
        receiveBuffers: 0,
        receiveBufferBytes: 100,
        indirect: false,
      };
      await using rig = await Rig.start([{ guest }]);
      const { one } = rig;
      const frame = numbered(1, 488);
      one.port.inject(frame);
      rig.settle();
      for (let posted = 1; posted <= 5; posted++) {
        assertEquals(one.packets.length, 0);
        const { kicks } = one.guest.counters;
        one.guest.postReceiveBuffers(1);
        assertEquals(one.guest.counters.kicks, kicks + 1, `buffer ${posted} is wanted`);
        rig.settle();
      }
      assertEquals([one.packets[0].bytes, one.packets[0].buffers], [frame, 5]);
      const { kicks } = one.guest.counters;
      one.guest.postReceiveBuffers(4);
      rig.settle();
      assertEquals(one.guest.counters.kicks, kicks, "and of no other");
      assertEquals(one.guest.errors, []);
    });

    Deno.test(`ToGuest drops a frame that the ring can never hold, instead of waiting for ever (${name})`, async () => {
      const guest = {
        ring,
        eventIndex,
        queueSize: 4,
        receiveBufferBytes: 100,
        descriptorsPerBuffer: 1,
        indirect: false,
      };
      await using rig = await Rig.start([{ guest }]);
      for (const [number, length] of [[1, 388], [2, 389], [3, 60]]) {
        rig.one.port.inject(numbered(number, length));
      }
      rig.settle();
      assertEquals(rig.one.numbers, [1, 3]);
      assertEquals(rig.one.counters("toGuest").dropped_buffer_too_small, 1);
      assertEquals(rig.one.device.waitingFrames.toGuest, 0);
    });
  }
}

for (const ring of ["split", "packed"] as const) {
  Deno.test(`ToGuest spreads the longest frames over the smallest buffers (${ring})`, async () => {
    for (const [receiveBufferBytes, queueSize] of [[64, 2048], [12, 8192]]) {
      const guest = { ring, queueSize, receiveBufferBytes, indirect: false, descriptorsPerBuffer: 1 };
      await using rig = await Rig.start([{ guest, device: { queueSize } }]);
      for (const number of [1, 2, 3]) rig.one.port.inject(numbered(number, 65_549));
      rig.settle();
      assertEquals(rig.one.numbers, [1, 2, 3]);
      const { dropped_buffer_too_small: dropped, buffers } = rig.one.counters("toGuest");
      assertEquals([dropped, buffers], [0, 3 * Math.ceil(65_561 / receiveBufferBytes)]);
      assertEquals(rig.one.guest.errors, []);
    }
  });
}

Deno.test("ToGuest drops a frame that is longer than a buffer which must not be merged", async () => {
  const guest = { mergeable: false, receiveBufferBytes: 112, queueSize: 8 };
  await using rig = await Rig.start([{ guest }]);
  for (const [number, length] of [[1, 100], [2, 101], [3, 100], [4, 5000], [5, 99]]) {
    rig.one.port.inject(numbered(number, length));
  }
  rig.settle();
  assertEquals(rig.one.numbers, [1, 3, 5]);
  assertEquals(rig.one.counters("toGuest").dropped_buffer_too_small, 2);
  assertEquals(rig.one.guest.errors, []);
});

Deno.test("ToGuest writes a header of 10 bytes for a legacy driver, with and without mergeable buffers 12", async () => {
  for (const [mergeable, headerBytes] of [[false, 10], [true, 12]] as const) {
    const guest = { legacy: true, mergeable, receiveBufferBytes: headerBytes + 60, queueSize: 8 };
    await using rig = await Rig.start([{ guest }]);
    rig.one.port.inject(numbered(1, 60));
    rig.settle();
    assertEquals(rig.one.numbers, [1]);
    assertEquals([rig.one.packets[0].buffers, rig.one.packets[0].numBuffersWritten], [1, mergeable]);
    assertEquals(rig.one.counters("toGuest").bytes, 60);
  }
});

Deno.test("ToGuest writes a header of 20 bytes with the hash that the driver has asked for", async () => {
  await using rig = await Rig.start([{
    device: { hashReport: true },
    guest: { receiveBufferBytes: 20 + 74, queueSize: 8 },
  }]);
  const { one } = rig;
  one.port.inject(tcp({ destinationMac: MACS[0], payload: 20 }));
  rig.settle();
  assertEquals(one.packets[0].hash, { value: 0, report: 0 }, "nothing is hashed before the driver says how");
  const command = new Uint8Array(4 + 8 + 1 + 40);
  command[0] = 1 << 1; // TCP over IPv4
  command[12] = 40;
  command.set(Uint8Array.from({ length: 40 }, (_, i) => i), 13);
  const hashConfig = one.guest.control(4, 2, command);
  rig.settle();
  assertEquals(hashConfig.ack, 0);
  one.port.inject(tcp({ destinationMac: MACS[0], payload: 20 }));
  one.port.inject(numbered(7, 74));
  rig.settle();
  const [, hashed, plain] = one.packets;
  assertEquals(hashed.hash!.report, 2);
  assert(hashed.hash!.value !== 0);
  assertEquals([plain.hash, plain.bytes], [{ value: 0, report: 0 }, numbered(7, 74)]);
  assertEquals(one.guest.errors, []);
});

Deno.test("ToGuest delivers large frames and partial checksums only to a driver that accepted them", async () => {
  const CSUM = { flags: NEEDS_CSUM, csumStart: 34, csumOffset: 16 };
  const cases = [
    { header: CSUM, needs: ["GUEST_CSUM"], dropped: "dropped_partial_checksum" },
    {
      header: { ...CSUM, gsoType: 1, gsoSize: 500 },
      needs: ["GUEST_CSUM", "GUEST_TSO4"],
      dropped: "dropped_large",
    },
    {
      header: { ...CSUM, gsoType: 4, gsoSize: 500 },
      needs: ["GUEST_CSUM", "GUEST_TSO6"],
      dropped: "dropped_large",
    },
    {
      header: { ...CSUM, gsoType: 0x81, gsoSize: 500 },
      needs: ["GUEST_CSUM", "GUEST_TSO4", "GUEST_ECN"],
      dropped: "dropped_large",
    },
    {
      header: { ...CSUM, gsoType: 5, gsoSize: 500 },
      needs: ["GUEST_CSUM", "GUEST_USO4", "GUEST_USO6"],
      dropped: "dropped_large",
    },
    { header: { ...CSUM, gsoType: 3, gsoSize: 500 }, needs: null, dropped: "dropped_large" },
    { header: { ...CSUM, gsoType: 0x85, gsoSize: 500 }, needs: null, dropped: "dropped_large" },
    { header: { ...CSUM, gsoType: 7, gsoSize: 500 }, needs: null, dropped: "dropped_large" },
  ] as const;
  for (const { header, needs, dropped } of cases) {
    const frame = tcp({ destinationMac: MACS[0], payload: 2000 });
    const offers = [
      ...needs ?? ["GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "GUEST_ECN", "GUEST_USO4", "GUEST_USO6"],
    ];
    for (const accept of [offers, offers.slice(0, -1)]) {
      await using rig = await Rig.start([{ guest: { accept }, network: { largeFrames: true } }]);
      rig.one.port.inject(frame, header);
      rig.settle();
      const welcome = needs !== null && accept.length === offers.length;
      assertEquals(rig.one.packets.length, welcome ? 1 : 0, `${JSON.stringify(header)} for ${accept}`);
      if (welcome) {
        const { flags, gsoType, gsoSize, csumStart, csumOffset, bytes } = rig.one.packets[0];
        assertEquals({ gsoType: 0, gsoSize: 0, ...header }, {
          flags,
          gsoType,
          gsoSize,
          csumStart,
          csumOffset,
        });
        assertEquals(bytes, frame);
      } else {
        const { dropped_large, dropped_partial_checksum } = rig.one.counters("toGuest");
        assertEquals(dropped_large + dropped_partial_checksum, 1);
        assertEquals(rig.one.counters("toGuest")[dropped], 1);
      }
    }
  }
});

Deno.test("ToGuest takes DATA_VALID off for a driver without GUEST_CSUM", async () => {
  for (const [accept, flags] of [[["GUEST_CSUM"], 2], [[], 0]] as const) {
    await using rig = await Rig.start([{ guest: { accept } }]);
    rig.one.port.inject(tcp({ destinationMac: MACS[0] }), { flags: 2 });
    rig.settle();
    assertEquals(rig.one.packets[0].flags, flags);
  }
});

Deno.test("ToGuest drops frames over the MTU once the driver has accepted it, but not large ones", async () => {
  const vlans = [{ id: 5, type: 0x88a8 }, { id: 6 }];
  const tagged = (tags: number, payloadBytes: number) =>
    ethernet({ destinationMac: MACS[0], vlans: vlans.slice(-tags), payload: new Uint8Array(payloadBytes) });
  const large = { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize: 1000 };
  for (const accept of [["MTU", "GUEST_CSUM", "GUEST_TSO4"], ["GUEST_CSUM", "GUEST_TSO4"]]) {
    await using rig = await Rig.start([{
      device: { mtu: 1000 },
      guest: { accept },
      network: { largeFrames: true },
    }]);
    const { one } = rig;
    const plain = [numbered(1, 1014), numbered(2, 1015)];
    for (const frame of [...plain, tagged(1, 1000), tagged(1, 1001), tagged(2, 1000), tagged(2, 1001)]) {
      one.port.inject(frame);
    }
    one.port.inject(tcp({ destinationMac: MACS[0], payload: 3000 }), large);
    rig.settle();
    const lengths = one.packets.map(({ bytes }) => bytes.length);
    const bounded = accept[0] === "MTU";
    assertEquals(lengths, bounded ? [1014, 1018, 1022, 3054] : [1014, 1015, 1018, 1019, 1022, 1023, 3054]);
    assertEquals(one.counters("toGuest").dropped_over_mtu, bounded ? 3 : 0);
  }
});

Deno.test("ToGuest shows a whole burst by one publish and one interrupt", async () => {
  await using rig = await Rig.start([{ guest: { queueSize: 128, accept: [] } }]);
  for (let number = 1; number <= 64; number++) rig.one.port.inject(numbered(number));
  rig.settle();
  assertEquals(rig.one.numbers, range(1, 64));
  assertEquals([rig.one.counters("toGuest").interrupts, rig.one.guest.counters.interrupts], [1, 1]);
});

Deno.test("ToGuest interrupts no driver that polls", async () => {
  await using rig = await Rig.start([{ guest: { queueSize: 128, polling: true } }]);
  for (let number = 1; number <= 100; number++) rig.one.port.inject(numbered(number));
  rig.settle();
  assertEquals(rig.one.numbers, range(1, 100));
  assertEquals([rig.one.counters("toGuest").interrupts, rig.one.guest.counters.unwantedInterrupts], [0, 0]);
});

for (const mergeable of [true, false]) {
  for (const headroomBytes of [0, 11, 12, 66]) {
    const name = `${headroomBytes} bytes left, ${mergeable ? "mergeable" : "one buffer"}`;
    Deno.test(`ToGuest delivers a frame whose headroom a stage has used up (${name})`, async () => {
      await using rig = await Rig.start([{
        guest: { mergeable, accept: ["GUEST_CSUM"] },
        offloads: [{ use: "./shift_frames.ts", headroomBytes }],
      }]);
      const frames = [14, 60, 1514].map((length, i) => numbered(i + 1, length));
      for (const frame of frames) assert(rig.one.port.inject(frame));
      rig.settle();
      assertEquals(rig.one.packets.map(({ bytes }) => bytes), frames);
      for (const { flags, gsoType, numBuffers } of rig.one.packets) {
        assertEquals([flags, gsoType, numBuffers], [0, 0, 1]);
      }
      assertEquals(rig.one.guest.errors, []);
    });
  }
}
