/**
 * A whole network device in memory: filter, steering, stages, rings. There is no guest and no network: a
 * driver and a generator that do next to nothing stand for them.
 *
 * Theory of operation. A round makes buffers available, tells the network that a burst of 64 frames is ready
 * (or lets 64 chains be ready in the guest's transmit queues), and polls the device once. All that is timed
 * is the device, and the driver's stores to make buffers available. Guest memory is one file of memory,
 * mapped as that of a real guest is, and cut into regions, each 4 KiB apart from the next in the guest's
 * address space; the rings are in the first region, the buffers where `scattered` says. Memory of the
 * runtime's own is copied by typed arrays, not by the C library.
 *
 * @module
 */
import type { Arena } from "../../rings/arena.ts";
import type { Session } from "../../core/device.ts";
import { FeatureSet, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "../../core/features.ts";
import { GuestMemory } from "../../rings/memory.ts";
import { buildQueue } from "../../core/session.ts";
import { net, NetDevice, type NetOptions } from "../../devices/net/mod.ts";
import { MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { newFramePool } from "../../pipeline/frame_pool.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF } from "../../wire/net_features.ts";
import { tcpFrame } from "../tcp_frame.ts";
import { ReadyNetwork } from "./ready_network.ts";
import { Stopwatch } from "./stopwatch.ts";
import {
  packedRing,
  type Ring,
  RING_BYTES,
  RING_SIZE,
  ringAddresses,
  type RingSetup,
  splitRing,
} from "./recycling_driver.ts";

const BURST = 64;
/** Rounds that are timed together. */
const LAP_ROUNDS = 20;
const BUFFER_BYTES = 2048;
const VIRTQ_DESC_F_WRITE = 2;
const HEADER_BYTES = 12;
const MEMORY_BYTES = 64 * 1024 * 1024;
const REGION_GAP_BYTES = 4096;
const MAC = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);

/** What the device is like. */
export interface DeviceSetup {
  /** Which rings. More than one queue pair only with split rings. */
  readonly layout: "split" | "packed";
  /** Bytes of every frame, at least 54. */
  readonly frameBytes: number;
  /** Which way frames go. */
  readonly toGuest: boolean;
  /** Queue pairs; default 1. */
  readonly queuePairs?: number;
  /** Regions of the guest's memory, 1 to 509; default 1. */
  readonly regions?: number;
  /** Is the guest's memory the runtime's own instead of mapped? */
  readonly ownMemory?: boolean;
  /** Are buffers anywhere in memory, instead of in a row? Must be, if there is more than one region. */
  readonly scattered?: boolean;
}

/** One device, one guest, one direction. */
export class DeviceRig {
  readonly #device: NetDevice;
  readonly #network: ReadyNetwork;
  readonly #rings: readonly Ring[];
  readonly #toGuest: boolean;
  readonly #watch = new Stopwatch();
  readonly #counters: Record<string, Record<string, number>> = {};

  /** Builds and activates it. */
  constructor(setup: DeviceSetup) {
    const { layout, frameBytes, toGuest, queuePairs = 1, regions = 1, scattered = false } = setup;
    const pool = newFramePool(16 * 1024 * 1024);
    this.#toGuest = toGuest;
    this.#network = new ReadyNetwork(pool, someFrames(frameBytes));
    this.#device = new NetDevice(
      {
        name: "net0",
        pool,
        parts: { network: this.#network, offloads: [] },
        verdicts: null,
        newBuffer: (bytes) => new Uint8Array(bytes),
        publish: (counters, part = "") => this.#counters[part] = counters,
      },
      parse({ mac: "52:54:00:00:00:01", queueSize: RING_SIZE, queuePairs }),
    );
    const memory = cutMemory(regions, setup.ownMemory === true, pool.arena);
    const { buffer, bufferOffset } = memory.regions[0];
    const bits = [VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF];
    if (layout === "packed") bits.push(VIRTIO_F_RING_PACKED);
    if (queuePairs > 1) bits.push(VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ);
    const features = FeatureSet.of(...bits);
    const make = layout === "split" ? splitRing : packedRing;
    const queues = [];
    const rings: Ring[] = [];
    for (let index = 0; index < 2 * queuePairs; index++) {
      const at = index * RING_BYTES;
      const isReceive = index % 2 === 0;
      if (isReceive === toGuest) {
        rings.push(make({
          buffer,
          at: bufferOffset + at,
          addresses: scattered
            ? anywhere(memory, index, 2 * queuePairs * RING_BYTES)
            : inARow(index, 2 * queuePairs * RING_BYTES),
          bytes: isReceive ? BUFFER_BYTES : frameBytes + HEADER_BYTES,
          flags: isReceive ? VIRTQ_DESC_F_WRITE : 0,
          each: ringShare(setup),
        }));
      }
      queues.push(buildQueue(memory, ringAddresses(at), features));
    }
    this.#rings = rings;
    const session: Session = {
      memory,
      queues: queuePairs > 1 ? [...queues, null] : queues,
      features,
      startsQueues: true,
      interrupt: () => {},
      configChanged: () => {},
    };
    this.#device.acceptFeatures(features);
    this.#device.activate(session);
    this.#device.queuesChanged();
  }

  /** Runs bursts of 64 frames; returns ns per frame. Throws if one did not come through. */
  run(rounds: number): number {
    const before = this.#moved();
    const laps = Math.ceil(rounds / LAP_ROUNDS);
    this.#watch.reset(laps);
    for (let lap = 0; lap < laps; lap++) {
      this.#watch.start();
      for (let round = 0; round < LAP_ROUNDS; round++) {
        for (let i = 0; i < this.#rings.length; i++) this.#rings[i].refill();
        if (this.#toGuest) this.#network.ready = BURST;
        this.#device.poll(round);
      }
      this.#watch.stop();
      this.#watch.lap();
    }
    const moved = this.#moved() - before;
    const due = laps * LAP_ROUNDS * BURST;
    if (moved !== due) throw new Error(`Only ${moved} of ${due} frames came through`);
    return this.#watch.lapNs / (LAP_ROUNDS * BURST);
  }

  #moved(): number {
    return this.#toGuest ? this.#counters.toGuest.packets : this.#network.sent;
  }
}

/**
 * To the guest, steering chooses the pair: each driver's ring is filled up. From it, the burst comes in equal
 * parts.
 */
function ringShare({ toGuest, queuePairs = 1 }: DeviceSetup): RingSetup["each"] {
  if (toGuest && queuePairs > 1) return "returned";
  return BURST / queuePairs;
}

/** Segments of many flows to the device's address. */
function someFrames(frameBytes: number): Uint8Array[] {
  return Array.from({ length: 256 }, (_, flow) => {
    const { bytes } = tcpFrame("v4", flow, Math.max(0, frameBytes - 54));
    bytes.set(MAC);
    return bytes;
  });
}

/** The guest's memory; mapped for as long as this process runs. */
function cutMemory(count: number, ownMemory: boolean, arena: Arena | null): GuestMemory {
  const size = Math.floor(MEMORY_BYTES / count / 4096) * 4096;
  const mapping = ownMemory ? null : mapMemory(arena);
  const buffer = mapping?.buffer ?? new ArrayBuffer(MEMORY_BYTES);
  const start = mapping?.bufferOffset ?? 0;
  return new GuestMemory(Array.from({ length: count }, (_, i) => ({
    guestAddress: i * (size + REGION_GAP_BYTES),
    size,
    buffer,
    bufferOffset: start + i * size,
  })));
}

function mapMemory(arena: Arena | null): MemoryMapping {
  using file = newMemoryFile("bench", MEMORY_BYTES);
  const range = { offsetBytes: 0, lengthBytes: MEMORY_BYTES };
  return MemoryMapping.map(file.number, range, "the guest's memory", undefined, arena);
}

/** Guest addresses of a queue's buffers, in a row behind the rings. */
function inARow(queue: number, behind: number): number[] {
  return Array.from({ length: RING_SIZE }, (_, i) => behind + (queue * RING_SIZE + i) * BUFFER_BYTES);
}

/** Guest addresses of a queue's buffers, anywhere but in the rings, the same in every run. */
function anywhere({ regions }: GuestMemory, queue: number, behind: number): number[] {
  let random = 12_345 + queue;
  const draw = (below: number): number => {
    random = Math.imul(random, 1_103_515_245) + 12_345 >>> 0;
    return Math.floor(random / 2 ** 32 * below);
  };
  return Array.from({ length: RING_SIZE }, () => {
    const which = draw(regions.length);
    const least = which === 0 ? behind : 0;
    const { guestAddress, size } = regions[which];
    return guestAddress + least + Math.floor(draw(size - least - BUFFER_BYTES) / 64) * 64;
  });
}

function parse(input: unknown): NetOptions {
  const result = net.options["~standard"].validate(input);
  if (result instanceof Promise || result.issues !== undefined) throw new Error("The options are wrong");
  return result.value;
}
