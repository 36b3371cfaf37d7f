import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { PacketHash, SUPPORTED_HASH_TYPES, ToeplitzHash } from "../../../devices/net/steering.ts";
import { frame, type FrameParts, PUBLISHED_KEY, UDP, v4, v6 } from "./frames.ts";

/**
 * Source, its port, destination, its port, hash over the addresses, hash over addresses and ports: as
 * published.
 */
const VECTORS: [number[], number, number[], number, number, number][] = [
  [v4("66.9.149.187"), 2794, v4("161.142.100.80"), 1766, 0x323e8fc2, 0x51ccc178],
  [v4("199.92.111.2"), 14230, v4("65.69.140.83"), 4739, 0xd718262a, 0xc626b0ea],
  [v4("24.19.198.95"), 12898, v4("12.22.207.184"), 38024, 0xd2d0a5de, 0x5c2b394a],
  [v4("38.27.205.30"), 48228, v4("209.142.163.6"), 2217, 0x82989176, 0xafc7327f],
  [v4("153.39.163.191"), 44251, v4("202.188.127.2"), 1303, 0x5d1809c5, 0x10e828a2],
  [v6("3ffe:2501:200:1fff::7"), 2794, v6("3ffe:2501:200:3::1"), 1766, 0x2cc18cd5, 0x40207d3d],
  [v6("3ffe:501:8::260:97ff:fe40:efab"), 14230, v6("ff02::1"), 4739, 0x0f0c461c, 0xdde51bbf],
  [
    ...[v6("3ffe:1900:4545:3:200:f8ff:fe21:67cf"), 44251] as const,
    ...[v6("fe80::200:f8ff:fe21:67cf"), 38024, 0x4b61e985, 0x02d1feef] as const,
  ],
];

function hashOf(types: number, parts: FrameParts): [report: number, value: number] {
  const hash = new PacketHash();
  hash.configure(types, PUBLISHED_KEY);
  const { bytes, start, length } = frame(parts);
  return [hash.compute(bytes, start, length), hash.value];
}

/** The definition, bit by bit. */
function toeplitzByBits(key: Uint8Array, input: Uint8Array): number {
  const bit = (bytes: Uint8Array, i: number) => (bytes[i >>> 3] ?? 0) >>> (7 - (i & 7)) & 1;
  let sum = 0;
  for (let i = 0; i < 8 * input.length; i++) {
    if (bit(input, i) === 0) continue;
    let window = 0;
    for (let j = 0; j < 32; j++) window = window << 1 | bit(key, i + j);
    sum ^= window;
  }
  return sum >>> 0;
}

Deno.test("PacketHash.compute() agrees with the published verification suite", () => {
  for (const [source, sourcePort, destination, port, overAddresses, overPorts] of VECTORS) {
    const family = source.length === 4 ? 0 : 3;
    const parts: FrameParts = { source, destination, ports: [sourcePort, port], before: 7 };
    assertEquals(hashOf(1 << family, parts), [1 + family, overAddresses]);
    assertEquals(hashOf(2 << family, parts), [2 + family, overPorts]);
    assertEquals(hashOf(4 << family, { ...parts, protocol: UDP }), [3 + family, overPorts]);
    assertEquals(hashOf(SUPPORTED_HASH_TYPES, parts), [2 + family, overPorts]);
  }
});

Deno.test("ToeplitzHash.add() is the definition, whatever key and input, also in parts", () => {
  const key = fc.uint8Array({ maxLength: 40 });
  fc.assert(fc.property(key, fc.uint8Array({ maxLength: 36 }), fc.nat(36), (key, input, split) => {
    const hash = new ToeplitzHash();
    hash.setKey(key);
    const cut = Math.min(split, input.length);
    const sum = hash.add(input, 0, cut, 0) ^ hash.add(input, cut, input.length - cut, cut);
    assertEquals(sum >>> 0, toeplitzByBits(key, input));
  }));
});

Deno.test("ToeplitzHash.setKey() forgets the key before", () => {
  const hash = new ToeplitzHash();
  hash.setKey(new Uint8Array(40).fill(0xff));
  hash.setKey(new Uint8Array(0));
  assertEquals(hash.add(new Uint8Array(36).fill(0xff), 0, 36, 0), 0);
});

Deno.test("PacketHash.compute() falls back to the addresses, or to nothing", () => {
  const [source, sourcePort, destination, port, overAddresses] = VECTORS[0];
  const parts: FrameParts = { source, destination, ports: [sourcePort, port] };
  const [ip, tcp, udp] = [1, 2, 4];
  assertEquals(hashOf(ip | udp, parts), [1, overAddresses]);
  assertEquals(hashOf(ip | tcp, { ...parts, protocol: UDP }), [1, overAddresses]);
  assertEquals(hashOf(ip | tcp | udp, { ...parts, protocol: 1 }), [1, overAddresses]);
  assertEquals(hashOf(udp, parts), [0, 0]);
  assertEquals(hashOf(0x38, parts), [0, 0]);
  assertEquals(hashOf(0, parts), [0, 0]);
});

Deno.test("PacketHash.compute() hashes fragments over their addresses, the first one too", () => {
  const [source, sourcePort, destination, port, overAddresses] = VECTORS[0];
  const parts: FrameParts = { source, destination, ports: [sourcePort, port] };
  assertEquals(hashOf(3, { ...parts, fragment: 0x2000 }), [1, overAddresses]);
  assertEquals(hashOf(3, { ...parts, fragment: 0x00b9 }), [1, overAddresses]);
  assertEquals(hashOf(2, { ...parts, fragment: 0x2000 }), [0, 0]);
});

Deno.test("PacketHash.compute() skips IPv6 extension headers and VLAN tags", () => {
  const [source, sourcePort, destination, port, overAddresses, overPorts] = VECTORS[5];
  const parts: FrameParts = { source, destination, ports: [sourcePort, port] };
  const options = [0, 0, 1, 4, 0, 0, 0, 0];
  const longOptions = [0, 1, 1, 12, ...new Array(12).fill(0)];
  const authentication = [0, 4, ...new Array(22).fill(0)];
  const atomic = [0, 0, 0, 0, 0, 0, 0, 9];
  assertEquals(
    hashOf(0x3f, {
      ...parts,
      extensions: [[0, options], [60, longOptions], [51, authentication], [44, atomic]],
    }),
    [5, overPorts],
  );
  assertEquals(hashOf(0x3f, { ...parts, extensions: [[44, [0, 0, 0, 1, 0, 0, 0, 9]]] }), [4, overAddresses]);
  assertEquals(hashOf(0x3f, { ...parts, extensions: [[44, [0, 0, 0, 8, 0, 0, 0, 9]]] }), [4, overAddresses]);
  assertEquals(hashOf(0x3f, { ...parts, extensions: [[50, options]] }), [4, overAddresses]);
  const nine = new Array(9).fill([60, options] as [number, number[]]);
  assertEquals(hashOf(0x3f, { ...parts, extensions: nine }), [4, overAddresses]);
  assertEquals(hashOf(0x3f, { ...parts, extensions: nine.slice(1) }), [5, overPorts]);
  assertEquals(hashOf(0x3f, { ...parts, tags: [[0x88a8, 1], [0x8100, 2]] }), [5, overPorts]);
});

Deno.test("PacketHash.compute() takes no padding for ports", () => {
  const [source, , destination, , overAddresses] = VECTORS[0];
  assertEquals(hashOf(3, { source, destination, rest: 3, padding: 40 }), [1, overAddresses]);
  assertEquals(hashOf(3, { source, destination, rest: 0, padding: 40 }), [1, overAddresses]);
});

Deno.test("PacketHash.compute() takes a cut frame for what is left of it", () => {
  const [source, sourcePort, destination, port, overAddresses, overPorts] = VECTORS[0];
  const { bytes } = frame({ source, destination, ports: [sourcePort, port] });
  const hash = new PacketHash();
  hash.configure(3, PUBLISHED_KEY);
  for (let length = 0; length <= bytes.length; length++) {
    const expected = length < 34 ? [0, 0] : length < 38 ? [1, overAddresses] : [2, overPorts];
    assertEquals([hash.compute(bytes, 0, length), hash.value], expected, `${length} bytes`);
  }
});

Deno.test("PacketHash.compute() takes an impossible IPv4 header length for no IP at all", () => {
  const [source, sourcePort, destination, port] = VECTORS[0];
  const { bytes } = frame({ source, destination, ports: [sourcePort, port] });
  const hash = new PacketHash();
  hash.configure(3, PUBLISHED_KEY);
  for (const [first, report] of [[0x45, 2], [0x44, 0], [0x4f, 1], [0x40, 0], [0x45, 2], [0x55, 0]]) {
    bytes[14] = first;
    assertEquals(hash.compute(bytes, 0, bytes.length), report, first.toString(16));
    assertEquals(hash.value === 0, report === 0, "the hash of the frame before is gone");
  }
});

Deno.test("PacketHash.reset() and unsupported types leave nothing to hash", () => {
  const hash = new PacketHash();
  const { bytes, start, length } = frame({
    source: v4("1.2.3.4"),
    destination: v4("5.6.7.8"),
    rest: 0,
  });
  hash.configure(0x1c0, PUBLISHED_KEY);
  assertEquals(hash.types, 0);
  hash.configure(0x1ff, PUBLISHED_KEY);
  assertEquals(hash.types, SUPPORTED_HASH_TYPES);
  assertEquals(hash.compute(bytes, start, length), 1);
  hash.reset();
  assertEquals([hash.compute(bytes, start, length), hash.value], [0, 0]);
});
