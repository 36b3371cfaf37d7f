/**
 * A network with a queue for each pair, whose other ends the test has: datagram sockets, which like a TAP
 * carry one frame at a time. Its queues can be given to threads.
 * @module
 */
import { z } from "zod";
import { defineNetwork, type NetworkPlugin } from "../../../pipeline/plugin.ts";
import { FileDescriptor } from "../../../host/descriptors.ts";
import { addressOf, libc } from "../../../host/libc.ts";
import { newTapCounters, tap, TapTransport } from "../../../transports/tap/mod.ts";

const AF_UNIX = 1;
/** Keeps the boundaries of frames, and says when the other end is closed. */
const SOCK_SEQPACKET = 5;

/** The test's end of one queue. */
export class FarEnd implements Disposable {
  readonly #socket: FileDescriptor;
  readonly #buffer = new Uint8Array(70_000);
  readonly #address = addressOf(this.#buffer);

  constructor(socket: FileDescriptor) {
    socket.makeNonBlocking();
    this.#socket = socket;
  }

  /** False if there is no room now. */
  write(frame: Uint8Array): boolean {
    this.#buffer.set(frame);
    return libc().write(this.#socket.number, this.#address, BigInt(frame.length)) === frame.length;
  }

  /** The next frame, copied; null if there is none now. */
  read(): Uint8Array<ArrayBuffer> | null {
    const count = libc().read(this.#socket.number, this.#address, BigInt(this.#buffer.length));
    return count <= 0 ? null : this.#buffer.slice(0, count);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** The far ends of the network that was made last, by queue. */
export const farEnds: FarEnd[] = [];

const socketNetwork: NetworkPlugin<{ queues?: number | undefined }> = defineNetwork({
  name: "sockets",
  options: z.strictObject({ queues: z.int().min(1).max(8).optional() }),
  create(context, { queues = context.queuePairs }) {
    const own = Array.from({ length: queues }, (_, queue) => {
      const numbers = new Int32Array(2);
      if (libc().socketpair(AF_UNIX, SOCK_SEQPACKET, 0, new Uint8Array(numbers.buffer)) !== 0) {
        throw new Error("Cannot make a pair of sockets");
      }
      farEnds[queue] = new FarEnd(new FileDescriptor(numbers[1]));
      const near = new FileDescriptor(numbers[0]);
      near.makeNonBlocking();
      return near;
    });
    return new SocketNetwork({ name: "sockets", queues: own, headerBytes: 0, mtu: 1500, largeUdp: false }, {
      pool: context.pool,
      counters: context.publish(newTapCounters()),
      offloads: false,
      watch: (number) => context.watch(number),
    });
  },
  createInWorker: (context, given) => tap.createInWorker!(context, given),
});

/** Closes the far ends as well, which otherwise stay open. */
class SocketNetwork extends TapTransport {
  /** What a TAP does for its kernel; sockets have no use for it. */
  override useQueuePairs(): void {}

  override [Symbol.dispose](): void {
    super[Symbol.dispose]();
    for (const end of farEnds.splice(0)) end[Symbol.dispose]();
  }
}

export default socketNetwork;
