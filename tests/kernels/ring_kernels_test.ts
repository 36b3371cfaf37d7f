import { assert, assertEquals } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import { GuestMemory } from "../../rings/memory.ts";
import {
  BufferList,
  PackedDriverRing,
  type RingPlacement,
  SplitDriverRing,
} from "../../guest/driver_ring.ts";
import { buildQueue } from "../../core/session.ts";
import { RoundBudget } from "../../rings/virtqueue.ts";
import { net, NetDevice, type NetOptions } from "../../devices/net/mod.ts";
import type { Frame, FrameBatch } from "../../pipeline/frame.ts";

import { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_MRG_RXBUF } from "../../wire/net_features.ts";

/**
 * The same random and hostile rings, worked by kernels and by plain code: the same bytes, the same refusals,
 * the same counters.
 */

const MEMORY_BYTES = 0x40000;
/** Two regions that touch in the guest's address space and not here, and one far away. */
const REGIONS = [
  { guestAddress: 0x10000, size: MEMORY_BYTES },
  { guestAddress: 0x50000, size: MEMORY_BYTES },
  { guestAddress: 0x1_0000_0000, size: MEMORY_BYTES },
];
const GAP_BYTES = 4096;
const STRIDE_BYTES = MEMORY_BYTES + GAP_BYTES;
const RING_ADDRESSES = { descriptors: 0x10000, driver: 0x12000, device: 0x14000 };
const TABLES_FROM = 0x18000;
const TABLE_BYTES_OF_A_RING = 0x4000;
const TABLE_ENTRIES = 16;
const BUFFERS_FROM = 0x20000;
const MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

const SEED = Number(Deno.env.get("KERNEL_SEED") ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(Deno.env.get("KERNEL_RUNS") ?? 300);

type Random = (below: number) => number;

/** Numbers that depend on a seed only. */
function newRandom(seed: number): Random {
  let state = seed | 0;
  return (below) => {
    state = state + 0x6d2b79f5 | 0;
    let mixed = Math.imul(state ^ state >>> 15, 1 | state);
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed;
    return ((mixed ^ mixed >>> 14) >>> 0) % below;
  };
}

/** Has frames ready, and takes what it is sent. */
class Network implements FrameTransport {
  readonly capabilities = OffloadCapabilities.none;
  readonly queuePairs = 1;
  readonly ready: Frame[] = [];
  readonly sent: Uint8Array[] = [];

  receive(batch: FrameBatch, limit: number): number {
    const frames = this.ready.splice(0, limit);
    for (const frame of frames) batch.push(frame);
    return frames.length;
  }

  send(batch: FrameBatch): number {
    for (let i = 0; i < batch.length; i++) {
      this.sent.push(batch.at(i).toBytes());
      batch.at(i).release();
    }
    return batch.length;
  }

  get maxFrameBytes(): number {
    return 65_549;
  }

  [Symbol.dispose](): void {}
}

/** A device with one guest, whose memory is a plain buffer or lies in an arena. */
class World {
  readonly memory: GuestMemory;
  readonly pool: FramePool;
  readonly network = new Network();
  readonly device: NetDevice;
  readonly counters: Record<string, Record<string, number>> = {};
  readonly #start: number;
  readonly #buffer: ArrayBuffer;
  readonly #budget = new RoundBudget();

  constructor(arena: Arena | null, features: FeatureSet, size: number) {
    const bytes = REGIONS.length * STRIDE_BYTES + GAP_BYTES;
    this.#start = arena?.takeRange(bytes, 4096) ?? 0;
    this.#buffer = arena?.buffer ?? new ArrayBuffer(bytes);
    this.memory = new GuestMemory(REGIONS.map((region, i) => ({
      ...region,
      buffer: this.#buffer,
      bufferOffset: this.#start + GAP_BYTES + i * STRIDE_BYTES,
    })));
    for (let i = 0; i <= REGIONS.length; i++) this.#gap(i).fill(0xa5);
    this.pool = new FramePool({ maxBytes: 4 << 20, arena });
    this.device = new NetDevice(
      {
        name: "net0",
        pool: this.pool,
        parts: { network: this.network, offloads: [] },
        verdicts: null,
        newBuffer: (bytes) => new Uint8Array(bytes),
        publish: (counters, part = "") => this.counters[part] = counters,
      },
      parse({ mac: "52:54:00:00:00:01", queueSize: 256, hashReport: true }),
    );
    const queue = (at: number) =>
      buildQueue(
        this.memory,
        {
          size,
          descriptors: RING_ADDRESSES.descriptors + at,
          driver: RING_ADDRESSES.driver + at,
          device: RING_ADDRESSES.device + at,
        },
        features,
        undefined,
        this.#budget,
      );
    const session: Session = {
      memory: this.memory,
      queues: [queue(0), queue(0x800), null],
      features,
      startsQueues: true,
      interrupt: () => {},
      configChanged: () => {},
    };
    this.device.acceptFeatures(features);
    this.device.activate(session);
    this.device.queuesChanged();
  }

  /** The gaps around the regions, which belong to no guest. */
  #gap(i: number): Uint8Array {
    return new Uint8Array(this.#buffer, this.#start + i * STRIDE_BYTES, GAP_BYTES);
  }

  /** One round; the rule that the guest has broken, in words. */
  poll(units: number): string | null {
    this.#budget.refill(units);
    try {
      this.device.poll(0);
      return null;
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      return error.message;
    }
  }

  /** All that can be seen from outside. */
  look(): unknown {
    return { sent: this.network.sent.splice(0).map((bytes) => bytes.toHex()), counters: this.counters };
  }

  bytes(i: number): Uint8Array {
    return new Uint8Array(this.#buffer, this.#start + GAP_BYTES + i * STRIDE_BYTES, MEMORY_BYTES);
  }

  checkGaps(): void {
    for (let i = 0; i <= REGIONS.length; i++) {
      assert(this.#gap(i).every((byte) => byte === 0xa5), `gap ${i} was written to`);
    }
  }
}

function parse(options: unknown): NetOptions {
  const result = net.options["~standard"].validate(options);
  if (result instanceof Promise || result.issues !== undefined) throw new Error(JSON.stringify(result));
  return result.value;
}

/** Memory for buffers, given out in turn: what is given back first is given out first. */
class Buffers {
  readonly #from: number;
  readonly #bytes: number;
  readonly #out: number[] = [];
  #next = 0;
  #held = 0;

  /** Gives out `bytes` bytes behind `from`, where the memory behind the rings counts as one piece. */
  constructor(from: number, bytes: number) {
    this.#from = from;
    this.#bytes = bytes;
  }

  /** Adds a chain in some pieces. False if there is no memory for it. */
  add(list: BufferList, random: Random, bytes: number, writable: boolean): boolean {
    list.clear();
    const before = this.#held;
    const pieces = 1 + (random(3) === 0 ? random(TABLE_ENTRIES - 1) : random(2));
    const each = Math.max(1, Math.floor(bytes / pieces));
    for (let i = 0; i < pieces; i++) {
      const length = i + 1 < pieces ? each : Math.max(1, bytes - each * i);
      const address = this.#take(length);
      if (writable) list.addWritable(address, length);
      else list.addReadable(address, length);
    }
    if (this.#held > this.#bytes) return false;
    this.#out.push(this.#held - before);
    return true;
  }

  giveBack(): void {
    this.#held -= this.#out.shift() ?? 0;
  }

  #take(length: number): number {
    // A piece lies at one place in the guest's address space, at most across the seam of the first two
    // regions.
    const seam = 2 * MEMORY_BYTES - (BUFFERS_FROM - 0x10000);
    let skipped = 0;
    for (;;) {
      const at = this.#from + this.#next;
      const ends = this.#from + this.#bytes;
      const end = at < seam ? Math.min(seam, ends) : ends;
      if (at + length <= end) break;
      skipped += end - at;
      this.#next = end === ends ? 0 : end - this.#from;
    }
    const at = this.#from + this.#next;
    this.#next += length;
    this.#held += length + skipped;
    return at < seam ? BUFFERS_FROM + at : REGIONS[2].guestAddress + at - seam;
  }
}

/**
 * What only a hostile driver does: a descriptor or an index becomes anything, but for the low bits of an
 * address: what the device writes must not lie in the rings, where it matters when it is looked at.
 */
function damage(memory: GuestMemory, random: Random): void {
  const parts = [0x10000, 0x10800, TABLES_FROM, TABLES_FROM + TABLE_BYTES_OF_A_RING];
  const descriptor = parts[random(parts.length)] + 16 * random(16);
  const value = random(4) === 0 ? random(256) : 1 << random(8);
  switch (random(4)) {
    case 0:
      return memory.writeU8(descriptor + 4 + random(4), 2 + value & 0xfe);
    case 1:
      return memory.writeU8((random(2) === 0 ? 0x12000 : 0x12800) + random(70), value);
    default:
      return memory.writeU8(descriptor + 8 + random(8), value);
  }
}

/** One scenario. Returns frames that were moved, and rules that were broken. */
function run(arena: Arena, seed: number, isHostile: boolean): { moved: number; faults: number } {
  const random = newRandom(seed);
  const isPacked = random(2) === 0;
  const hasTables = random(2) === 0;
  const bits = [VIRTIO_F_VERSION_1];
  if (isPacked) bits.push(VIRTIO_F_RING_PACKED);
  if (hasTables) bits.push(VIRTIO_F_INDIRECT_DESC);
  if (random(2) === 0) bits.push(VIRTIO_F_EVENT_IDX);
  const isMergeable = random(3) > 0;
  if (isMergeable) bits.push(VIRTIO_NET_F_MRG_RXBUF);
  if (random(4) === 0) bits.push(VIRTIO_NET_F_HASH_REPORT);
  const features = FeatureSet.of(...bits);
  const size = isPacked ? 4 + random(40) : 4 << random(4);
  const worlds = [new World(arena, features, size), new World(null, features, size)];
  const [quick, plain] = worlds;
  const rings = [0, 1].map((queue) => {
    const at = queue * 0x800;
    const place: RingPlacement = {
      size,
      descriptors: RING_ADDRESSES.descriptors + at,
      driver: RING_ADDRESSES.driver + at,
      device: RING_ADDRESSES.device + at,
      eventIndex: features.has(VIRTIO_F_EVENT_IDX),
      indirect: hasTables,
      tables: TABLES_FROM + queue * TABLE_BYTES_OF_A_RING,
      tableEntries: hasTables ? TABLE_ENTRIES : 0,
      indirectUse: hasTables ? (random(2) === 0 ? "always" : "chains") : "never",
    };
    return isPacked ? new PackedDriverRing(quick.memory, place) : new SplitDriverRing(quick.memory, place);
  });
  const list = new BufferList(TABLE_ENTRIES);
  const all = 3 * MEMORY_BYTES - (BUFFERS_FROM - 0x10000);
  const buffers = [new Buffers(0, all - 0x40000), new Buffers(all - 0x40000, 0x40000)];
  let moved = 0;
  let faults = 0;
  for (let round = 0; round < 12; round++) {
    for (const [queue, ring] of rings.entries()) {
      for (let i = random(size + 1); i > 0; i--) {
        const isLarge = random(6) === 0;
        const bytes = queue === 0
          ? (isMergeable && random(2) === 0 ? 20 + random(400) : 20 + random(isLarge ? 20_000 : 2500))
          : random(8) === 0
          ? 20 + random(40)
          : 26 + random(isLarge ? 9000 : 1600);
        if (!buffers[queue].add(list, random, bytes, queue === 0) || !ring.add(list, 0)) break;
        if (queue === 1 && random(3) > 0) {
          quick.memory.copyIn(list.addresses[0], new Uint8Array(12), 0, Math.min(12, list.lengths[0]));
        }
      }
      ring.publish();
      if (random(3) === 0) ring.enableInterrupts();
    }
    if (isHostile && random(3) === 0) damage(quick.memory, random);
    for (let i = 0; i < REGIONS.length; i++) plain.bytes(i).set(quick.bytes(i));
    for (let i = random(70); i > 0 && quick.network.ready.length < 70; i--) {
      const bytes = new Uint8Array(14 + (random(8) === 0 ? random(9000) : random(1500)));
      for (let at = 0; at < bytes.length; at += 1 + random(40)) bytes[at] = random(256);
      bytes.set(MAC);
      const cut = random(4) === 0 ? 1 + random(bytes.length - 1) : bytes.length;
      const shift = random(10) === 0 ? 64 : 0;
      for (const { pool, network } of worlds) {
        const frame = pool.takeCopy(bytes.subarray(0, cut))!;
        // A stage may have used the headroom up.
        if (shift > 0) {
          frame.bytes.copyWithin(frame.start - shift, frame.start, frame.start + frame.length);
          frame.start -= shift;
        }
        if (cut < bytes.length) frame.append(pool.takeCopy(bytes.subarray(cut))!);
        network.ready.push(frame);
      }
    }
    const units = random(6) === 0 ? random(60_000) : 14_680_064;
    const before = quick.counters.toGuest.packets + quick.counters.fromGuest.packets;
    const said = worlds.map((world) => world.poll(units));
    // A driver that takes a list of a packed ring back after it was shown: plain code has counted it already, and
    // pops it; a kernel looks anew, and finds that there is none. Each is right, and the scenario is over.
    if (isHostile && isPacked && said[0] === null && said[1] !== null) {
      faults++;
      break;
    }
    assertEquals(said[0], said[1], `round ${round}`);
    assertEquals(quick.look(), plain.look(), `round ${round}`);
    for (let i = 0; i < REGIONS.length; i++) {
      const at = firstDifference(quick.bytes(i), plain.bytes(i));
      assertEquals(at, -1, `round ${round}: region ${i} differs at ${at}`);
    }
    for (const world of worlds) world.checkGaps();
    moved += quick.counters.toGuest.packets + quick.counters.fromGuest.packets - before;
    if (said[0] !== null) {
      faults++;
      break;
    }
    for (const [queue, ring] of rings.entries()) while (ring.takeUsed() >= 0) buffers[queue].giveBack();
  }
  for (const { device, network, pool } of worlds) {
    device.reset();
    for (const frame of network.ready) frame.release();
    assertEquals(pool.inUse, 0);
  }
  return { moved, faults };
}

function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

/** Runs many scenarios; an error names the seed with which one is run again alone. */
function runMany(isHostile: boolean): { moved: number; faults: number } {
  let arena = Arena.reserve();
  const sum = { moved: 0, faults: 0 };
  for (let i = 0; i < RUNS; i++) {
    // Each scenario keeps what it takes of an arena.
    if (i % 200 === 199) arena = Arena.reserve();
    assert(arena !== null, "no arena can be had here");
    try {
      const { moved, faults } = run(arena, SEED + i, isHostile);
      sum.moved += moved;
      sum.faults += faults;
    } catch (cause) {
      throw new Error(`KERNEL_SEED=${SEED + i} KERNEL_RUNS=1`, { cause });
    }
  }
  return sum;
}

Deno.test("kernels move random traffic as plain code does: the same bytes and counters (property)", () => {
  const { moved, faults } = runMany(false);
  assertEquals(faults, 0);
  assert(moved > 50 * RUNS, `only ${moved} frames were moved`);
});

Deno.test("kernels meet hostile rings as plain code does: the same refusals, and nothing else is touched (property)", () => {
  const { faults } = runMany(true);
  assert(RUNS < 100 || faults > RUNS / 20, `only ${faults} of ${RUNS} drivers broke a rule`);
});
