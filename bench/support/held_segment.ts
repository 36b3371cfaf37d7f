/**
 * How long a segment takes from a TAP to the interrupt of a guest, through a machine in a process of its own:
 * at once if nothing coalesces, else when its interval is over.
 *
 * This process is the network and the guest: it sends a segment, stands still until the event of the receive
 * queue rings, and looks at what came. Between two segments it waits until the machine sleeps.
 *
 * @module
 */
import { libc } from "../../host/libc.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { SocketFrontEnd } from "../../rigs/vhost_user/socket_front_end.ts";
import { tcpFrame } from "../tcp_frame.ts";
import type { Backend } from "./backend.ts";
import { startGuestBackend } from "./guest_backend.ts";
import { PacketSender } from "./tap_network.ts";

const INTERFACE = "bench0";
const PAYLOAD_BYTES = 1448;
/** For the machine to carry out a message. */
const MESSAGE_MS = 5;
/** For the machine to fall asleep again. */
const PAUSE_MS = 2;
/** For a segment to arrive, however busy this host is. */
const PATIENCE_MS = 30_000;
/** From one segment to the next, while it is not known whether the guest is served. */
const TRIAL_MS = 200;
const POLLIN = 1;
const NOTHING = `Nothing has come to the guest within ${PATIENCE_MS / 1000} s`;
/** Segments that do not count. */
const WARM_UP = 50;

const nothing = new Int32Array(new SharedArrayBuffer(4));

/** What the machine is like. */
export interface HeldSetup {
  /** Who works the queue pair. */
  readonly mode: "loop" | "threads";
  /** How long a segment is held; null: it is not. */
  readonly intervalUs: number | null;
  /** How long the machine polls at most before it sleeps, in µs; left out: not at all. */
  readonly pollMaxUs?: number;
}

/** A machine between a TAP and a guest, both ours. */
export class HeldSegments implements AsyncDisposable {
  readonly #backend: Backend;
  readonly #front: SocketFrontEnd;
  readonly #send: () => void;
  readonly #owned: DisposableStack;

  private constructor(
    backend: Backend,
    front: SocketFrontEnd,
    send: () => void,
    owned: DisposableStack,
  ) {
    this.#backend = backend;
    this.#front = front;
    this.#send = send;
    this.#owned = owned;
  }

  /** Starts it all. */
  static async start({ mode, intervalUs, pollMaxUs = 0 }: HeldSetup): Promise<HeldSegments> {
    using made = new DisposableStack();
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
    made.defer(() => Deno.removeSync(folder, { recursive: true }));
    const namespace = made.use(new Namespace());
    namespace.command("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true");
    const backend = await startGuestBackend(namespace, `${folder}/config.json`, {
      pollMaxUs,
      devices: [{
        use: "net",
        mode,
        mac: "52:54:00:12:34:56",
        driver: { use: "vhost-user", socket: "net0.sock" },
        network: { use: "tap", interface: INTERFACE },
        offloads: intervalUs === null ? [] : [{ use: "rsc-v4", intervalUs }],
      }],
    });
    try {
      const front = made.use(
        new SocketFrontEnd(UnixStream.connect(`${folder}/net0.sock`), {}, () => pause(MESSAGE_MS)),
      );
      front.start();
      front.kicks[0].signal();
      const flow = tcpFrame("v4", 0, PAYLOAD_BYTES);
      const sender = made.use(new PacketSender(namespace, INTERFACE));
      const sendOne = sender.sending({ bytes: flow.bytes, gsoSize: 0 }, 1);
      const send = () => {
        sendOne();
        flow.advance(PAYLOAD_BYTES);
      };
      const segments = new HeldSegments(backend, front, send, made.move());
      segments.#reach();
      for (let i = 0; i < WARM_UP; i++) segments.#one();
      return segments;
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Sends `samples` segments, one after the other, and returns how many ns each took. */
  measure(samples: number): number[] {
    return Array.from({ length: samples }, () => this.#one());
  }

  /** Ends everything. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#backend[Symbol.asyncDispose]();
    this.#owned.dispose();
  }

  /**
   * Sends segments until one arrives, and waits for those on the way. A machine throws away what has come
   * before its guest, and threads begin to serve rings some time after they are described.
   */
  #reach(): void {
    const endMs = performance.now() + PATIENCE_MS;
    do {
      if (performance.now() > endMs) throw new Error(NOTHING);
      this.#send();
      this.#isCalled(TRIAL_MS);
    } while (this.#take() === 0);
    while (this.#isCalled(TRIAL_MS)) this.#take();
  }

  #one(): number {
    pause(PAUSE_MS);
    const startMs = performance.now();
    this.#send();
    let ns: number;
    let frames: number;
    // An interrupt need not bring a frame: each ring that is made anew begins with one.
    do {
      if (!this.#isCalled(PATIENCE_MS)) throw new Error(NOTHING);
      ns = (performance.now() - startMs) * 1e6;
      frames = this.#take();
    } while (frames === 0);
    if (frames !== 1) throw new Error(`${frames} frames have come instead of one`);
    return ns;
  }

  /** Takes what has come to the guest and gives the buffers back. Returns how many frames. */
  #take(): number {
    const { guest, calls, kicks } = this.#front;
    calls[0].drain();
    const { length } = guest.received(0);
    if (length > 0 && guest.post(0, length)) kicks[0].signal();
    return length;
  }

  /** Stands still until the guest is interrupted. False if it is not for `limitMs`. */
  #isCalled(limitMs: number): boolean {
    const set = new Int32Array([this.#front.calls[0].fd.number, POLLIN]);
    return libc().poll(new Uint8Array(set.buffer), 1n, limitMs) === 1;
  }
}

function pause(ms: number): void {
  Atomics.wait(nothing, 0, 0, ms);
}
