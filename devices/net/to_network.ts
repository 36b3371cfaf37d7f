/**
 * The last step from the guest: frames to the network, or into the wait for it. Also what the network is told
 * of the guest.
 *
 * Theory of operation. `accept` takes what comes out of the pipeline and sends it, queue pair by queue pair.
 * Frames that the network does not take now wait in `#waiting`, in order, and everything for that pair behind
 * them; `retry` offers them again. `FromGuest` takes nothing from a pair whose frames wait, so that the
 * guest's own queue is the back-pressure. While the link is down, frames are dropped and counted.
 *
 * Invariants: a frame handed in is sent, waiting, or dropped and counted by name. Nothing overtakes a waiting
 * frame of its pair.
 *
 * @module
 */
import { FrameBatch } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { MAX_MTU, MIN_MTU } from "../../pipeline/kinds.ts";
import type { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { FrameSink } from "../../pipeline/pipeline.ts";
import {
  ETHERNET_DESTINATION,
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  MAC_BYTES,
} from "../../wire/ethernet.ts";

/** What became of frames at the network. */
export type ToNetworkCounters = Record<"sent" | "delayed" | "dropped_link_down", number>;

/** What is needed to send. */
export interface ToNetworkParts {
  /** How many queue pairs the device has. */
  readonly queuePairs: number;
  /** What to count in. */
  readonly counters: ToNetworkCounters;
  /** Where frames of the device itself come from. */
  readonly pool: FramePool;
  /** Where frames go. */
  readonly network: FrameTransport;
  /** Is the network told of the guest from here? Of several threads it is so from the main one. */
  readonly tellsNetwork: boolean;
}

/** Sends the guest's frames. */
export class ToNetwork implements FrameSink {
  /** Is the link up? */
  linkUp = true;
  readonly #counters: ToNetworkCounters;
  readonly #pool: FramePool;
  readonly #network: FrameTransport;
  readonly #tellsNetwork: boolean;
  readonly #waiting: FrameBatch[];
  readonly #rarp = new FrameBatch(1);
  /** Queue pairs that the network was told of; 0 for none. */
  #queuePairsTold = 0;

  /** Has sent nothing yet. */
  constructor({ queuePairs, counters, pool, network, tellsNetwork }: ToNetworkParts) {
    this.#counters = counters;
    this.#pool = pool;
    this.#network = network;
    this.#tellsNetwork = tellsNetwork;
    this.#waiting = Array.from({ length: queuePairs }, () => new FrameBatch());
  }

  /** Longest frame that the network carries, in bytes. */
  get maxFrameBytes(): number {
    return this.#network.maxFrameBytes;
  }

  /** Does a frame of any pair wait for the network? */
  get isBlocked(): boolean {
    for (let pair = 0; pair < this.#waiting.length; pair++) if (this.#waiting[pair].length > 0) return true;
    return false;
  }

  /** Does a frame of this pair wait for the network? */
  isBlockedAt(pair: number): boolean {
    return this.#waiting[pair].length > 0;
  }

  /** How many frames wait for the network. */
  get waitingFrames(): number {
    return this.#waiting.reduce((sum, waiting) => sum + waiting.length, 0);
  }

  /** Takes every frame: sent, waiting, or dropped and counted. */
  accept(frames: FrameBatch, nowNs: number): void {
    if (!this.linkUp) {
      this.#counters.dropped_link_down += frames.length;
      frames.releaseAll();
      return;
    }
    let first = 0;
    while (first < frames.length) {
      const pair = frames.at(first).queuePair;
      const waiting = this.#waiting[pair];
      const isFirst = waiting.length === 0;
      while (first < frames.length && frames.at(first).queuePair === pair) waiting.push(frames.at(first++));
      if (isFirst) this.retry(pair, nowNs);
    }
    frames.clear();
  }

  /** Offers the network what waits of this pair. True if it took any. */
  retry(pair: number, nowNs: number): boolean {
    const waiting = this.#waiting[pair];
    const offered = waiting.length;
    const taken = this.#network.send(waiting, Math.min(pair, this.#network.queuePairs - 1), nowNs);
    waiting.dropFirst(taken);
    this.#counters.sent += taken;
    if (taken < offered) this.#counters.delayed++;
    return taken > 0;
  }

  /**
   * The driver is gone. What waits goes out as far as the network takes it at once; the rest is released.
   * Returns how many frames that were.
   */
  reset(nowNs: number): number {
    let frames = 0;
    for (let pair = 0; pair < this.#waiting.length; pair++) {
      const waiting = this.#waiting[pair];
      if (waiting.length > 0) this.retry(pair, nowNs);
      frames += waiting.length;
      waiting.releaseAll();
    }
    return frames;
  }

  /**
   * Tells switches where the guest with this MAC address, six bytes, is now: sends a reverse ARP request, as
   * hypervisors do after a migration. Sends nothing if the pool is empty.
   */
  sendRarp(mac: Uint8Array, nowNs: number): void {
    const frame = this.#pool.take(RARP_FRAME_BYTES);
    if (frame === null) return;
    writeRarp(frame.bytes, frame.start, mac);
    this.#rarp.push(frame);
    this.accept(this.#rarp, nowNs);
  }

  /** The guest takes this unfinished from now on; nothing if there is no guest any more. */
  guestCapabilities(capabilities: OffloadCapabilities): void {
    if (this.#tellsNetwork) this.#network.guestCapabilities?.(capabilities);
  }

  /**
   * There is a guest from now on, or there is none any more. Every thread tells its own queue of the network.
   */
  hasGuest(present: boolean): void {
    this.#network.hasGuest?.(present);
  }

  /** The guest uses the first `queuePairs` queue pairs from now on. */
  useQueuePairs(queuePairs: number): void {
    const used = Math.min(queuePairs, this.#network.queuePairs);
    if (used === this.#queuePairsTold || !this.#tellsNetwork) return;
    this.#queuePairsTold = used;
    this.#network.useQueuePairs?.(used);
  }

  /** Is this an MTU that the network carries, and not above `configured`, if there is one? In bytes. */
  acceptsMtu(mtuBytes: number, configured: number | undefined): boolean {
    const max = Math.min(configured ?? MAX_MTU, this.#network.maxFrameBytes - ETHERNET_HEADER_BYTES);
    return mtuBytes >= MIN_MTU && mtuBytes <= max;
  }
}

/** Bytes of a reverse ARP request: the shortest frame that Ethernet carries, without its checksum. */
const RARP_FRAME_BYTES = 60;
const ETHERTYPE_AT = 12;
const PACKET_AT = 14;
const SENDER_MAC_AT = PACKET_AT + 8;
const TARGET_MAC_AT = PACKET_AT + 18;
/** Ethernet, IPv4, address lengths 6 and 4, request 3 (RFC 903). */
const RARP_FIXED_PART = [0, 1, 0x08, 0x00, 6, 4, 0, 3];

function writeRarp(bytes: Uint8Array, start: number, mac: Uint8Array): void {
  bytes.fill(0, start, start + RARP_FRAME_BYTES);
  bytes.fill(0xff, start + ETHERNET_DESTINATION, start + ETHERNET_DESTINATION + MAC_BYTES);
  bytes.set(mac, start + ETHERNET_SOURCE);
  bytes[start + ETHERTYPE_AT] = 0x80;
  bytes[start + ETHERTYPE_AT + 1] = 0x35;
  bytes.set(RARP_FIXED_PART, start + PACKET_AT);
  bytes.set(mac, start + SENDER_MAC_AT);
  bytes.set(mac, start + TARGET_MAC_AT);
}
