import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  arp,
  ethernet,
  internetChecksum,
  internetSum,
  macBytes,
  macText,
  parseTcp,
  streamBytes,
  tcp,
  TcpStream,
  udp,
} from "../../testing/mod.ts";

/** The bytes of hexadecimal digits. */
function hex(digits: string): Uint8Array {
  const clean = digits.replaceAll(/\s/g, "");
  return Uint8Array.from(
    { length: clean.length / 2 },
    (_, i) => Number.parseInt(clean.slice(2 * i, 2 * i + 2), 16),
  );
}

Deno.test("internetChecksum() gives the checksum of the example of RFC 1071", () => {
  assertEquals(internetSum(hex("0001 f203 f4f5 f6f7")), 0xddf2);
  assertEquals(internetChecksum(hex("0001 f203 f4f5 f6f7")), 0x220d);
  assertEquals(internetSum(hex("01")), 0x0100);
});

Deno.test("tcp() makes the packet that was worked out by hand", () => {
  assertEquals(
    tcp({ payload: hex("61 62 63"), flags: ["ACK", "PSH"], id: 0x1234 }),
    hex(`525400123456 02aabbccddee 0800
      45 00 002b 1234 4000 40 06 1497 0a000001 0a000002
      0457 0050 000003e8 00000001 5018 01f4 cce0 0000 616263`),
  );
});

Deno.test("tcp() makes IPv6 of an IPv6 source", () => {
  const frame = tcp({ source: "fd00::1", destination: "fd00::2:3", tos: 0xb8, flowLabel: 0xabcde, ttl: 9 });
  assertEquals(
    frame.slice(12, 54),
    hex(`86dd 6b8abcde 0014 06 09 fd000000000000000000000000000001 fd000000000000000000000000020003`),
  );
});

Deno.test("parseTcp() reads back every field that tcp() was given, and finds the checksums right", () => {
  const u16 = fc.nat(0xffff);
  const u32 = fc.nat(0xffffffff);
  const fields = fc.record({
    tos: fc.nat(255),
    ttl: fc.nat(255),
    sourcePort: u16,
    destinationPort: u16,
    seq: u32,
    ack: u32,
    window: u16,
    urgentPointer: u16,
    reserved: fc.nat(7),
    payload: fc.uint8Array({ maxLength: 300 }),
    flags: fc.constantFrom(
      ["ACK"] as const,
      ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"] as const,
    ),
    source: fc.constantFrom("10.0.0.1", "fd00::1"),
    timestamp: fc.option(fc.tuple(u32, u32), { nil: undefined }),
    vlans: fc.constantFrom([], [{ id: 7 }], [{ id: 7, type: 0x88a8 }, { id: 4095 }]),
  });
  fc.assert(fc.property(fields, ({ timestamp, ...given }) => {
    const packet = parseTcp(tcp(timestamp === undefined ? given : { ...given, timestamp }));
    const { vlans, flags, ...plain } = given;
    for (const [name, value] of Object.entries(plain)) {
      assertEquals(packet[name as keyof typeof packet], value, name);
    }
    assertEquals(packet.vlans, vlans.map(({ id }) => id));
    assertEquals(packet.flags, flags);
    assertEquals(packet.timestamp, timestamp ?? null);
    assertEquals([packet.checksumRight, packet.ipChecksumRight, packet.padding.length], [true, true, 0]);
    assertEquals(
      packet.ipLength,
      (packet.version === 4 ? 20 : 0) + 4 * packet.dataOffset + given.payload.length,
    );
  }));
});

Deno.test("parseTcp() finds the checksums of recorded packets right", async () => {
  for (const name of ["inorder_3_v4", "single_v6"]) {
    const text = await Deno.readTextFile(new URL(`../vectors/rsc/${name}.jsonl`, import.meta.url));
    const packet = parseTcp(hex(/"frame":"([0-9a-f]+)"/.exec(text)![1]));
    assertEquals(
      [packet.ipChecksumRight, packet.checksumRight, packet.payload.length],
      [true, true, 100],
      name,
    );
  }
});

Deno.test("parseTcp() finds a single flipped bit in what the checksums cover", () => {
  const whole = tcp({ payload: 30 });
  for (let at = 14; at < whole.length; at++) {
    // Version, header length and lengths decide how it is read at all; the protocol whether it is TCP.
    if ([14, 16, 17, 23, 46].includes(at)) continue;
    const flipped = whole.slice();
    flipped[at] ^= 4;
    const { checksumRight, ipChecksumRight } = parseTcp(flipped);
    assertEquals(checksumRight && ipChecksumRight, false, `byte ${at}`);
  }
});

Deno.test("tcp() makes wrong and partial checksums where it is told", () => {
  assertEquals(parseTcp(tcp({ payload: 9, checksum: "wrong" })).checksumRight, false);
  assertEquals(parseTcp(tcp({ payload: 9, ipChecksum: "wrong" })).ipChecksumRight, false);
  assertEquals(parseTcp(tcp({ checksum: 77, ipChecksum: 78 })).checksum, 77);
  assertEquals(parseTcp(tcp({ checksum: 77, ipChecksum: 78 })).ipChecksum, 78);
  const partial = parseTcp(tcp({ payload: 9, checksum: "partial" }));
  // Addresses 0a00 0001 0a00 0002, protocol 6, length 29.
  assertEquals([partial.checksumPartial, partial.checksum], [true, 0x0a00 + 1 + 0x0a00 + 2 + 6 + 29]);
});

Deno.test("tcp() repeats the same data at the same sequence number", () => {
  const { payload } = parseTcp(tcp({ seq: 1000, payload: 200 }));
  assertEquals(payload.slice(100), parseTcp(tcp({ seq: 1100, payload: 100 })).payload);
  assertEquals(payload, streamBytes(1000, 200));
  assertEquals(streamBytes(0xffffffff, 2)[1], streamBytes(0, 1)[0]);
});

Deno.test("TcpStream begins each segment where the last one ended, across the end of sequence numbers", () => {
  const stream = new TcpStream({ seq: 0xfffffff0, sourcePort: 9 });
  const packets = [stream.next(10), stream.next(20, { ack: 5 }), stream.next(Uint8Array.of(1))].map(parseTcp);
  assertEquals(packets.map(({ seq, ack, sourcePort }) => [seq, ack, sourcePort]), [
    [0xfffffff0, 1, 9],
    [0xfffffffa, 5, 9],
    [14, 1, 9],
  ]);
  assertEquals(stream.seq, 15);
});

Deno.test("udp() makes the datagram that was worked out by hand", () => {
  assertEquals(
    udp({ payload: hex("6869") }).slice(23),
    hex(`11 26cc 0a000001 0a000002 0457 0050 000a 7ec7 6869`),
  );
  assertEquals(udp({ payload: 5, checksum: 0 }).slice(40, 42), Uint8Array.of(0, 0));
});

Deno.test("ethernet() puts tags, payload and padding where they belong", () => {
  const frame = ethernet({
    destinationMac: "01:02:03:04:05:06",
    sourceMac: "0a:0b:0c:0d:0e:0f",
    vlans: [{ id: 0x123, priority: 5, type: 0x88a8 }, { id: 1 }],
    etherType: 0x1234,
    payload: Uint8Array.of(9, 8),
    padding: 2,
  });
  assertEquals(frame, hex("010203040506 0a0b0c0d0e0f 88a8 a123 8100 0001 1234 0908 eeee"));
});

Deno.test("arp() asks everybody and answers one", () => {
  assertEquals(
    arp().slice(0, 42),
    hex(`ffffffffffff 02aabbccddee 0806 0001 0800 06 04 0001 02aabbccddee 0a000001 000000000000 0a000002`),
  );
  assertEquals(arp().length, 60);
  assertEquals(macText(arp({ operation: 2 }), 0), "52:54:00:12:34:56");
});

Deno.test("addresses that are none are refused, with an example of one", () => {
  for (const text of ["", "1:2:3:4:5:6", "52:54:00:12:34", "52:54:00:12:34:5g"]) {
    assertThrows(() => macBytes(text), RangeError, "such as 52:54:00:12:34:56");
  }
  for (
    const source of ["10.0.0", "10.0.0.256", "fd00::1::2", "1:2:3:4:5:6:7", "12345::", "1:2:3:4:5:6:7:8::"]
  ) {
    assertThrows(() => tcp({ source }), RangeError, "such as 10.0.0.1 or fd00::1");
  }
  assertThrows(() => tcp({ source: "fd00::1", destination: "10.0.0.2" }), RangeError, "one family");
});

Deno.test("parseTcp() reads addresses as people write them", () => {
  for (const source of ["fd00::1", "::1", "1:2:3:4:5:6:7:8", "fd00:0:1::", "::"]) {
    assertEquals(parseTcp(tcp({ source })).source, source);
  }
});

Deno.test("parseTcp() refuses what is no TCP packet, and says why", () => {
  const wrong: readonly [Uint8Array, string][] = [
    [new Uint8Array(13), "ends in the Ethernet header"],
    [tcp({ vlans: [{ id: 1 }] }).slice(0, 16), "ends in a VLAN tag"],
    [arp(), "no IP packet"],
    [udp(), "no TCP packet"],
    [udp({ source: "fd00::1" }), "no TCP packet"],
    [tcp({ ipVersion: 5 }), "no IPv4 packet"],
    [tcp({ ipLength: 41 }), "IP length does not fit"],
    [tcp({ ipHeaderWords: 4 }), "header length does not fit"],
    [tcp({ dataOffset: 4 }), "data offset is 4"],
    [tcp({ dataOffset: 6 }), "data offset is 6"],
  ];
  for (const [frame, message] of wrong) assertThrows(() => parseTcp(frame), TypeError, message);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
    try {
      parseTcp(bytes);
    } catch (error) {
      assertEquals((error as Error).name, "TypeError");
    }
  }));
});
