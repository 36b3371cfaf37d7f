/**
 * A connection keeps its order under strict rules, whatever form its frames take and whichever queue pair
 * they come on.
 */
import { assertEquals } from "@std/assert";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { rscV6 } from "../../offloads/rsc_v6.ts";
import {
  type FrameFacts,
  GUEST_MAC,
  MachineBench,
  parseTcp,
  PEER_MAC,
  StageBench,
  tcp,
  type TcpFields,
} from "../../testing/mod.ts";
import { mpls, pppoe, snap, tagged, withExtension, withOptions } from "../wire/forms.ts";

type Form = (frame: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>;
const ZEROS = (bytes: number) => new Array<number>(bytes).fill(0);

/** Forms that any frame can take without being of another VLAN. */
const LINK_FORMS: Record<string, Form> = {
  "802.1Q priority tag": (frame) => tagged(frame, [0x8100, 0]),
  "802.1Q priority tag with PCP and DEI": (frame) => tagged(frame, [0x8100, 0xf000]),
  "802.1ad priority tag": (frame) => tagged(frame, [0x88a8, 0xe000]),
  "two priority tags": (frame) => tagged(frame, [0x88a8, 0], [0x8100, 0x6000]),
  "three priority tags": (frame) => tagged(frame, [0x8100, 0], [0x8100, 0], [0x8100, 0]),
  "nine priority tags": (frame) => tagged(frame, ...new Array<[number, number]>(9).fill([0x8100, 0])),
  "LLC/SNAP": snap,
  "LLC/SNAP behind a priority tag": (frame) => tagged(snap(frame), [0x8100, 0]),
  "PPPoE": pppoe,
  "MPLS": mpls,
};

const V4_FORMS: Record<string, Form> = {
  "IP options": (frame) => withOptions(frame, [1, 1, 1, 0]),
  "ESP": (frame) => patch(frame, 23, 50),
  "AH": (frame) => patch(frame, 23, 51),
  "first fragment": (frame) => patch(frame, 20, 0x20),
  "later fragment": (frame) => patch(frame, 21, 9),
  "fragment behind a priority tag": (frame) => tagged(patch(frame, 21, 9), [0x8100, 0]),
  "IP options behind a priority tag": (frame) => tagged(withOptions(frame, [1, 1, 1, 0]), [0x88a8, 0]),
  "bad IP checksum": (frame) => patch(frame, 24, frame[24] ^ 1),
  "bad TCP checksum": (frame) => patch(frame, 50, frame[50] ^ 1),
  "a short IP length": (frame) => patch(frame, 17, 21),
  "IP length 0": (frame) => patch(patch(frame, 16, 0), 17, 0),
};

const V6_FORMS: Record<string, Form> = {
  "hop-by-hop options": (frame) => withExtension(frame, 0, [0, 0, 1, 4, 0, 0, 0, 0]),
  "destination options": (frame) => withExtension(frame, 60, [0, 0, 1, 4, 0, 0, 0, 0]),
  "routing header": (frame) => withExtension(frame, 43, ZEROS(8)),
  "fragment": (frame) => withExtension(frame, 44, [0, 0, 0, 9, 0, 0, 0, 1]),
  "atomic fragment": (frame) => withExtension(frame, 44, [0, 0, 0, 0, 0, 0, 0, 1]),
  "ESP": (frame) => withExtension(frame, 50, ZEROS(8)),
  "AH": (frame) => withExtension(frame, 51, [0, 1, ...ZEROS(10)]),
  "nine extension headers": (frame) =>
    ZEROS(9).reduce<Uint8Array<ArrayBuffer>>(
      (longer) => withExtension(longer, 0, [0, 0, 1, 4, 0, 0, 0, 0]),
      frame,
    ),
  "extension header behind a priority tag": (frame) =>
    tagged(withExtension(frame, 60, [0, 0, 1, 4, 0, 0, 0, 0]), [0x8100, 0]),
  "bad TCP checksum": (frame) => patch(frame, 70, frame[70] ^ 1),
  "payload length 0": (frame) => patch(patch(frame, 18, 0), 19, 0),
};

function patch(frame: Uint8Array<ArrayBuffer>, at: number, byte: number): Uint8Array<ArrayBuffer> {
  const copy = Uint8Array.from(frame);
  copy[at] = byte;
  return copy;
}

/** What comes out at once of an ordinary segment and these frames 1 µs later, and what after the interval. */
function outOf(first: Uint8Array, ...more: readonly [Uint8Array, FrameFacts?][]) {
  using bench = new StageBench([{ plugin: rscV4 }, { plugin: rscV6 }], { rules: "strict", queuePairs: 2 });
  bench.feed(first);
  for (const [frame, facts] of more) {
    bench.advanceTo(1000);
    bench.feed(frame, facts);
  }
  bench.advanceTo(1_000_000);
  return bench.out.map(({ bytes }) => bytes);
}

for (const [source, forms] of [["10.0.0.1", V4_FORMS], ["fd00::1", V6_FORMS]] as const) {
  const family = source === "fd00::1" ? "IPv6" : "IPv4";
  for (const [name, form] of Object.entries({ ...LINK_FORMS, ...forms })) {
    for (const flags of [["ACK"], ["ACK", "FIN"]] as const) {
      Deno.test(`${family}, ${name}: ${flags.at(-1)} does not overtake the segment held before it`, () => {
        const held = tcp({ source, payload: 100 });
        const other = form(tcp({ source, seq: 1100, payload: 100, flags }));
        assertEquals(outOf(held, [other]), [held, other]);
      });
    }
  }
}

Deno.test("a source route and a mobile host's addresses are those of the connection", () => {
  const held = tcp({ payload: 100 });
  const routed = withOptions(tcp({ destination: "10.9.9.9", seq: 1100, payload: 100 }), [
    ...[131, 11, 4, 10, 9, 9, 8, 10, 0, 0, 2, 0],
  ]);
  assertEquals(outOf(held, [routed]), [held, routed]);
  const held6 = tcp({ source: "fd00::1", payload: 100 });
  const home = withExtension(
    tcp({ source: "fd00::99", seq: 1100, payload: 100 }),
    60,
    [0, 2, 1, 2, 0, 0, 0xc9, 16, ...held6.subarray(22, 38)],
  );
  assertEquals(outOf(held6, [home]), [held6, home]);
});

Deno.test("another VLAN, other ports and other protocols leave what is held alone", () => {
  const held = tcp({ payload: 100 });
  const others = [
    tcp({ seq: 1100, payload: 100, flags: ["RST"], vlans: [{ id: 5 }] }),
    tcp({ seq: 1100, payload: 100, flags: ["RST"], vlans: [{ id: 5, type: 0x88a8 }] }),
    snap(tcp({ seq: 1100, payload: 100, sourcePort: 1 })),
    withOptions(tcp({ seq: 1100, payload: 100, sourcePort: 1 }), [1, 1, 1, 0]),
    tcp({ seq: 1100, payload: 100, protocol: 17 }),
    tcp({ seq: 1100, payload: 100, protocol: 17, fragmentOffset: 9 }),
  ];
  for (const other of others) assertEquals(outOf(held, [other]), [other, held]);
});

const IN_VLAN: [string, NonNullable<TcpFields["vlans"]>][] = [
  ["VLAN 5", [{ id: 5 }]],
  ["service VLAN 7", [{ id: 7, type: 0x88a8, priority: 3 }]],
  ["stacked VLANs", [{ id: 7, type: 0x88a8 }, { id: 5, priority: 7 }]],
  ["a priority tag", [{ id: 0, priority: 5 }]],
];
for (const source of ["10.0.0.1", "fd00::1"]) {
  for (const [name, vlans] of IN_VLAN) {
    Deno.test(`segments from ${source} in ${name} are merged, and keep the tags`, () => {
      using bench = new StageBench([{ plugin: rscV4 }, { plugin: rscV6 }], { rules: "strict" });
      for (let i = 0; i < 4; i++) bench.feed(tcp({ source, vlans, seq: 1000 + 100 * i, payload: 100 }));
      // The same connection without a tag is another one, unless the tag is a priority tag.
      bench.advanceTo(1_000_000);
      assertEquals(bench.out.length, 1);
      const [{ bytes, header }] = bench.out;
      const wanted = tcp({ source, vlans, payload: 400, checksum: "partial" });
      assertEquals(bytes, wanted);
      const { tcpAt } = parseTcp(wanted);
      assertEquals(header, {
        flags: 5,
        gsoType: source === "fd00::1" ? 4 : 1,
        hdrLen: tcpAt + 20,
        gsoSize: 100,
        csumStart: 4,
        csumOffset: 0,
      });
    });
  }
}

Deno.test("two VLANs and the untagged network are three flows of one connection's addresses and ports", () => {
  using bench = new StageBench(rscV4, { rules: "strict" });
  const forms: NonNullable<TcpFields["vlans"]>[] = [[], [{ id: 5 }], [{ id: 5, type: 0x88a8 }]];
  for (let i = 0; i < 3; i++) {
    for (const vlans of forms) bench.feed(tcp({ vlans, seq: 1000 + 100 * i, payload: 100 }));
  }
  bench.advanceTo(1_000_000);
  assertEquals(
    bench.out.map(({ bytes }) => [parseTcp(bytes).vlans, parseTcp(bytes).payload.length]),
    [[[], 300], [[5], 300], [[5], 300]],
  );
});

for (const source of ["10.0.0.1", "fd00::1"]) {
  Deno.test(`a flow from ${source} that moves to another queue pair does not overtake itself`, () => {
    for (const flags of [["ACK"], ["ACK", "FIN"]] as const) {
      const held = tcp({ source, payload: 100 });
      const moved = tcp({ source, seq: 1100, payload: 100, flags });
      const back = tcp({ source, seq: 1200, payload: 100 });
      const merged = tcp({ source, seq: 1200, payload: 100 });
      assertEquals(outOf(held, [moved, { queuePair: 1 }], [back, { queuePair: 0 }]), [held, moved, merged]);
    }
  });

  Deno.test(`a fragment from ${source} on another queue pair does not overtake its connection`, () => {
    const held = tcp({ source, payload: 100 });
    const plain = tcp({ source, seq: 1100, payload: 100 });
    const fragment = source === "fd00::1"
      ? withExtension(plain, 44, [0, 0, 0, 9, 0, 0, 0, 1])
      : patch(plain, 21, 9);
    assertEquals(outOf(held, [fragment, { queuePair: 1 }]), [held, fragment]);
  });
}

for (const [source, destination] of [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] as const) {
  Deno.test(`automatic steering moves a flow from ${source}: what is held for the old pair is delivered first`, async () => {
    await using bench = await MachineBench.start({
      offloads: ["rsc-v4", "rsc-v6"],
      device: { queuePairs: 3 },
      guest: { queuePairs: 3 },
    });
    const reverse = tcp({
      source: destination,
      destination: source,
      sourcePort: 80,
      destinationPort: 1111,
      destinationMac: PEER_MAC,
      sourceMac: GUEST_MAC,
    });
    const expected: [number, number, Uint8Array][] = [];
    for (let round = 0; round < 4; round++) {
      const seq = 1000 + 1000 * round;
      const held = tcp({ source, seq, payload: 100 });
      const next = tcp({ source, seq: seq + 100, payload: 100 });
      const fin = tagged(tcp({ source, seq: seq + 200, payload: 0, flags: ["ACK", "FIN"] }), [0x8100, 0]);
      const at = 1_000_000 * (round + 1);
      const pair = round % 3;
      bench.advanceTo(at);
      bench.guest.send(reverse, {}, pair);
      bench.settle();
      bench.feed(held);
      bench.advanceTo(at + 10_000);
      bench.guest.send(reverse, {}, (pair + 1) % 3);
      bench.settle();
      bench.feed(next);
      bench.advanceTo(at + 20_000);
      bench.guest.send(reverse, {}, (pair + 2) % 3);
      bench.settle();
      bench.feed(fin);
      expected.push([at + 10_000, pair, held], [at + 20_000, (pair + 1) % 3, next]);
      expected.push([at + 20_000, (pair + 2) % 3, fin]);
    }
    // Between two receive queues a guest sees no order; what comes at one moment is compared by its queue.
    const inOrder = (list: [number, number, Uint8Array][]) =>
      list.toSorted((a, b) => a[0] - b[0] || a[1] - b[1]);
    assertEquals(
      inOrder(bench.out.map(({ atNs, queuePair, bytes }) => [atNs, queuePair, bytes])),
      inOrder(expected),
    );
  });
}
