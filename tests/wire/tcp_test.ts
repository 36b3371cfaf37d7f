import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { tcp, TCP_FLAGS } from "../../testing/mod.ts";
import * as wire from "../../wire/tcp_ip.ts";

Deno.test("the field offsets and flags of TCP read a segment", () => {
  const frame = tcp({
    sourcePort: 443,
    destinationPort: 50_000,
    seq: 0x89abcdef,
    ack: 0xfedcba98,
    window: 512,
    flags: ["ACK", "PSH"],
    timestamp: [0x11223344, 0x55667788],
    checksum: 0xbeef,
  });
  const view = new DataView(frame.buffer, 34);
  assertEquals(view.getUint32(wire.TCP_PORTS), (443 << 16 | 50_000) >>> 0);
  assertEquals([view.getUint32(wire.TCP_SEQ), view.getUint32(wire.TCP_ACK_NUMBER)], [0x89abcdef, 0xfedcba98]);
  const offsetFlags = view.getUint16(wire.TCP_OFFSET_FLAGS);
  assertEquals(offsetFlags & 0xfff, wire.TCP_ACK | wire.TCP_PSH);
  assertEquals(wire.tcpHeaderBytes(offsetFlags), wire.TCP_TIMESTAMP_HEADER_BYTES);
  assertEquals([view.getUint16(wire.TCP_WINDOW), view.getUint16(wire.TCP_CHECKSUM)], [512, 0xbeef]);
  assertEquals(view.getUint32(wire.TCP_HEADER_BYTES), wire.TCP_TIMESTAMP_BLOCK);
  assertEquals(
    [view.getUint32(wire.TCP_TIMESTAMP_VALUE), view.getUint32(wire.TCP_TIMESTAMP_ECHO)],
    [0x11223344, 0x55667788],
  );
});

Deno.test("every TCP flag has the bit that RFC 9293 and RFC 9768 give it", () => {
  for (const [name, bit] of Object.entries(TCP_FLAGS)) {
    assertEquals((wire as unknown as Record<string, number>)[`TCP_${name}`], bit, name);
  }
});

Deno.test("tcpHeaderBytes() reads the data offset, whatever the flags are", () => {
  for (let words = 0; words < 16; words++) {
    assertEquals(wire.tcpHeaderBytes(words << 12 | 0xfff), 4 * words);
  }
});

Deno.test("seqBefore() compares modulo 2^32", () => {
  assertEquals(wire.seqBefore(1, 2), true);
  assertEquals(wire.seqBefore(2, 2), false);
  assertEquals(wire.seqBefore(0xffffffff, 0), true);
  assertEquals(wire.seqBefore(0, 0xffffffff), false);
  assertEquals(wire.seqBefore(0x7fffffff, 0x80000000), true);
  fc.assert(fc.property(fc.nat(0xffffffff), fc.integer({ min: 1, max: 0x7fffffff }), (seq, step) => {
    const later = (seq + step) >>> 0;
    assertEquals([wire.seqBefore(seq, later), wire.seqBefore(later, seq)], [true, false]);
    assertEquals(wire.seqBefore(seq | 0, later | 0), true, "signed words as well");
  }));
});
