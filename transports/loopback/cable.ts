/**
 * An in-memory cable with any number of ports: what one sends, the others receive.
 *
 * Theory of operation. The cable is a small learning switch without time: `carry` notes the sender's address
 * (`MacTable`), looks the receiver's up, and moves the frame into the queue of one port, or of all others if
 * the address is a group's or unknown. Nothing is copied for a single receiver: the frame itself changes
 * hands. For several, all but the last get a copy from their own pool. Ports are served in the order of their
 * numbers, so equal input gives equal output.
 *
 * Fullness. A frame with one receiver waits for it: `carry` answers false, the sender keeps the frame and
 * offers it again, and nothing is lost. A frame for several does not wait: a port without room misses it
 * (`queueFull`), for one starved port must not stop the others. So a cable with two ports loses nothing at
 * all.
 *
 * A port whose device has no guest takes nothing: frames for it are dropped (`noGuest`), and so is what waits
 * there when a guest goes. So nothing that one guest has caused reaches the next, and no sender waits for a
 * guest that is not there.
 *
 * A frame in several pieces becomes one piece on the way, because what a transport delivers is in one piece.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { type Frame, type FrameBatch, MAX_FRAME_BYTES } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import { type NetHeaderFields, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";

/** The most ports of a cable. */
export const MAX_CABLE_PORTS = 256;
/** Places of the table of addresses. */
const MAC_ENTRIES = 1024;
/** No port is known for an address. */
export const NO_PORT = -1;
/** How long an address is known that is not seen again, in ns, as in IEEE 802.1D. */
const MAC_AGE_NS = 300e9;

/**
 * A cable.
 *
 * @example
 * ```ts
 * import { FrameBatch } from "../../pipeline/frame.ts";
 * import { FramePool } from "../../pipeline/frame_pool.ts";
 * import { LoopbackCable } from "./cable.ts";
 * const pool = new FramePool();
 * const cable = new LoopbackCable();
 * using left = cable.plug({ pool });
 * using right = cable.plug({ pool });
 * const batch = new FrameBatch();
 * const frame = pool.take(60)!;
 * frame.bytes.fill(255, frame.start, frame.start + 6); // broadcast
 * batch.push(frame);
 * left.send(batch, 0, 0);
 * batch.clear();
 * if (right.receive(batch, 64, 0, 0) !== 1) throw new Error("unreachable");
 * batch.releaseAll();
 * ```
 */
export class LoopbackCable implements CableEnd {
  readonly #ports: (CablePort | null)[] = [];
  readonly #macs = new MacTable();
  #plugged = 0;

  /**
   * Adds a port. Throws HostError if the cable is full, or if its ports do not agree on `largeFrames`.
   * @param settings what the port needs; @param path where it stands in the configuration, for messages
   */
  plug(settings: CablePortSettings, path = "cable"): CablePort {
    for (const other of this.#ports) {
      if (other !== null && other.capabilities.csum !== (settings.largeFrames ?? false)) {
        throw new HostError(
          `${path}: largeFrames is ${
            settings.largeFrames ?? false
          }, and another port of this cable says otherwise; ` +
            `give all ports of a cable the same value`,
        );
      }
    }
    if (this.#plugged === MAX_CABLE_PORTS) {
      throw new HostError(`${path}: the cable has ${MAX_CABLE_PORTS} ports already; use another cable`);
    }
    const port = new CablePort(this, settings);
    const free = this.#ports.indexOf(null);
    if (free >= 0) this.#ports[free] = port;
    else this.#ports.push(port);
    const { mac } = settings;
    if (mac !== undefined && mac.some((byte) => byte !== 0)) {
      this.#macs.fix(mac, 0, this.#ports.indexOf(port));
    }
    this.#plugged++;
    return port;
  }

  /** Takes a port off the cable; called by the port when it is disposed of. */
  unplug(port: CablePort): void {
    const at = this.#ports.indexOf(port);
    if (at < 0) return;
    this.#ports[at] = null;
    this.#macs.forget(at, true);
    this.#plugged--;
  }

  /** The guest of this port has gone: what was learned of it is forgotten. */
  forget(port: CablePort): void {
    this.#macs.forget(this.#ports.indexOf(port), false);
  }

  /**
   * Carries a frame that `from` sends; false if its only receiver has no room, and the frame stays the
   * caller's.
   */
  carry(from: CablePort, frame: Frame, nowNs: number): boolean {
    const { bytes, start } = frame;
    if (!this.#fits(from, frame)) {
      frame.release();
      return true;
    }
    const fromAt = this.#ports.indexOf(from);
    this.#macs.learn(bytes, start + 6, fromAt, nowNs);
    const group = (bytes[start] & 1) === 1;
    const toAt = group ? NO_PORT : this.#macs.find(bytes, start, nowNs);
    if (toAt === fromAt) {
      from.counters.ownAddress++;
      from.noteSent(frame, nowNs);
      frame.release();
      return true;
    }
    if (toAt !== NO_PORT) return this.#handOver(from, this.#ports[toAt]!, frame, nowNs);
    if (this.#plugged > 2) return this.#flood(from, frame, nowNs);
    for (let i = 0; i < this.#ports.length; i++) {
      const port = this.#ports[i];
      if (port !== null && port !== from) return this.#handOver(from, port, frame, nowNs);
    }
    from.counters.noReceiver++;
    from.noteSent(frame, nowNs);
    frame.release();
    return true;
  }

  /** Is this a frame that the cable carries? If not, that is counted. */
  #fits(from: CablePort, frame: Frame): boolean {
    const header = frame.header;
    if (frame.length < ETHERNET_HEADER_BYTES) from.counters.tooShort++;
    else if (frame.total > MAX_FRAME_BYTES) from.counters.tooLong++;
    else if (from.capabilities.csum) return true;
    else if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 || header.gsoType !== 0) {
      from.counters.unfinished++;
    } else {
      header.clear();
      return true;
    }
    return false;
  }

  #handOver(from: CablePort, to: CablePort, frame: Frame, nowNs: number): boolean {
    if (to.isDeaf) {
      from.noteSent(frame, nowNs);
      to.miss(frame);
      return true;
    }
    if (!to.hasRoom) return false;
    if (frame.next === null) {
      from.noteSent(frame, nowNs);
      to.arrive(frame, nowNs);
      return true;
    }
    const whole = copy(frame, to);
    if (whole === null) return false;
    from.noteSent(frame, nowNs);
    frame.release();
    to.arrive(whole, nowNs);
    return true;
  }

  #flood(from: CablePort, frame: Frame, nowNs: number): boolean {
    from.noteSent(frame, nowNs);
    let last: CablePort | null = null;
    for (let i = 0; i < this.#ports.length; i++) {
      const port = this.#ports[i];
      if (port === null || port === from) continue;
      if (port.isDeaf) {
        port.counters.noGuest++;
        continue;
      }
      if (!port.hasRoom) {
        port.counters.queueFull++;
        continue;
      }
      // The port before this one is not the last, so it gets a copy; the last gets the frame itself.
      if (last !== null) deliverCopy(frame, last, nowNs);
      last = port;
    }
    if (last !== null && frame.next === null) last.arrive(frame, nowNs);
    else {
      if (last !== null) deliverCopy(frame, last, nowNs);
      frame.release();
    }
    return true;
  }
}

function deliverCopy(frame: Frame, to: CablePort, nowNs: number): void {
  const whole = copy(frame, to);
  if (whole === null) to.counters.poolEmpty++;
  else to.arrive(whole, nowNs);
}

/** The frame in one piece, from the receiver's pool; null if that is empty. */
function copy(frame: Frame, to: CablePort): Frame | null {
  const whole = to.pool.take(frame.total);
  if (whole === null) return null;
  frame.copyTo(whole.bytes, whole.start);
  whole.header.copyFrom(frame.header);
  return whole;
}

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
  /**
   * Frames for this port dropped because its device has no guest, or its guest has gone before they were
   * received.
   */
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
  /**
   * The address of the guest at this port, six bytes: no other port of the cable can claim it. Left out: it
   * is learned.
   */
  readonly mac?: Uint8Array;
  /** Called when a frame has arrived. */
  readonly wake?: () => void;
  /** What to count in. */
  readonly counters?: CablePortCounters;
}

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

/**
 * One end of a cable: a frame transport with a bounded queue of frames that have arrived. Made by
 * `LoopbackCable.plug`.
 */
export class CablePort implements FrameTransport {
  /** As long as a frame can be. */
  readonly maxFrameBytes: number = MAX_FRAME_BYTES;
  /** All if the cable carries large frames, else none. */
  readonly capabilities: OffloadCapabilities;
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
    this.capabilities = large ? OffloadCapabilities.all : OffloadCapabilities.none;
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

  /**
   * Has it no guest? Then frames for it are dropped, and counted as `noGuest`. A port that was never told has
   * one.
   */
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
   * Puts a frame into this port's queue, as if it had come over the cable. For the open end of a cable: tests
   * and recorded vectors.
   * @param bytes the frame, copied; @param header facts that go with it; @param atNs when it arrives, at the
   * earliest
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
    frame.queuePair = 0;
    frame.mark = 0;
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

/**
 * Tells behind which port an Ethernet address was last seen. A table of fixed size: an address has one place
 * in it, and a later address takes the place over. So no flood of forged addresses makes it grow; an address
 * that lost its place is only flooded until it is learned again.
 *
 * Two kinds of address are told apart. One that the configuration gives to a port is behind that port and
 * nowhere else, regardless of what guests send: no guest can draw the frames of another to itself, or into
 * nothing. All others are learned from what is sent; the last port counts, since guests do move and choose
 * addresses of their own, and each is forgotten after five minutes in which it was not seen.
 */
export class MacTable {
  readonly #high = new Uint16Array(MAC_ENTRIES);
  readonly #low = new Uint32Array(MAC_ENTRIES);
  readonly #port = new Int16Array(MAC_ENTRIES).fill(NO_PORT);
  /** When the address was seen last, in ns; Infinity for one of the configuration. */
  readonly #seenNs = new Float64Array(MAC_ENTRIES);

  /**
   * Notes that the address at `bytes[at]` is behind `port`, 0 to 32767. Group addresses are behind no port.
   */
  learn(bytes: Uint8Array, at: number, port: number, nowNs: number): void {
    if ((bytes[at] & 1) === 1) return;
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    if (this.#port[place] !== NO_PORT && this.#seenNs[place] === Infinity) return;
    this.#high[place] = high;
    this.#low[place] = low;
    this.#port[place] = port;
    this.#seenNs[place] = nowNs;
  }

  /**
   * Notes that the address at `bytes[at]` belongs to `port` for good; unless another has it, or its place,
   * already.
   */
  fix(bytes: Uint8Array, at: number, port: number): void {
    this.learn(bytes, at, port, Infinity);
  }

  /** The port behind which the address at `bytes[at]` is, or NO_PORT. */
  find(bytes: Uint8Array, at: number, nowNs: number): number {
    const high = bytes[at] << 8 | bytes[at + 1];
    const low = lowWord(bytes, at);
    const place = placeOf(high, low);
    const isKnown = this.#high[place] === high && this.#low[place] === low &&
      nowNs - this.#seenNs[place] < MAC_AGE_NS;
    return isKnown ? this.#port[place] : NO_PORT;
  }

  /** Forgets the addresses behind `port`, those of the configuration only if it goes for good. */
  forget(port: number, forGood: boolean): void {
    for (let i = 0; i < MAC_ENTRIES; i++) {
      if (this.#port[i] === port && (forGood || this.#seenNs[i] !== Infinity)) this.#port[i] = NO_PORT;
    }
  }
}

function lowWord(bytes: Uint8Array, at: number): number {
  return (bytes[at + 2] << 24 | bytes[at + 3] << 16 | bytes[at + 4] << 8 | bytes[at + 5]) >>> 0;
}

function placeOf(high: number, low: number): number {
  return (Math.imul(low ^ high << 16, 0x9e3779b1) >>> 22) & (MAC_ENTRIES - 1);
}
