/**
 * A traffic generator: a network that has TCP segments, in order, of some flows in turn, and takes all that
 * it is given. Allocates nothing.
 * @module
 */
import type { FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { defineNetwork, type NetworkPlugin } from "../../pipeline/plugin.ts";
import { type TcpFrame, tcpFrame } from "../tcp_frame.ts";

/** Where its segments go: the address in them. */
export const GENERATOR_MAC = "52:54:00:12:34:56";

const FLOWS = 8;
/** Payload of a segment that fills an Ethernet frame. */
const FULL_PAYLOAD_BYTES = 1448;

/** The network. */
export class TrafficGenerator implements FrameTransport {
  readonly maxFrameBytes = 65_550;
  readonly capabilities = OffloadCapabilities.none;
  readonly queuePairs = 1;
  /** Segments that are there to be received. */
  ready = 0;
  /** Frames that it has taken. */
  sent = 0;
  /** A plugin named `generator` that is this network. */
  readonly plugin: NetworkPlugin<unknown>;
  readonly #flows: readonly TcpFrame[];
  readonly #payloadBytes: number;
  #pool: FramePool | null = null;
  #next = 0;

  constructor(payloadBytes = FULL_PAYLOAD_BYTES) {
    this.#payloadBytes = payloadBytes;
    this.#flows = Array.from({ length: FLOWS }, (_, flow) => tcpFrame("v4", flow, payloadBytes));
    this.plugin = defineNetwork({
      name: "generator",
      options: { "~standard": { version: 1, vendor: "bench", validate: (value: unknown) => ({ value }) } },
      create: (context) => {
        this.#pool = context.pool;
        return this;
      },
    });
  }

  /** A segment as it comes, and as a guest may send it. */
  get frame(): Uint8Array<ArrayBuffer> {
    return this.#flows[0].bytes;
  }

  /** Segments, as many as are ready and the pool has frames for. */
  receive(out: FrameBatch, limit: number): number {
    const count = Math.min(limit, this.ready);
    for (let i = 0; i < count; i++) {
      const flow = this.#flows[this.#next];
      const frame = this.#pool!.takeCopy(flow.bytes);
      if (frame === null) return i;
      out.push(frame);
      flow.advance(this.#payloadBytes);
      this.#next = (this.#next + 1) % FLOWS;
      this.ready--;
    }
    return count;
  }

  /** Takes all of them. */
  send(batch: FrameBatch): number {
    for (let i = 0; i < batch.length; i++) batch.at(i).release();
    this.sent += batch.length;
    return batch.length;
  }

  /** There is nothing to close. */
  [Symbol.dispose](): void {}
}
