/**
 * Which receive queue a frame goes to, of several queue pairs (virtio 1.2, sections 5.1.6.5.6 and 5.1.6.5.7).
 *
 * Theory of operation. There are two modes; the driver's last command chooses, and reset goes back to one pair.
 *
 * Automatic steering: `learn` sees what the guest transmits and remembers, in a direct-mapped table, on which pair each
 * flow was. `select` hashes an incoming frame the same way, whichever its direction, and answers the remembered pair; a
 * flow that was never seen goes to its hash modulo the pairs in use. A flow that maps to a slot in use takes it over:
 * the other flow falls back to its hash and is learned again with its next frame. Two flows of equal hash share a queue.
 * Hence the table never grows, nothing in it is trusted (a pair no longer in use is ignored), and the worst that a
 * hostile peer can do is to choose a queue.
 *
 * Receive-side scaling: `select` answers what the driver's indirection table says for the Toeplitz hash of the frame, or
 * the unclassified queue if there is none. Nothing is learned.
 *
 * Invariant: whatever the mode, `select` answers a pair below `maxPairs`. The driver may have left that queue disabled:
 * whoever delivers has to look.
 *
 * @module
 */
import { HeaderLocator } from "../../wire/headers.ts";
import { VIRTIO_NET_HASH_REPORT_NONE } from "../../wire/virtio_net_header.ts";
import { symmetricHash } from "./flow.ts";
import { PacketHash } from "./rss.ts";

const SLOTS = 1024;

/** What a driver sets by VIRTIO_NET_CTRL_MQ_RSS_CONFIG, checked (virtio 1.2, section 5.1.6.5.7.1). */
export interface RssSettings {
  /** Enabled hash types, a mask of VIRTIO_NET_HASH_TYPE_*. */
  readonly hashTypes: number;
  /** Queue pairs by masked hash; the length is a power of two. */
  readonly table: Uint16Array;
  /** The pair for frames without hash. */
  readonly unclassifiedPair: number;
  /** Queue pairs in use: more than any of these, and as many as the driver transmits on. */
  readonly pairs: number;
  /** The Toeplitz key, up to 40 bytes. */
  readonly key: Uint8Array;
}

/** Chooses the queue pair of each frame to the guest. */
export class Steering {
  /** How frames are hashed for RSS and for hash reports; nothing is hashed until the driver configures it. */
  readonly packetHash: PacketHash = new PacketHash();
  readonly #maxPairs: number;
  readonly #headers = new HeaderLocator();
  readonly #hashes = new Int32Array(SLOTS);
  readonly #learned = new Uint16Array(SLOTS);
  #pairs = 1;
  #rss: RssSettings | null = null;

  /** One pair is in use at first. Throws RangeError. @param maxPairs queue pairs of the device, 1 to 32768 */
  constructor(maxPairs: number) {
    if (!Number.isInteger(maxPairs) || maxPairs < 1 || maxPairs > 0x8000) {
      throw new RangeError(`Cannot steer over ${maxPairs} queue pairs: there must be 1 to 32768`);
    }
    this.#maxPairs = maxPairs;
  }

  /** Queue pairs in use. */
  get pairs(): number {
    return this.#pairs;
  }

  /** Does the driver's indirection table choose? */
  get usesRss(): boolean {
    return this.#rss !== null;
  }

  /** The driver's indirection table and what belongs to it; null in automatic mode. */
  get rss(): RssSettings | null {
    return this.#rss;
  }

  /** Steers automatically over `pairs`, 1 to the maximum. Throws RangeError. */
  useAutomatic(pairs: number): void {
    if (!Number.isInteger(pairs) || pairs < 1 || pairs > this.#maxPairs) {
      throw new RangeError(`Cannot use ${pairs} queue pairs: there must be 1 to ${this.#maxPairs}`);
    }
    this.#rss = null;
    this.#pairs = pairs;
  }

  /** Steers by the driver's indirection table. Throws RangeError if it names a pair that the device lacks. */
  useRss(settings: RssSettings): void {
    const { table, unclassifiedPair, pairs } = settings;
    if (table.length === 0 || (table.length & (table.length - 1)) !== 0) {
      throw new RangeError(
        `Cannot use an indirection table of ${table.length} entries: it must be a power of two`,
      );
    }
    if (pairs > this.#maxPairs || unclassifiedPair >= pairs || table.some((pair) => pair >= pairs)) {
      throw new RangeError(`Cannot steer beyond ${pairs} of the ${this.#maxPairs} queue pairs of the device`);
    }
    this.#rss = settings;
    this.#pairs = pairs;
    this.packetHash.configure(settings.hashTypes, settings.key);
  }

  /** Back to one pair, nothing learned, no hash: the driver is gone. */
  reset(): void {
    this.#rss = null;
    this.#pairs = 1;
    this.#hashes.fill(0);
    this.packetHash.reset();
  }

  /** The guest has transmitted this frame of `length` bytes on `pair`: what comes back shall go there. */
  learn(bytes: Uint8Array, start: number, length: number, pair: number): void {
    if (this.#pairs === 1 || this.#rss !== null) return;
    const hash = this.#hash(bytes, start, length);
    const slot = hash & (SLOTS - 1);
    this.#hashes[slot] = hash;
    this.#learned[slot] = pair;
  }

  /** The queue pair for this frame of `length` bytes from `start` on; below the maximum, but perhaps not enabled. */
  select(bytes: Uint8Array, start: number, length: number): number {
    const rss = this.#rss;
    if (rss !== null) {
      const report = this.packetHash.compute(bytes, start, length);
      if (report === VIRTIO_NET_HASH_REPORT_NONE) return rss.unclassifiedPair;
      return rss.table[this.packetHash.value & (rss.table.length - 1)];
    }
    if (this.#pairs === 1) return 0;
    const hash = this.#hash(bytes, start, length);
    const slot = hash & (SLOTS - 1);
    if (this.#hashes[slot] === hash && this.#learned[slot] < this.#pairs) return this.#learned[slot];
    return (hash >>> 10) % this.#pairs;
  }

  /** Never 0, which stands for an empty slot. */
  #hash(bytes: Uint8Array, start: number, length: number): number {
    const headers = this.#headers;
    headers.locate(bytes, start, length);
    return symmetricHash(headers, bytes, start, length) || 1;
  }
}
