import { type Clock, ManualClock } from "../../../core/clock.ts";
import { FrameBatch } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import type { NetworkContext } from "../../../pipeline/plugin.ts";

/**
 * What the tests of frame transports share.
 */

/** A context that publishes into `published` and shares within itself. */
export class TestContext implements NetworkContext {
  readonly path = "devices[0].network";
  readonly arena = null;
  readonly pool: FramePool = new FramePool();
  clock: Clock = new ManualClock();
  readonly guestMac: Uint8Array = Uint8Array.of(0x52, 0x54, 0, 0, 0, 1);
  readonly queuePairs = 1;
  readonly published: Record<string, number>[] = [];
  readonly #shared = new Map<string, unknown>();
  wakes = 0;
  innerTransport: FrameTransport | null = null;
  innerConfig: unknown = null;

  resolvePath(path: string): string {
    return path;
  }

  claimFile(): void {}

  onStart(action: () => void): void {
    action();
  }

  shared<T>(key: string, make: () => T): T {
    if (!this.#shared.has(key)) this.#shared.set(key, make());
    return this.#shared.get(key) as T;
  }

  wake(): void {
    this.wakes++;
  }

  watch(): Disposable {
    throw new Error("no watch was expected");
  }

  publish<T extends Record<string, number>>(counters: T): T {
    this.published.push(counters);
    return counters;
  }

  inner(config: unknown): FrameTransport {
    this.innerConfig = config;
    if (this.innerTransport === null) throw new Error("no inner transport was expected");
    return this.innerTransport;
  }
}

/** One received frame, copied. */
export interface Received {
  number: number;
  bytes: Uint8Array;
}

/** Receives up to `limit` frames, copies and releases them. */
export function receive(transport: FrameTransport, nowNs: number, limit = 64): Received[] {
  const batch = new FrameBatch();
  const count = transport.receive(batch, limit, 0, nowNs);
  if (count !== batch.length) throw new Error(`receive() said ${count} and delivered ${batch.length}`);
  const received = [];
  for (let i = 0; i < batch.length; i++) {
    received.push({ number: batch.at(i).number, bytes: batch.at(i).toBytes() });
  }
  batch.releaseAll();
  return received;
}

/** Sends copies of these frames and returns how many were taken; releases the others. */
export function send(
  transport: FrameTransport,
  pool: FramePool,
  nowNs: number,
  ...frames: Uint8Array[]
): number {
  const batch = new FrameBatch();
  for (const bytes of frames) batch.push(pool.takeCopy(bytes)!);
  const taken = transport.send(batch, 0, nowNs);
  batch.dropFirst(taken);
  batch.releaseAll();
  return taken;
}
