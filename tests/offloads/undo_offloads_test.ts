import { assert, assertEquals } from "@std/assert";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { undoOffloads, type UndoOffloadsOptions } from "../../offloads/undo_offloads.ts";
import { MssTable, OffloadFinder } from "../../offloads/undo_offloads/offload_finder.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import {
  BENCH_FEATURES,
  parseTcp,
  StageBench,
  type StageBenchSettings,
  streamBytes,
  tcp,
  type TcpFields,
  udp,
} from "../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_CSUM } from "../../wire/net_features.ts";

const STAMP: TcpFields = { timestamp: [7, 3] };
const NO_CSUM = { features: BENCH_FEATURES.without(VIRTIO_NET_F_GUEST_CSUM) };

function bench(options: UndoOffloadsOptions = {}, settings: StageBenchSettings = {}): StageBench {
  return new StageBench({ plugin: undoOffloads, options }, settings);
}

/** A frame as a host with offloads has it: its checksum field holds the pseudo header's sum. */
function unfinished(payload: number, fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  return tcp({ ...STAMP, payload: streamBytes(fields.seq ?? 1000, payload), checksum: "partial", ...fields });
}

/** A SYN that announces an MSS. */
function syn(mss: number, fields: TcpFields = {}): Uint8Array<ArrayBuffer> {
  return tcp({
    flags: ["SYN", "ACK"],
    options: Uint8Array.of(1, 1, 4, 2, 2, 4, mss >> 8, mss & 255),
    ...fields,
  });
}

/** Bytes of payload in what came out, IP header by IP header, timestamps taken for granted. */
function payloads(stage: StageBench, headerBytes = 66): number[] {
  return stage.out.map(({ bytes }) => bytes.length - headerBytes);
}

function counted(stage: StageBench): Record<string, number> {
  return Object.fromEntries(
    Object.entries(stage.counters["undo-offloads"]).filter(([, count]) => count !== 0),
  );
}

Deno.test("undo-offloads makes of a large frame exactly the segments that were on the wire", () => {
  for (const family of [{}, { source: "fd00::1" }, { vlans: [{ id: 5 }] }]) {
    const size = family.source === undefined ? 1448 : 1428;
    using stage = bench({}, NO_CSUM);
    stage.feed(unfinished(5000, { ...family, flags: ["ACK", "PSH"] }));
    const whole = streamBytes(1000, 5000);
    const expected = [0, 1, 2, 3].map((i) =>
      tcp({
        ...STAMP,
        ...family,
        seq: 1000 + i * size,
        id: 1 + i,
        flags: i === 3 ? ["ACK", "PSH"] : ["ACK"],
        payload: whole.slice(i * size, (i + 1) * size),
      })
    );
    assertEquals(stage.out.map(({ bytes }) => bytes.toHex()), expected.map((bytes) => bytes.toHex()));
    assert(stage.out.every(({ header }) => header.flags === 0 && header.gsoType === 0));
    assertEquals(counted(stage), { partial: 1, cut: 1, segments: 4 });
  }
});

Deno.test("undo-offloads leaves the checksums partial for a guest that takes that, under the strict rules", () => {
  for (const [rules, flags] of [["strict", 1], ["qemu", 0]] as const) {
    using stage = bench({}, { rules });
    stage.feed(unfinished(3000));
    stage.feed(unfinished(100));
    stage.feed(udp({ payload: 50, checksum: "partial" }));
    assertEquals(stage.out.map(({ header }) => header.flags), new Array(5).fill(flags), rules);
    assertEquals(stage.out[4].bytes, udp({ payload: 50, checksum: flags === 1 ? "partial" : "right" }));
  }
});

Deno.test("undo-offloads lets pass unchanged what is as a wire has it", () => {
  const frames = [
    tcp({ payload: 1460 }),
    tcp({ payload: 100, checksum: "wrong" }),
    tcp({ payload: 100, padding: 4 }),
    udp({ payload: 100 }),
    udp({ payload: 100, checksum: 0 }),
    tcp({ payload: 1400, moreFragments: true, checksum: "partial" }),
    // A right checksum that happens to be the pseudo header's sum.
    tcp({ payload: fitting() }),
    // A wire with a larger MTU: no offload leaves a right checksum.
    tcp({ payload: 8948 }),
  ];
  using stage = bench();
  for (const frame of frames) stage.feed(frame);
  assertEquals(stage.out.map(({ bytes }) => bytes), frames);
  assert(stage.out.every(({ header }) => header.flags === 0));
  assertEquals(counted(stage), {});
});

/** Two bytes of payload with which the right checksum of a frame is the sum of its pseudo header. */
function fitting(): Uint8Array<ArrayBuffer> {
  const word = (bytes: Uint8Array, at: number) => bytes[at] << 8 | bytes[at + 1];
  for (let value = 0; value < 0x10000; value++) {
    const payload = Uint8Array.of(value >> 8, value & 255);
    if (word(tcp({ payload }), 50) === word(tcp({ payload, checksum: "partial" }), 50)) return payload;
  }
  throw new Error("There is one among 65536");
}

Deno.test("undo-offloads learns the MSS from the SYNs of a connection, of both the smaller, less the options", () => {
  const fromGuest = { source: "10.0.0.2", destination: "10.0.0.1", sourcePort: 80, destinationPort: 1111 };
  for (
    const [syns, sizes] of [
      [[syn(1012)], [1000, 1000, 1000]],
      [[syn(8972)], [3000]],
      [[syn(8972), syn(512, fromGuest)], [500, 500, 500, 500, 500, 500]],
      [[syn(512), syn(8972, fromGuest)], [500, 500, 500, 500, 500, 500]],
      // Of another connection.
      [[syn(512, { sourcePort: 9 })], [1448, 1448, 104]],
      // No segment can be so short: nothing is learned.
      [[syn(20)], [3000]],
    ] as const
  ) {
    using stage = bench();
    for (const frame of syns) stage.feed(frame);
    stage.out.length = 0;
    stage.feed(unfinished(3000));
    assertEquals(payloads(stage), [...sizes]);
  }
});

Deno.test("undo-offloads goes by the segments seen where no SYN was, and by its options", () => {
  const after = (seen: Uint8Array<ArrayBuffer> | null, large: number, options: UndoOffloadsOptions = {}) => {
    using stage = bench(options);
    if (seen !== null) stage.feed(seen);
    stage.out.length = 0;
    stage.feed(unfinished(large));
    return payloads(stage);
  };
  assertEquals(after(null, 4344), [1448, 1448, 1448]);
  assertEquals(after(unfinished(1400), 4200), [1400, 1400, 1400]);
  // No multiple of it: the segment seen was the end of something.
  assertEquals(after(unfinished(1400), 4344), [1448, 1448, 1448]);
  assertEquals(after(tcp({ ...STAMP, payload: 8948 }), 20_000), [8948, 8948, 2104]);
  assertEquals(after(null, 4344, { mtu: 9000 }), [4344]);
  assertEquals(after(null, 3000, { mtu: 1052 }), [1000, 1000, 1000]);
  assertEquals(after(syn(1460), 3000, { mtu: 1052 }), [1000, 1000, 1000]);
  assertEquals(after(syn(1460), 3000, { mss: 512 }), [500, 500, 500, 500, 500, 500]);
});

Deno.test("undo-offloads cuts what is known to be unfinished, and what has no IP length", () => {
  using stage = bench();
  stage.feed(unfinished(2896), { header: { flags: 1, csumStart: 34, csumOffset: 16 } });
  stage.feed(unfinished(2896, { ipLength: 0 }));
  stage.feed(unfinished(2896, { checksum: "wrong" }));
  stage.feed(unfinished(2896), { header: { flags: 2 } });
  assertEquals(payloads(stage), new Array(8).fill(1448));
  assertEquals(counted(stage), { partial: 2, cut: 4, segments: 8 });
});

Deno.test("undo-offloads leaves large UDP frames whole, and counts them", () => {
  using stage = bench();
  stage.feed(udp({ payload: 4000, checksum: "partial" }));
  assertEquals([stage.out.length, stage.out[0].header.flags], [1, 1]);
  assertEquals(counted(stage), { partial: 1, large_udp: 1 });
  // A wire with a larger MTU carries these.
  stage.feed(udp({ payload: 4000 }));
  stage.feed(udp({ payload: 4000, checksum: 0 }));
  assertEquals(counted(stage), { partial: 1, large_udp: 1 });
});

Deno.test("undo-offloads cuts a large frame whose checksum is right, and does not call that unfinished", () => {
  using stage = bench();
  stage.feed(syn(1460));
  stage.feed(tcp({ payload: 2 * 1460 }));
  assertEquals(stage.out.slice(1).map(({ bytes }) => parseTcp(bytes).payload.length), [1460, 1460]);
  assertEquals(counted(stage), { cut: 1, segments: 2 });
});

Deno.test("undo-offloads leaves whole what the loopback interface carries", () => {
  for (const [source, destination] of [["127.0.0.1", "127.0.0.1"], ["::1", "::1"]]) {
    using stage = bench();
    stage.feed(tcp({ source, destination, payload: 65_000, checksum: "partial" }));
    assertEquals(stage.out.length, 1);
    assertEquals(counted(stage), { partial: 1 });
  }
});

Deno.test("undo-offloads gives RSC its input back", () => {
  using stage = new StageBench([{ plugin: undoOffloads }, { plugin: rscV4 }]);
  stage.feed(syn(1460));
  stage.feed(unfinished(14_480, { seq: 1000 }));
  stage.feed(unfinished(14_480, { seq: 15_480 }));
  stage.drain();
  const [, merged] = stage.out;
  assertEquals([stage.out.length, merged.header.csumStart, merged.header.gsoSize], [2, 20, 1448]);
  assertEquals(merged.bytes.length, 66 + 28_960);
});

Deno.test("undo-offloads survives any frame: what goes in comes out, or is counted", () => {
  let state = 1;
  const random = (below: number) =>
    (state = Math.imul(state, 1_103_515_245) + 12_345 | 0) >>> 8 & 0xffffff % below;
  const pool = new FramePool();
  using stage = bench({}, { pool });
  let fed = 0;
  for (let round = 0; round < 4000; round++) {
    const frame = round % 2 === 0 ? unfinished(random(5000)) : syn(random(65_536));
    for (let changes = 0; changes < 3; changes++) frame[12 + random(60)] = random(256);
    stage.feed(frame);
    fed++;
  }
  const { cut, segments, ...rest } = stage.counters["undo-offloads"];
  const dropped = Object.entries(rest).reduce(
    (n, [name, count]) => name.startsWith("dropped") ? n + count : n,
    0,
  );
  assertEquals(stage.out.length, fed - cut + segments - dropped);
});

Deno.test("OffloadFinder keeps a bounded number of connections, and forgets the earlier of those that clash", () => {
  const table = new MssTable();
  const finder = new OffloadFinder(table, {});
  const pool = new FramePool();
  for (let port = 1; port < 20_000; port++) {
    const frame = pool.takeCopy(syn(1000, { sourcePort: port }))!;
    finder.learn(frame);
    frame.release();
  }
  let known = 0;
  for (let port = 1; port < 20_000; port++) {
    const frame = pool.takeCopy(unfinished(3000, { sourcePort: port }))!;
    finder.find(frame);
    if (finder.segmentBytes === 988) known++;
    else assertEquals(finder.segmentBytes, 1448);
    frame.release();
  }
  assert(known > 2000 && known <= 4096, String(known));
});
