/**
 * Which receive queue a frame goes to, of several queue pairs (virtio 1.2, sections 5.1.6.5.6 and 5.1.6.5.7).
 *
 * Theory of operation. There are two modes; the driver's last command chooses, and reset goes back to one
 * pair.
 *
 * Automatic steering: `learn` sees what the guest transmits and remembers, in a direct-mapped table, on which
 * pair each flow was. `select` hashes an incoming frame the same way, whichever its direction, and answers
 * the remembered pair; a flow that was never seen goes to its hash modulo the pairs in use. A flow that maps
 * to a slot in use takes it over: the other flow falls back to its hash and is learned again with its next
 * frame. Two flows of equal hash share a queue. Hence the table never grows, nothing in it is trusted (a pair
 * no longer in use is ignored), and the worst that a hostile peer can do is to choose a queue.
 *
 * Receive-side scaling: `select` answers what the driver's indirection table says for the Toeplitz hash of
 * the frame, or the unclassified queue if there is none. Nothing is learned.
 *
 * Invariant: whatever the mode, `select` answers a pair below `maxPairs`. The driver may have left that queue
 * disabled: the delivering side has to look.
 *
 * @module
 */
import { MAX_QUEUE_PAIRS } from "../../pipeline/frame.ts";
import { ETHERNET_DESTINATION, ETHERNET_HEADER_BYTES, ETHERNET_SOURCE } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { PROTOCOL_TCP } from "../../wire/tcp_ip.ts";
import {
  VIRTIO_NET_HASH_REPORT_IPV4,
  VIRTIO_NET_HASH_REPORT_IPV6,
  VIRTIO_NET_HASH_REPORT_NONE,
} from "../../wire/virtio_net_header.ts";

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
    if (!Number.isInteger(maxPairs) || maxPairs < 1 || maxPairs > MAX_QUEUE_PAIRS) {
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

  /**
   * The queue pair for this frame of `length` bytes from `start` on; below the maximum, but perhaps not
   * enabled.
   */
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

// The Toeplitz hash of receive-side scaling and of hash reports (virtio 1.2, section 5.1.6.4.3).
//
// IPv6 extension headers are skipped, not hashed: the three `_EX` types are not supported. Fragments are
// hashed over their addresses only, so that all parts of a datagram reach the same queue.

/** Hash over the IPv4 addresses (virtio 1.2, section 5.1.6.4.3.1). */
export const VIRTIO_NET_HASH_TYPE_IPV4 = 1 << 0;
/** Hash over IPv4 addresses and TCP ports. */
export const VIRTIO_NET_HASH_TYPE_TCPV4 = 1 << 1;
/** Hash over IPv4 addresses and UDP ports. */
export const VIRTIO_NET_HASH_TYPE_UDPV4 = 1 << 2;
/** Hash over the IPv6 addresses. */
export const VIRTIO_NET_HASH_TYPE_IPV6 = 1 << 3;
/** Hash over IPv6 addresses and TCP ports. */
export const VIRTIO_NET_HASH_TYPE_TCPV6 = 1 << 4;
/** Hash over IPv6 addresses and UDP ports. */
export const VIRTIO_NET_HASH_TYPE_UDPV6 = 1 << 5;

/** The hash types that the device offers: all but those of extension headers. */
export const SUPPORTED_HASH_TYPES = 0x3f;
/**
 * Longest key, in bytes: enough for the longest input (virtio 1.2, section 5.1.4.1 asks for at least this).
 */
export const RSS_MAX_KEY_BYTES = 40;
/** Most entries of the indirection table (virtio 1.2, section 5.1.4.1 asks for at least this). */
export const RSS_MAX_TABLE_LENGTH = 128;

/** Two IPv6 addresses and two ports. */
const LONGEST_INPUT_BYTES = 36;

/**
 * The Toeplitz hash: every set bit of the input adds (by exclusive or) the 32 bits of the key that begin at
 * its position. What a byte of the input adds is looked up: 256 words for each position, made when the key is
 * set.
 */
export class ToeplitzHash {
  readonly #added = new Uint32Array(LONGEST_INPUT_BYTES * 256);

  /** Takes a key of up to 40 bytes; one that is shorter goes on with zeros. */
  setKey(key: Uint8Array): void {
    const padded = new Uint8Array(RSS_MAX_KEY_BYTES + 4);
    padded.set(key.subarray(0, RSS_MAX_KEY_BYTES));
    const view = new DataView(padded.buffer);
    for (let position = 0; position < LONGEST_INPUT_BYTES; position++) {
      const row = position << 8;
      const high = view.getUint32(position);
      const low = padded[position + 4];
      for (let value = 1; value < 256; value++) {
        const lowestBit = value & -value;
        // The most significant bit of the byte goes with the window that begins at the byte itself.
        const shift = Math.clz32(lowestBit) - 24;
        const window = shift === 0 ? high : high << shift | low >>> 8 - shift;
        this.#added[row + value] = this.#added[row + (value ^ lowestBit)] ^ window;
      }
    }
  }

  /**
   * What `length` bytes from `at` on add to the hash if they are the input's bytes from `position` (0 to 35)
   * on.
   */
  add(bytes: Uint8Array, at: number, length: number, position: number): number {
    let sum = 0;
    let row = position << 8;
    for (let i = at; i < at + length; i++, row += 256) sum ^= this.#added[row + bytes[i]];
    return sum;
  }
}

/** Hashes frames as the driver has asked for: which fields, which key. */
export class PacketHash {
  readonly #toeplitz = new ToeplitzHash();
  readonly #flow = new HeaderLocator();
  #types = 0;
  #key: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  /** The hash that `compute` has found last, 32 bits, unsigned; 0 if there was none. */
  value = 0;

  /** The hash types that are enabled, a mask of VIRTIO_NET_HASH_TYPE_*; 0 at first. */
  get types(): number {
    return this.#types;
  }

  /** The key, as it was given last. */
  get key(): Uint8Array<ArrayBuffer> {
    return this.#key;
  }

  /** Enables these hash types, with this key of up to 40 bytes. Types that are not supported are ignored. */
  configure(types: number, key: Uint8Array): void {
    this.#types = types & SUPPORTED_HASH_TYPES;
    this.#key = Uint8Array.from(key.subarray(0, RSS_MAX_KEY_BYTES));
    this.#toeplitz.setKey(key);
  }

  /** No hash types any more. */
  reset(): void {
    this.#types = 0;
    this.value = 0;
  }

  /**
   * Hashes the frame of `length` bytes from `start` on. Returns what to report, one of
   * VIRTIO_NET_HASH_REPORT_*; the hash itself is in `value`.
   */
  compute(bytes: Uint8Array, start: number, length: number): number {
    this.value = 0;
    if (this.#types === 0) return VIRTIO_NET_HASH_REPORT_NONE;
    const flow = this.#flow;
    flow.locate(bytes, start, length);
    if (flow.version === 0 || flow.isEncapsulated) return VIRTIO_NET_HASH_REPORT_NONE;
    const report = this.#choose(flow);
    if (report === VIRTIO_NET_HASH_REPORT_NONE) return report;
    const addressesBytes = flow.version === 4 ? 8 : 32;
    let sum = this.#toeplitz.add(bytes, flow.addressesAt, addressesBytes, 0);
    if (report !== VIRTIO_NET_HASH_REPORT_IPV4 && report !== VIRTIO_NET_HASH_REPORT_IPV6) {
      sum ^= this.#toeplitz.add(bytes, flow.portsAt, 4, addressesBytes);
    }
    this.value = sum >>> 0;
    return report;
  }

  /**
   * The most detailed enabled type that the frame has the fields for. Types are bits in the order addresses,
   * TCP ports, UDP ports, first those of IPv4; the reports are numbered in the same order, from 1.
   */
  #choose({ version, protocol, portsAt }: HeaderLocator): number {
    const overAddresses = version === 4 ? 0 : 3;
    const overPorts = overAddresses + (protocol === PROTOCOL_TCP ? 1 : 2);
    if (portsAt >= 0 && (this.#types >>> overPorts & 1) === 1) return overPorts + 1;
    return (this.#types >>> overAddresses & 1) === 1 ? overAddresses + 1 : VIRTIO_NET_HASH_REPORT_NONE;
  }
}

/**
 * A hash of 32 bits, signed, over addresses and ports, or over the MAC addresses of a frame that is not IP.
 * It is the same for both directions of a flow and for every form of its frames. Fragments have no ports, the
 * first one neither, so that all parts of a datagram are one flow.
 * @param headers where the headers of this frame were found
 */
export function symmetricHash(
  headers: HeaderLocator,
  bytes: Uint8Array,
  start: number,
  length: number,
): number {
  if (headers.version === 0) return length < ETHERNET_HEADER_BYTES ? 0 : hashOfMacs(bytes, start);
  const { addressBytes, addressesAt: source, portsAt: ports } = headers;
  const destination = source + addressBytes;
  let hash = headers.protocol;
  for (let i = 0; i < addressBytes; i += 4) {
    hash = mixPair(hash, be32(bytes, source + i), be32(bytes, destination + i));
  }
  if (ports >= 0) hash = mixPair(hash, be16(bytes, ports), be16(bytes, ports + 2));
  return finish(hash);
}

function be16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}

function be32(bytes: Uint8Array, at: number): number {
  return bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
}

function hashOfMacs(bytes: Uint8Array, start: number): number {
  const destination = start + ETHERNET_DESTINATION;
  const source = start + ETHERNET_SOURCE;
  const high = mixPair(0, be16(bytes, destination), be16(bytes, source));
  return finish(mixPair(high, be32(bytes, destination + 2), be32(bytes, source + 2)));
}

/**
 * Both the difference and the sum of a pair go in: neither alone tells 10.0.0.1 and .2 from 10.0.0.5 and .6.
 */
function mixPair(hash: number, a: number, b: number): number {
  const mixed = Math.imul(hash ^ a ^ b, 0x9e3779b1);
  return Math.imul((mixed ^ mixed >>> 15) + (a + b | 0) | 0, 0x85ebca77);
}

/**
 * Lets every bit of the input reach the low bits, which choose the slot and the queue. Signed: the engine
 * would allocate for a number of 2^31 or more.
 */
function finish(hash: number): number {
  let mixed = Math.imul(hash ^ hash >>> 16, 0x7feb352d);
  mixed = Math.imul(mixed ^ mixed >>> 15, 0x846ca68b);
  return mixed ^ mixed >>> 16;
}
