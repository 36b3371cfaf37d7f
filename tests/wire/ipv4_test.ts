import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { internetChecksum, pseudoHeaderSum, tcp, udp } from "../../testing/mod.ts";
import { addToSum, fold, isSumRight, swap16 } from "../../wire/checksum.ts";
import {
  IPV4_CHECKSUM,
  IPV4_DF,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_ID,
  IPV4_MF_OR_OFFSET,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TOTAL_LENGTH,
  IPV4_TTL,
  IPV4_VERSION_IHL,
  ipv4HeaderSum,
  ipv4PseudoSum,
  storeIpv4Checksum,
} from "../../wire/tcp_ip.ts";

/** A header that is printed in many textbooks, with its checksum b861. */
const KNOWN = Uint8Array.from(
  "45000073000040004011b861c0a80001c0a800c7".match(/../g)!,
  (pair) => parseInt(pair, 16),
);

Deno.test("ipv4HeaderSum() finds a known header right, and wrong with any byte changed", () => {
  const bytes = new Uint8Array(34);
  bytes.set(KNOWN, 14);
  const view = new DataView(bytes.buffer);
  assertEquals(isSumRight(ipv4HeaderSum(view, 14, IPV4_HEADER_BYTES)), true);
  for (let i = 14; i < 34; i++) {
    bytes[i] ^= 0x10;
    assertEquals(isSumRight(ipv4HeaderSum(view, 14, IPV4_HEADER_BYTES)), false, `byte ${i - 14}`);
    bytes[i] ^= 0x10;
  }
});

Deno.test("ipv4HeaderSum() covers options", () => {
  const header = new Uint8Array(60).fill(0x77);
  header[0] = 0x4f;
  header.fill(0, 10, 12);
  const view = new DataView(header.buffer);
  view.setUint16(IPV4_CHECKSUM, internetChecksum(header));
  assertEquals(isSumRight(ipv4HeaderSum(view, 0, 60)), true);
  assertEquals(isSumRight(ipv4HeaderSum(view, 0, 20)), false);
});

Deno.test("storeIpv4Checksum() computes what the known header has, whatever stood there", () => {
  for (const before of [0, 0xffff, 0x1234]) {
    const bytes = KNOWN.slice();
    const view = new DataView(bytes.buffer);
    view.setUint16(IPV4_CHECKSUM, before);
    storeIpv4Checksum(view, 0);
    assertEquals(bytes, KNOWN);
  }
});

Deno.test("the field offsets of IPv4 read the known header", () => {
  const view = new DataView(KNOWN.buffer);
  assertEquals(view.getUint8(IPV4_VERSION_IHL), 0x45);
  assertEquals(view.getUint8(IPV4_TOS), 0);
  assertEquals(view.getUint16(IPV4_TOTAL_LENGTH), 115);
  assertEquals(view.getUint16(IPV4_ID), 0);
  assertEquals(view.getUint16(IPV4_FRAGMENT), IPV4_DF);
  assertEquals(view.getUint16(IPV4_FRAGMENT) & IPV4_MF_OR_OFFSET, 0);
  assertEquals([view.getUint8(IPV4_TTL), view.getUint8(IPV4_PROTOCOL)], [64, 17]);
  assertEquals(view.getUint32(IPV4_SOURCE), 0xc0a80001);
});

Deno.test("ipv4PseudoSum() completes TCP and UDP checksums made by other code", () => {
  fc.assert(
    fc.property(fc.nat(1400), fc.boolean(), (payload, isTcp) => {
      const fields = { source: "192.0.2.1", destination: "198.51.100.77", payload };
      const frame = isTcp ? tcp(fields) : udp(fields);
      const view = new DataView(frame.buffer);
      const segmentBytes = view.getUint16(14 + IPV4_TOTAL_LENGTH) - 20;
      const pseudo = ipv4PseudoSum(view, 14, isTcp ? 6 : 17, segmentBytes);
      assertEquals(isSumRight(addToSum(view, 34, segmentBytes, pseudo)), true);
      const other = ipv4PseudoSum(view, 14, isTcp ? 17 : 6, segmentBytes);
      assertEquals(isSumRight(addToSum(view, 34, segmentBytes, other)), false);
    }),
    { numRuns: 50 },
  );
});

Deno.test("ipv4PseudoSum() is the sum of addresses, protocol and length", () => {
  const view = new DataView(KNOWN.buffer);
  for (const length of [0, 95, 65_515, 65_535]) {
    const expected = pseudoHeaderSum(KNOWN.slice(12, 16), KNOWN.slice(16, 20), 17, length);
    assertEquals(swap16(fold(ipv4PseudoSum(view, 0, 17, length))), expected);
  }
});
