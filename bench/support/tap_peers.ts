/**
 * Who reads and writes frames of a TAP: C, bare calls of ours, and the transport that our devices use. All
 * work on the same descriptor, and get the same frames in the same bursts.
 *
 * Every frame of a burst has a place of its own, as with a device that works in bursts: large ones do not all
 * fit the caches.
 *
 * @module
 */
import { addressOf, libc } from "../../host/libc.ts";
import { type Frame, FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { readNetHeader } from "../../wire/virtio_net_header.ts";
import { headerOf, type TapFrame, type TapNetwork } from "./tap_network.ts";

/** Most frames at a time. */
const MAX_FRAMES = 64;
/**
 * Bytes from one place of a message to the next: an odd number of cache lines, for short frames and for long
 * ones.
 */
const STRIDES = [33 * 64, 1091 * 64];

/** Moves bursts of frames of one kind. */
export interface TapPeer {
  /** ns to read `count` frames, up to 64, that are there. Throws if they are not. */
  read(count: number): number;
  /** ns to write `count` frames, up to 64. Throws if the kernel refuses one. */
  write(count: number): number;
}

/** The library in C, built. Dispose of it. */
export class TapLibrary implements Disposable {
  readonly #folder: string;
  readonly #library: Deno.DynamicLibrary<typeof LIBRARY_SYMBOLS>;

  private constructor(folder: string) {
    this.#folder = folder;
    this.#library = Deno.dlopen(`${folder}/tap_calls.so`, LIBRARY_SYMBOLS);
  }

  /** Builds and opens it. Throws with what is missing, or what the compiler said. */
  static async build(): Promise<TapLibrary> {
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
    try {
      const source = new URL("../peers/tap_calls.c", import.meta.url).pathname;
      const args = ["-O2", "-shared", "-fPIC", source, "-o", `${folder}/tap_calls.so`];
      const { success, stderr } = await new Deno.Command("cc", { args }).output();
      if (!success) throw new Error(`cc has failed: ${new TextDecoder().decode(stderr).trim()}`);
      return new TapLibrary(folder);
    } catch (error) {
      Deno.removeSync(folder, { recursive: true });
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new Error("cc is missing: install gcc and libc6-dev", { cause: error });
    }
  }

  /** The peer that reads and writes in C. */
  peer(network: TapNetwork, frame: TapFrame): TapPeer {
    const { read_frames, write_frames } = this.#library.symbols;
    const { descriptor } = network;
    const { places, stride, bytes } = placesOf(network, frame);
    return {
      read: (count) => came(read_frames(descriptor, places, stride, count, bytes), "C could not read"),
      write: (count) => came(write_frames(descriptor, places, stride, count, bytes), "C could not write"),
    };
  }

  /** Closes it and takes away what was built. */
  [Symbol.dispose](): void {
    this.#library.close();
    Deno.removeSync(this.#folder, { recursive: true });
  }
}

const LIBRARY_SYMBOLS = {
  read_frames: { parameters: ["i32", "buffer", "u32", "i32", "i32"], result: "f64" },
  write_frames: { parameters: ["i32", "buffer", "u32", "i32", "i32"], result: "f64" },
} as const;

/** Bare calls from TypeScript. */
export function bareCalls(network: TapNetwork, frame: TapFrame): TapPeer {
  const c = libc();
  const { descriptor } = network;
  const { places, stride, bytes } = placesOf(network, frame);
  const first = addressOf(places);
  const addresses = Array.from({ length: MAX_FRAMES }, (_, i) => first + BigInt(i * stride));
  const [length, room] = [BigInt(bytes), BigInt(stride)];
  const move = (count: number, call: (address: bigint) => number): number => {
    const startMs = performance.now();
    for (let i = 0; i < count; i++) {
      if (call(addresses[i]) !== bytes) throw new Error("A bare call has failed");
    }
    const ns = (performance.now() - startMs) * 1e6;
    // Their addresses alone do not keep them.
    places[places.length - 1] = 0;
    return ns;
  };
  return {
    read: (count) => move(count, (address) => c.read(descriptor, address, room)),
    write: (count) => move(count, (address) => c.write(descriptor, address, length)),
  };
}

/** Our transport. Frames that are written are there: their content is not copied in the time. */
export function ourTransport(network: TapNetwork, frame: TapFrame, pool: FramePool): TapPeer {
  const { transport, counters } = network;
  const { length } = frame.bytes;
  const batch = new FrameBatch(MAX_FRAMES);
  return {
    read: (count) => {
      let bytes = 0;
      const startMs = performance.now();
      for (let left = count; left > 0;) {
        const read = transport.receive(batch, left, 0, 0);
        if (read === 0) throw new Error("The transport could not read");
        for (let i = 0; i < read; i++) bytes += batch.at(i).total;
        batch.releaseAll();
        left -= read;
      }
      const ns = (performance.now() - startMs) * 1e6;
      if (bytes !== count * length) throw new Error("The transport has read something else");
      return ns;
    },
    write: (count) => {
      for (let i = 0; i < count; i++) batch.push(takeFrame(pool, frame));
      const { written } = counters;
      const startMs = performance.now();
      transport.send(batch, 0, 0);
      const ns = (performance.now() - startMs) * 1e6;
      batch.clear();
      if (counters.written !== written + count) throw new Error("The transport could not write");
      return ns;
    },
  };
}

/** A frame as it comes from a guest. */
function takeFrame(pool: FramePool, { bytes, gsoSize }: TapFrame): Frame {
  const frame = pool.takeCopy(bytes)!;
  if (gsoSize > 0) readNetHeader(new DataView(headerOf({ bytes, gsoSize }, 12).buffer), 0, frame.header);
  return frame;
}

/** 64 times the frame under its header. */
function placesOf(
  { headerBytes }: TapNetwork,
  frame: TapFrame,
): { places: Uint8Array<ArrayBuffer>; stride: number; bytes: number } {
  const bytes = headerBytes + frame.bytes.length;
  const stride = STRIDES.find((stride) => stride >= bytes)!;
  const places = new Uint8Array(MAX_FRAMES * stride);
  for (let i = 0; i < MAX_FRAMES; i++) {
    places.set(headerOf(frame, headerBytes), i * stride);
    places.set(frame.bytes, i * stride + headerBytes);
  }
  return { places, stride, bytes };
}

function came(ns: number, complaint: string): number {
  if (ns < 0) throw new Error(complaint);
  return ns;
}
