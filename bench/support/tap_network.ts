/**
 * A TAP in a network of its own, and a sender on that network.
 *
 * The sender is a packet socket that hands frames to the interface itself, past the queueing discipline: what
 * it sends lies in the TAP's queue when the call returns, unless that is full. With a virtio-net header it
 * can send frames of 64 KiB, as TCP of this host does. What is written to the TAP is dropped: its MAC address
 * is not the interface's.
 *
 * @module
 */
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { FileDescriptor, O_CLOEXEC } from "../../host/descriptors.ts";
import { addressOf, checked, cString, errno, libc, SystemCallError } from "../../host/libc.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { newTapCounters, openTap, type TapCounters, TapTransport } from "../../transports/tap/mod.ts";

const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOL_PACKET = 263;
const PACKET_VNET_HDR = 15;
const PACKET_QDISC_BYPASS = 20;
/** struct sockaddr_ll. */
const ADDRESS_BYTES = 20;
/** The interface in a network of its own. */
const NAME = "bench0";
/** The header before each frame that the sender sends. */
const SENT_HEADER_BYTES = 10;

const { symbols: c } = Deno.dlopen("libc.so.6", {
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
});

/** Frames of one kind. */
export interface TapFrame {
  /** The frame, without a header. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Is it to be segmented, to segments of `gsoSize` bytes of data? Its headers have 54 bytes. */
  readonly gsoSize: number;
}

/**
 * The virtio-net header of such a frame: TCP over IPv4 with a partial checksum, or finished.
 * @param bytes 10 or 12
 */
export function headerOf({ gsoSize }: TapFrame, bytes: number): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(bytes);
  if (gsoSize === 0) return header;
  const view = new DataView(header.buffer);
  header.set([1, 1]);
  view.setUint16(2, 54, true);
  view.setUint16(4, gsoSize, true);
  view.setUint16(6, 34, true);
  view.setUint16(8, 16, true);
  return header;
}

/** A TAP and its network. */
export class TapNetwork implements Disposable {
  /** The TAP as our device uses it. */
  readonly transport: TapTransport;
  /** Its only queue. */
  readonly descriptor: number;
  /** Bytes of the header before each frame that is read or written. */
  readonly headerBytes: number;
  /** What the transport counts. */
  readonly counters: TapCounters = newTapCounters();
  readonly #sender: PacketSender;
  readonly #owned: DisposableStack;

  /** Makes it. Throws HostError. @param pool where received frames go */
  constructor(pool: FramePool) {
    using made = new DisposableStack();
    const namespace = made.use(new Namespace());
    // No family of addresses: nothing but the sender says anything.
    namespace.command("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6 || true");
    const open = namespace.run(() =>
      openTap(
        { interface: NAME, persistent: false, up: true, vnetHeader: true, offloads: "auto" },
        1,
        "bench",
      )
    );
    this.descriptor = open.queues[0].number;
    this.headerBytes = open.headerBytes;
    this.transport = made.use(
      new TapTransport(open, {
        pool,
        counters: this.counters,
        offloads: true,
        watch: () => ({ [Symbol.dispose]: () => {} }),
      }),
    );
    this.transport.guestCapabilities(OffloadCapabilities.all);
    this.#sender = made.use(new PacketSender(namespace, NAME));
    this.#owned = made.move();
  }

  /** Something that sends `count` frames into the TAP; there must be room for them. Throws HostError. */
  sending(frame: TapFrame, count: number): () => void {
    return this.#sender.sending(frame, count);
  }

  /** Takes everything down. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

/** Sends frames out of an interface: into a TAP, for its reader. */
export class PacketSender implements Disposable {
  readonly #socket: FileDescriptor;

  /** Opens it. Throws HostError. @param namespace where the interface is; @param name what it is called */
  constructor(namespace: Namespace, name: string) {
    this.#socket = namespace.run(() => openSender(name));
  }

  /** Something that sends `count` frames, the bytes of which may change meanwhile. It throws HostError. */
  sending(frame: TapFrame, count: number): () => void {
    const message = new Uint8Array(SENT_HEADER_BYTES + frame.bytes.length);
    message.set(headerOf(frame, SENT_HEADER_BYTES));
    const address = addressOf(message);
    const bytes = BigInt(message.length);
    const { number } = this.#socket;
    const { write } = libc();
    return () => {
      message.set(frame.bytes, SENT_HEADER_BYTES);
      for (let i = 0; i < count; i++) {
        if (write(number, address, bytes) < 0) throw new SystemCallError("send into the TAP", errno());
      }
    };
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

function openSender(name: string): FileDescriptor {
  const number = checked(libc().socket(AF_PACKET, SOCK_RAW | O_CLOEXEC, 0), "make a packet socket");
  using made = new DisposableStack();
  const socket = made.use(new FileDescriptor(number));
  const on = new Uint8Array(new Int32Array([1]).buffer);
  for (const option of [PACKET_VNET_HDR, PACKET_QDISC_BYPASS]) {
    checked(c.setsockopt(number, SOL_PACKET, option, on, on.length), "set up a packet socket");
  }
  const address = new Uint8Array(ADDRESS_BYTES);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setInt32(4, c.if_nametoindex(cString(name)), true);
  checked(libc().bind(number, address, ADDRESS_BYTES), "bind a packet socket to the TAP");
  made.move();
  return socket;
}
