import { assert, assertEquals } from "@std/assert";
import { DescriptorChain, PIECE_UNITS } from "../../rings/descriptor_chain.ts";
import {
  type Device,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FEATURES_OK,
} from "../../core/device.ts";
import { FeatureSet, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1 } from "../../core/features.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { DriverSession } from "../../core/session.ts";
import { ROUND_UNITS, type Virtqueue } from "../../rings/virtqueue.ts";
import { entropy } from "../../devices/entropy/mod.ts";
import { net } from "../../devices/net/mod.ts";
import type { FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF } from "../../wire/net_features.ts";
import { numbered } from "./net/support/rig.ts";

/**
 * What one round may do, in units whose size a driver does not choose: pieces of buffers looked at, bytes
 * copied.
 */

const SIZE = 1024;
const READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const TABLE_ENTRIES = 1024;
const QUEUE_BYTES = 0x10000;
/** Behind the queues: one table to read from, one to write to, data. */
const TABLES = 32 * QUEUE_BYTES;
const DATA = TABLES + 0x20000;
const GUEST_BYTES = DATA + 0x200000;

/** What was done in one round. */
interface Work {
  chains: number;
  pieces: number;
  bytes: number;
}

/**
 * A guest that posts the same long chain everywhere, and a session that counts what the device does with it.
 */
class Rig {
  readonly memory: GuestMemory;
  readonly session: DriverSession;
  readonly device: Device;
  readonly view: DataView;
  readonly #features: FeatureSet;
  readonly #sizes: readonly number[];
  #work: Work = { chains: 0, pieces: 0, bytes: 0 };

  constructor(device: Device, bits: readonly number[] = []) {
    this.device = device;
    const buffer = new ArrayBuffer(GUEST_BYTES);
    this.view = new DataView(buffer);
    this.memory = new GuestMemory([{ guestAddress: 0, size: GUEST_BYTES, buffer, bufferOffset: 0 }]);
    this.#features = FeatureSet.from([VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC, ...bits]);
    this.#sizes = device.queueSizes.map((most) => Math.min(most, SIZE));
    this.session = new DriverSession(device, this.memory, { interrupt() {}, configChanged() {} });
    const { session } = this;
    session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    session.writeDriverFeatures(this.#features);
    session.writeStatus(READY & ~STATUS_DRIVER_OK);
    for (let index = 0; index < this.#sizes.length; index++) {
      session.setupQueue(index, { size: this.#sizes[index], ...place(index) });
    }
    session.writeStatus(READY);
    assertEquals(session.status, READY, session.lastFault?.message);
    for (const queue of session.queues) this.#watch(queue!);
  }

  /** Fills a queue with chains of `entries` pieces of `length` bytes each, all in one table. */
  fill(index: number, writable: boolean, entries: number, length: number): void {
    const size = this.#sizes[index];
    const { descriptors, driver } = place(index);
    const table = TABLES + (writable ? 0x10000 : 0);
    for (let i = 0; i < entries; i++) {
      const flags = (writable ? WRITE : 0) | (i < entries - 1 ? NEXT : 0);
      this.descriptor(table + 16 * i, DATA + (i * length) % 0x100000, length, flags, i + 1);
    }
    for (let i = 0; i < size; i++) {
      this.descriptor(descriptors + 16 * i, table, 16 * entries, INDIRECT, 0);
      this.view.setUint16(driver + 4 + 2 * i, i, true);
    }
    this.view.setUint16(driver + 2, size, true);
  }

  descriptor(at: number, address: number, length: number, flags: number, next: number): void {
    this.view.setBigUint64(at, BigInt(address), true);
    this.view.setUint32(at + 8, length, true);
    this.view.setUint16(at + 12, flags, true);
    this.view.setUint16(at + 14, next, true);
  }

  used(index: number): number {
    return this.view.getUint16(place(index).device + 2, true);
  }

  /** The work of each round, until nothing is done. */
  rounds(limit = 100_000): Work[] {
    const all: Work[] = [];
    for (let did = true; did && all.length < limit;) {
      this.#work = { chains: 0, pieces: 0, bytes: 0 };
      did = this.session.poll(0);
      all.push(this.#work);
    }
    assertEquals(this.session.lastFault, null);
    return all;
  }

  #watch(queue: Virtqueue): void {
    const pop = queue.pop.bind(queue);
    const push = queue.push.bind(queue);
    queue.pop = (chain) => {
      const there = pop(chain);
      if (there) {
        this.#work.chains++;
        this.#work.pieces += chain.pieces;
        this.#work.bytes += chain.readableBytes;
      }
      return there;
    };
    queue.push = (head, written) => {
      this.#work.bytes += written;
      push(head, written);
    };
  }
}

function place(index: number): { descriptors: number; driver: number; device: number } {
  const base = index * QUEUE_BYTES;
  return { descriptors: base, driver: base + 0x4000, device: base + 0x6000 };
}

/** A network with as many frames of one length as are asked for, and that takes all. */
class Flood implements FrameTransport {
  readonly maxFrameBytes = 65_549;
  readonly capabilities = OffloadCapabilities.all;
  readonly queuePairs = 1;
  sent = 0;
  readonly #pool: FramePool;
  readonly #frame: Uint8Array;
  #left: number;

  constructor(pool: FramePool, left = 0, length = 60) {
    this.#pool = pool;
    this.#left = left;
    this.#frame = numbered(1, length);
  }

  receive(out: FrameBatch, limit: number): number {
    let count = 0;
    for (; count < limit && this.#left > 0; count++, this.#left--) {
      const frame = this.#pool.take(this.#frame.length)!;
      frame.bytes.set(this.#frame, frame.start);
      out.push(frame);
    }
    return count;
  }

  send(batch: FrameBatch): number {
    const { length } = batch;
    this.sent += length;
    for (let i = 0; i < length; i++) batch.at(i).release();
    return length;
  }

  [Symbol.dispose](): void {}
}

function netDevice(written: object, frames = 0, length = 60) {
  const pool = new FramePool();
  const network = new Flood(pool, frames, length);
  const options = net.options["~standard"].validate(written);
  assert(!(options instanceof Promise) && options.issues === undefined);
  const counters: Record<string, Record<string, number>> = {};
  const context = {
    name: "net0",
    pool,
    parts: { network, offloads: [] },
    verdicts: null,
    newBuffer: (bytes: number) => new Uint8Array(bytes),
    publish: <T extends Record<string, number>>(group: T, part = ""): T => (counters[part] = group) as T,
  };
  return { device: net.create(context, options.value), network, counters };
}

/** Units of work, as the budget counts them. */
function units({ pieces, bytes }: Work): number {
  return PIECE_UNITS * pieces + bytes;
}

/** One chain may go beyond the budget. */
const ONE_CHAIN = PIECE_UNITS * TABLE_ENTRIES + 65_536;

function assertBounded(rounds: readonly Work[]): void {
  for (const work of rounds) assert(units(work) <= ROUND_UNITS + ONE_CHAIN, JSON.stringify(work));
}

Deno.test("a round takes no more from transmit queues than half of its budget, and serves all pairs in turn", () => {
  const { device, network, counters } = netDevice({ queuePairs: 8 });
  const rig = new Rig(device, [VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ]);
  for (let pair = 0; pair < 8; pair++) rig.fill(2 * pair + 1, false, TABLE_ENTRIES, 64);
  const first = rig.rounds(8);
  for (const work of first) {
    assert(units(work) > 0 && units(work) <= 0.5 * ROUND_UNITS + ONE_CHAIN, JSON.stringify(work));
  }
  const used = Array.from({ length: 8 }, (_, pair) => rig.used(2 * pair + 1));
  assert(Math.max(...used) - Math.min(...used) <= Math.max(...used) / 4, `served unequally: ${used}`);
  rig.rounds();
  assertEquals([counters.fromGuest.packets, network.sent], [8 * SIZE, 8 * SIZE]);
});

Deno.test("a round takes one chain of 4 GiB, and no other", () => {
  const { device, counters } = netDevice({});
  const rig = new Rig(device);
  rig.fill(1, false, TABLE_ENTRIES, 0x100000);
  const rounds = rig.rounds(10);
  assertEquals(rounds.map(({ chains }) => chains), new Array(10).fill(1));
  rig.rounds();
  assertEquals(counters.fromGuest.dropped_too_long, SIZE);
});

Deno.test("a round writes frames into the smallest buffers only as far as its budget goes", () => {
  // Which of them a frame of 64 KiB fits into: in at most 6144 pieces, and as many buffers as the ring has.
  for (
    const [entries, length, fits] of [[1024, 65, true], [32, 2, false], [1, 64, false], [
      1,
      1518,
      true,
    ]] as const
  ) {
    const { device, counters } = netDevice({}, 500, 65_549);
    const rig = new Rig(device, [VIRTIO_NET_F_MRG_RXBUF]);
    rig.fill(0, true, entries, length);
    assertBounded(rig.rounds());
    const { packets, dropped_buffer_too_small: dropped } = counters.toGuest;
    assertEquals([packets > 0, dropped], fits ? [true, 0] : [false, 500], JSON.stringify(counters.toGuest));
    device.reset();
  }
});

Deno.test("a round carries out one of the longest commands, and 64 short ones", () => {
  for (const [length, most] of [[64, 1], [1, 64]]) {
    const { device } = netDevice({});
    const rig = new Rig(device, [VIRTIO_NET_F_CTRL_VQ]);
    rig.fill(2, false, 1, 1);
    const entries = length === 64 ? 1023 : 2;
    for (let i = 0; i <= entries; i++) {
      const writable = i === entries;
      rig.descriptor(
        TABLES + 16 * i,
        DATA + i * length,
        writable ? 1 : length,
        writable ? WRITE : NEXT,
        i + 1,
      );
    }
    for (let i = 0; i < 256; i++) {
      rig.descriptor(place(2).descriptors + 16 * i, TABLES, 16 * (entries + 1), INDIRECT, 0);
    }
    const rounds = rig.rounds();
    assertEquals(Math.max(...rounds.map(({ chains }) => chains)), most);
    assertEquals(rounds.reduce((sum, { chains }) => sum + chains, 0), 256);
  }
});

Deno.test("a round of an entropy device is bounded", () => {
  const options = entropy.options["~standard"].validate({ queueSize: 1024 });
  assert(!(options instanceof Promise) && options.issues === undefined);
  const context = { name: "rng0", publish: <T>(group: T): T => group, network: null, offloads: [] };
  for (const length of [1, 64, 65_536]) {
    const rig = new Rig(entropy.create(context as never, options.value));
    rig.fill(0, true, TABLE_ENTRIES, length);
    const rounds = rig.rounds();
    assertBounded(rounds);
    for (const { bytes } of rounds) assert(bytes <= 262_144 + 65_536);
    assertEquals(rounds.reduce((sum, { chains }) => sum + chains, 0), SIZE);
  }
});

Deno.test("a round of a device that takes whatever there is is bounded by its session", () => {
  const chain = new DescriptorChain();
  let queues: readonly (Virtqueue | null)[] = [];
  const greedy: Device = {
    type: 42,
    name: "greedy",
    features: FeatureSet.of(VIRTIO_F_VERSION_1, VIRTIO_F_INDIRECT_DESC),
    featureNames: new Map(),
    queueSizes: [SIZE, SIZE],
    wake: () => {},
    readConfig: (_offset, target) => void target.fill(0),
    writeConfig() {},
    acceptFeatures() {},
    queuesChanged() {},
    activate: (session) => void (queues = session.queues),
    reset() {},
    drain() {},
    deadlineNs: () => Infinity,
    poll() {
      let did = false;
      for (const queue of queues) {
        const heads: number[] = [];
        while (queue!.pop(chain)) heads.push(chain.head);
        for (const head of heads) queue!.push(head, 0);
        queue!.publish();
        if (heads.length > 0) did = true;
      }
      return did || queues.some((queue) => queue!.enableKicks());
    },
  };
  for (const [entries, length] of [[1024, 1], [1024, 0x10000], [1, 1]]) {
    const rig = new Rig(greedy);
    for (let index = 0; index < 2; index++) rig.fill(index, false, entries, length);
    const rounds = rig.rounds();
    for (const work of rounds) {
      const most = Math.max(ONE_CHAIN, entries * length + PIECE_UNITS * entries);
      assert(units(work) <= ROUND_UNITS + most, JSON.stringify(work));
    }
    assertEquals([rig.used(0), rig.used(1)], [SIZE, SIZE]);
  }
});
