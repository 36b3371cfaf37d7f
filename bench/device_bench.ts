/**
 * The whole network device in memory: frames from a network that has them ready, through filter, steering and stages, into the
 * buffers of a guest, used ring published; and from a guest's buffers to a network that takes them. Nobody is on the other
 * side: the driver's part is only to make the same buffers available again, which costs a nanosecond or two.
 *
 *     deno run --allow-read bench/device_bench.ts [--json]
 *
 * @module
 */
import { newFramePool } from "../config/frame_memory.ts";
import type { Session } from "../core/device.ts";
import { FeatureSet, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "../core/features.ts";
import type { FrameBatch } from "../core/frame_batch.ts";
import type { FramePool } from "../core/frame_pool.ts";
import { GuestMemory } from "../core/memory.ts";
import { buildQueue } from "../core/queue_setup.ts";
import type { FrameTransport } from "../core/transport.ts";
import { net, NetDevice, type NetOptions } from "../devices/net/mod.ts";
import { VIRTIO_NET_F_MRG_RXBUF } from "../wire/net_features.ts";
import { median } from "./support/statistics.ts";
import { tcpFrame } from "./tcp_frame.ts";

const SIZE = 256;
const BURST = 64;
const ROUNDS = 40_000;
const RUNS = 7;
const BUFFERS_AT = 0x100000;
const BUFFER_BYTES = 2048;
const MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

/** A network with a burst of frames ready in every round, which takes all that it is given. */
class ReadyNetwork implements FrameTransport {
  readonly maxFrameBytes = 65_550;
  readonly abilities = { partialChecksum: false, largeTcp: false, largeUdp: false };
  readonly queuePairs = 1;
  sent = 0;
  /** Frames for the next rounds. */
  ready = 0;
  readonly #pool: FramePool;
  readonly #frameBytes: number;

  /** Whatever frame the pool gives, it says the same: writing it is the work of a network card or a kernel, not ours. */
  constructor(pool: FramePool, frame: Uint8Array) {
    this.#pool = pool;
    this.#frameBytes = frame.length;
    const all = Array.from({ length: 4 * BURST }, () => pool.takeCopy(frame)!);
    for (const one of all) one.release();
  }

  receive(out: FrameBatch, limit: number): number {
    const count = Math.min(limit, this.ready);
    this.ready -= count;
    for (let i = 0; i < count; i++) {
      out.push(this.#pool.take(this.#frameBytes)!);
    }
    return count;
  }

  send(batch: FrameBatch): number {
    for (let i = 0; i < batch.length; i++) batch.at(i).release();
    this.sent += batch.length;
    return batch.length;
  }

  [Symbol.dispose](): void {}
}

/** A driver that makes the same buffers available over and over. */
interface Ring {
  refill(count: number): void;
}

function splitRing(buffer: ArrayBuffer, base: number, bytes: number, writable: boolean): Ring {
  const descriptors = new Uint32Array(buffer, base, SIZE * 4);
  const available = new Uint16Array(buffer, base + 0x4000, SIZE + 3);
  for (let i = 0; i < SIZE; i++) {
    descriptors.set([BUFFERS_AT + i * BUFFER_BYTES, 0, bytes, writable ? 2 : 0], i * 4);
    available[2 + i] = i;
  }
  return { refill: (count) => void (available[1] += count) };
}

function packedRing(buffer: ArrayBuffer, base: number, bytes: number, writable: boolean): Ring {
  const ring = new Uint32Array(buffer, base, SIZE * 4);
  let slot = 0;
  let mark = 0x0080;
  return {
    refill: (count) => {
      for (let i = 0; i < count; i++) {
        const at = slot * 4;
        ring[at] = BUFFERS_AT + slot * BUFFER_BYTES;
        ring[at + 2] = bytes;
        ring[at + 3] = ((writable ? 2 : 0) | mark) << 16 | slot;
        if (++slot < SIZE) continue;
        slot = 0;
        mark ^= 0x8080;
      }
    },
  };
}

/** One device, one guest, one direction. */
class Rig {
  readonly #device: NetDevice;
  readonly #network: ReadyNetwork;
  readonly #ring: Ring;
  readonly #toGuest: boolean;
  readonly #counters: Record<string, Record<string, number>> = {};

  constructor(layout: "split" | "packed", frameBytes: number, toGuest: boolean) {
    const pool = newFramePool(16 * 1024 * 1024);
    const whole = tcpFrame("v4", 0, 1448).bytes;
    whole.set(MAC, 0);
    this.#network = new ReadyNetwork(pool, whole.subarray(0, frameBytes));
    this.#toGuest = toGuest;
    const options = parse({ mac: "52:54:00:00:00:01", queueSize: SIZE });
    this.#device = new NetDevice(
      {
        name: "net0",
        pool,
        offloads: [],
        network: this.#network,
        verdicts: null,
        publish: (counters, part = "") => this.#counters[part] = counters,
      },
      options,
      this.#network,
    );
    const buffer = new ArrayBuffer(4 * 1024 * 1024);
    const memory = new GuestMemory([{ guestAddress: 0, size: buffer.byteLength, buffer, bufferOffset: 0 }]);
    const bits = [VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF];
    if (layout === "packed") bits.push(VIRTIO_F_RING_PACKED);
    const features = FeatureSet.of(...bits);
    const queues = [0x10000, 0x20000].map((base) =>
      buildQueue(memory, {
        addresses: { size: SIZE, descriptors: base, driver: base + 0x4000, device: base + 0x8000 },
        base: undefined,
      }, features)
    );
    const make = layout === "split" ? splitRing : packedRing;
    this.#ring = toGuest
      ? make(buffer, 0x10000, BUFFER_BYTES, true)
      : make(buffer, 0x20000, frameBytes + 12, false);
    const session: Session = { memory, queues, features, interrupt: () => {}, configChanged: () => {} };
    this.#device.acceptFeatures(features);
    this.#device.activate(session);
  }

  /** Runs bursts; returns ns per frame. */
  run(rounds: number): number {
    const before = this.#moved();
    const start = performance.now();
    for (let round = 0; round < rounds; round++) {
      this.#ring.refill(BURST);
      if (this.#toGuest) this.#network.ready = BURST;
      this.#device.poll(round);
    }
    const ns = (performance.now() - start) * 1e6;
    const moved = this.#moved() - before;
    if (moved !== rounds * BURST) throw new Error(`Only ${moved} of ${rounds * BURST} frames came through`);
    return ns / moved;
  }

  #moved(): number {
    return this.#toGuest ? this.#counters.toGuest.packets : this.#network.sent;
  }
}

function parse(input: unknown): NetOptions {
  const result = net.options["~standard"].validate(input);
  if (result instanceof Promise || result.issues !== undefined) throw new Error("The options are wrong");
  return result.value;
}

const rows = [];
for (const toGuest of [true, false]) {
  for (const layout of ["split", "packed"] as const) {
    for (const bytes of [64, 1502]) {
      rows.push({ toGuest, layout, bytes, rig: new Rig(layout, bytes, toGuest) });
    }
  }
}
const source = new Uint8Array(1448);
const target = new Uint8Array(BURST * 1448);
const copies: number[] = [];
const figures = rows.map((): number[] => []);
// Interleaved, so that a change of the machine's mood meets all of them.
for (let run = 0; run <= RUNS; run++) {
  const start = performance.now();
  for (let i = 0; i < 40_000; i++) target.set(source, i % BURST * 1448);
  copies.push((performance.now() - start) / 40_000 * 1e6);
  for (const [i, { rig }] of rows.entries()) {
    const ns = rig.run(ROUNDS / 8);
    if (run > 0) figures[i].push(ns);
  }
}
const memcpyNs = median(copies);
const result = rows.map(({ toGuest, layout, bytes }, i) => ({
  direction: toGuest ? "to guest" : "from guest",
  layout,
  bytes,
  nsPerFrame: median(figures[i]),
}));
if (Deno.args.includes("--json")) {
  console.log(JSON.stringify({ deno: Deno.version.deno, runs: RUNS, memcpyNs, rows: result }, null, 2));
} else {
  console.log(
    `ns per frame through the whole device in memory, median of ${RUNS} runs, Deno ${Deno.version.deno}`,
  );
  console.log(`A copy of 1448 bytes costs ${memcpyNs.toFixed(0)} ns on this machine now.\n`);
  for (const { direction, layout, bytes, nsPerFrame } of result) {
    console.log(
      `${direction.padEnd(12)}${layout.padEnd(8)}${String(bytes).padStart(5)} B ${
        nsPerFrame.toFixed(0).padStart(6)
      }`,
    );
  }
}
