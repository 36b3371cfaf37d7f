/**
 * Frames through a TAP in one thread: sent into it, read by our transport, and written to it again.
 * @module
 */
import { FrameBatch } from "../../pipeline/frame.ts";
import { newFramePool } from "../../pipeline/frame_pool.ts";
import { tcpFrame } from "../tcp_frame.ts";
import { TapNetwork } from "./tap_network.ts";

const BURST = 64;

/** A TAP whose frames go round. */
export class GarbageTap implements Disposable {
  readonly #network = new TapNetwork(newFramePool(16 * 1024 * 1024));
  readonly #batch = new FrameBatch(BURST);
  readonly #send = this.#network.sending({ bytes: tcpFrame("v4", 0, 1460).bytes, gsoSize: 0 }, BURST);

  /** Reads and writes `frames` frames. Throws if one was not there. */
  run(frames: number): void {
    const { transport, counters } = this.#network;
    const before = counters.written;
    for (let sent = 0; sent < frames; sent += BURST) {
      this.#send();
      transport.receive(this.#batch, BURST, 0, 0);
      transport.send(this.#batch, 0, 0);
      this.#batch.clear();
    }
    const moved = counters.written - before;
    if (moved < frames) throw new Error(`Only ${moved} of ${frames} frames came through`);
  }

  /** Takes the TAP down. */
  [Symbol.dispose](): void {
    this.#network[Symbol.dispose]();
  }
}
