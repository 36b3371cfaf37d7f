import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { Burst } from "../../rings/burst.ts";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";

/**
 * A guest can never make a kernel read or write outside its own regions: not another guest's memory, not
 * frames, not what kernels are told, not the rest of the arena. Here everything around is full of canaries,
 * and so made that a kernel which went astray would find what looks right: each canary is a descriptor of the
 * guest's own memory.
 */

const MIB = 2 ** 20;
const SIZE = 256;
const PIECE = 64;
const FRAME_BYTES = 4096;
const FRAMES = 8;
const SEED = Number(Deno.env.get("KERNEL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(Deno.env.get("KERNEL_RUNS") ?? 1000);

/**
 * Two regions of the guest: what lies directly before and behind each of them in the arena is another
 * guest's.
 */
const REGION_BYTES = 0x10000;
const GUEST = [0x10_0000, 0x1_0000_0000];
/** Where in the first region the rings begin: the descriptors are its last bytes. */
const DESCRIPTORS = GUEST[0] + REGION_BYTES - 16 * SIZE;
const DRIVER = GUEST[0];
const DEVICE = GUEST[0] + 0x1000;
const TABLE = GUEST[1] + REGION_BYTES - 1024;
/** A buffer of the guest's own. */
const OWN = GUEST[0] + 0x4000;

type Random = (below: number) => number;

function newRandom(seed: number): Random {
  let state = seed | 0;
  return (below) => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) % below;
  };
}

/**
 * What lies in the arena, in order; all but the guest and the frames that are drained into must stay as it
 * is.
 */
class World {
  readonly arena: Arena;
  readonly burst: Burst;
  readonly memory: GuestMemory;
  /** Places in the arena of the guest's regions. */
  readonly places: number[];
  readonly frames: number;
  /** Ranges that must not change, in the arena. */
  readonly #watched: Uint8Array<ArrayBuffer>[] = [];
  readonly #pattern: Uint8Array<ArrayBuffer>;
  readonly bits: number;

  constructor(arena: Arena, packed: boolean, writable: boolean) {
    this.arena = arena;
    const write = writable ? 2 : 0;
    this.bits = write;
    // A descriptor of 48 bytes of the guest's own, of the right direction, without a next one; in both
    // layouts.
    const pattern = this.#pattern = new Uint8Array(16);
    const view = new DataView(pattern.buffer);
    view.setUint32(0, OWN, true);
    view.setUint32(8, 48, true);
    view.setUint16(12, packed ? 0x1111 : write, true);
    view.setUint16(14, packed ? 0x80 | write : 0, true);
    const around = arena.allocate(64 * 1024)!;
    this.burst = Burst.make(arena)!;
    const behind = arena.allocate(64 * 1024)!;
    this.frames = arena.allocate(FRAMES * FRAME_BYTES)!;
    const end = arena.allocate(MIB)!;
    const start = arena.takeRange(5 * REGION_BYTES, 4096)!;
    // Another guest's, ours, another's, ours, another's.
    this.places = [start + REGION_BYTES, start + 3 * REGION_BYTES];
    const others = [0, 2, 4].map((i) => [start + i * REGION_BYTES, REGION_BYTES]);
    for (
      const [at, bytes] of [[0, 65536], [around, 65536], [behind, 65536], [end, MIB], ...others]
    ) {
      const range = new Uint8Array(arena.buffer, at, bytes);
      for (let i = 0; i < bytes; i += 16) range.set(pattern, i);
      this.#watched.push(range);
    }
    this.memory = new GuestMemory(GUEST.map((guestAddress, i) => (
      { guestAddress, size: REGION_BYTES, buffer: arena.buffer, bufferOffset: this.places[i] }
    )));
    this.targets = [
      0,
      around,
      this.burst.block,
      this.burst.block + 128,
      behind,
      this.frames,
      end,
      ...others.map(([at]) => at),
      ...others.map(([at]) => at + REGION_BYTES - 16),
      ...this.places,
    ];
    this.clear();
  }

  /** What a hostile guest would like to reach. */
  readonly targets: number[];

  region(i: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.arena.buffer, this.places[i], REGION_BYTES);
  }

  frame(i: number): Uint8Array<ArrayBuffer> {
    return this.arena.bytes.subarray(this.frames + i * FRAME_BYTES, this.frames + (i + 1) * FRAME_BYTES);
  }

  /** The guest's memory is 0x77, the frames 0x66. */
  clear(): void {
    for (const i of [0, 1]) this.region(i).fill(0x77);
    this.region(0).fill(0, 0, 0x2000);
    this.region(0).fill(0, REGION_BYTES - 16 * SIZE);
    for (let i = 0; i < FRAMES; i++) this.frame(i).fill(0x66);
  }

  descriptor(at: number, [address, length, low, high]: Descriptor): void {
    this.memory.writeU32(at, Number(address & 0xffff_ffffn));
    this.memory.writeU32(at + 4, Number(address >> 32n & 0xffff_ffffn));
    this.memory.writeU32(at + 8, length);
    this.memory.writeU16(at + 12, low);
    this.memory.writeU16(at + 14, high);
  }

  check(what: string): void {
    for (const range of this.#watched) {
      const words = new Uint32Array(range.buffer, range.byteOffset, range.length / 4);
      const pattern = new Uint32Array(this.#pattern.buffer);
      for (let i = 0; i < words.length; i++) {
        if (words[i] !== pattern[i & 3]) throw new Error(`${what}: changed ${range.byteOffset + 4 * i}`);
      }
    }
    // The regions that the kernels are told of, and where they find the items.
    assert(this.burst.reaches(this.memory));
  }
}

type Descriptor = readonly [address: bigint, length: number, low: number, high: number];

/** An address that a hostile guest chooses: its own, or such that a careless sum leads to what it wants. */
function hostileAddress(random: Random, world: World): bigint {
  const region = random(2);
  const guest = BigInt(GUEST[region]);
  const target = BigInt(world.targets[random(world.targets.length)]) + BigInt(random(64));
  switch (random(10)) {
    case 0:
      return target;
    case 1: // Relative to a region, forward or round the end of 64 bits.
      return BigInt.asUintN(64, guest + target - BigInt(world.places[region]));
    case 2: // The same, round 32 bits, or where a double has no more digits.
      return BigInt.asUintN(
        64,
        guest + target - BigInt(world.places[region]) + (1n << BigInt(32 + random(32))),
      );
    case 3:
      return (1n << 64n) - BigInt(1 + random(4096));
    case 4:
      return (1n << 53n) + BigInt(random(64)) - 32n + (random(2) === 0 ? guest : 0n);
    case 5: // Own, and its end.
      return guest + BigInt(REGION_BYTES - 1 - random(PIECE));
    case 6:
      return guest + BigInt(REGION_BYTES + random(3) - 1);
    case 7:
      return guest - BigInt(1 + random(PIECE));
    case 8:
      return BigInt.asUintN(64, guest - (1n << BigInt(random(64))));
    default:
      return BigInt(OWN + random(0x4000));
  }
}

function hostileLength(random: Random): number {
  const lengths = [
    0,
    1,
    15,
    16,
    48,
    PIECE,
    4096,
    REGION_BYTES,
    REGION_BYTES + 1,
    2 ** 31,
    2 ** 32 - 16,
    2 ** 32 - 1,
  ];
  return random(3) === 0 ? random(2 * PIECE) : lengths[random(lengths.length)];
}

/** A piece that ends with a region, one byte before, or one byte behind it. */
function atTheEnd(random: Random): [bigint, number] {
  const length = 1 + random(PIECE);
  return [BigInt(GUEST[random(2)] + REGION_BYTES - length + random(3) - 1), length];
}

/** One chain; most of it is right, so that what is wrong is reached. */
function build(random: Random, world: World, packed: boolean): void {
  const { bits } = world;
  const elements = 1 + random(random(8) === 0 ? 90 : 4);
  const wrong = random(2) === 0 ? elements : random(elements);
  const wrongDirection = random(6 * elements);
  const hasTable = random(3) === 0;
  const element = (i: number): [bigint, number] =>
    i === wrong
      ? random(3) === 0 ? atTheEnd(random) : [hostileAddress(random, world), hostileLength(random)]
      : [BigInt(GUEST[random(2)] + 0x3000 + random(0x4000)), 1 + random(PIECE)];
  const fields = (flags: number, next: number, turn: number): [number, number] =>
    packed ? [next, flags | turn] : [flags, next];
  const count = hasTable ? Math.min(elements, 64) : elements;
  const strayNext = random(20) === 0 ? random(0x10000) : -1;
  for (let i = 0; i < count; i++) {
    const more = i + 1 < count;
    const next = packed ? random(SIZE) : more && i + 1 === strayNext % count ? strayNext : i + 1;
    const flags = (i === wrongDirection ? bits ^ 2 : bits) | (more ? 1 : 0);
    const at = (hasTable ? TABLE : DESCRIPTORS) + 16 * i;
    world.descriptor(at, [...element(i), ...fields(flags, next, hasTable ? 0 : 0x80)]);
  }
  if (hasTable) {
    const isRight = random(2) === 0;
    const address = isRight ? BigInt(TABLE) : hostileAddress(random, world) & ~15n;
    const bytes = isRight ? 16 * count : 16 * (1 + random(70)) + (random(8) === 0 ? 1 : 0);
    world.descriptor(DESCRIPTORS, [address, bytes, ...fields(4, 0, 0x80)]);
  }
  if (packed) return;
  const head = random(6) === 0 ? [SIZE, SIZE + 1, SIZE + random(4096), 0xffff][random(4)] : 0;
  world.memory.writeU16(DRIVER + 4, head);
  world.memory.writeU16(DRIVER + 2, random(8) === 0 ? random(0x10000) : 1);
}

/** What plain code takes from the ring, piece by piece; null if it takes nothing, or refuses it. */
function judge(queue: SplitVirtqueue | PackedVirtqueue): DescriptorChain | null {
  const chain = new DescriptorChain();
  try {
    return queue.pop(chain) ? chain : null;
  } catch (error) {
    if (!(error instanceof GuestError)) throw error;
    return null;
  }
}

for (const packed of [false, true]) {
  for (const writable of [false, true]) {
    const name = `${packed ? "packed" : "split"} ring, ${writable ? "enqueue" : "dequeue"}`;
    Deno.test(`hostile descriptors reach nothing but their own guest: ${name} (property)`, () => {
      const arena = Arena.reserve();
      assert(arena !== null, "no arena can be had here");
      const world = new World(arena, packed, writable);
      const { burst, memory } = world;
      const setup = {
        size: SIZE,
        descriptors: DESCRIPTORS,
        driver: DRIVER,
        device: DEVICE,
        eventIndex: false,
        indirect: true,
      };
      const make = () => packed ? new PackedVirtqueue(memory, setup) : new SplitVirtqueue(memory, setup);
      let moved = 0;
      let refused = 0;
      for (let run = 0; run < RUNS; run++) {
        const seed = SEED + run;
        const random = newRandom(seed);
        const what = `KERNEL_SEED=${seed} KERNEL_RUNS=1`;
        world.clear();
        build(random, world, packed);
        const judged = judge(make());
        const queue = make();
        let done: number;
        if (writable) {
          burst.beginEnqueue(12, 0);
          for (let i = 0; i < 2; i++) burst.addPiece(world.frames + i * FRAME_BYTES, 20 + random(100), true);
          done = queue.enqueueBurst(burst);
        } else {
          burst.beginDequeue(1, 0, 1e12);
          for (let i = 0; i < 2; i++) burst.addRoom(world.frames + i * FRAME_BYTES, 2048);
          done = queue.dequeueBurst(burst);
        }
        // What stands in a table of a packed ring is read, whatever it says of itself.
        if (!writable && judged?.inPackedTable === true) judged.turnReadable();
        const isFit = judged !== null && (writable ? judged.readableBytes : judged.writableBytes) === 0;
        if (!isFit) assertEquals(done, 0, `${what}: a kernel took what plain code refuses`);
        if (judged === null) refused++;
        moved += done;
        for (let i = 0; i < FRAMES; i++) {
          const frame = world.frame(i);
          const from = !writable && i < done ? burst.bytesOf(i) : 0;
          const isKept = frame.subarray(from).every((byte) => byte === 0x66);
          assert(isKept, `${what}: frame ${i} was written to behind ${from} bytes`);
        }
        if (run % 16 === 0 || RUNS === 1) world.check(what);
        if (done > 0 && !writable) {
          assertEquals(burst.bytesOf(0), judged!.readableBytes, what);
        }
      }
      world.check(`KERNEL_SEED=${SEED}`);
      assert(RUNS < 100 || moved > RUNS / 20, `only ${moved} chains were taken`);
      assert(RUNS < 100 || refused > RUNS / 20, `only ${refused} chains were refused`);
    });
  }
}

Deno.test("a chain of more pieces than a kernel has room for overwrites nothing of what it is told", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  for (const packed of [false, true]) {
    for (const inTable of [false, true]) {
      for (const pieces of [64, 65, 200]) {
        const world = new World(arena, packed, false);
        const { memory, burst } = world;
        const at = inTable ? GUEST[1] : DESCRIPTORS;
        for (let i = 0; i < pieces; i++) {
          const flags = i + 1 < pieces ? 1 : 0;
          const turn = inTable ? 0 : 0x80;
          world.descriptor(at + 16 * i, [
            BigInt(OWN + i),
            1,
            packed ? 3 : flags,
            packed ? flags | turn : i + 1,
          ]);
        }
        if (inTable) {
          const table = BigInt(GUEST[1]);
          world.descriptor(DESCRIPTORS, [table, 16 * pieces, packed ? 3 : 4, packed ? 4 | 0x80 : 0]);
        }
        memory.writeU16(DRIVER + 2, packed ? 0 : 1);
        const setup = {
          size: SIZE,
          descriptors: DESCRIPTORS,
          driver: DRIVER,
          device: DEVICE,
          eventIndex: false,
          indirect: true,
        };
        const queue = packed ? new PackedVirtqueue(memory, setup) : new SplitVirtqueue(memory, setup);
        const rows = (burst.block + 2176) / 8;
        burst.beginDequeue(1, 0, 1e12);
        burst.addRoom(world.frames, 2048);
        assert(burst.reaches(memory));
        const told = [...arena.doubles.subarray(rows, rows + 6)];
        assertEquals(queue.dequeueBurst(burst), pieces <= 64 ? 1 : 0, `${pieces} pieces`);
        assertEquals([...arena.doubles.subarray(rows, rows + 6)], told);
        world.check(`${pieces} pieces`);
        const chain = new DescriptorChain();
        if (pieces > 64) assert(queue.pop(chain) && chain.readableBytes === pieces, "plain code takes it");
      }
    }
  }
});

Deno.test("a packed driver that gives two buffers of one frame the same id is refused, by kernels too", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  for (const ids of [[5, 6, 7], [5, 6, 5], [5, 6, 6]]) {
    const world = new World(arena, true, true);
    const { memory, burst } = world;
    ids.forEach((id, i) => world.descriptor(DESCRIPTORS + 16 * i, [BigInt(OWN + 64 * i), 40, id, 2 | 0x80]));
    const setup = {
      size: SIZE,
      descriptors: DESCRIPTORS,
      driver: DRIVER,
      device: DEVICE,
      eventIndex: false,
      indirect: true,
    };
    const queue = new PackedVirtqueue(memory, setup);
    const before = memory.regions[0].bytes.slice();
    burst.beginEnqueue(12, 10);
    burst.addPiece(world.frames, 100, true);
    const isRight = new Set(ids).size === 3;
    assertEquals(queue.enqueueBurst(burst), isRight ? 1 : 0, `ids ${ids}`);
    assertEquals(before.every((byte, i) => byte === memory.regions[0].bytes[i]), !isRight);
  }
});

Deno.test("a guest that changes its descriptors while kernels look reaches nothing but its own", async () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  for (const packed of [false, true]) {
    for (const writable of [false, true]) {
      const world = new World(arena, packed, writable);
      const { memory, burst, bits } = world;
      const next = packed ? [5, bits | 0x80] : [bits, 0];
      world.descriptor(DESCRIPTORS, [BigInt(OWN), 48, next[0], next[1]]);
      const place = world.places[0] + DESCRIPTORS - GUEST[0];
      // Lengths and addresses that are right, and such that are not, as quickly as a processor can.
      const source = `onmessage = ({ data: { memory, place, good, bad } }) => {
        const words = new Uint32Array(memory.buffer, place, 3);
        const stop = new Int32Array(memory.buffer, 8, 1);
        postMessage("begun");
        for (let i = 0; Atomics.load(stop, 0) !== -1; i++) {
          words[0] = i % 3 === 0 ? bad : good;
          words[2] = i % 5 === 0 ? 0xffff_fff0 : 48;
        }
        postMessage("over");
      };`;
      const stop = new Int32Array(arena.buffer, 8, 1);
      const kept = stop[0];
      const worker = new Worker(URL.createObjectURL(new Blob([source])), { type: "module" });
      const told = () => new Promise((resolve) => worker.onmessage = resolve);
      const begun = told();
      worker.postMessage({ memory: arena.memory, place, good: OWN, bad: GUEST[0] + REGION_BYTES - 8 });
      await begun;
      let moved = 0;
      const setup = {
        size: SIZE,
        descriptors: DESCRIPTORS,
        driver: DRIVER,
        device: DEVICE,
        eventIndex: false,
        indirect: false,
      };
      const from = performance.now();
      const spentMs = () => performance.now() - from;
      while (spentMs() < 100 || moved < 50 && spentMs() < 20_000) {
        for (let i = 0; i < 20; i++) {
          // Used descriptors lie over the available ones of a packed ring: it is made available again.
          if (packed) memory.writeU32(DESCRIPTORS + 12, next[0] | next[1] << 16);
          else {
            memory.writeU16(DRIVER + 2, 1);
            memory.writeU16(DEVICE + 2, 0);
          }
          const queue = packed ? new PackedVirtqueue(memory, setup) : new SplitVirtqueue(memory, setup);
          if (writable) {
            burst.beginEnqueue(12, 0);
            burst.addPiece(world.frames, 40, true);
            moved += queue.enqueueBurst(burst);
          } else {
            burst.beginDequeue(1, 0, 1e12);
            burst.addRoom(world.frames, 64);
            moved += queue.dequeueBurst(burst);
          }
        }
      }
      const over = told();
      Atomics.store(stop, 0, -1);
      await over;
      worker.terminate();
      stop[0] = kept;
      world.check(packed ? "packed" : "split");
      const frame = world.frame(0);
      assert(frame.subarray(64).every((byte) => byte === 0x66), "behind the room");
      const canary = new TextDecoder("latin1").decode(frame.subarray(0, 64));
      assert(
        !canary.includes(new TextDecoder("latin1").decode(pattern(world).subarray(0, 12))),
        "a canary was read",
      );
      assert(moved >= 50, `only ${moved} chains were taken`);
    }
  }
});

function pattern(world: World): Uint8Array {
  return new Uint8Array(world.arena.buffer, 16, 16);
}

Deno.test("kernels leave chains of a wrong direction and tables that cannot be to plain code", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  /** What is wrong, in which layouts, and whether plain code takes it. */
  const cases: [
    what: string,
    packed: boolean,
    table: number,
    flags: number,
    indirect: boolean,
    taken: boolean,
  ][] = [
    ["nothing, elements", false, 0, 0, true, true],
    ["nothing, elements", true, 0, 0, true, true],
    ["nothing, table", false, TABLE, 0, true, true],
    ["nothing, table", true, TABLE, 0, true, true],
    ["direction", false, 0, 2, true, false],
    ["direction", true, 0, 2, true, false],
    ["direction in a table", false, TABLE, 2, true, false],
    ["direction in a table", true, TABLE, 2, true, false],
    ["table without the feature", false, TABLE, 0, false, false],
    ["table without the feature", true, TABLE, 0, false, false],
    ["table in a table", false, TABLE, 4, true, false],
    ["table that is not aligned", false, TABLE + 4, 0, true, false],
    ["table that is not aligned", true, TABLE + 4, 0, true, false],
  ];
  for (const [what, packed, table, flags, indirect, taken] of cases) {
    const world = new World(arena, packed, true);
    const { memory, burst } = world;
    const at = table === 0 ? DESCRIPTORS : table;
    const turn = table === 0 ? 0x80 : 0;
    [1 | 2, 2 ^ flags].forEach((bits, i) =>
      world.descriptor(at + 16 * i, [BigInt(OWN + 64 * i), 48, packed ? 3 : bits, packed ? bits | turn : 1])
    );
    // What stands behind a table that is found in a table.
    if (flags === 4) {
      world.descriptor(at + 16, [BigInt(GUEST[1]), 16, 4, 0]);
      world.descriptor(GUEST[1], [BigInt(OWN), 48, 2, 0]);
    }
    if (table !== 0) {
      world.descriptor(DESCRIPTORS, [BigInt(table), 32, packed ? 3 : 4, packed ? 4 | 0x80 : 0]);
    }
    memory.writeU16(DRIVER + 2, packed ? 0 : 1);
    const setup = {
      size: SIZE,
      descriptors: DESCRIPTORS,
      driver: DRIVER,
      device: DEVICE,
      eventIndex: false,
      indirect,
    };
    const queue = packed ? new PackedVirtqueue(memory, setup) : new SplitVirtqueue(memory, setup);
    burst.beginEnqueue(12, 0);
    burst.addPiece(world.frames, 90, true);
    const before = memory.regions[0].bytes.slice();
    assertEquals(queue.enqueueBurst(burst), taken ? 1 : 0, `${what}, ${packed ? "packed" : "split"}`);
    assertEquals(before.every((byte, i) => byte === memory.regions[0].bytes[i]), !taken, what);
    world.check(what);
  }
});

Deno.test("kernels take a chain that fits exactly, and none that is a byte too long or too short", () => {
  const arena = Arena.reserve();
  assert(arena !== null, "no arena can be had here");
  for (const packed of [false, true]) {
    for (const writable of [false, true]) {
      for (
        const [bytes, isOne] of [[11, true], [12, true], [96, false], [96, true], [97, false], [
          97,
          true,
        ]] as const
      ) {
        const world = new World(arena, packed, writable);
        const { memory, burst, bits } = world;
        const pieces = isOne || bytes < 48 ? [bytes] : [48, bytes - 48];
        pieces.forEach((length, i) => {
          const flags = i + 1 < pieces.length ? 1 | bits : bits;
          const at = DESCRIPTORS + 16 * i;
          world.descriptor(at, [BigInt(OWN + 64 * i), length, packed ? 3 : flags, packed ? flags | 0x80 : 1]);
        });
        memory.writeU16(DRIVER + 2, packed ? 0 : 1);
        const setup = {
          size: SIZE,
          descriptors: DESCRIPTORS,
          driver: DRIVER,
          device: DEVICE,
          eventIndex: false,
          indirect: false,
        };
        const queue = packed ? new PackedVirtqueue(memory, setup) : new SplitVirtqueue(memory, setup);
        const what = `${bytes} bytes, ${packed ? "packed" : "split"}, ${writable ? "enqueue" : "dequeue"}`;
        if (writable) {
          // An item of 11 bytes would fit into the chain of 11, which is below the least.
          burst.beginEnqueue(12, 0);
          burst.addPiece(world.frames, bytes === 97 ? 98 : Math.min(bytes, 96), true);
          assertEquals(queue.enqueueBurst(burst), bytes === 11 || bytes === 97 ? 0 : 1, what);
        } else {
          burst.beginDequeue(12, 0, 1e12);
          burst.addRoom(world.frames, 96);
          assertEquals(queue.dequeueBurst(burst), bytes === 11 || bytes === 97 ? 0 : 1, what);
          assert(world.frame(0).subarray(96).every((byte) => byte === 0x66), what);
        }
      }
    }
  }
});
