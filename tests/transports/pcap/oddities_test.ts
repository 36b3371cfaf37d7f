import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { HostError } from "../../../core/errors.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import {
  type ByteSource,
  GunzipSource,
  MemorySource,
  NOT_YET,
  WINDOW_BYTES,
} from "../../../transports/pcap/byte_source.ts";
import { CaptureReader } from "../../../transports/pcap/capture_reader.ts";
import { CaptureSink } from "../../../transports/pcap/capture_sink.ts";
import { CaptureWriter } from "../../../transports/pcap/capture_writer.ts";
import {
  applyPacketFlags,
  type CaptureOddities,
  type CaptureStep,
  newCaptureOddities,
} from "../../../transports/pcap/captured_packet.ts";
import { addToSum, isSumRight } from "../../../wire/checksum.ts";
import { ipv4PseudoSum } from "../../../wire/tcp_ip.ts";
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

/**
 * What is odd about a capture and does not end it: every fault costs what is wrong, is counted, and the rest
 * is read.
 */

const US = 0xa1b2c3d4;
const NS = 0xa1b23c4d;

interface Seen {
  step: CaptureStep;
  number: number;
  timeNs: number;
  bytes: Uint8Array;
}

interface Reading {
  seen: Seen[];
  oddities: CaptureOddities;
  failure: string | null;
}

/** Everything that a source gives, and how it ends; the source may have nothing now and then. */
function readAll(source: ByteSource, hostMac?: Uint8Array): Reading {
  const seen: Seen[] = [];
  let failure: string | null = null;
  let oddities = newCaptureOddities();
  try {
    using reader = new CaptureReader(source, "odd", hostMac);
    oddities = reader.oddities;
    for (let steps = 0;; steps++) {
      assert(steps < 1_000_000, "the reader does not come to an end");
      const step = reader.step();
      if (step === "end") break;
      if (step === "wait" || step === "other") continue;
      const { number, timeNs } = reader.packet;
      seen.push({ step, number, timeNs, bytes: reader.packet.toBytes() });
    }
  } catch (error) {
    assert(error instanceof HostError, String(error));
    failure = error.message;
  }
  return { seen, oddities, failure };
}

function read(...parts: Uint8Array[]): Reading {
  return readAll(new MemorySource(join(...parts)));
}

function steps({ seen }: Reading): string[] {
  return seen.map(({ step, bytes }) => step === "whole" ? `whole ${bytes.length}` : step);
}

/** Counters that are not 0. */
function counted({ oddities }: Reading): Record<string, number> {
  return Object.fromEntries(Object.entries(oddities).filter(([, value]) => value > 0));
}

/** A TCP segment over IPv4 of `ipBytes`, in a frame without trailer; `tags` go in front of the EtherType. */
function tcpFrame(ipBytes: number, tags: number[] = []): Uint8Array<ArrayBuffer> {
  const ethernet = [0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, ...tags, 8, 0];
  const ip = [0x45, 0, ipBytes >> 8, ipBytes & 255, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
  const frame = new Uint8Array(ethernet.length + ipBytes).fill(0xaa);
  frame.set([
    ...ethernet,
    ...ip,
    3,
    232,
    7,
    208,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    1,
    0x50,
    0x10,
    3,
    232,
    0xbe,
    0xef,
    0,
    0,
  ]);
  return frame;
}

function flagsOption(little: boolean, flags: number): Option {
  return [2, new Bytes(little).u32(flags).done()];
}

Deno.test("if_fcslen counts bits or octets, and epb_flags octets", () => {
  const frame = tcpFrame(140);
  const fcs = join(frame, Uint8Array.of(1, 2, 3, 4));
  const of = (value: number, bytes: Uint8Array, options: Option[] = []) =>
    read(section(true), described(true, [[13, [value]]]), enhanced(true, 0, 0n, bytes, options));
  for (const value of [4, 32]) {
    assertEquals([steps(of(value, fcs)), counted(of(value, fcs))], [["whole 154"], {}]);
  }
  assertEquals(steps(of(16, join(frame, new Uint8Array(2)))), ["whole 154"]);
  assertEquals(steps(of(0, frame)), ["whole 154"]);
  // 33 is neither: nothing is cut.
  assertEquals([steps(of(33, frame)), counted(of(33, frame))], [["whole 154"], { badOptions: 1 }]);
  assertEquals(steps(of(0, fcs, [flagsOption(true, 4 << 5)])), ["whole 154"]);
  assertEquals(steps(of(16, fcs, [flagsOption(true, 4 << 5)])), ["whole 154"]);
});

Deno.test("a frame check sequence is declared and not captured: the frame is whole, and never cut below its IP length", () => {
  const frame = tcpFrame(140);
  const link = 1 | 0x0400_0000 | (2 << 28);
  const classic = (bytes: Uint8Array, original: number) =>
    read(pcapHeader(true, US, link >>> 0), record(true, 0, 0, bytes, original));
  assertEquals([steps(classic(frame, 158)), counted(classic(frame, 158))], [["whole 154"], {}]);
  const half = classic(join(frame, Uint8Array.of(1, 2)), 158);
  assertEquals([steps(half), counted(half)], [["whole 154"], {}]);
  // Neither length has room for it: the IP length has the last word, also behind a tag.
  const none = classic(frame, 154);
  assertEquals([steps(none), counted(none)], [["whole 154"], { fcsContradictsIp: 1 }]);
  const tagged = classic(tcpFrame(140, [0x81, 0, 0, 5]), 158);
  assertEquals([steps(tagged), counted(tagged)], [["whole 158"], { fcsContradictsIp: 1 }]);
  // An IP length that is longer than the frame anyhow saves nothing, and is counted.
  const liar = tcpFrame(140);
  liar[17] = 200;
  const lying = classic(liar, 154);
  assertEquals([steps(lying), counted(lying)], [["whole 150"], { fcsContradictsIp: 1 }]);
  assertEquals(steps(classic(frame.subarray(0, 100), 158)), ["snapped"]);
});

for (const little of [true, false]) {
  Deno.test(`a captured length above the original one is taken as it is, ${little ? "little" : "big"}-endian`, () => {
    const bytes = frameBytes(60);
    const classic = read(
      pcapHeader(little, US),
      record(little, 0, 0, bytes, 59),
      record(little, 0, 0, bytes, 0),
      record(little, 0, 0, bytes),
    );
    assertEquals(steps(classic), ["whole 60", "whole 60", "whole 60"]);
    assertEquals([counted(classic), classic.failure], [{ capturedAboveOriginal: 2 }, null]);
    const blocks = read(
      section(little),
      described(little),
      enhanced(little, 0, 0n, bytes, [], 10),
      enhanced(little, 0, 0n, bytes),
    );
    assertEquals([steps(blocks), counted(blocks)], [["whole 60", "whole 60"], { capturedAboveOriginal: 1 }]);
  });

  Deno.test(`blocks that are long in what is of no interest pass, ${little ? "little" : "big"}-endian`, () => {
    const bytes = frameBytes(61, 9);
    const comments: Option[] = Array.from({ length: 10 }, () => [1, new Uint8Array(65_535).fill(65)]);
    const long = new Uint8Array(WINDOW_BYTES + 8);
    const option = (code: number, value: Uint8Array) =>
      new Bytes(little).u16(code).u16(value.length).padded(value);
    const commented = new Bytes(little).u32(0x1a2b3c4d).u16(1).u16(0).number(-1, 8);
    for (const [code, value] of comments) commented.raw(option(code, Uint8Array.from(value)).done());
    const reading = read(
      block(little, 0x0a0d0d0a, commented.done()),
      described(little, [...comments, [9, [9]], ...comments, [13, [4]]]),
      described(little, [], 105),
      described(little),
      block(little, 4, long), // names
      block(little, 5, long), // statistics
      block(little, 10, long), // secrets
      block(little, 0x0bad, long), // custom
      block(little, 0x40000bad, long),
      enhanced(little, 0, 7n, join(bytes, new Uint8Array(4)), [
        ...comments,
        flagsOption(little, 2),
        ...comments,
      ]),
      enhanced(little, 1, 8n, long), // another link type
      enhanced(little, 2, 9n, frameBytes(262_145)), // our limit
      enhanced(little, 2, 9n, frameBytes(262_144)),
      block(little, 3, new Bytes(little).u32(61).padded(join(bytes, long)).done()),
      enhanced(little, 0, 10n, join(bytes, new Uint8Array(4))),
    );
    assertEquals(reading.failure, null);
    assertEquals(steps(reading), [
      "whole 61",
      "otherLinkType",
      "unreadable",
      "whole 262144",
      "whole 57",
      "whole 61",
    ]);
    assertEquals(counted(reading), { beyondLengthLimit: 1 });
    assertEquals(reading.seen[0].bytes, bytes);
    assertEquals(reading.seen.at(-1)!.timeNs, 3);
  });

  Deno.test(`what is wrong in a block costs its packet, not the file, ${little ? "little" : "big"}-endian`, () => {
    const bytes = frameBytes(60);
    const body = (captured: number, original: number, options: number[] = []) =>
      block(
        little,
        6,
        new Bytes(little).u32(0).u32(0).u32(0).u32(captured).u32(original).padded(bytes).raw(options).done(),
      );
    const badOption = [...new Bytes(little).u16(1).u16(500).u32(0).done()];
    const reading = read(
      section(little),
      described(little, [[1, new Uint8Array(8)]]),
      body(64, 64), // longer than its block
      body(0xffffffff, 0xffffffff),
      block(little, 6, new Uint8Array(8)), // too short to be one
      block(little, 3, new Uint8Array(0)),
      block(little, 2, new Uint8Array(4)),
      enhanced(little, 1, 0n, bytes), // an interface that is not there
      body(60, 60, badOption),
      block(little, 3, new Bytes(little).u32(100).padded(bytes).done()), // more on the wire than in its block
      enhanced(little, 0, 0n, bytes),
    );
    assertEquals(reading.failure, null);
    assertEquals(steps(reading), [
      ...Array<string>(6).fill("unreadable"),
      "whole 60",
      "snapped",
      "whole 60",
    ]);
    assertEquals(reading.seen.map(({ number }) => number), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assertEquals(counted(reading), { beyondBlock: 5, unknownInterface: 1, badOptions: 1 });
  });
}

for (const little of [true, false]) {
  Deno.test(`a block whose two lengths disagree ends where the first says, ${little ? "little" : "big"}-endian`, () => {
    const bytes = frameBytes(60);
    const wrong = (good: Uint8Array, end: number) => {
      const bad = good.slice();
      new DataView(bad.buffer).setUint32(bad.length - 4, end, little);
      return bad;
    };
    const packet = enhanced(little, 0, 0n, bytes);
    const long = enhanced(little, 0, 0n, bytes, Array.from({ length: 9 }, () => [1, new Uint8Array(65_535)]));
    for (const end of [0, 12, 0xffffffff, packet.length + 4]) {
      const reading = read(
        wrong(section(little), end),
        wrong(described(little), end),
        wrong(packet, end),
        packet,
        wrong(long, end),
        wrong(block(little, 0xbad, new Uint8Array(8)), end),
        wrong(section(!little), end),
        described(!little),
        enhanced(!little, 0, 0n, bytes),
        wrong(enhanced(!little, 0, 0n, bytes), end),
      );
      assertEquals([reading.failure, steps(reading)], [null, Array(5).fill("whole 60")]);
      assertEquals(counted(reading), { lengthsDisagree: 7 });
    }
    // Where the first length is the wrong one, what follows is no block, and the file ends at the block that
    // lies.
    const lies = packet.slice();
    new DataView(lies.buffer).setUint32(4, packet.length - 24, little);
    const reading = read(section(little), described(little), packet, lies, packet);
    assertEquals(steps(reading), ["whole 60", "unreadable"]);
    assertStringIncludes(
      reading.failure!,
      `length is ${packet.length - 24} at its start and 0 at its end, and no block`,
    );
  });
}

Deno.test("a block's length may lack the padding, where the block is one that the format defines", () => {
  for (const little of [true, false]) {
    const bytes = frameBytes(61);
    const unrounded = (good: Uint8Array, by: number) => {
      const bad = good.slice();
      const view = new DataView(bad.buffer);
      view.setUint32(4, good.length - by, little);
      view.setUint32(good.length - 4, good.length - by, little);
      return bad;
    };
    const packet = enhanced(little, 0, 0n, bytes);
    const reading = read(
      section(little),
      unrounded(described(little, [[2, [65]]]), 3),
      unrounded(packet, 3),
      unrounded(block(little, 5, new Uint8Array(12)), 1),
      packet,
    );
    assertEquals([reading.failure, steps(reading)], [null, ["whole 61", "whole 61"]]);
    assertEquals(counted(reading), { lengthsDisagree: 3 });
    const unknown = read(section(little), described(little), packet, unrounded(block(little, 99, bytes), 3));
    assertEquals(steps(unknown), ["whole 61"]);
    assertStringIncludes(unknown.failure!, "is not a multiple of 4");
  }
});

Deno.test("what follows a capture and is no block is damage, and a block without its end is a cut", () => {
  const whole = join(section(true), described(true), enhanced(true, 0, 0n, frameBytes(60)));
  for (
    const [tail, isCutOff] of [
      [new TextEncoder().encode("the tail of another file"), false],
      [new Bytes(true).u32(6).u32(500).u32(0).done(), true],
      [new Uint8Array(5), true],
    ] as const
  ) {
    using reader = new CaptureReader(new MemorySource(join(whole, tail)), "tail");
    assert(reader.next());
    assertThrows(() => reader.next(), HostError, "cut off");
    assertEquals(reader.isCutOff, isCutOff);
  }
});

Deno.test("a classic capture appended to another one goes on, if it is of its kind", () => {
  for (const little of [true, false]) {
    const file = join(
      pcapHeader(little, US),
      record(little, 9, 7, frameBytes(60)),
      record(little, 9, 8, frameBytes(61)),
    );
    const twice = join(file, file, pcapHeader(little, US));
    for (const lengths of [[100_000], [7]]) {
      const reading = readAll(new ChoppedSource(twice, lengths));
      assertEquals([reading.failure, steps(reading)], [null, [
        "whole 60",
        "whole 61",
        "whole 60",
        "whole 61",
      ]]);
    }
    const other = read(file, pcapHeader(little, US, 101), record(little, 0, 0, frameBytes(60)));
    assertEquals(steps(other), ["whole 60", "whole 61"]);
    assertStringIncludes(
      other.failure!,
      "another capture begins here, of link type 101 (raw IP); join captures by mergecap",
    );
    assertStringIncludes(read(file, file.subarray(0, 20)).failure!, "a file header is cut off: 20 of 24");
  }
});

Deno.test("IP packets of a loopback interface, whose Ethernet addresses are 0, get addresses made of their IP ones", () => {
  const packet = tcpFrame(40);
  const v6 = new Uint8Array(74);
  v6.set([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64], 12);
  v6.set([1, 2, 3, 4], 34);
  v6.set([5, 6, 7, 8], 50);
  const arp = new Uint8Array(60);
  arp.set([8, 6], 12);
  const half = packet.slice().fill(0, 0, 6);
  const blank = packet.slice().fill(0, 0, 12);
  const ip = [...packet.subarray(26, 30)];
  const expected = [
    [2, 0, ...packet.subarray(30, 34), 2, 0, ...ip],
    [2, 6, 5, 6, 7, 8, 2, 6, 1, 2, 3, 4],
    [...new Uint8Array(12)],
    [...half.subarray(0, 12)],
    [...new Uint8Array(12)],
  ];
  const all = [blank, v6, arp, half, blank.subarray(0, 20)];
  for (
    const { seen } of [
      read(pcapHeader(true, US), ...all.map((each) => record(true, 0, 0, each))),
      read(section(false), described(false), ...all.map((each) => enhanced(false, 0, 0n, each))),
    ]
  ) {
    assertEquals(seen.map(({ bytes }) => [...bytes.subarray(0, 12)]), expected);
    assertEquals(seen.map(({ bytes }) => bytes.subarray(12)), all.map((each) => each.subarray(12)));
  }
});

Deno.test("a classic packet beyond our limit is stepped over where the file's own limit allows it", () => {
  const header = pcapHeader(true, US);
  new DataView(header.buffer).setUint32(16, 1_000_000, true);
  const bytes = frameBytes(60);
  const reading = read(header, record(true, 0, 0, frameBytes(900_000)), record(true, 1, 0, bytes));
  assertEquals([steps(reading), counted(reading)], [["unreadable", "whole 60"], { beyondLengthLimit: 1 }]);
  assertEquals([reading.failure, reading.seen[1].timeNs], [null, 1e9]);
  assertStringIncludes(
    read(header, record(true, 0, 0, frameBytes(900_000)).subarray(0, 500_000)).failure!,
    "a packet is cut off: 400016 bytes are missing",
  );
});

Deno.test("thousands of interfaces are read; those beyond the limit cost their packets and say whose limit it is", () => {
  const one = described(true);
  const interfaces = new Uint8Array(65_538 * one.length);
  for (let i = 0; i < 65_538; i++) interfaces.set(one, i * one.length);
  const bytes = frameBytes(60);
  const reading = read(
    section(true),
    interfaces,
    enhanced(true, 65_535, 0n, bytes),
    enhanced(true, 65_536, 0n, bytes),
    enhanced(true, 70_000, 0n, bytes),
    enhanced(true, 0, 0n, bytes),
  );
  assertEquals(steps(reading), ["whole 60", "unreadable", "unreadable", "whole 60"]);
  assertEquals(counted(reading), { beyondInterfaceLimit: 1, unknownInterface: 1 });
});

Deno.test("a modified pcap file and those of older versions are read, in both byte orders", () => {
  for (const little of [true, false]) {
    const bytes = frameBytes(60);
    const modified = (type: number) =>
      join(
        record(little, 5, 7, bytes).subarray(0, 16),
        new Bytes(little).u32(3).u16(0x800).raw([type, 0]).raw(bytes).done(),
      );
    using reader = new CaptureReader(
      new MemorySource(join(pcapHeader(little, 0xa1b2cd34), modified(0), modified(4))),
      "modified",
    );
    assert(reader.next());
    assertEquals([reader.packet.direction, reader.packet.toBytes()], [1, bytes]);
    assert(reader.next());
    assertEquals([reader.packet.direction, reader.packet.length], [2, 60]);
    const swapped = record(little, 0, 0, bytes, 1514);
    swapped.set([...swapped.subarray(12, 16), ...swapped.subarray(8, 12)], 8);
    for (const minor of [2, 3]) {
      const header = pcapHeader(little, NS);
      new DataView(header.buffer).setUint16(6, minor, little);
      assertEquals(steps(read(header, swapped)), ["snapped"]);
    }
  }
});

Deno.test("epb_flags about checksums become those of the frame, and are written back", async () => {
  const frame = tcpFrame(140);
  const pool = new FramePool();
  for (const tags of [[], [0x81, 0, 0, 5]]) {
    for (const flags of [0, 1 << 9, 1 << 10, 3 << 9]) {
      const taken = pool.takeCopy(join(tcpFrame(140, tags), new Uint8Array(6)))!;
      applyPacketFlags(flags, taken, true);
      const { header, start, view } = taken;
      const ip = start + 14 + tags.length;
      if ((flags & 1 << 9) !== 0) {
        assertEquals([header.flags, header.csumStart, header.csumOffset], [1, 34 + tags.length, 16]);
        // The field holds the pseudo header's sum, and the padding is gone.
        const sum = ipv4PseudoSum(view, ip, 6, 120);
        assertEquals(view.getUint16(ip + 36, true), sum % 0xffff);
        assertEquals(taken.length, 154 + tags.length);
        view.setUint16(ip + 36, 0);
        view.setUint16(ip + 36, ~(addToSum(view, ip + 20, 120, sum) % 0xffff) & 0xffff, true);
        assert(isSumRight(addToSum(view, ip + 20, 120, sum)));
      } else {
        assertEquals([header.flags, taken.toBytes().subarray(0, 12)], [
          flags === 0 ? 0 : 2,
          frame.subarray(0, 12),
        ]);
      }
      const written: Uint8Array[] = [];
      const output = {
        write: (bytes: Uint8Array) => Promise.resolve(output.writeSync(bytes)),
        writeSync: (bytes: Uint8Array) => {
          written.push(bytes.slice());
          return bytes.length;
        },
        close() {},
      };
      const writer = new CaptureWriter(new CaptureSink(output, "out"));
      assert(writer.write(taken, 1, 0));
      await writer.close();
      using reader = new CaptureReader(new MemorySource(join(...written)), "out");
      assert(reader.next());
      // Not ready and valid at once is not ready.
      assertEquals(reader.packet.flags, 1 | ((flags & 1 << 9) !== 0 ? 1 << 9 : flags));
      taken.release();
    }
  }
  // A guest that takes no partial checksum gets the whole one.
  const completed = pool.takeCopy(join(frame, new Uint8Array(6)))!;
  applyPacketFlags(1 << 9, completed, false);
  const { view, start, header } = completed;
  assert(isSumRight(addToSum(view, start + 34, 120, ipv4PseudoSum(view, start + 14, 6, 120))));
  assertEquals([header.flags, completed.length], [0, 160]);
  completed.release();
  // Neither TCP nor UDP, or not wholly there: the flag has no meaning.
  for (const odd of [frameBytes(60), frame.subarray(0, 40), tcpFrame(140).fill(0x60, 14, 15)]) {
    const taken = pool.takeCopy(Uint8Array.from(odd))!;
    applyPacketFlags(1 << 9, taken, true);
    assertEquals([taken.header.flags, taken.toBytes()], [0, Uint8Array.from(odd)]);
    taken.release();
  }
});

Deno.test("cooked, loopback and raw captures become Ethernet frames, in pcap and pcapng", () => {
  const packet = tcpFrame(40).subarray(14);
  const v6 = new Uint8Array(60);
  v6.set([0x60, 0, 0, 0, 0, 20, 6, 64]);
  v6.set([0xfe, 0x80], 8);
  v6.set([1, 2, 3, 4], 20);
  v6.set([0xfe, 0x80], 24);
  v6.set([5, 6, 7, 8], 36);
  const sll = (type: number, protocol: number, hardware = 1) =>
    Uint8Array.of(
      0,
      type,
      hardware >> 8,
      hardware & 255,
      0,
      6,
      0xa,
      0xb,
      0xc,
      0xd,
      0xe,
      0xf,
      0,
      0,
      protocol >> 8,
      protocol & 255,
    );
  const sll2 = (type: number, protocol: number) =>
    Uint8Array.of(
      protocol >> 8,
      protocol & 255,
      0,
      0,
      0,
      0,
      0,
      2,
      0,
      1,
      type,
      6,
      0xa,
      0xb,
      0xc,
      0xd,
      0xe,
      0xf,
      0,
      0,
    );
  const host = [2, 0, 0, 0, 0, 1];
  const far = [2, 0, 0, 0, 0, 2];
  const peer = [0xa, 0xb, 0xc, 0xd, 0xe, 0xf];
  const raw4 = [2, 0, 10, 0, 0, 1, 2, 0, 10, 0, 0, 2, 8, 0];
  const cases: [linkType: number, head: Uint8Array, body: Uint8Array, header: number[] | null][] = [
    [113, sll(0, 0x800), packet, [...host, ...peer, 8, 0]],
    [113, sll(4, 0x800), packet, [...far, ...host, 8, 0]],
    [113, sll(1, 0x806), packet, [255, 255, 255, 255, 255, 255, ...peer, 8, 6]],
    [113, sll(2, 0x86dd), v6, [0x33, 0x33, 0, 0, 0, 1, ...peer, 0x86, 0xdd]],
    [113, sll(3, 0x800), packet, [2, 0, 0, 0, 0, 3, ...peer, 8, 0]],
    [113, sll(0, 4), packet, [...host, ...peer, 0, packet.length]],
    [113, sll(9, 0x800), packet, null],
    [113, sll(0, 0x800, 824), packet, null], // Netlink
    [113, sll(0, 0x800).subarray(0, 15), new Uint8Array(0), null],
    [276, sll2(0, 0x800), packet, [...host, ...peer, 8, 0]],
    [276, sll2(4, 0x86dd), v6, [...far, ...host, 0x86, 0xdd]],
    [0, Uint8Array.of(2, 0, 0, 0), packet, raw4],
    [0, Uint8Array.of(0, 0, 0, 2), packet, raw4],
    [0, Uint8Array.of(30, 0, 0, 0), v6, [2, 6, 5, 6, 7, 8, 2, 6, 1, 2, 3, 4, 0x86, 0xdd]],
    [0, Uint8Array.of(7, 0, 0, 0), packet, null],
    [108, Uint8Array.of(0, 0, 0, 24), v6, [2, 6, 5, 6, 7, 8, 2, 6, 1, 2, 3, 4, 0x86, 0xdd]],
    [108, Uint8Array.of(0, 0, 0, 2), new Uint8Array(0), null],
    [101, new Uint8Array(0), packet, raw4],
    [12, new Uint8Array(0), packet, raw4],
    [228, new Uint8Array(0), packet, raw4],
    [229, new Uint8Array(0), v6, [2, 6, 5, 6, 7, 8, 2, 6, 1, 2, 3, 4, 0x86, 0xdd]],
    [101, new Uint8Array(0), new Uint8Array(3), null],
    [101, new Uint8Array(0), new Uint8Array(0), null],
  ];
  for (const [linkType, head, body, header] of cases) {
    const bytes = join(head, body);
    const expected = header === null ? "otherLinkType" : "whole";
    const simple = block(true, 3, new Bytes(true).u32(bytes.length).padded(bytes).done());
    for (
      const reading of [
        read(pcapHeader(true, US, linkType), record(true, 0, 0, bytes)),
        read(section(true), described(true, [[13, [4]]], linkType), enhanced(true, 0, 0n, bytes)),
        read(section(true), described(true, [], linkType), simple),
      ]
    ) {
      assertEquals(reading.seen.map(({ step }) => step), [expected], `link type ${linkType}, ${head}`);
      if (header !== null) assertEquals(reading.seen[0].bytes, join(Uint8Array.from(header), body));
    }
    if (header === null || bytes.length < 20) continue;
    const cut = read(pcapHeader(true, US, linkType), record(true, 0, 0, bytes, bytes.length + 1));
    assertEquals(cut.seen.map(({ step }) => step), ["snapped"]);
  }
  const mac = Uint8Array.of(0x52, 0x54, 0, 0, 0, 9);
  const bytes = join(pcapHeader(true, US, 113), record(true, 0, 0, join(sll(0, 0x800), packet)));
  assertEquals(readAll(new MemorySource(bytes), mac).seen[0].bytes.subarray(0, 6), mac);
});

/** A source that gives its bytes in pieces of these lengths, over and over, 0 being nothing at the moment. */
class ChoppedSource implements ByteSource {
  readonly #bytes: Uint8Array;
  readonly #lengths: readonly number[];
  #at = 0;
  #turn = 0;

  constructor(bytes: Uint8Array, lengths: readonly number[]) {
    this.#bytes = bytes;
    this.#lengths = lengths;
  }

  read(into: Uint8Array): number {
    const length = this.#lengths[this.#turn++ % this.#lengths.length];
    if (length === 0) return NOT_YET;
    const count = Math.min(length, into.length, this.#bytes.length - this.#at);
    into.set(this.#bytes.subarray(this.#at, this.#at + count));
    this.#at += count;
    return count;
  }

  [Symbol.dispose](): void {}
}

/** Blocks and records right and wrong, of every kind, in either byte order. */
const anyBytes = fc.uint8Array({ maxLength: 90 }).map((bytes) => Uint8Array.from(bytes));
const anyOptions = fc.array(
  fc.oneof(
    fc.tuple(fc.nat(15), anyBytes.map((bytes) => [...bytes])),
    fc.tuple(fc.constantFrom(9, 13), fc.nat(255).map((value) => [value])),
    fc.tuple(fc.constant(2), fc.nat().map((value) => [value & 255, value >> 8 & 255, value >> 16 & 255, 0])),
    fc.tuple(fc.constant(14), fc.constant([255, 255, 255, 255, 255, 255, 255, 127])),
  ),
  { maxLength: 3 },
) as fc.Arbitrary<Option[]>;
const anyLinkType = fc.constantFrom(1, 1, 1, 0, 12, 101, 105, 108, 113, 228, 229, 276);
const anyBlock = fc.tuple(
  fc.constantFrom(
    "interface",
    "enhanced",
    "enhanced",
    "enhanced",
    "simple",
    "packet",
    "section",
    "junk",
    "long",
  ),
  anyBytes,
  anyOptions,
  anyLinkType,
  fc.nat(3),
  fc.nat(200),
);
type AnyBlock = typeof anyBlock extends fc.Arbitrary<infer T> ? T : never;

function built(blocks: readonly AnyBlock[], first: boolean): Uint8Array<ArrayBuffer> {
  let little = first;
  const parts = [section(little), described(little)];
  for (const [kind, bytes, options, linkType, id, number] of blocks) {
    if (kind === "interface") parts.push(described(little, options, linkType, number % 3 === 0 ? number : 0));
    else if (kind === "enhanced") {
      parts.push(enhanced(little, id, BigInt(number), bytes, options, number > 150 ? number : bytes.length));
    } else if (kind === "simple") {
      parts.push(block(little, 3, new Bytes(little).u32(number).padded(bytes).done()));
    } else if (kind === "packet") {
      const head = new Bytes(little).u16(id).u16(0).u32(0).u32(number).u32(bytes.length).u32(number);
      parts.push(block(little, 2, head.padded(bytes).done()));
    } else if (kind === "section") {
      little = number % 2 === 0;
      parts.push(section(little));
    } else if (kind === "junk") {
      parts.push(block(little, number % 12, new Bytes(little).padded(bytes).done()));
    } else parts.push(enhanced(little, id, BigInt(number), bytes, [[1, new Uint8Array(60_000)], ...options]));
  }
  return join(...parts);
}

async function packed(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("however a capture arrives, in pieces, packed, or late, the same packets come out of it", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(anyBlock, { maxLength: 20 }),
      fc.boolean(),
      fc.array(fc.oneof(fc.nat(40), fc.nat(5000)), { minLength: 1, maxLength: 8 }),
      fc.option(fc.nat(4000)),
      fc.array(fc.tuple(fc.nat(4000), fc.nat(255)), { maxLength: 3 }),
      async (blocks, little, lengths, cutAt, changes) => {
        let bytes = built(blocks, little);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        if (cutAt !== null) bytes = bytes.slice(0, cutAt);
        const expected = readAll(new MemorySource(bytes));
        const chopped = [...lengths, 7];
        assertEquals(readAll(new ChoppedSource(bytes, chopped)), expected);
        assertEquals(readAll(new ChoppedSource(await packed(bytes), chopped)), expected);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("a capture that is right gives exactly its packets, whatever stands between them", () => {
  fc.assert(
    fc.property(fc.array(anyBlock, { maxLength: 30 }), fc.boolean(), (blocks, little) => {
      const { seen, failure } = readAll(new MemorySource(built(blocks, little)));
      assertEquals(failure, null);
      const packets = blocks.filter(([kind, , , , , number]) =>
        ["enhanced", "simple", "packet", "long"].includes(kind) ||
        (kind === "junk" && [2, 3, 6].includes(number % 12))
      );
      assertEquals(seen.map(({ number }) => number), packets.map((_, i) => i + 1));
    }),
    { numRuns: 500 },
  );
});

Deno.test("gzip: members, padding, a damaged and a cut stream; what was unpacked before is delivered", async () => {
  const bytes = [frameBytes(60, 1), frameBytes(1400, 2), frameBytes(62, 3)];
  const parts = [pcapHeader(true, US), ...bytes.map((each, i) => record(true, i, 0, each))];
  const members = await Promise.all(parts.map(packed));
  const whole = join(...members, new Uint8Array(600));
  assertEquals(steps(read(whole)), ["whole 60", "whole 1400", "whole 62"]);
  assertEquals(read(join(...members, Uint8Array.of(1, 2, 3))).failure, null);
  for (let length = 1; length < whole.length - 600; length++) {
    const { seen, failure } = readAll(new ChoppedSource(whole.slice(0, length), [11]));
    const complete = members.filter((_, i) => join(...members.slice(0, i + 1)).length <= length).length;
    const isAtEnd = join(...members.slice(0, complete)).length === length;
    assert(seen.length >= complete - 1, `${seen.length} of ${complete - 1} at ${length}`);
    assert(
      failure === null ? isAtEnd && complete > 0 : / cut off|it has \d/.test(failure),
      `${length}: ${failure}`,
    );
  }
  const damaged = whole.slice();
  damaged[join(...members.slice(0, 3)).length - 6] ^= 1; // the checksum of the third member
  const { seen, failure } = read(damaged);
  assertEquals(seen.length, 2);
  assertStringIncludes(failure!, "its checksum or its length is wrong");
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1 }), (changes) => {
      const changed = whole.slice();
      for (const [at, value] of changes) changed[at] = value;
      readAll(new MemorySource(changed));
    }),
    { numRuns: 1000 },
  );
  assertThrows(
    () => new CaptureReader(new MemorySource(Uint8Array.of(0x1f, 0x8b, 9, 0)), "x"),
    HostError,
    "method 9",
  );
});

Deno.test("gzip: a small input that becomes a long one comes in bounded pieces, and a long header is not kept", async () => {
  using bomb = new GunzipSource(new MemorySource(await packed(new Uint8Array(20_000_000))));
  const into = new Uint8Array(WINDOW_BYTES);
  let total = 0;
  for (let count = bomb.read(into); count > 0; count = bomb.read(into)) {
    assert(count <= 64 * 1024);
    total += count;
  }
  assertEquals(total, 20_000_000);
  // A name without an end: the source gives for ever, and the reader still comes back.
  let given = 0;
  const endless: ByteSource = {
    read(bytes) {
      if (given > 3_000_000) return NOT_YET;
      bytes.fill(65);
      if (given === 0) bytes.set([0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3]);
      given += bytes.length;
      return bytes.length;
    },
    [Symbol.dispose]() {},
  };
  using named = new GunzipSource(endless);
  assertEquals(named.read(into), NOT_YET);
});
