/**
 * The same random and hostile frames, coalesced with the kernel and without it: the same frames out in the
 * same order, with the same headers, the same counters, and all of them back in the pool.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { FeatureSet } from "../../core/features.ts";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { rscV6 } from "../../offloads/rsc_v6.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { Stage } from "../../pipeline/stage.ts";
import { tcp, type TcpFields, type TcpFlag, udp } from "../../testing/packets.ts";

const SEED = Number(Deno.env.get("KERNEL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(Deno.env.get("KERNEL_RUNS") ?? 150);
const POOL_BYTES = 2 ** 22;

type Random = (below: number) => number;

/** Numbers that depend on a seed only. */
function newRandom(seed: number): Random {
  let state = seed | 0;
  return (below) => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return Math.floor(((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32 * below);
  };
}

/** A frame, and what its network says of it. */
interface Sent {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly flags: number;
  readonly gsoType: number;
  readonly csumStart: number;
  readonly queuePair: number;
  /** Bytes of it that stand in a second piece. */
  readonly secondBytes: number;
}

/** A connection that sends in order, most of the time. */
interface Connection {
  readonly fields: TcpFields;
  readonly payloadBytes: number;
  readonly hasTimestamp: boolean;
  /** Does it say with every segment that there was congestion? */
  readonly hasEce: boolean;
  readonly queuePair: number;
  seq: number;
  ack: number;
  window: number;
  time: number;
}

function newConnection(random: Random, number: number): Connection {
  const host = random(3);
  const source = random(2) === 0 ? `10.0.0.${host + 1}` : `fd00::${host + 1}`;
  return {
    fields: { source, sourcePort: 1000 + number, tos: random(8) === 0 ? 2 : 0, flowLabel: random(2) },
    payloadBytes: [1, 100, 256, 257, 536, 1448][random(6)],
    hasTimestamp: random(3) === 0,
    hasEce: random(6) === 0,
    queuePair: random(2),
    // Numbers go round.
    seq: random(4) === 0 ? 0xffff_f000 : random(2 ** 32),
    ack: random(4) === 0 ? 0xffff_fff0 : random(2 ** 32),
    window: random(65_536),
    time: random(4) === 0 ? 0xffff_fff0 : random(2 ** 32),
  };
}

const FLAGS: readonly TcpFlag[][] = [["ACK"], ["ACK"], ["ACK"], ["ACK", "PSH"]];
const RARE_FLAGS: readonly TcpFlag[][] = [["SYN"], ["ACK", "FIN"], ["ACK", "RST"], ["ACK", "URG"], [], [
  "ACK",
  "ECE",
], ["ACK", "CWR"]];

/** The next frame of a connection; one in `oddity` is odd in some way. */
function nextFrame(random: Random, connection: Connection, oddity: number): Sent {
  const { payloadBytes, hasTimestamp, queuePair } = connection;
  let fields: TcpFields = {
    ...connection.fields,
    seq: connection.seq,
    ack: connection.ack,
    window: connection.window,
    payload: payloadBytes,
    flags: [...FLAGS[random(FLAGS.length)], ...(connection.hasEce ? ["ECE" as const] : [])],
    ...(hasTimestamp ? { timestamp: [connection.time, connection.time] as const } : {}),
  };
  const sent = { flags: [0, 0, 2][random(3)], gsoType: 0, csumStart: 0, queuePair, secondBytes: 0 };
  connection.seq = connection.seq + payloadBytes >>> 0;
  if (random(3) === 0) connection.ack = connection.ack + random(3000) >>> 0;
  if (random(5) === 0) connection.time = connection.time + 1 >>> 0;
  if (random(oddity) === 0) {
    const odd: (() => TcpFields)[] = [
      () => ({ flags: RARE_FLAGS[random(RARE_FLAGS.length)] }),
      () => ({ seq: (fields.seq! + random(5) - 2) >>> 0 }),
      () => ({ seq: random(2 ** 32) }),
      () => ({ ack: fields.ack! - random(3) >>> 0 }),
      () => ({ timestamp: [connection.time - random(3) >>> 0, connection.time - random(3) >>> 0] }),
      () => ({ window: random(65_536), payload: 0 }),
      () => ({ payload: 0 }),
      () => ({ tos: random(256) }),
      () => ({ ttl: random(256) }),
      () => ({ checksum: "wrong" }),
      () => ({ checksum: random(65_536) }),
      () => ({ ipChecksum: "wrong" }),
      () => ({ dontFragment: false }),
      () => ({ moreFragments: true }),
      () => ({ fragmentOffset: 1 + random(100) }),
      () => ({ ipLength: random(1600) }),
      () => ({ dataOffset: random(16) }),
      () => ({ reserved: random(8) }),
      () => ({ ipOptions: new Uint8Array(4).fill(1) }),
      () => ({ ipHeaderWords: random(16) }),
      () => ({ ipVersion: random(16) }),
      () => ({
        options: new Uint8Array([1, 1, 8, 10, 1, 2, 3, 4, 1, 2, 3, 4].slice(0, 4 * (1 + random(3)))),
      }),
      () => ({ flowLabel: random(100) }),
      () => ({ padding: random(60) }),
      () => ({ vlans: [{ id: random(2), priority: random(2) }] }),
      () => ({ vlans: [{ id: 0 }, { id: random(3) }] }),
      () => ({ sourceMac: "02:00:00:00:00:01" }),
      () => ({ destinationMac: `52:54:00:12:34:${10 + random(5)}` }),
      () => ({ etherType: [0x0806, 0x0800, 0x86dd, random(65_536)][random(4)] }),
      () => ({ protocol: [17, 50, 51, 0, 43, 44, 60][random(7)] }),
    ];
    fields = { ...fields, ...odd[random(odd.length)]() };
    // What has no data is followed by data with the same number.
    if (fields.payload === 0 && random(2) === 0) connection.seq = fields.seq!;
    const isV6 = fields.source!.includes(":");
    const facts: (() => Partial<Sent>)[] = [
      () => ({ flags: random(4) }),
      () => ({ flags: 1, csumStart: 14 + (isV6 ? 40 : 20), secondBytes: 0 }),
      () => ({ gsoType: [1, 4][random(2)] }),
      () => ({ queuePair: 1 - queuePair }),
      () => ({ secondBytes: 20 }),
    ];
    if (random(4) === 0) Object.assign(sent, facts[random(facts.length)]());
    if (sent.flags === 1 && sent.csumStart > 0) fields = { ...fields, checksum: "partial" };
  }
  let bytes = random(40) === 0 ? udp(connection.fields) : tcp(fields);
  if (random(oddity) === 0) {
    const way = random(4);
    if (way === 0) bytes = bytes.slice(0, random(bytes.length + 1));
    if (way === 1) bytes[random(bytes.length)] ^= 1 << random(8);
    if (way === 2) bytes[random(Math.min(74, bytes.length))] ^= 1 << random(8);
    if (way === 3) bytes = bytes.map(() => random(256));
  }
  return { bytes, ...sent };
}

/** One chain after another, as in a machine, and what has come out. */
class Side {
  readonly counters: Record<string, number>[] = [];
  readonly out: unknown[] = [];
  readonly #pool: FramePool;
  readonly #stages: readonly Stage[];
  readonly #batches = [new FrameBatch(), new FrameBatch(), new FrameBatch()];

  constructor(pool: FramePool, options: Record<string, unknown>) {
    this.#pool = pool;
    this.#stages = [rscV4, rscV6].map((plugin) =>
      plugin.create({
        name: plugin.name,
        direction: "toGuest",
        pool,
        queuePairs: 2,
        network: OffloadCapabilities.none,
        verdicts: null,
        publish: (counters) => {
          this.counters.push(counters);
          return counters;
        },
      }, options as never)
    );
  }

  negotiate(features: FeatureSet): void {
    for (const [i, stage] of this.#stages.entries()) {
      stage.negotiated?.({ features, offloads: features }, this.#batches[i + 1], 0);
      this.#run(i + 1, 0);
    }
  }

  feed(frames: readonly Sent[], nowNs: number): void {
    for (const { bytes, secondBytes, flags, gsoType, csumStart, queuePair } of frames) {
      const first = Math.max(0, bytes.length - secondBytes);
      const frame = this.#pool.takeCopy(bytes.subarray(0, first))!;
      if (first < bytes.length) frame.append(this.#pool.takeCopy(bytes.subarray(first))!);
      frame.header.flags = flags;
      frame.header.gsoType = gsoType;
      frame.header.csumStart = csumStart;
      frame.header.csumOffset = csumStart > 0 ? 16 : 0;
      frame.queuePair = queuePair;
      this.#batches[0].push(frame);
    }
    this.#run(0, nowNs);
  }

  flush(nowNs: number): void {
    for (const [i, stage] of this.#stages.entries()) {
      this.out.push(stage.deadlineNs!());
      stage.flush!(this.#batches[i + 1], nowNs);
      this.#run(i + 1, nowNs);
    }
  }

  reset(): void {
    for (const [i, stage] of this.#stages.entries()) {
      stage.reset!(this.#batches[i + 1]);
      this.#run(i + 1, 0);
    }
  }

  #run(from: number, nowNs: number): void {
    for (let i = from; i < this.#stages.length; i++) {
      this.#stages[i].process(this.#batches[i], this.#batches[i + 1], nowNs);
      this.#batches[i].clear();
    }
    const last = this.#batches[this.#stages.length];
    for (let i = 0; i < last.length; i++) {
      const frame = last.at(i);
      let pieces = 0;
      for (let piece: typeof frame | null = frame; piece !== null; piece = piece.next) pieces++;
      const { header, total, queuePair, mark } = frame;
      this.out.push({
        bytes: frame.toBytes().toHex(),
        header: { ...header },
        total,
        pieces,
        queuePair,
        mark,
      });
    }
    last.releaseAll();
  }
}

function optionsOf(random: Random, rules: "strict" | "qemu"): Record<string, unknown> {
  return {
    rules,
    intervalUs: 300,
    maxFlows: [1, 3, 4096][random(3)],
    maxSegments: [2, 5, 1024][random(3)],
    flushOnPush: random(3) === 0,
    timestamps: random(4) !== 0,
  };
}

/** GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, MRG_RXBUF, RSC_EXT: some of them. */
function featuresOf(random: Random): FeatureSet {
  const likely = [1, 7, 8, 61].filter(() => random(12) !== 0);
  return FeatureSet.of(...likely, ...[9, 15].filter(() => random(2) === 0));
}

function compare(seed: number, rules: "strict" | "qemu", arena: Arena): number {
  const random = newRandom(seed);
  const options = optionsOf(random, rules);
  const near = new FramePool({ maxBytes: POOL_BYTES, arena });
  assert(near.arena !== null);
  const far = new FramePool({ maxBytes: POOL_BYTES });
  const sides = [new Side(near, options), new Side(far, options)];
  const connections = Array.from({ length: [1, 4, 90][random(3)] }, (_, i) => newConnection(random, i));
  const oddity = [3, 20, 200][random(3)];
  let nowNs = 0;
  for (const side of sides) side.negotiate(FeatureSet.of(1, 7, 8, 9, 15, 61));
  for (let round = 0; round < 8; round++) {
    const frames = Array.from(
      { length: [0, 1, 64, 65, 150][random(5)] },
      () => nextFrame(random, connections[random(connections.length)], oddity),
    );
    nowNs += random(200_000);
    const happens = random(6);
    const features = featuresOf(random);
    for (const side of sides) {
      side.feed(frames, nowNs);
      if (happens < 2) side.flush(nowNs);
      if (happens === 2) side.negotiate(features);
      if (happens === 3) {
        side.reset();
        side.negotiate(features);
      }
    }
  }
  for (const side of sides) side.reset();
  const [kernel, plain] = sides;
  assertEquals(kernel.out, plain.out, `seed ${seed}`);
  assertEquals(kernel.counters, plain.counters, `seed ${seed}`);
  assertEquals([near.inUse, far.inUse], [0, 0], `seed ${seed}`);
  return plain.counters.reduce((sum, { merged = 0, coalesced = 0 }) => sum + merged + coalesced, 0);
}

for (const rules of ["strict", "qemu"] as const) {
  Deno.test(`coalescing with the kernel under ${rules} rules does what plain code does (seed ${SEED})`, () => {
    let arena = Arena.reserve();
    assert(arena !== null);
    let merged = 0;
    for (let i = 0; i < RUNS; i++) {
      // An arena gives nothing back.
      if (i % 100 === 99) arena = Arena.reserve() ?? arena;
      merged += compare(SEED + i, rules, arena);
    }
    assert(merged > 20 * RUNS, `only ${merged} segments were merged`);
  });
}

Deno.test("a chain whose table outgrows the arena goes on without the kernel", () => {
  const arena = Arena.reserve()!;
  const near = new FramePool({ maxBytes: POOL_BYTES, arena });
  const far = new FramePool({ maxBytes: POOL_BYTES });
  // Room for the first rows of both tables and no more.
  while (arena.allocate(2 ** 24) !== null);
  while (arena.allocate(2 ** 15) !== null);
  const sides = [near, far].map((pool) => new Side(pool, optionsOf(() => 2, "strict")));
  const random = newRandom(1);
  const connections = Array.from({ length: 300 }, (_, i) => newConnection(random, i));
  const frames = connections.concat(connections, connections).map((one) => nextFrame(random, one, 2 ** 30));
  for (const side of sides) {
    side.negotiate(FeatureSet.of(1, 7, 8, 9, 15, 61));
    for (let i = 0; i < frames.length; i += 100) side.feed(frames.slice(i, i + 100), 0);
    side.reset();
  }
  assertEquals(sides[0].out, sides[1].out);
  assertEquals(sides[0].counters, sides[1].counters);
});
