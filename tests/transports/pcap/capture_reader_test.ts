import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { HostError } from "../../../core/errors.ts";
import { type ByteSource, MemorySource, WINDOW_BYTES } from "../../../transports/pcap/byte_source.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import {
  block,
  Bytes,
  described,
  enhanced,
  frameBytes,
  join,
  type Option,
  pcapHeader,
  record,
  section,
} from "./build.ts";

const NS = 0xa1b23c4d;
const US = 0xa1b2c3d4;

function open(bytes: Uint8Array): CaptureReader {
  return new CaptureReader(new MemorySource(bytes), "test.cap");
}

function all(bytes: Uint8Array): { number: number; timeNs: number; bytes: Uint8Array }[] {
  using reader = open(bytes);
  const packets = [];
  while (reader.next()) {
    packets.push({
      number: reader.packet.number,
      timeNs: reader.packet.timeNs,
      bytes: reader.packet.toBytes(),
    });
  }
  return packets;
}

function refuses(bytes: Uint8Array, text: string): void {
  assertThrows(() => all(bytes), HostError, text);
}

for (const little of [true, false]) {
  const order = little ? "little-endian" : "big-endian";
  for (const magic of [US, NS]) {
    Deno.test(`CaptureReader reads ${order} pcap with magic ${magic.toString(16)}`, () => {
      const first = frameBytes(60, 7);
      const second = frameBytes(1514, 8);
      const file = join(
        pcapHeader(little, magic),
        record(little, 1_700_000_000, 999_999, first),
        record(little, 1_700_000_001, 1, second),
      );
      const unit = magic === NS ? 1 : 1000;
      assertEquals(all(file), [
        { number: 1, timeNs: 0, bytes: first },
        { number: 2, timeNs: 1_000_000_000 - 999_998 * unit, bytes: second },
      ]);
      using reader = open(file);
      assertEquals(reader.format, "pcap");
      assert(reader.next());
      assertEquals(reader.startUnixNs, 1_700_000_000_000_000_000n + 999_999n * BigInt(unit));
    });
  }

  Deno.test(`CaptureReader reads ${order} pcapng: interfaces, resolutions, offsets, directions, packet kinds`, () => {
    const bytes = frameBytes(61, 9);
    const simple = new Bytes(little).u32(61).padded(bytes).done();
    const obsolete = new Bytes(little).u16(1).u16(0xffff).u32(0).u32(3_000_000).u32(61).u32(61).padded(bytes)
      .done();
    const file = join(
      section(little),
      block(little, 5, new Uint8Array(12)), // statistics: stepped over
      described(little, [[9, [9]], [2, [97, 98, 99]]]),
      described(little), // microseconds by default
      described(little, [[9, [0x80 | 20]], [14, new Bytes(little).number(2, 8).done()]]),
      described(little, [[9, [12]], [14, new Bytes(little).number(-1, 8).done()]]),
      enhanced(little, 0, 2_000_000_000n, bytes, [[2, new Bytes(little).u32(1).done()]]),
      enhanced(little, 0, 2_000_000_007n, bytes, [[1, [104, 105]], [2, new Bytes(little).u32(2).done()]]),
      enhanced(little, 1, 2_500_000n, bytes),
      block(little, 3, simple),
      block(little, 0x80000001, new Uint8Array(400)),
      block(little, 2, obsolete),
      enhanced(little, 2, 1n << 19n, bytes), // half a second, and 2 of offset
      enhanced(little, 2, (1n << 19n) + 1024n, bytes),
      enhanced(little, 3, 3_000_000_001_999n, bytes), // 3 s and 1 ns, less 1 s
      enhanced(little, 3, 4_000_000_000_000n, bytes),
    );
    using reader = open(file);
    assertEquals(reader.format, "pcapng");
    const seen: [number, number, number, number][] = [];
    while (reader.next()) {
      const { number, timeNs, interfaceId, direction } = reader.packet;
      assertEquals(reader.packet.toBytes(), bytes);
      seen.push([number, timeNs, interfaceId, direction]);
    }
    assertEquals(seen, [
      [1, 0, 0, 1],
      [2, 7, 0, 2],
      [3, 500_000_000, 1, 0],
      [4, 500_000_000, 0, 0],
      [5, 1_000_000_000, 1, 0],
      [6, 500_000_000, 2, 0],
      [7, 500_976_562, 2, 0],
      [8, 1, 3, 0],
      [9, 999_999_999, 3, 0],
    ]);
    assertEquals(reader.startUnixNs, 2_000_000_000n);
    assertEquals(reader.counters, { read: 9, snapped: 0, otherLinkType: 0 });
  });
}

Deno.test("CaptureReader reads sections of different byte orders and forgets the interfaces in between", () => {
  const bytes = frameBytes(60);
  const file = join(
    section(true),
    described(true, [[9, [9]]]),
    enhanced(true, 0, 5_000n, bytes),
    section(false),
    described(false, [[9, [6]]]),
    enhanced(false, 0, 7n, bytes),
  );
  assertEquals(all(file).map((packet) => packet.timeNs), [0, 2_000]);
  using reader = open(
    join(section(true), described(true), section(true), enhanced(true, 0, 0n, bytes), file),
  );
  assertEquals(reader.step(), "other");
  assertEquals([reader.step(), reader.step()], ["other", "other"]);
  assertEquals([reader.step(), reader.packet.obstacle], ["unreadable", "unknownInterface"]);
  // The next section is read as if nothing had been.
  assert(reader.next() && reader.next());
  assertEquals([reader.packet.number, reader.oddities.unknownInterface], [3, 1]);
});

Deno.test("CaptureReader counts and lists snapped packets, and those of other link types, without delivering them", () => {
  const bytes = frameBytes(60);
  const file = join(
    section(true),
    described(true),
    described(true, [], 113),
    enhanced(true, 0, 1n, bytes),
    enhanced(true, 0, 2n, bytes, [], 1514),
    enhanced(true, 1, 3n, bytes),
    enhanced(true, 0, 4n, bytes),
  );
  using reader = open(file);
  const numbers = [];
  while (reader.next()) numbers.push(reader.packet.number);
  assertEquals(numbers, [1, 4]);
  assertEquals(reader.counters, { read: 4, snapped: 1, otherLinkType: 1 });
  assertEquals(reader.snappedNumbers, [2]);
  using classic = open(join(pcapHeader(true, US), record(true, 0, 0, bytes, 61), record(true, 0, 1, bytes)));
  assert(classic.next());
  assertEquals([classic.packet.number, classic.snappedNumbers], [2, [1]]);
});

Deno.test("CaptureReader takes the snap length of the interface for Simple Packet blocks", () => {
  const bytes = frameBytes(64);
  using reader = open(join(
    section(true),
    described(true, [], 1, 64),
    block(true, 3, new Bytes(true).u32(1000).padded(bytes).done()),
    block(true, 3, new Bytes(true).u32(64).padded(bytes).done()),
  ));
  assert(reader.next());
  assertEquals([reader.packet.number, reader.packet.length], [2, 64]);
  assertEquals(reader.counters.snapped, 1);
});

Deno.test("CaptureReader leaves frame check sequences away", () => {
  const bytes = frameBytes(64);
  const word = (value: number): Option => [2, new Bytes(true).u32(value).done()];
  const lengths = all(join(
    section(true),
    described(true, [[13, [4]]]),
    described(true),
    enhanced(true, 0, 0n, bytes),
    enhanced(true, 1, 0n, bytes),
    enhanced(true, 1, 0n, bytes, [word(2 << 5)]),
  )).map((packet) => packet.bytes.length);
  assertEquals(lengths, [60, 64, 62]);
  const classic = join(pcapHeader(true, US, 1 | 0x0400_0000 | 2 << 28), record(true, 0, 0, bytes));
  assertEquals(all(classic)[0].bytes, bytes.subarray(0, 60));
});

Deno.test("CaptureReader names what is no capture, and the remedy", () => {
  refuses(new Uint8Array(0), "at byte 0: it has 0 bytes");
  refuses(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd), "unzstd");
  refuses(new TextEncoder().encode("hello"), "its first four bytes are 0x68656c6c");
  refuses(pcapHeader(false, US, 105), "at byte 20: the link type is 105 (IEEE 802.11)");
  refuses(pcapHeader(true, US, 9), "the link type is 9 (PPP); capture on an Ethernet interface");
  const version = pcapHeader(true, US);
  version[4] = 3;
  refuses(version, "at byte 4: the version is 3.4");
  assertThrows(
    () => CaptureReader.open("/no/such/file.pcap"),
    HostError,
    'Cannot open capture "/no/such/file.pcap"',
  );
});

Deno.test("CaptureReader refuses lengths that lie, at their offset", () => {
  const huge = new Bytes(true).u32(0).u32(0).u32(0x7fffffff).u32(0x7fffffff).done();
  refuses(join(pcapHeader(true, US), huge), "at byte 32: captured length 2147483647 exceeds 262144");
  const head = join(section(true), described(true));
  for (const length of [0, 8, 11, 13, 14]) {
    refuses(
      join(head, new Bytes(true).u32(99).u32(length).u32(0).done()),
      `at byte 52: block length ${length} is not a multiple of 4`,
    );
  }
  refuses(
    join(head, new Bytes(true).u32(6).u32(0xfffffffc).u32(0).done()),
    "at byte 48: a block of type 6 is cut off: 12 of 4294967292 bytes are there",
  );
  refuses(
    join(head, new Bytes(true).u32(99).u32(0xfffffffc).u32(0).done()),
    "at byte 48: a block of type 99 is cut off",
  );
  // Nothing is known of what follows, so that neither of the lengths is right.
  refuses(
    join(
      head,
      new Bytes(true).u32(99).u32(16).u32(0).u32(20).done(),
      new Bytes(true).u32(99).u32(12).u32(12).done(),
    ),
    "at byte 60: the block's length is 16 at its start and 20 at its end",
  );
  const wrongMagic = section(true);
  wrongMagic[8] = 0;
  refuses(wrongMagic, "at byte 8: the byte-order magic");
  const wrongVersion = section(true);
  wrongVersion[12] = 9;
  refuses(wrongVersion, "at byte 12: the section's version is 9.0");
  const short = section(true);
  short[4] = 24;
  refuses(short, "at byte 4: the section header's length 24 is less than 28");
});

Deno.test("CaptureReader delivers the packets before a truncation at any offset, then says where", () => {
  const bytes = [frameBytes(60, 1), frameBytes(61, 2), frameBytes(62, 3)];
  const classic = [pcapHeader(false, NS), ...bytes.map((each, i) => record(false, i, 0, each))];
  const blocks = [
    section(true),
    join(described(true), block(true, 77, new Uint8Array(20))),
    ...bytes.map((each, i) => enhanced(true, 0, BigInt(i), each, [[1, [65]]])),
  ];
  for (const parts of [classic, blocks]) {
    const file = join(...parts);
    const first = parts.length - bytes.length;
    const ends = parts.map((_, i) => join(...parts.slice(0, i + 1)).length);
    for (let length = 0; length < file.length; length++) {
      const packets: Uint8Array[] = [];
      let message = "";
      try {
        using reader = open(file.subarray(0, length));
        while (reader.next()) packets.push(reader.packet.toBytes());
      } catch (error) {
        assert(error instanceof HostError, String(error));
        message = error.message;
      }
      const complete = ends.filter((end, i) => i >= first && end <= length).length;
      assertEquals(packets, bytes.slice(0, complete), `at length ${length}`);
      // Inside the preamble of pcapng, block limits are whole captures without packets too.
      const atLimit = ends.includes(length) ||
        (parts === blocks && length === ends[0] + described(true).length);
      assertEquals(message === "", atLimit, `at length ${length}: ${message}`);
      if (!atLimit) assert(/ at byte \d+: .*(cut off|it has \d bytes)/.test(message), message);
    }
  }
});

Deno.test("CaptureReader reads a file larger than its window, from a source that gives a few bytes at a time", () => {
  const parts = [section(true), described(true, [[9, [9]]])];
  for (let i = 0; i < 700; i++) parts.push(enhanced(true, 0, BigInt(i), frameBytes(1514, i)));
  parts.push(
    block(true, 1234, new Uint8Array(2 * WINDOW_BYTES)),
    enhanced(true, 0, 700n, frameBytes(262_144, 5)),
  );
  const file = join(...parts);
  assert(file.length > 3 * WINDOW_BYTES);
  let at = 0;
  let largest = 0;
  const slow: ByteSource = {
    read(into: Uint8Array): number {
      largest = Math.max(largest, into.length);
      const count = Math.min(into.length, 10_007, file.length - at);
      into.set(file.subarray(at, at + count));
      at += count;
      return count;
    },
    [Symbol.dispose]() {},
  };
  using reader = new CaptureReader(slow, "slow");
  for (let i = 0; i < 700; i++) {
    assert(reader.next());
    assertEquals(reader.packet.timeNs, i);
    assertEquals(reader.packet.bytes[reader.packet.at + 1513], i & 255);
  }
  assert(reader.next());
  assertEquals([reader.packet.number, reader.packet.length], [701, 262_144]);
  assert(!reader.next());
  assert(largest <= WINDOW_BYTES);
});

Deno.test("CaptureReader survives any bytes: an end or a HostError, and the source is closed", () => {
  const seed = join(
    section(true),
    described(true, [[9, [6]], [14, new Uint8Array(8)]]),
    enhanced(true, 0, 1n, frameBytes(60), [[2, [1, 0, 0, 0]]]),
    block(true, 2, new Bytes(true).u16(0).u16(0).u32(0).u32(9).u32(4).u32(4).u32(0).done()),
    section(false),
    described(false),
    enhanced(false, 0, 1n, frameBytes(20)),
  );
  const classic = join(
    pcapHeader(true, US),
    record(true, 0, 0, frameBytes(30)),
    record(true, 0, 1, frameBytes(20)),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(seed, classic),
      fc.array(fc.tuple(fc.nat(seed.length - 1), fc.integer({ min: 0, max: 255 })), { maxLength: 6 }),
      (base, changes) => {
        const bytes = base.slice();
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        let closed = 0;
        const source = new MemorySource(bytes);
        const watched: ByteSource = { read: (into) => source.read(into), [Symbol.dispose]: () => closed++ };
        try {
          using reader = new CaptureReader(watched, "fuzz");
          let steps = 0;
          while (reader.step() !== "end") assert(++steps < 100);
          assert(Number.isFinite(reader.packet.timeNs));
        } catch (error) {
          assert(error instanceof HostError, String(error));
        }
        assertEquals(closed, 1);
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("CaptureReader says where reading failed", () => {
  const start = join(pcapHeader(true, US), record(true, 0, 0, frameBytes(60)));
  const source = new MemorySource(start);
  let reads = 0;
  const failing: ByteSource = {
    read(into: Uint8Array): number {
      if (++reads > 1) throw new Error("input/output error");
      return source.read(into);
    },
    [Symbol.dispose]() {},
  };
  using reader = new CaptureReader(failing, "disk.pcap");
  assert(reader.next());
  assertThrows(
    () => reader.next(),
    HostError,
    'Cannot read capture "disk.pcap" at byte 100: input/output error',
  );
});
