import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FramePool } from "../../core/frame_pool.ts";
import { locateTransport, Transport } from "../../offloads/transport_header.ts";
import { arp, ethernet, pseudoHeaderSum, tcp, udp } from "../../testing/mod.ts";
import { fold, swap16 } from "../../wire/checksum.ts";

const pool = new FramePool();

/** What is found in a frame, with offsets from its first byte; null if nothing is. */
function located(bytes: Uint8Array, further?: Uint8Array) {
  const frame = pool.takeCopy(bytes)!;
  if (further !== undefined) frame.append(pool.takeCopy(further)!);
  const transport = new Transport();
  const found = locateTransport(frame, transport);
  const { at, endAt, hasChecksum, pseudoSum } = transport;
  const start = frame.start;
  frame.release();
  return found ? { at: at - start, endAt: endAt - start, hasChecksum, sum: swap16(fold(pseudoSum)) } : null;
}

const V4 = [Uint8Array.of(10, 0, 0, 1), Uint8Array.of(10, 0, 0, 2)] as const;

Deno.test("locateTransport() finds TCP over IPv4, without its padding", () => {
  const sum = pseudoHeaderSum(...V4, 6, 120);
  assertEquals(located(tcp({ payload: 100, padding: 9 })), { at: 34, endAt: 154, hasChecksum: true, sum });
});

Deno.test("locateTransport() finds TCP behind IPv4 options", () => {
  const sum = pseudoHeaderSum(...V4, 6, 120);
  const frame = tcp({ payload: 100, ipOptions: Uint8Array.of(1, 1, 1, 0) });
  assertEquals(located(frame), { at: 38, endAt: 158, hasChecksum: true, sum });
});

Deno.test("locateTransport() finds TCP over IPv6", () => {
  const address = (last: number) =>
    Uint8Array.from({ length: 16 }, (_, i) => i === 0 ? 0xfd : i === 15 ? last : 0);
  const sum = pseudoHeaderSum(address(1), address(2), 6, 120);
  assertEquals(located(tcp({ source: "fd00::1", payload: 100 })), {
    at: 54,
    endAt: 174,
    hasChecksum: true,
    sum,
  });
});

Deno.test("locateTransport() finds UDP, and whether it has a checksum", () => {
  const sum = pseudoHeaderSum(...V4, 17, 28);
  assertEquals(located(udp({ payload: 20 })), { at: 34, endAt: 62, hasChecksum: true, sum });
  assertEquals(located(udp({ payload: 20, checksum: 0 })), { at: 34, endAt: 62, hasChecksum: false, sum });
});

Deno.test("locateTransport() counts all pieces of a frame, but wants the header in the first", () => {
  const whole = tcp({ payload: 100 });
  assertEquals(located(whole.slice(0, 60), whole.slice(60))?.endAt, 154);
  assertEquals(located(whole.slice(0, 50), whole.slice(50)), null);
});

const NOT_LOCATED: readonly (readonly [string, Uint8Array])[] = [
  ["ARP", arp()],
  ["another EtherType", ethernet({ payload: new Uint8Array(60) })],
  ["a VLAN tag", tcp({ payload: 100, vlans: [{ id: 3 }] })],
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
  ["an IPv6 extension header", tcp({ source: "fd00::1", extension: { type: 0, bytes: new Uint8Array(8) } })],
  ["UDP without room for its header", udp({ ipLength: 27 })],
];
for (const [what, frame] of NOT_LOCATED) {
  Deno.test(`locateTransport() does not take ${what}`, () => assertEquals(located(frame), null));
}

Deno.test("locateTransport() takes no frame that was cut in its headers", () => {
  for (const whole of [tcp(), udp(), tcp({ source: "fd00::1" }), udp({ source: "fd00::1" })]) {
    for (let length = 0; length < whole.length; length++) assertEquals(located(whole.slice(0, length)), null);
  }
});

Deno.test("locateTransport() stays within any frame, whatever its bytes", () => {
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

Deno.test("locateTransport() leaves no frame behind", () => assertEquals(pool.inUse, 0));
