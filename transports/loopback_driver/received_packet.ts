/**
 * A packet as the driver has received it: the header's fields, how it came, and its bytes.
 * @module
 */
import type { NetHeaderFields } from "../../wire/virtio_net_header.ts";

/** The hash that a device reports with a packet (virtio 1.2, section 5.1.6.4.4). */
export interface PacketHash {
  /** `hash_value`, 32 bits. */
  value: number;
  /** `hash_report`: what was hashed. */
  report: number;
}

const NO_BYTES: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/** One received packet. With option `reuse` there is only one such object, valid during the call of `onPacket`. */
export class ReceivedPacket implements NetHeaderFields {
  /** The queue pair it came on. */
  queue = 0;
  /** NEEDS_CSUM 1, DATA_VALID 2, RSC_INFO 4. */
  flags = 0;
  /** One of VIRTIO_NET_HDR_GSO_*. */
  gsoType = 0;
  /** Bytes of all headers, a hint. */
  hdrLen = 0;
  /** Bytes of payload in each segment. */
  gsoSize = 0;
  /** Where checksumming starts; under RSC_INFO the number of coalesced segments. */
  csumStart = 0;
  /** Where the checksum is stored, from `csumStart`; under RSC_INFO the number of duplicate ACKs. */
  csumOffset = 0;
  /** `num_buffers` as it stands in the header; 1 if the header has no such field or the device did not write it. */
  numBuffers = 1;
  /** Has the device written `num_buffers`? */
  numBuffersWritten = false;
  /** The hash, if HASH_REPORT was negotiated. */
  hash: PacketHash | null = null;
  /** How many chains it took. */
  buffers = 0;
  /** The Ethernet frame. */
  bytes: Uint8Array<ArrayBuffer> = NO_BYTES;
}

const MAX_CACHED_VIEWS = 4096;

/**
 * Where the bytes of a packet are gathered. A packet that is kept gets a copy; for one that is only looked at there is a
 * view of the gathered bytes, and views are kept by length, so that after a while none is made any more.
 */
export class PacketStorage {
  /** The gathered bytes, from 0 on. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #views = new Map<number, Uint8Array<ArrayBuffer>>();

  /**
   * Makes empty storage.
   * @param capacity the most bytes a packet can have
   */
  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity);
  }

  /** A copy of the first `length` bytes. */
  copy(length: number): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(0, length);
  }

  /** A view of the first `length` bytes, which the next packet overwrites. */
  view(length: number): Uint8Array<ArrayBuffer> {
    let view = this.#views.get(length);
    if (view === undefined) {
      if (this.#views.size >= MAX_CACHED_VIEWS) this.#views.clear();
      view = new Uint8Array(this.bytes.buffer, 0, length);
      this.#views.set(length, view);
    }
    return view;
  }
}
