/**
 * A port of an in-memory cable: a frame transport with a bounded queue of frames that have arrived.
 * @module
 */
import type { Frame, NetHeader } from "../../core/frame.ts";
import type { FrameBatch } from "../../core/frame_batch.ts";
import { type FramePool, MAX_FRAME_BYTES } from "../../core/frame_pool.ts";
import type { NetworkAbilities } from "../../core/stage.ts";
import type { FrameTransport } from "../../core/transport.ts";

/** What a port counts. */
export interface CablePortCounters extends Record<string, number> {
  /** Frames of this port that the cable took. */
  sent: number;
  /** Frames delivered to this port's owner. */
  received: number;
  /** Frames that `inject` put in. */
  injected: number;
  /** Frames for several ports that this one missed because its queue was full. */
  queueFull: number;
  /** Frames for several ports that this one missed because no frame was left for a copy. */
  poolEmpty: number;
  /** Frames for this port dropped because its device has no guest, or its guest has gone before they were received. */
  noGuest: number;
  /** Frames sent while no other port was there. */
  noReceiver: number;
  /** Frames sent to an address behind this same port. */
  ownAddress: number;
  /** Frames sent with work left to do (checksum, segmentation) on a cable that does not carry such. */
  unfinished: number;
  /** Frames sent that are shorter than an Ethernet header. */
  tooShort: number;
  /** Frames sent in pieces that are too long for one frame together. */
  tooLong: number;
}

/** Counters at 0. */
export function newCablePortCounters(): CablePortCounters {
  return {
    sent: 0,
    received: 0,
    injected: 0,
    queueFull: 0,
    poolEmpty: 0,
    noGuest: 0,
    noReceiver: 0,
    ownAddress: 0,
    unfinished: 0,
    tooShort: 0,
    tooLong: 0,
  };
}

/** What a port needs. */
export interface CablePortSettings {
  /** Copies for this port come from here. */
  readonly pool: FramePool;
  /** The most frames that wait for this port; default 1024. */
  readonly queueFrames?: number;
  /** Does the cable carry frames that are still to be checksummed or segmented? Default false. */
  readonly largeFrames?: boolean;
  /** The address of the guest at this port, six bytes: no other port of the cable can claim it. Left out: it is learned. */
  readonly mac?: Uint8Array;
  /** Called when a frame has arrived. */
  readonly wake?: () => void;
  /** What to count in. */
  readonly counters?: CablePortCounters;
}

/** The facts that may be injected with a frame. */
export type NetHeaderFields = Omit<NetHeader, "clear" | "copyFrom">;

/** Told of a frame that the cable took; the frame is lent until it returns. */
export type CableTap = (frame: Frame, nowNs: number) => void;

/** The cable, as its ports see it. */
export interface CableEnd {
  /** Carries a frame that `from` sends; false if there is no room yet, and the frame stays the caller's. */
  carry(from: CablePort, frame: Frame, nowNs: number): boolean;
  /** The guest of this port has gone. */
  forget(port: CablePort): void;
  /** Takes the port off the cable. */
  unplug(port: CablePort): void;
}

/** One end of a cable. Made by `LoopbackCable.plug`. */
export class CablePort implements FrameTransport {
  /** As long as a frame can be. */
  readonly maxFrameBytes: number = MAX_FRAME_BYTES;
  /** All if the cable carries large frames, else none. */
  readonly abilities: NetworkAbilities;
  /** A port is one queue. */
  readonly queuePairs: number = 1;
  /** What it has counted. */
  readonly counters: CablePortCounters;
  /** Copies for this port come from here. */
  readonly pool: FramePool;
  readonly #cable: CableEnd;
  readonly #wake: () => void;
  readonly #frames: (Frame | null)[];
  readonly #atNs: Float64Array;
  readonly #taps: CableTap[] = [];
  #first = 0;
  #waiting = 0;
  #open = true;
  #isDeaf = false;

  /** Made by a cable only. */
  constructor(cable: CableEnd, settings: CablePortSettings) {
    const large = settings.largeFrames ?? false;
    const size = settings.queueFrames ?? 1024;
    if (!Number.isInteger(size) || size < 1 || size > 65_536) {
      throw new RangeError(`Cannot make a port with a queue of ${size} frames: it must have 1 to 65536`);
    }
    this.abilities = { partialChecksum: large, largeTcp: large, largeUdp: large };
    this.counters = settings.counters ?? newCablePortCounters();
    this.pool = settings.pool;
    this.#cable = cable;
    this.#wake = settings.wake ?? (() => {});
    this.#frames = new Array<Frame | null>(size).fill(null);
    this.#atNs = new Float64Array(size);
  }

  /** Is there room for another frame? */
  get hasRoom(): boolean {
    return this.#waiting < this.#frames.length;
  }

  /** Has it no guest? Then frames for it are dropped, and counted as `noGuest`. A port that was never told has one. */
  get isDeaf(): boolean {
    return this.#isDeaf;
  }

  /** How many frames wait to be received. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Receives frames that have arrived, numbered from 1. */
  receive(out: FrameBatch, limit: number, _queue: number, nowNs: number): number {
    let count = 0;
    while (count < limit && this.#waiting > 0 && this.#atNs[this.#first] <= nowNs) {
      const frame = this.#frames[this.#first]!;
      this.#frames[this.#first] = null;
      this.#first = this.#first + 1 === this.#frames.length ? 0 : this.#first + 1;
      this.#waiting--;
      frame.number = ++this.counters.received;
      out.push(frame);
      count++;
    }
    return count;
  }

  /** Sends frames, until one has a single receiver whose queue is full. */
  send(batch: FrameBatch, _queue: number, nowNs: number): number {
    if (!this.#open) return 0;
    for (let i = 0; i < batch.length; i++) {
      if (!this.#cable.carry(this, batch.at(i), nowNs)) return i;
    }
    return batch.length;
  }

  /** When the next frame arrives, or has arrived. */
  deadlineNs(): number {
    return this.#waiting === 0 ? Infinity : this.#atNs[this.#first];
  }

  /** What has arrived for a guest that goes is dropped, and what its address was is forgotten. */
  hasGuest(present: boolean): void {
    this.#isDeaf = !present;
    if (present) return;
    this.counters.noGuest += this.#waiting;
    this.#releaseWaiting();
    this.#cable.forget(this);
  }

  /** For the cable: drops a frame for a port without a guest. */
  miss(frame: Frame): void {
    this.counters.noGuest++;
    frame.release();
  }

  /**
   * Puts a frame into this port's queue, as if it had come over the cable. For the open end of a cable: tests and
   * recorded vectors.
   * @param bytes the frame, copied; @param header facts that go with it; @param atNs when it arrives, at the earliest
   * @returns false if the queue is full or the pool empty
   */
  inject(bytes: Uint8Array, header: Partial<NetHeaderFields> = {}, atNs = 0): boolean {
    if (!this.#open || !this.hasRoom) return false;
    const frame = this.pool.takeCopy(bytes);
    if (frame === null) return false;
    Object.assign(frame.header, header);
    this.counters.injected++;
    this.arrive(frame, atNs);
    return true;
  }

  /** Has `tap` told of every frame that the cable takes from this port. Returns how to stop it. */
  tap(tap: CableTap): () => void {
    this.#taps.push(tap);
    return () => {
      const at = this.#taps.indexOf(tap);
      if (at >= 0) this.#taps.splice(at, 1);
    };
  }

  /** For the cable: it takes this frame from this port. */
  noteSent(frame: Frame, nowNs: number): void {
    this.counters.sent++;
    for (let i = 0; i < this.#taps.length; i++) this.#taps[i](frame, nowNs);
  }

  /** For the cable: a frame for this port, which must have room. */
  arrive(frame: Frame, atNs: number): void {
    const free = (this.#first + this.#waiting) % this.#frames.length;
    frame.queue = 0;
    frame.offerAgain = false;
    this.#frames[free] = frame;
    this.#atNs[free] = Number.isFinite(atNs) ? atNs : 0;
    this.#waiting++;
    this.#wake();
  }

  /** Leaves the cable and releases what was waiting. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#cable.unplug(this);
    this.#releaseWaiting();
  }

  #releaseWaiting(): void {
    for (; this.#waiting > 0; this.#waiting--) {
      this.#frames[this.#first]!.release();
      this.#frames[this.#first] = null;
      this.#first = (this.#first + 1) % this.#frames.length;
    }
  }
}
