import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { pseudoHeaderSum, tcp, udp } from "../../testing/mod.ts";
import { addToSum, fold, isSumRight, swap16 } from "../../wire/checksum.ts";
import {
  IPV6_FLOW,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
  IPV6_SOURCE,
  ipv6PseudoSum,
  isExtensionHeader,
} from "../../wire/tcp_ip.ts";

const SOURCE = "2001:db8::1";
const DESTINATION = "fe80::ff:fe00:c7";

Deno.test("the field offsets of IPv6 read a packet", () => {
  const frame = tcp({ source: SOURCE, destination: DESTINATION, payload: 10 });
  const view = new DataView(frame.buffer, 14);
  assertEquals(view.getUint32(IPV6_FLOW) >>> 28, 6);
  assertEquals(view.getUint16(IPV6_PAYLOAD_LENGTH), 30);
  assertEquals([view.getUint8(IPV6_NEXT_HEADER), view.getUint8(IPV6_HOP_LIMIT)], [6, 64]);
  assertEquals([view.getUint32(IPV6_SOURCE), view.getUint32(IPV6_SOURCE + 16)], [0x20010db8, 0xfe800000]);
  assertEquals(frame.length, 14 + IPV6_HEADER_BYTES + 30);
});

Deno.test("ipv6PseudoSum() completes TCP and UDP checksums made by other code", () => {
  fc.assert(
    fc.property(fc.nat(1400), fc.boolean(), (payload, isTcp) => {
      const fields = { source: SOURCE, destination: DESTINATION, payload };
      const frame = isTcp ? tcp(fields) : udp(fields);
      const view = new DataView(frame.buffer);
      const segmentBytes = view.getUint16(14 + IPV6_PAYLOAD_LENGTH);
      const pseudo = ipv6PseudoSum(view, 14, isTcp ? 6 : 17, segmentBytes);
      assertEquals(isSumRight(addToSum(view, 54, segmentBytes, pseudo)), true);
      const other = ipv6PseudoSum(view, 14, isTcp ? 6 : 17, segmentBytes + 1);
      assertEquals(isSumRight(addToSum(view, 54, segmentBytes, other)), false);
    }),
    { numRuns: 50 },
  );
});

Deno.test("ipv6PseudoSum() is the sum of addresses, protocol and length", () => {
  const frame = udp({ source: SOURCE, destination: DESTINATION });
  const view = new DataView(frame.buffer);
  for (const length of [0, 8, 65_535]) {
    const expected = pseudoHeaderSum(frame.slice(22, 38), frame.slice(38, 54), 17, length);
    assertEquals(swap16(fold(ipv6PseudoSum(view, 14, 17, length))), expected);
  }
});

Deno.test("isExtensionHeader() knows the registered ones and no transport protocol", () => {
  const found = Array.from({ length: 256 }, (_, i) => i).filter(isExtensionHeader);
  assertEquals(found, [0, 43, 44, 50, 51, 60, 135, 139, 140]);
});
