import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { FeatureSet } from "../../core/features.ts";
import { checksum } from "../../offloads/checksum.ts";
import {
  arp,
  BENCH_FEATURES,
  type FrameFacts,
  type HeaderFields,
  internetSum,
  pseudoHeaderSum,
  StageBench,
  type StageBenchSettings,
  tcp,
  udp,
} from "../../testing/mod.ts";
import { ipBytes } from "../../testing/packets.ts";
import { VIRTIO_NET_F_GUEST_CSUM } from "../../wire/net_features.ts";

const PLAIN: HeaderFields = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
const TAKES_PARTIAL = OffloadCapabilities.of("csum");
const NO_CSUM = { features: BENCH_FEATURES.without(VIRTIO_NET_F_GUEST_CSUM) };
const TCP_V4 = { header: { flags: 1, csumStart: 34, csumOffset: 16 } };

/** Runs one frame through the stage. */
function run(
  frame: Uint8Array,
  facts: FrameFacts = {},
  settings: StageBenchSettings & { verify?: boolean } = {},
): { header: HeaderFields; bytes: Uint8Array; counted: Record<string, number> } {
  const { verify = false, ...rest } = settings;
  using bench = new StageBench({ plugin: checksum, options: { verify } }, rest);
  bench.feed(frame, facts);
  const [{ header, bytes }] = bench.out;
  const counted = Object.entries(bench.counters.checksum).filter(([, count]) => count > 0);
  return { header, bytes, counted: Object.fromEntries(counted) };
}

Deno.test("checksum completes a partial checksum for a guest without GUEST_CSUM", () => {
  const { header, bytes, counted } = run(tcp({ payload: 99, checksum: "partial" }), TCP_V4, NO_CSUM);
  assertEquals([header, bytes, counted], [PLAIN, tcp({ payload: 99 }), { completed: 1 }]);
});

Deno.test("checksum leaves a partial checksum to a guest with GUEST_CSUM", () => {
  const partial = tcp({ payload: 99, checksum: "partial" });
  const { header, bytes, counted } = run(partial, TCP_V4);
  assertEquals([header, bytes, counted], [{ ...PLAIN, ...TCP_V4.header }, partial, {}]);
});

Deno.test("checksum completes for a guest that has switched GUEST_CSUM off", () => {
  using bench = new StageBench(checksum);
  bench.feed(tcp({ payload: 9, checksum: "partial" }), TCP_V4);
  bench.setOffloads(FeatureSet.none);
  bench.feed(tcp({ payload: 9, checksum: "partial" }), TCP_V4);
  assertEquals(bench.out.map(({ header }) => header.flags), [1, 0]);
  assertEquals(bench.out[1].bytes, tcp({ payload: 9 }));
});

Deno.test("checksum completes frames from the guest unless the network takes them as they are", () => {
  const partial = tcp({ payload: 99, checksum: "partial" });
  const completed = run(partial, TCP_V4, { direction: "fromGuest" });
  assertEquals([completed.header, completed.bytes], [PLAIN, tcp({ payload: 99 })]);
  const left = run(partial, TCP_V4, { direction: "fromGuest", network: TAKES_PARTIAL });
  assertEquals([left.header.flags, left.bytes, left.counted], [1, partial, {}]);
});

Deno.test("checksum completes TCP and UDP over both families as their builder does", () => {
  const length = fc.nat(700);
  const source = fc.constantFrom("10.0.0.1", "fd00::1");
  fc.assert(fc.property(length, source, fc.boolean(), fc.nat(0xffff), (payload, from, isTcp, sourcePort) => {
    const [build, csumOffset] = isTcp ? [tcp, 16] as const : [udp, 6] as const;
    const csumStart = from === "10.0.0.1" ? 34 : 54;
    const fields = { source: from, payload, sourcePort };
    const header = { flags: 1, csumStart, csumOffset };
    assertEquals(run(build({ ...fields, checksum: "partial" }), { header }, NO_CSUM).bytes, build(fields));
  }));
});

Deno.test("checksum completes the checksum of a frame in pieces", () => {
  using bench = new StageBench(checksum, NO_CSUM);
  const partial = tcp({ payload: 301, checksum: "partial" });
  const frame = bench.frame(partial.slice(0, 101), TCP_V4);
  frame.append(bench.frame(partial.slice(101, 204)));
  frame.append(bench.frame(partial.slice(204)));
  bench.feedFrame(frame);
  assertEquals(bench.out[0].bytes, tcp({ payload: 301 }));
});

Deno.test("checksum sends a UDP sum of 0 as 0xffff, and a TCP sum of 0 as 0", () => {
  for (const [build, at, csumOffset] of [[udp, 40, 6], [tcp, 50, 16]] as const) {
    // A payload that holds the checksum of the packet without it makes the sum come out as 0.
    const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset);
    const payload = new Uint8Array(2);
    view(payload).setUint16(0, view(build({ payload })).getUint16(at));
    const header = { flags: 1, csumStart: 34, csumOffset };
    const { bytes } = run(build({ payload, checksum: "partial" }), { header }, NO_CSUM);
    assertEquals(view(bytes).getUint16(at), build === udp ? 0xffff : 0);
  }
});

Deno.test("checksum leaves alone what is to be segmented: the stage that cuts it completes it", () => {
  const large = tcp({ payload: 4000, checksum: "partial" });
  const header = { ...TCP_V4.header, gsoType: 1, gsoSize: 1448, hdrLen: 54 };
  const { header: got, bytes, counted } = run(large, { header }, NO_CSUM);
  assertEquals([got, bytes, counted], [header, large, {}]);
});

Deno.test("checksum counts a partial checksum beyond the frame, and passes it as it is", () => {
  const frame = tcp({ payload: 10 });
  for (const [csumStart, csumOffset] of [[64, 0], [63, 0], [34, 29], [65_535, 65_535]]) {
    const header = { flags: 1, csumStart, csumOffset };
    const { header: got, bytes, counted } = run(frame, { header }, NO_CSUM);
    assertEquals([got.flags, bytes, counted], [1, frame, { incomplete: 1 }], `${csumStart}+${csumOffset}`);
  }
});

Deno.test("checksum touches two bytes at most, wherever a hostile header points", () => {
  const frame = fc.uint8Array({ minLength: 14, maxLength: 120 });
  fc.assert(fc.property(frame, fc.nat(140), fc.nat(140), (bytes, csumStart, csumOffset) => {
    const got = run(bytes, { header: { flags: 1, csumStart, csumOffset } }, NO_CSUM).bytes;
    const changed = [...bytes.keys()].filter((i) => bytes[i] !== got[i]);
    const at = csumStart + csumOffset;
    assertEquals(got.length, bytes.length);
    assertEquals(changed.filter((i) => i !== at && i !== at + 1), []);
  }));
});

const RIGHT = [
  ["TCP over IPv4", tcp({ payload: 77 })],
  ["TCP over IPv6", tcp({ source: "fd00::1", payload: 77 })],
  ["UDP over IPv4", udp({ payload: 77 })],
  ["UDP over IPv6", udp({ source: "fd00::1", payload: 77 })],
] as const;
for (const [what, frame] of RIGHT) {
  Deno.test(`checksum with verify marks right ${what}`, () => {
    const { header, bytes, counted } = run(frame, {}, { verify: true });
    assertEquals([header, bytes, counted], [{ ...PLAIN, flags: 2 }, frame, { verified: 1 }]);
  });

  Deno.test(`checksum with verify passes wrong ${what} unmarked, and counts it`, () => {
    const ruined = frame.slice();
    ruined[ruined.length - 1] ^= 0x40;
    const { header, bytes, counted } = run(ruined, {}, { verify: true });
    assertEquals([header, bytes, counted], [PLAIN, ruined, { wrong: 1 }]);
  });
}

Deno.test("checksum with verify does not mark what has no checksum of its own", () => {
  const frames = [arp(), udp({ payload: 9, checksum: 0 }), tcp({ payload: 9, moreFragments: true })];
  for (const frame of frames) {
    const { header, bytes, counted } = run(frame, {}, { verify: true });
    assertEquals([header, bytes, counted], [PLAIN, frame, { unverifiable: 1 }]);
  }
});

Deno.test("checksum with verify leaves out padding, and takes it off", () => {
  const { header, bytes } = run(tcp({ padding: 6 }), {}, { verify: true });
  assertEquals([header.flags, bytes], [2, tcp()]);
});

Deno.test("checksum verifies only for a guest that looks at the mark, only unmarked frames, and only if told", () => {
  const frame = tcp({ payload: 5 });
  assertEquals(run(frame).counted, {});
  assertEquals(run(frame, {}, { verify: true, ...NO_CSUM }).header.flags, 0);
  assertEquals(run(frame, { header: { flags: 2 } }, { verify: true }).counted, {});
  assertEquals(run(frame, {}, { verify: true, direction: "fromGuest" }).counted, {});
});

/**
 * A UDP datagram that says it has `length` bytes, with these of its checksum right, within a longer IP
 * packet.
 */
function udpOfLength(length: number, source: string, checksum: (right: number) => number): Uint8Array {
  const frame = udp({ source, payload: 40, checksum: 0 });
  const at = frame.length - 48;
  const view = new DataView(frame.buffer);
  view.setUint16(at + 4, length);
  const destination = source.includes(":") ? "fd00::2" : "10.0.0.2";
  const pseudo = pseudoHeaderSum(ipBytes(source), ipBytes(destination), 17, length);
  view.setUint16(
    at + 6,
    checksum(0xffff - internetSum(frame, at, Math.min(at + length, frame.length), pseudo)),
  );
  return frame;
}

Deno.test("checksum with verify goes by the length of the UDP datagram, not by that of IP", () => {
  for (const source of ["10.0.0.1", "fd00::1"]) {
    for (const length of [8, 9, 30, 47, 48]) {
      const right = udpOfLength(length, source, (sum) => sum);
      const verified = run(right, {}, { verify: true });
      assertEquals([verified.header.flags, verified.bytes, verified.counted], [2, right, { verified: 1 }]);
      const wrong = udpOfLength(length, source, (sum) => sum ^ 0x0100);
      assertEquals(run(wrong, {}, { verify: true }).header.flags, 0);
    }
    // Right by the length of IP, wrong by RFC 768.
    const other = udp({ source, payload: 40 });
    other[other.length - 43] = 47;
    const { header, counted } = run(other, {}, { verify: true });
    assertEquals([header.flags, counted], [0, { wrong: 1 }]);
    // No datagram has such a length, whatever the sum.
    for (const length of [0, 1, 7, 49, 0xffff]) {
      for (const checksum of [(sum: number) => sum, () => 0]) {
        const { header, counted } = run(udpOfLength(length, source, checksum), {}, { verify: true });
        assertEquals([header.flags, counted], [0, { wrong: 1 }], `${source} ${length}`);
      }
    }
  }
});

Deno.test("checksum with verify adds up no more than the datagram, in whatever pieces, and no padding", () => {
  const right = udpOfLength(31, "10.0.0.1", (sum) => sum);
  const padded = Uint8Array.of(...right, 0xaa, 0xbb, 0xcc);
  for (const cut of [42, 50, 65, 66, 82, 83]) {
    using bench = new StageBench({ plugin: checksum, options: { verify: true } });
    const frame = bench.frame(padded.slice(0, cut));
    frame.append(bench.frame(padded.slice(cut)));
    bench.feedFrame(frame);
    assertEquals([bench.out[0].header.flags, bench.out[0].bytes], [2, padded]);
  }
});

Deno.test("checksum with verify wants a checksum of UDP over IPv6", () => {
  const { header, counted } = run(udp({ source: "fd00::1", payload: 9, checksum: 0 }), {}, { verify: true });
  assertEquals([header.flags, counted], [0, { wrong: 1 }]);
});

Deno.test("checksum with verify makes no promise of fragments, UDP-Lite, and lengths that cannot be", () => {
  const fragment = { type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0) };
  const frames = [
    tcp({ payload: 9, fragmentOffset: 9 }),
    udp({ payload: 9, moreFragments: true }),
    tcp({ source: "fd00::1", payload: 9, extension: fragment }),
    udp({ payload: 9, protocol: 136 }),
    tcp({ payload: 9, ipLength: 0 }),
    tcp({ payload: 9, ipLength: 50 }),
  ];
  for (const frame of frames) {
    const { header, counted } = run(frame, {}, { verify: true });
    assertEquals(header.flags, 0);
    assertEquals(counted.verified, undefined);
  }
  assertEquals(run(tcp({ payload: 9, dataOffset: 15 }), {}, { verify: true }).counted, { wrong: 1 });
});

Deno.test("checksum with verify computes with the final destination of a source route", () => {
  const ipOptions = Uint8Array.of(137, 7, 4, 10, 0, 0, 77, 0);
  const finally77 = tcp({ payload: 30, destination: "10.0.0.77" });
  const sum = finally77[50] << 8 | finally77[51];
  const { header, counted } = run(tcp({ payload: 30, ipOptions, checksum: sum }), {}, { verify: true });
  assertEquals([header.flags, counted], [2, { verified: 1 }]);
  assertEquals(run(tcp({ payload: 30, ipOptions }), {}, { verify: true }).counted, { wrong: 1 });
});

Deno.test("checksum completes over the packet, not over padding behind it", () => {
  for (const [build, csumOffset] of [[tcp, 16], [udp, 6]] as const) {
    const partial = build({ payload: 99, checksum: "partial", padding: 3 });
    partial.fill(0xa5, partial.length - 3);
    const right = build({ payload: 99, padding: 3 });
    right.fill(0xa5, right.length - 3);
    const { bytes } = run(partial, { header: { flags: 1, csumStart: 34, csumOffset } }, NO_CSUM);
    assertEquals(bytes, right);
  }
});
