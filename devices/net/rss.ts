/**
 * The Toeplitz hash of receive-side scaling and of hash reports (virtio 1.2, section 5.1.6.4.3).
 *
 * IPv6 extension headers are skipped, not hashed: the three `_EX` types are not supported. Fragments are hashed over
 * their addresses only, so that all parts of a datagram reach the same queue.
 * @module
 */
import {
  VIRTIO_NET_HASH_REPORT_IPV4,
  VIRTIO_NET_HASH_REPORT_IPV6,
  VIRTIO_NET_HASH_REPORT_NONE,
  VIRTIO_NET_HASH_REPORT_TCPV4,
  VIRTIO_NET_HASH_REPORT_TCPV6,
  VIRTIO_NET_HASH_REPORT_UDPV4,
  VIRTIO_NET_HASH_REPORT_UDPV6,
} from "../../wire/virtio_net_header.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { PROTOCOL_TCP } from "../../wire/tcp.ts";

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
/** Longest key, in bytes: enough for the longest input (virtio 1.2, section 5.1.4.1 asks for at least this). */
export const RSS_MAX_KEY_BYTES = 40;
/** Most entries of the indirection table (virtio 1.2, section 5.1.4.1 asks for at least this). */
export const RSS_MAX_TABLE_LENGTH = 128;

/** Two IPv6 addresses and two ports. */
const LONGEST_INPUT_BYTES = 36;

/**
 * The Toeplitz hash: every set bit of the input adds (by exclusive or) the 32 bits of the key that begin at its
 * position. What a byte of the input adds is looked up: 256 words for each position, made when the key is set.
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

  /** What `length` bytes from `at` on add to the hash if they are the input's bytes from `position` (0 to 35) on. */
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
   * Hashes the frame of `length` bytes from `start` on. Returns what to report, one of VIRTIO_NET_HASH_REPORT_*;
   * the hash itself is in `value`.
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

  /** The most detailed enabled type that the frame has the fields for. */
  #choose(flow: HeaderLocator): number {
    const types = this.#types;
    const tcp = flow.protocol === PROTOCOL_TCP;
    if (flow.version === 4) {
      if (
        flow.portsAt >= 0 && (types & (tcp ? VIRTIO_NET_HASH_TYPE_TCPV4 : VIRTIO_NET_HASH_TYPE_UDPV4)) !== 0
      ) {
        return tcp ? VIRTIO_NET_HASH_REPORT_TCPV4 : VIRTIO_NET_HASH_REPORT_UDPV4;
      }
      return (types & VIRTIO_NET_HASH_TYPE_IPV4) !== 0
        ? VIRTIO_NET_HASH_REPORT_IPV4
        : VIRTIO_NET_HASH_REPORT_NONE;
    }
    if (
      flow.portsAt >= 0 && (types & (tcp ? VIRTIO_NET_HASH_TYPE_TCPV6 : VIRTIO_NET_HASH_TYPE_UDPV6)) !== 0
    ) {
      return tcp ? VIRTIO_NET_HASH_REPORT_TCPV6 : VIRTIO_NET_HASH_REPORT_UDPV6;
    }
    return (types & VIRTIO_NET_HASH_TYPE_IPV6) !== 0
      ? VIRTIO_NET_HASH_REPORT_IPV6
      : VIRTIO_NET_HASH_REPORT_NONE;
  }
}
