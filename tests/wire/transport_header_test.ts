import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { arp, ethernet, pseudoHeaderSum, tcp, udp } from "../../testing/mod.ts";
import { ipBytes } from "../../testing/packets.ts";
import { fold, swap16 } from "../../wire/checksum.ts";
import { TransportHeader } from "../../wire/transport_header.ts";

const pool = new FramePool();

/** What is found in a frame, with offsets from its first byte, or why nothing is. */
function locatedOr(bytes: Uint8Array, isLarge = false, further?: Uint8Array) {
  const frame = pool.takeCopy(bytes)!;
  if (further !== undefined) frame.append(pool.takeCopy(further)!);
  const transport = new TransportHeader();
  const fault = transport.locate(frame, isLarge);
  const { at, endAt, ipEndAt } = transport;
  const sum = fault === null ? swap16(fold(transport.pseudoSum(frame.view, endAt - at))) : 0;
  const start = frame.start;
  frame.release();
  return fault ?? { at: at - start, endAt: endAt - start, ipEndAt: ipEndAt - start, sum };
}

/** What is found, where only that counts. */
function located(bytes: Uint8Array, further?: Uint8Array) {
  const found = locatedOr(bytes, false, further);
  return typeof found === "string" ? null : found;
}

const V4 = [Uint8Array.of(10, 0, 0, 1), Uint8Array.of(10, 0, 0, 2)] as const;

Deno.test("locate() finds TCP over IPv4, without its padding", () => {
  const sum = pseudoHeaderSum(...V4, 6, 120);
  assertEquals(located(tcp({ payload: 100, padding: 9 })), { at: 34, endAt: 154, ipEndAt: 154, sum });
});

Deno.test("locate() finds TCP behind IPv4 options", () => {
  const sum = pseudoHeaderSum(...V4, 6, 120);
  const frame = tcp({ payload: 100, ipOptions: Uint8Array.of(1, 1, 1, 0) });
  assertEquals(located(frame), { at: 38, endAt: 158, ipEndAt: 158, sum });
});

Deno.test("locate() finds TCP over IPv6", () => {
  const address = (last: number) =>
    Uint8Array.from({ length: 16 }, (_, i) => i === 0 ? 0xfd : i === 15 ? last : 0);
  const sum = pseudoHeaderSum(address(1), address(2), 6, 120);
  assertEquals(located(tcp({ source: "fd00::1", payload: 100 })), {
    at: 54,
    endAt: 174,
    ipEndAt: 174,
    sum,
  });
});

Deno.test("locate() ends a UDP datagram where its own length says, not where IP ends", () => {
  const whole = udp({ payload: 20 });
  assertEquals(located(whole), { at: 34, endAt: 62, ipEndAt: 62, sum: pseudoHeaderSum(...V4, 17, 28) });
  const withLength = (length: number) => {
    const bytes = whole.slice();
    new DataView(bytes.buffer).setUint16(38, length);
    return bytes;
  };
  const sum = pseudoHeaderSum(...V4, 17, 11);
  assertEquals(located(withLength(11)), { at: 34, endAt: 45, ipEndAt: 62, sum });
  for (const length of [0, 7, 29, 65_535]) assertEquals(locatedOr(withLength(length)), "bad_transport");
});

Deno.test("locate() takes an IP length of 0 for that of the frame, in frames that are yet to be segmented", () => {
  for (const source of ["10.0.0.1", "fd00::1"]) {
    const frame = tcp({ source, payload: 2000, ipLength: 0 });
    const found = locatedOr(frame, true);
    assert(typeof found !== "string");
    assertEquals([found.ipEndAt, found.endAt], [frame.length, frame.length]);
    assertEquals(locatedOr(frame, false), "bad_length");
  }
  // Hop-by-hop options beside a length of 0 are those of a jumbogram.
  const jumbogram = {
    source: "fd00::1",
    payload: 99,
    ipLength: 0,
    extension: { type: 0, bytes: new Uint8Array(8) },
  };
  assertEquals(locatedOr(tcp(jumbogram), true), "bad_length");
});

Deno.test("locate() wants a data offset that TCP can have", () => {
  for (const dataOffset of [0, 4, 8]) {
    assertEquals(locatedOr(tcp({ payload: 8, dataOffset })), "bad_transport");
  }
});

Deno.test("locate() counts all pieces of a frame, but wants the header in the first", () => {
  const whole = tcp({ payload: 100 });
  assertEquals(located(whole.slice(0, 60), whole.slice(60))?.endAt, 154);
  assertEquals(located(whole.slice(0, 50), whole.slice(50)), null);
});

const NOT_LOCATED: readonly (readonly [string, Uint8Array])[] = [
  ["ARP", arp()],
  ["another EtherType", ethernet({ payload: new Uint8Array(60) })],
  ["an encapsulated packet", tcp({ payload: 100, etherType: 0x8864 })],
  ["another protocol", tcp({ payload: 100, protocol: 1 })],
  ["a first fragment", tcp({ payload: 100, moreFragments: true })],
  ["a later fragment", tcp({ payload: 100, fragmentOffset: 9 })],
  ["IP version 5", tcp({ payload: 100, ipVersion: 5 })],
  ["an IPv4 header of 16 bytes", tcp({ payload: 100, ipHeaderWords: 4 })],
  ["an IPv4 header beyond the frame", tcp({ ipHeaderWords: 15 })],
  ["an IPv4 length beyond the frame", tcp({ payload: 100, ipLength: 141 })],
  ["an IPv4 length without room for TCP", tcp({ payload: 100, ipLength: 39 })],
  ["an IPv6 length beyond the frame", tcp({ source: "fd00::1", payload: 100, ipLength: 121 })],
  ["an IPv6 length without room for TCP", tcp({ source: "fd00::1", payload: 100, ipLength: 19 })],
  ["IPv4 under the EtherType of IPv6", tcp({ payload: 100, etherType: 0x86dd })],
  [
    "an IPv6 fragment",
    tcp({ source: "fd00::1", extension: { type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0) } }),
  ],
  [
    "an IPv6 extension header that hides",
    tcp({ source: "fd00::1", extension: { type: 50, bytes: new Uint8Array(8) } }),
  ],
  ["UDP without room for its header", udp({ ipLength: 27 })],
];
for (const [what, frame] of NOT_LOCATED) {
  Deno.test(`locate() does not take ${what}`, () => assertEquals(located(frame), null));
}

Deno.test("locate() takes no frame that was cut in its headers", () => {
  for (const whole of [tcp(), udp(), tcp({ source: "fd00::1" }), udp({ source: "fd00::1" })]) {
    for (let length = 0; length < whole.length; length++) assertEquals(located(whole.slice(0, length)), null);
  }
});

Deno.test("locate() stays within any frame, whatever its bytes", () => {
  const types = fc.constantFrom([0x08, 0x00], [0x86, 0xdd]);
  const first = fc.constantFrom(0x45, 0x46, 0x4f, 0x60, 0x6f);
  fc.assert(
    fc.property(
      types,
      first,
      fc.constantFrom(6, 17),
      fc.uint8Array({ maxLength: 120 }),
      (type, byte, protocol, rest) => {
        const frame = new Uint8Array(14 + rest.length);
        frame.set(type, 12);
        frame.set(rest, 14);
        if (rest.length > 9) {
          frame[14] = byte;
          frame[type[0] === 8 ? 23 : 20] = protocol;
        }
        const found = located(frame);
        if (found === null) return;
        assert(
          found.at >= 34 && found.at + 8 <= found.endAt && found.endAt <= frame.length,
          JSON.stringify(found),
        );
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("locate() leaves no frame behind", () => assertEquals(pool.inUse, 0));

const [A, B] = ["fd00::a", "fd00::b"].map((text) => ipBytes(text));

/** The sum of a pseudo header between these addresses for TCP without data. */
function sumBetween(source: string, destination: string): number {
  return pseudoHeaderSum(ipBytes(source), ipBytes(destination), 6, 20);
}

/** An extension header of this type: two bytes of its own, and others. */
function extension(type: number, own: readonly number[], rest: readonly Uint8Array[]) {
  const bytes = Uint8Array.of(0, 0, ...own, ...rest.flatMap((part) => [...part]));
  bytes[1] = bytes.length / 8 - 1;
  return { type, bytes };
}

Deno.test("pseudoSum() goes to the final destination of a source route, and from the home address", () => {
  const hop = Uint8Array.of(10, 0, 0, 9);
  const last = Uint8Array.of(10, 0, 0, 77);
  const route = (type: number, pointer: number, bytes = 11) => ({
    ipOptions: Uint8Array.of(1, type, bytes, pointer, ...hop, ...last),
  });
  const none = new Uint8Array(4);
  const home = [Uint8Array.of(1, 2, 0, 0, 201, 16), A];
  const v6 = { source: "fd00::1", destination: "fd00::2" };
  const cases: [string, Parameters<typeof tcp>[0], number][] = [
    ["LSRR", route(131, 4), sumBetween("10.0.0.1", "10.0.0.77")],
    ["SSRR, one hop to go", route(137, 8), sumBetween("10.0.0.1", "10.0.0.77")],
    ["SSRR at its end", route(137, 12), sumBetween("10.0.0.1", "10.0.0.2")],
    ["a record of the route", route(7, 4), sumBetween("10.0.0.1", "10.0.0.2")],
    ["type 0", { ...v6, extension: extension(43, [0, 1], [none, A, B]) }, sumBetween("fd00::1", "fd00::b")],
    [
      "type 0 at its end",
      { ...v6, extension: extension(43, [0, 0], [none, A, B]) },
      sumBetween("fd00::1", "fd00::2"),
    ],
    ["type 2", { ...v6, extension: extension(43, [2, 1], [none, A]) }, sumBetween("fd00::1", "fd00::a")],
    ["type 4", { ...v6, extension: extension(43, [4, 1], [none, A, B]) }, sumBetween("fd00::1", "fd00::a")],
    [
      "type 4 at its end",
      { ...v6, extension: extension(43, [4, 0], [none, A, B]) },
      sumBetween("fd00::1", "fd00::2"),
    ],
    ["a home address", { ...v6, extension: extension(60, [], home) }, sumBetween("fd00::a", "fd00::2")],
  ];
  for (const [what, fields, sum] of cases) {
    const found = locatedOr(tcp(fields));
    assert(typeof found !== "string", `${what}: ${found}`);
    assertEquals(found.sum % 0xffff, sum % 0xffff, what);
  }
});
