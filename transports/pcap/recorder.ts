/**
 * A frame transport around another one that writes down what passes, both ways.
 * @module
 */
import { isPollable, type Pollable } from "../../core/reactor.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import type { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { CaptureWriter } from "./capture_writer.ts";
import { DIRECTION_INBOUND, DIRECTION_OUTBOUND } from "./captured_packet.ts";
import { PcapReplay } from "./replay.ts";

/** What a recorder counts. */
export interface RecorderCounters extends Record<string, number> {
  /** Frames written. */
  written: number;
  /** Frames that passed unwritten, because the disk was too slow or writing failed. */
  writeDropped: number;
}

/**
 * Records the frames of `inner`. It never holds a frame up: if the file cannot take one, that is counted.
 * Frames are written as they pass, so a frame that is still to be segmented or checksummed is written so.
 * Queues are not given to other threads: their frames would pass unseen.
 */
export class PcapRecorder implements FrameTransport, Pollable {
  /** That of the inner transport. */
  readonly maxFrameBytes: number;
  /** Those of the inner transport. */
  readonly capabilities: OffloadCapabilities;
  /** Those of the inner transport. */
  readonly queuePairs: number;
  readonly #inner: FrameTransport;
  readonly #writer: CaptureWriter;
  readonly #counters: RecorderCounters;
  readonly #single = new FrameBatch(1);
  #startNs = -1;
  readonly #replay: PcapReplay | null;
  /** Is it known only with the first frame when the capture begins? */
  #isLate: boolean;

  /**
   * Wraps a transport.
   * @param inner the transport to record, @param writer where to, both owned from now on; @param counters
   * what to count in
   */
  constructor(inner: FrameTransport, writer: CaptureWriter, counters: RecorderCounters) {
    this.#replay = inner instanceof PcapReplay ? inner : null;
    this.#isLate = this.#replay?.isLate ?? false;
    this.#inner = inner;
    this.#writer = writer;
    this.#counters = counters;
    this.maxFrameBytes = inner.maxFrameBytes;
    this.capabilities = inner.capabilities;
    this.queuePairs = inner.queuePairs;
  }

  /** Has the inner transport delivered all that it ever will? */
  get finished(): boolean {
    return this.#inner.finished ?? false;
  }

  /** Has the inner transport still to find out whether there is another frame? */
  get isBehind(): boolean {
    return this.#inner.isBehind ?? false;
  }

  /** Receives from the inner transport. */
  receive(out: FrameBatch, limit: number, queue: number, nowNs: number): number {
    const from = out.length;
    const count = this.#inner.receive(out, limit, queue, nowNs);
    if (count > 0 && this.#isLate && Number.isFinite(nowNs)) {
      this.#writer.setStart(this.#replay!.startUnixNs);
      this.#isLate = false;
      this.#startNs = nowNs;
    }
    const timeNs = this.#sinceStart(nowNs);
    for (let i = from; i < out.length; i++) {
      // What a capture says of a packet beyond its bytes is written back.
      const flags = DIRECTION_INBOUND | (this.#replay?.packetFlags[i - from] ?? 0);
      if (this.#writer.write(out.at(i), flags, timeNs)) this.#counters.written++;
      else this.#counters.writeDropped++;
    }
    return count;
  }

  /** Sends through the inner transport; only frames that it takes are written. */
  send(batch: FrameBatch, queue: number, nowNs: number): number {
    const timeNs = this.#sinceStart(nowNs);
    const single = this.#single;
    for (let i = 0; i < batch.length; i++) {
      // One at a time: a frame must be copied before the inner transport has it, and forgotten if it is not
      // taken.
      const frame = batch.at(i);
      const staged = this.#writer.stage(frame, DIRECTION_OUTBOUND, timeNs);
      single.push(frame);
      const taken = this.#inner.send(single, queue, nowNs);
      single.clear();
      if (taken === 0) return i;
      if (staged) {
        this.#writer.commit();
        this.#counters.written++;
      } else this.#counters.writeDropped++;
    }
    return batch.length;
  }

  /** Tells the inner transport what the guest accepts, if it wants to know. */
  guestCapabilities(capabilities: OffloadCapabilities): void {
    this.#inner.guestCapabilities?.(capabilities);
  }

  /** Tells the inner transport whether there is a guest, if it wants to know. */
  hasGuest(present: boolean): void {
    this.#inner.hasGuest?.(present);
  }

  /** Tells the inner transport how many queue pairs are in use, if it wants to know. */
  useQueuePairs(pairs: number): void {
    this.#inner.useQueuePairs?.(pairs);
  }

  /** Polls the inner transport, if it has work of its own. */
  poll(nowNs: number): boolean {
    return isPollable(this.#inner) && this.#inner.poll(nowNs);
  }

  /** When the inner transport wants attention. */
  deadlineNs(): number {
    return this.#inner.deadlineNs?.() ?? Infinity;
  }

  /** Completes the capture and the inner transport; both are tried before a failure is passed on. */
  async close(): Promise<void> {
    const closing = this.#writer.close();
    const results = await Promise.allSettled([closing, (async () => await this.#inner.close?.())()]);
    this.#counters.written -= this.#writer.unwritten;
    this.#counters.writeDropped += this.#writer.unwritten;
    for (const result of results) if (result.status === "rejected") throw result.reason;
  }

  /** Disposes of both. */
  [Symbol.dispose](): void {
    try {
      this.#inner[Symbol.dispose]();
    } finally {
      this.#writer[Symbol.dispose]();
    }
  }

  #sinceStart(nowNs: number): number {
    if (this.#startNs < 0 && Number.isFinite(nowNs)) this.#startNs = nowNs;
    return nowNs - this.#startNs;
  }
}
