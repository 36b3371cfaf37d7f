import { assertEquals } from "@std/assert";
import { FileDescriptor } from "../../../../host/descriptors.ts";
import { addressOf, libc } from "../../../../host/libc.ts";
import { type Frame, FrameBatch, type NetHeader } from "../../../../pipeline/frame.ts";
import { FramePool } from "../../../../pipeline/frame_pool.ts";
import { newTapCounters, type TapCounters, TapTransport } from "../../../../transports/tap/mod.ts";
import { readNetHeader, writeNetHeader } from "../../../../wire/virtio_net_header.ts";

/**
 * The TAP's data path over a pair of datagram sockets, which like a TAP carry one frame at a time: no rights
 * are needed, and every answer of the kernel can be brought about.
 */

/** What a header says. */
export type Facts = Partial<Omit<NetHeader, "clear" | "copyFrom">>;

/** No facts at all. */
export const NO_FACTS = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

interface RigOptions {
  readonly headerBytes?: number;
  readonly mtu?: number;
  readonly pool?: FramePool;
  readonly sendBufferBytes?: number;
}

/** Do rigs make several system calls at once? */
let batchesCalls = true;

/**
 * A test that is run twice: with several system calls at once, where this host has that, and call by call.
 */
export function bothWays(name: string, test: () => void): void {
  for (const batches of [true, false]) {
    Deno.test(batches ? name : `${name}, call by call`, () => {
      batchesCalls = batches;
      test();
    });
  }
}

/** A transport whose other end is a socket of the test. */
export class Rig implements Disposable {
  readonly pool: FramePool;
  readonly counters: TapCounters = newTapCounters();
  readonly transport: TapTransport;
  readonly kernel: FileDescriptor;
  readonly headerBytes: number;
  readonly watched: number[] = [];
  readonly out: FrameBatch = new FrameBatch();

  constructor({ headerBytes = 12, mtu = 1500, pool = new FramePool(), sendBufferBytes }: RigOptions = {}) {
    const numbers = new Int32Array(2);
    assertEquals(libc().socketpair(AF_UNIX, SOCK_DGRAM, 0, new Uint8Array(numbers.buffer)), 0);
    const own = new FileDescriptor(numbers[0]);
    own.makeNonBlocking();
    if (sendBufferBytes !== undefined) setSendBuffer(own.number, sendBufferBytes);
    this.kernel = new FileDescriptor(numbers[1]);
    this.kernel.makeNonBlocking();
    this.pool = pool;
    this.headerBytes = headerBytes;
    this.transport = new TapTransport({ name: "tap7", queues: [own], headerBytes, mtu, largeUdp: true }, {
      pool,
      counters: this.counters,
      offloads: true,
      batchesCalls,
      watch: (number) => {
        this.watched.push(number);
        return { [Symbol.dispose]: () => void this.watched.splice(this.watched.indexOf(number), 1) };
      },
    });
  }

  /** The kernel delivers a frame. */
  arrive(frame: Uint8Array, facts: Facts = {}): void {
    const bytes = new Uint8Array(this.headerBytes + frame.length);
    if (this.headerBytes > 0) {
      writeNetHeader(new DataView(bytes.buffer), 0, { ...NO_FACTS, ...facts }, 0, this.headerBytes);
    }
    bytes.set(frame, this.headerBytes);
    this.arriveRaw(bytes);
  }

  arriveRaw(bytes: Uint8Array<ArrayBuffer>): void {
    assertEquals(libc().write(this.kernel.number, addressOf(bytes), BigInt(bytes.length)), bytes.length);
  }

  /** The frames that the transport delivers; the caller owns them. */
  receive(limit = 64, nowNs = 1000): Frame[] {
    this.out.clear();
    const count = this.transport.receive(this.out, limit, 0, nowNs);
    assertEquals(count, this.out.length);
    return Array.from({ length: count }, (_, i) => this.out.at(i));
  }

  /** Sends frames and says how many were taken; the rest is released. */
  send(...frames: Frame[]): number {
    const batch = new FrameBatch();
    for (const frame of frames) batch.push(frame);
    const count = this.transport.send(batch, 0, 0);
    batch.dropFirst(count);
    batch.releaseAll();
    return count;
  }

  /** A frame of the pool with these bytes and facts. */
  frame(bytes: Uint8Array, facts: Facts = {}): Frame {
    const frame = this.pool.takeCopy(bytes)!;
    Object.assign(frame.header, facts);
    return frame;
  }

  /** What the kernel has got next: null if nothing. */
  taken(): { facts: Required<Facts>; bytes: Uint8Array } | null {
    const buffer = new Uint8Array(100_000);
    const count = libc().read(this.kernel.number, addressOf(buffer), BigInt(buffer.length));
    if (count < 0) return null;
    const facts = { ...NO_FACTS };
    if (this.headerBytes > 0) readNetHeader(new DataView(buffer.buffer), 0, facts);
    return { facts, bytes: buffer.slice(this.headerBytes, count) };
  }

  [Symbol.dispose](): void {
    this.transport[Symbol.dispose]();
    this.kernel[Symbol.dispose]();
    assertEquals(this.pool.inUse, 0, "frames were not given back");
    assertEquals(this.watched, []);
  }
}

function setSendBuffer(number: number, bytes: number): void {
  const { setsockopt } = Deno.dlopen("libc.so.6", {
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  }).symbols;
  assertEquals(setsockopt(number, SOL_SOCKET, SO_SNDBUF, Int32Array.of(bytes), 4), 0);
}

/** Bytes that tell their place. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => Math.imul(i + seed, 0x9e3779b1) >>> 21);
}

/** The facts of a frame. */
export function factsOf({ header }: Frame): Required<Facts> {
  const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = header;
  return { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset };
}

/** The lengths of its pieces. */
export function pieces(frame: Frame): number[] {
  const lengths = [];
  for (let piece: Frame | null = frame; piece !== null; piece = piece.next) lengths.push(piece.length);
  return lengths;
}
