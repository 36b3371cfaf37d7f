import { assert, assertEquals } from "@std/assert";
import { BufferList } from "../../../guest/driver_ring.ts";
import { FrameBatch } from "../../../pipeline/frame.ts";
import { tcp, udp } from "../../../testing/mod.ts";
import { MACS, numbered, numberOf, range, Rig, RINGS } from "./support/rig.ts";

const LENGTHS = [14, 18, 60, 61, 1513, 1514, 2035, 2036, 2037, 9000, 65_535, 65_549];
const PARTIAL = { flags: 1, csumStart: 34, csumOffset: 16 };

for (const { name, guest } of RINGS) {
  Deno.test(`FromGuest sends frames of every length unchanged and in order (${name})`, async () => {
    await using rig = await Rig.start([{ guest: { ...guest, queueSize: 256, accept: [] } }]);
    const { one } = rig;
    const frames = LENGTHS.map((length, i) => numbered(i + 1, length, MACS[1]));
    for (const frame of frames) assert(one.guest.send(frame));
    rig.settle();
    assertEquals(one.sent.map((frame) => frame.length), LENGTHS);
    one.sent.forEach((frame, i) => assertEquals(frame, frames[i]));
    const { packets, bytes, sent, delayed } = one.counters("fromGuest");
    assertEquals([packets, bytes, sent, delayed], [12, LENGTHS.reduce((sum, one) => sum + one, 0), 12, 0]);
    assertEquals([one.guest.counters.transmitted, one.guest.errors], [12, []]);
  });

  Deno.test(`FromGuest lets frames wait for the network, loses none and keeps their order (${name})`, async () => {
    await using rig = await Rig.start([{ guest: { ...guest, queueSize: 256, accept: [] } }]);
    const { one } = rig;
    using peer = rig.plug(10);
    for (let number = 1; number <= 120; number++) assert(one.guest.enqueue(numbered(number, 100, MACS[1])));
    one.guest.flush();
    rig.settle();
    assertEquals(
      [peer.waiting, one.device.waitingFrames.fromGuest],
      [10, 54],
      "a burst of 64 was taken, no more",
    );
    assertEquals(one.guest.counters.transmitted, 64, "buffers come back as soon as they are copied");
    assertEquals(one.counters("fromGuest").delayed > 0, true);
    assertEquals(rig.machine.parts.reactor.turn(), false, "a congested device sleeps");
    const batch = new FrameBatch();
    const got: number[] = [];
    for (let round = 0; round < 20 && got.length < 120; round++) {
      peer.receive(batch, 7, 0, 0);
      for (let i = 0; i < batch.length; i++) got.push(numberOf(batch.at(i).toBytes()));
      batch.releaseAll();
      rig.settle();
    }
    assertEquals(got, range(1, 120));
    assertEquals([rig.inUse, one.guest.errors], [0, []]);
  });
}

Deno.test("FromGuest sends a thousand frames in bursts, and interrupts once a burst at most", async () => {
  await using rig = await Rig.start([{ guest: { queueSize: 1024, accept: [] } }]);
  const { one } = rig;
  for (let number = 1; number <= 1000; number++) assert(one.guest.enqueue(numbered(number, 60, MACS[1])));
  one.guest.flush();
  rig.settle();
  assertEquals(one.sent.map(numberOf), range(1, 1000));
  assertEquals(one.guest.counters.transmitted, 1000);
  assert(one.counters("fromGuest").interrupts <= 16, `${one.counters("fromGuest").interrupts} interrupts`);
});

Deno.test("FromGuest drops frames that are no Ethernet frames or too long, counts them, and returns their buffers", async () => {
  await using rig = await Rig.start([{
    guest: { queueSize: 256, transmitBufferBytes: 4096, indirect: false, accept: [] },
  }]);
  const { one } = rig;
  const lengths = [13, 0, 14, 69_632, 69_633, 80_000];
  for (const length of lengths) assert(one.guest.send(new Uint8Array(length)));
  rig.settle();
  assertEquals(one.sent.map((frame) => frame.length), [14, 69_632]);
  const { dropped_too_short, dropped_too_long, packets } = one.counters("fromGuest");
  assertEquals([dropped_too_short, dropped_too_long, packets], [2, 2, 2]);
  assertEquals([one.guest.counters.transmitted, one.guest.session.faults], [6, {}]);
});

const FRAME = tcp({ destinationMac: MACS[1], payload: 100 });

/** Sends one frame under this header, and tells what became of it. */
async function under(
  header: object,
  accept: string[],
  frame = FRAME,
): Promise<{ flags: number[] | null; dropped: number; bytes: Uint8Array | undefined }> {
  await using rig = await Rig.start([{ guest: { accept }, network: { largeFrames: true } }]);
  const { one } = rig;
  const taken: number[][] = [];
  one.port.tap(({ header: { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } }) =>
    taken.push([flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset])
  );
  assert(one.guest.send(frame, header));
  rig.settle();
  assertEquals([one.guest.counters.transmitted, one.guest.session.faults], [1, {}]);
  const { dropped_bad_header } = one.counters("fromGuest");
  return { flags: taken[0] ?? null, dropped: dropped_bad_header, bytes: one.sent[0] };
}

const ALL = ["CSUM", "HOST_TSO4", "HOST_TSO6", "HOST_ECN", "HOST_USO"];
const LARGE = { ...PARTIAL, hdrLen: 54, gsoType: 1, gsoSize: 50 };
const TO_PEER = { destinationMac: MACS[1], payload: 100, checksum: "partial" } as const;
const V6 = tcp({ ...TO_PEER, source: "fd00::1" });
const UDP = udp(TO_PEER);
const TAGGED = tcp({ ...TO_PEER, vlans: [{ id: 0 }] });

Deno.test("FromGuest drops large frames that are of another kind than they say, or whose lengths disagree", async () => {
  const changed = (frame: Uint8Array<ArrayBuffer>, at: number, ...bytes: number[]) => {
    const copy = frame.slice();
    copy.set(bytes, at);
    return copy;
  };
  for (
    const [header, frame] of [
      [{ ...LARGE, gsoType: 4 }, FRAME],
      [{ ...LARGE, gsoType: 0x84 }, FRAME],
      [{ ...LARGE, gsoType: 5 }, FRAME],
      [{ ...LARGE, csumStart: 54 }, V6],
      [{ ...LARGE, csumOffset: 6 }, UDP],
      [{ ...LARGE, csumStart: 30 }, FRAME],
      [{ ...LARGE, csumOffset: 6 }, FRAME],
      [LARGE, tcp({ ...TO_PEER, moreFragments: true })],
      [LARGE, tcp({ ...TO_PEER, dataOffset: 4 })],
      [LARGE, tcp({ ...TO_PEER, payload: 8, dataOffset: 8 })],
      [LARGE, tcp({ ...TO_PEER, ipLength: 141 })],
      [LARGE, tcp({ ...TO_PEER, ipLength: 39 })],
      [LARGE, tcp({ ...TO_PEER, protocol: 1 })],
      [LARGE, tcp({ ...TO_PEER, etherType: 0x0806 })],
      [{ ...LARGE, gsoType: 5, csumOffset: 6 }, changed(UDP, 38, 0, 107)],
      [{ ...LARGE, gsoType: 5, csumOffset: 6 }, changed(UDP, 38, 0, 109)],
    ] as const
  ) {
    const { flags, dropped } = await under(header, ALL, frame);
    assertEquals([flags, dropped], [null, 1], JSON.stringify(header));
  }
});

Deno.test("FromGuest completes the IP length that a sender leaves to TSO", async () => {
  for (
    const [source, header] of [["10.0.0.1", LARGE], ["fd00::1", {
      ...LARGE,
      gsoType: 4,
      csumStart: 54,
    }]] as const
  ) {
    const { dropped, bytes } = await under(header, ALL, tcp({ ...TO_PEER, source, ipLength: 0 }));
    assertEquals([dropped, bytes], [0, tcp({ ...TO_PEER, source })]);
  }
});

Deno.test("FromGuest takes off what is behind the packet in a large frame: who cuts it would take it for payload", async () => {
  const kinds = [
    [tcp, "10.0.0.1", LARGE],
    [tcp, "fd00::1", { ...LARGE, gsoType: 4, csumStart: 54 }],
    [udp, "10.0.0.1", { ...LARGE, gsoType: 5, csumOffset: 6 }],
    [udp, "fd00::1", { ...LARGE, gsoType: 5, csumStart: 54, csumOffset: 6 }],
  ] as const;
  for (const [build, source, header] of kinds) {
    const packet = { ...TO_PEER, source };
    const { dropped, bytes } = await under(header, ALL, build({ ...packet, padding: 7 }));
    assertEquals([dropped, bytes], [0, build(packet)]);
  }
});

Deno.test("FromGuest passes on what the driver may ask for", async () => {
  for (
    const [header, expected] of [
      [{}, [0, 0, 0, 0, 0, 0]],
      [PARTIAL, [1, 0, 0, 0, 34, 16]],
      [{ ...PARTIAL, csumStart: 136, csumOffset: 16 }, [1, 0, 0, 0, 136, 16]],
      [LARGE, [1, 1, 54, 50, 34, 16]],
      [{ ...LARGE, gsoType: 0x81 }, [1, 0x81, 54, 50, 34, 16]],
    ] as const
  ) {
    const { flags, dropped } = await under(header, ALL);
    assertEquals([flags, dropped], [[...expected], 0], JSON.stringify(header));
  }
  for (
    const [frame, header, expected] of [
      [V6, { ...LARGE, gsoType: 4, csumStart: 54 }, [1, 4, 0, 50, 54, 16]],
      [V6, { ...LARGE, gsoType: 0x84, csumStart: 54, hdrLen: 74 }, [1, 0x84, 74, 50, 54, 16]],
      [UDP, { ...LARGE, gsoType: 5, csumOffset: 6 }, [1, 5, 54, 50, 34, 6]],
      [TAGGED, { ...LARGE, csumStart: 38, hdrLen: 58 }, [1, 1, 58, 50, 38, 16]],
    ] as const
  ) {
    const { flags, dropped, bytes } = await under(header, ALL, frame);
    assertEquals([flags, dropped, bytes], [[...expected], 0, frame], JSON.stringify(header));
  }
});

Deno.test("FromGuest takes off what has no meaning", async () => {
  for (
    const [header, expected] of [
      // Flags that are the device's, and fields of a checksum or a segmentation that was not asked for.
      [{ flags: 0xfe, csumStart: 9999, csumOffset: 9999 }, [0, 0, 0, 0, 0, 0]],
      [{ gsoType: 0, gsoSize: 1448, hdrLen: 66 }, [0, 0, 0, 0, 0, 0]],
      [{ gsoType: 0x80 }, [0, 0, 0, 0, 0, 0]],
      [{ ...LARGE, flags: 0xff, hdrLen: 155 }, [1, 1, 0, 50, 34, 16]],
      [{ ...LARGE, hdrLen: 154 }, [1, 1, 154, 50, 34, 16]],
    ] as const
  ) {
    const { flags, dropped } = await under(header, ALL);
    assertEquals([flags, dropped], [[...expected], 0], JSON.stringify(header));
  }
});

Deno.test("FromGuest drops frames whose header contradicts the frame, and counts them", async () => {
  for (
    const header of [
      { flags: 1, csumStart: 137, csumOffset: 16 },
      { flags: 1, csumStart: 65_535, csumOffset: 65_535 },
      { flags: 1, csumStart: 0, csumOffset: 153 },
      { ...LARGE, gsoSize: 0 },
      { ...LARGE, flags: 0 },
      { ...LARGE, gsoType: 2 },
      { ...LARGE, gsoType: 3 },
      { ...LARGE, gsoType: 6 },
      { ...LARGE, gsoType: 0x7f },
      { ...LARGE, gsoType: 0x85 },
    ]
  ) {
    const { flags, dropped } = await under(header, ALL);
    assertEquals([flags, dropped], [null, 1], JSON.stringify(header));
  }
});

Deno.test("FromGuest drops frames that ask for what was not negotiated", async () => {
  for (
    const [header, accept] of [
      [PARTIAL, []],
      [LARGE, ["CSUM"]],
      [LARGE, ["CSUM", "HOST_TSO6"]],
      [{ ...LARGE, gsoType: 4 }, ["CSUM", "HOST_TSO4"]],
      [{ ...LARGE, gsoType: 0x81 }, ["CSUM", "HOST_TSO4"]],
      [{ ...LARGE, gsoType: 0x84 }, ["CSUM", "HOST_TSO6"]],
      [{ ...LARGE, gsoType: 5 }, ["CSUM", "HOST_TSO4", "HOST_TSO6"]],
    ] as const
  ) {
    const { flags, dropped } = await under(header, [...accept]);
    assertEquals([flags, dropped], [null, 1], `${JSON.stringify(header)} ${accept}`);
  }
});

Deno.test("FromGuest reads the header of 10 bytes of a legacy driver, and of 20 with hash reports", async () => {
  for (
    const [device, guest] of [
      [{}, { legacy: true, mergeable: false }],
      [{}, { legacy: true, mergeable: true }],
      [{ hashReport: true }, {}],
    ]
  ) {
    await using rig = await Rig.start([{ device, guest }]);
    const frame = numbered(5, 77, MACS[1]);
    rig.one.guest.send(frame);
    rig.settle();
    assertEquals(rig.one.sent, [frame]);
  }
});

for (const ring of ["split", "packed"]) {
  Deno.test(`FromGuest sends what came before a broken chain, and then needs a reset (${ring})`, async () => {
    await using rig = await Rig.start([{ guest: { ring, queueSize: 64, accept: [] } }]);
    const { one } = rig;
    for (let number = 1; number <= 5; number++) one.guest.enqueue(numbered(number, 60, MACS[1]));
    const list = new BufferList(4);
    list.addReadable(one.guest.memory.regions[0].guestAddress, 11);
    one.guest.rings[1]!.add(list, 60);
    one.guest.flush();
    rig.settle();
    assertEquals(one.sent.map(numberOf), range(1, 5));
    assertEquals([one.faults("buffer-too-small"), one.guest.counters.needsReset, rig.inUse], [1, 1, 0]);
    assertEquals(
      one.guest.session.lastFault?.message.includes("11 readable bytes has no room for the 12-byte"),
      true,
    );
  });

  Deno.test(`FromGuest needs readable bytes in a transmit chain (${ring})`, async () => {
    await using rig = await Rig.start([{ guest: { ring, queueSize: 64, indirect: false } }]);
    const list = new BufferList(4);
    list.addWritable(rig.one.guest.memory.regions[0].guestAddress, 100);
    rig.one.guest.rings[1]!.add(list, 3);
    rig.one.guest.flush();
    rig.settle();
    assertEquals(rig.one.faults("buffers-wrong-direction"), 1);
  });
}

Deno.test("FromGuest reads all of a table in a packed ring, and elsewhere only what is said to be readable", async () => {
  const cases = [["packed", true, [54, 54, 54, 54]], ["packed", false, [32, 54]], ["split", true, [32, 54]]];
  for (const [ring, indirect, lengths] of cases as [string, boolean, number[]][]) {
    await using rig = await Rig.start([{ guest: { ring, queueSize: 64, indirect, accept: [] } }]);
    const { one } = rig;
    const { memory, rings } = one.guest;
    const [{ guestAddress, size }] = memory.regions;
    const frame = numbered(1, 54, MACS[1]);
    const at = guestAddress + size - 66;
    memory.copyIn(at, new Uint8Array(12), 0, 12);
    memory.copyIn(at + 12, frame, 0, 54);
    // Of 10 bytes that are to be read no frame is made; without any, only a table is not broken.
    for (let readable = lengths.length === 4 ? 0 : 1; readable <= 3; readable++) {
      const list = new BufferList(4);
      for (let i = 0; i < 3; i++) {
        if (i < readable) list.addReadable(at + 22 * i, 22);
        else list.addWritable(at + 22 * i, 22);
      }
      rings[1]!.add(list, 60 + readable);
      one.guest.flush();
      rig.settle();
    }
    assertEquals(one.sent, lengths.map((length) => frame.subarray(0, length)));
    assertEquals(one.guest.session.lastFault, null);
  }
});
