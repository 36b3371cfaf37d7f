/**
 * A network in memory, and a real network device on it.
 * @module
 */
import { VIRTIO_F_RING_PACKED } from "../../../../core/features.ts";
import { NetDevice, type NetOptions } from "../../../../devices/net/mod.ts";
import type { FrameBatch } from "../../../../pipeline/frame.ts";
import { FramePool } from "../../../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../../../pipeline/offload_capabilities.ts";
import type { NetworkDeviceContext, ResolvedOffload } from "../../../../pipeline/plugin.ts";
import { parseMac } from "../../../../wire/ethernet.ts";

/** Frames that wait for the guest, and frames that it has sent. */
export class FakeNetwork implements FrameTransport {
  readonly maxFrameBytes = 1514;
  readonly capabilities = OffloadCapabilities.none;
  readonly queuePairs = 1;
  /** To the guest, in order. */
  readonly inbox: Uint8Array[] = [];
  /** From the guest, in order. */
  readonly sent: Uint8Array[] = [];
  readonly #pool: FramePool;

  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  receive(out: FrameBatch, limit: number): number {
    let count = 0;
    for (; count < limit && this.inbox.length > 0; count++) {
      const bytes = this.inbox.shift()!;
      const frame = this.#pool.take(bytes.length)!;
      frame.bytes.set(bytes, frame.start);
      out.push(frame);
    }
    return count;
  }

  send(batch: FrameBatch): number {
    const { length } = batch;
    for (let i = 0; i < length; i++) {
      this.sent.push(batch.at(i).toBytes());
      batch.at(i).release();
    }
    return length;
  }

  [Symbol.dispose](): void {}
}

/** A device, its network, its pool, its counters. */
export interface NetRig {
  readonly device: NetDevice;
  readonly network: FakeNetwork;
  readonly pool: FramePool;
  readonly counters: Record<string, Record<string, number>>;
}

/** A network device with these options, and these offloads. */
export function newNetRig(
  options: Partial<NetOptions> = {},
  offloads: readonly ResolvedOffload[] = [],
): NetRig {
  const pool = new FramePool();
  const network = new FakeNetwork(pool);
  const counters: Record<string, Record<string, number>> = {};
  const context: NetworkDeviceContext = {
    name: "net0",
    pool,
    parts: { network, offloads },
    verdicts: null,
    newBuffer: (bytes) => new Uint8Array(bytes),
    publish: (group, part = "") => counters[part] = group,
  };
  const device = new NetDevice(context, {
    mac: parseMac("52:54:00:00:00:01"),
    rules: "strict",
    queuePairs: 1,
    queueSize: 256,
    duplex: 255,
    extraFeatures: [VIRTIO_F_RING_PACKED],
    withheldFeatures: [],
    ...options,
  });
  return { device, network, pool, counters };
}

/** A frame of 60 bytes whose last byte is `number`. */
export function frame(number: number): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x88, 0xb5]);
  bytes[59] = number;
  return bytes;
}

/** The numbers of frames. */
export function numbersOf(frames: readonly Uint8Array[]): number[] {
  return frames.map((bytes) => bytes[59]);
}
