/**
 * A network plugin that has frames ready without end, or none, and takes all that it is given: never the
 * bottleneck.
 *
 * Its queues can be given to threads. Frames are written once, into every slot of the pool that is in use at
 * a time: writing them is the work of a network card, not ours. Only one way may have traffic at a time if
 * frames are to stay what they are.
 * @module
 */
import { z } from "zod";
import type { FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { defineNetwork, type NetworkPlugin } from "../../pipeline/plugin.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";

/** More than a device holds: a burst, and what waits for buffers. */
const FRAMES = 256;
/** An EtherType for experiments (IEEE 802): no stage looks into such frames. */
const EXPERIMENTAL = [0x88, 0xb5];
const SOURCE = [0x52, 0x54, 0, 0, 0, 0x77];

const options = z.strictObject({ frameBytes: z.int().min(ETHERNET_HEADER_BYTES).max(9014).nullable() });

/** What is written of it, and what a thread is given. */
export interface FloodOptions {
  /** Bytes of each frame that there is, or null if there are none. */
  readonly frameBytes: number | null;
}

/** The network. */
class Flood implements FrameTransport {
  readonly maxFrameBytes = 65_550;
  readonly capabilities: OffloadCapabilities = OffloadCapabilities.none;
  readonly queuePairs: number;
  readonly #pool: FramePool;
  readonly #frameBytes: number | null;

  constructor(pool: FramePool, { frameBytes }: FloodOptions, queuePairs: number) {
    this.#pool = pool;
    this.#frameBytes = frameBytes;
    this.queuePairs = queuePairs;
    if (frameBytes === null) return;
    const bytes = new Uint8Array(frameBytes);
    // Broadcast: no filter refuses it.
    bytes.fill(0xff, 0, 6);
    bytes.set([...SOURCE, ...EXPERIMENTAL], 6);
    const all = Array.from({ length: FRAMES * queuePairs }, () => pool.takeCopy(bytes)!);
    for (const frame of all) frame.release();
  }

  receive(out: FrameBatch, limit: number): number {
    const bytes = this.#frameBytes;
    if (bytes === null) return 0;
    let count = 0;
    for (; count < limit; count++) {
      const frame = this.#pool.take(bytes);
      if (frame === null) break;
      out.push(frame);
    }
    return count;
  }

  send(batch: FrameBatch): number {
    const count = batch.length;
    for (let i = 0; i < count; i++) batch.at(i).release();
    return count;
  }

  giveToWorker(): FloodOptions {
    return { frameBytes: this.#frameBytes };
  }

  [Symbol.dispose](): void {}
}

/** The plugin. */
const flood: NetworkPlugin<FloodOptions> = defineNetwork({
  name: "flood",
  options,
  create: (context, written) => new Flood(context.pool, written, context.queuePairs),
  createInWorker: (context, given) => new Flood(context.pool, given as FloodOptions, 1),
});

export default flood;
