/**
 * The driver's side of a receive queue: buffers posted, packets put together from those that come back.
 *
 * Theory of operation. The buffers lie one behind the other; a buffer's number is its token in the ring and
 * its place on the stack `#free` while the device does not have it. `post()` presets the header's bytes to
 * `PRESET`, so that a device which leaves a field unwritten is found out. `take()` takes one used chain and,
 * if `num_buffers` says so, as many more as belong to the same packet (virtio 1.2, section 5.1.6.4): all of
 * them must be there, and all but the last full. Whatever breaks a rule is reported, its buffers are free
 * again, and the next `take()` goes on behind it: a device under test may be wrong in any way, but never stop
 * the guest.
 * @module
 */
import type { GuestMemory } from "../../../rings/memory.ts";
import { NET_HEADER_BYTES, type NetHeaderFields, readNetHeader } from "../../../wire/virtio_net_header.ts";
import { BAD_USED, BufferList, type DriverRing, NOTHING_USED } from "../../../guest/driver_ring.ts";

/** What the bytes of a header hold before the device has written them. */
export const PRESET = 0xa5;
const UNWRITTEN_NUM_BUFFERS = PRESET << 8 | PRESET;
const NUM_BUFFERS = 10;
const HASH_VALUE = 12;
const HASH_REPORT = 16;
const MAX_HEADER_BYTES = 20;

/** What `take` found: a packet, nothing, or something that is no packet and has been reported. */
export type Taken = "packet" | "nothing" | "malformed";

/** How the buffers of a receive queue look. */
export interface ReceiveShape {
  /** Guest address of the first buffer; the others follow. */
  readonly address: number;
  /** Bytes of each buffer, header included. */
  readonly bufferBytes: number;
  /** Descriptors of each buffer. */
  readonly pieces: number;
  /** Bytes of the header: 10, 12 or 20. */
  readonly headerBytes: number;
  /** May a packet take several buffers? */
  readonly mergeable: boolean;
  /** How many buffers there are. */
  readonly buffers: number;
}

/** A receive queue, driven. */
export class ReceiveQueue {
  /** Its ring. */
  readonly ring: DriverRing;
  /** Bytes of the packet taken last, without its header. */
  length = 0;
  readonly #memory: GuestMemory;
  readonly #shape: ReceiveShape;
  readonly #storage: PacketStorage;
  readonly #report: (problem: string) => void;
  readonly #list: BufferList;
  readonly #free: Int32Array;
  readonly #header = new Uint8Array(MAX_HEADER_BYTES);
  readonly #headerView: DataView = new DataView(this.#header.buffer);
  readonly #preset = new Uint8Array(MAX_HEADER_BYTES).fill(PRESET);
  #freeCount: number;

  /**
   * Begins with all buffers free.
   * @param report told about everything that a device must not do
   */
  constructor(
    ring: DriverRing,
    memory: GuestMemory,
    shape: ReceiveShape,
    storage: PacketStorage,
    report: (problem: string) => void,
  ) {
    this.ring = ring;
    this.#memory = memory;
    this.#shape = shape;
    this.#storage = storage;
    this.#report = report;
    this.#list = new BufferList(shape.pieces);
    this.#free = Int32Array.from({ length: shape.buffers }, (_, i) => shape.buffers - 1 - i);
    this.#freeCount = shape.buffers;
  }

  /**
   * Adds up to `count` buffers to the ring, which the device sees after `ring.publish()`. Returns how many
   * fitted.
   */
  post(count: number): number {
    const { address, bufferBytes, pieces, headerBytes } = this.#shape;
    const preset = Math.min(headerBytes, bufferBytes);
    let posted = 0;
    while (posted < count && this.#freeCount > 0) {
      const token = this.#free[this.#freeCount - 1];
      const at = address + token * bufferBytes;
      this.#list.clear();
      this.#list.addCut(at, bufferBytes, pieces, headerBytes, true);
      if (!this.ring.add(this.#list, token)) break;
      this.#memory.copyIn(at, this.#preset, 0, preset);
      this.#freeCount--;
      posted++;
    }
    return posted;
  }

  /**
   * Takes the next packet into `packet`, its bytes into the storage; `bytes` of the packet is left to the
   * caller.
   */
  take(packet: ReceivedPacket): Taken {
    const token = this.ring.takeUsed();
    if (token === NOTHING_USED) return "nothing";
    if (token === BAD_USED) return this.#malformed(this.ring.fault);
    const used = this.#checked(token);
    if (used < 0) return "malformed";
    const { headerBytes } = this.#shape;
    if (used < headerBytes) {
      return this.#malformed(`a packet of ${used} bytes is too short for its header of ${headerBytes}`);
    }
    const at = this.#shape.address + token * this.#shape.bufferBytes;
    this.#memory.copyOut(at, this.#header, 0, headerBytes);
    this.#readHeader(packet);
    packet.buffers = 1;
    this.length = 0;
    if (!this.#append(at + headerBytes, used - headerBytes)) return "malformed";
    if (!this.#shape.mergeable) return "packet";
    if (!packet.numBuffersWritten || packet.numBuffers === 0) {
      return this.#malformed(
        `num_buffers is ${packet.numBuffersWritten ? 0 : "not written"}, it must be 1 or more`,
      );
    }
    return this.#takeRest(packet, used);
  }

  #takeRest(packet: ReceivedPacket, firstUsed: number): Taken {
    const { address, bufferBytes } = this.#shape;
    let used = firstUsed;
    // What is wrong is told at the end: every buffer of the packet must be taken first.
    let problem = "";
    while (packet.buffers < packet.numBuffers) {
      if (used !== bufferBytes && problem === "") {
        problem = `buffer ${packet.buffers} of ${packet.numBuffers} holds ${used} of ${bufferBytes} bytes, ` +
          "all but the last must be full";
      }
      const token = this.ring.takeUsed();
      if (token === BAD_USED) return this.#malformed(this.ring.fault);
      if (token === NOTHING_USED) {
        return this.#malformed(
          `num_buffers is ${packet.numBuffers}, but only ${packet.buffers} buffers have been used`,
        );
      }
      used = this.#checked(token);
      if (used < 0) return "malformed";
      packet.buffers++;
      if (!this.#append(address + token * bufferBytes, used)) return "malformed";
    }
    return problem === "" ? "packet" : this.#malformed(problem);
  }

  /**
   * Gives the buffer back to the stack; the number of bytes in it, or -1 if the device claims more than it
   * holds.
   */
  #checked(token: number): number {
    this.#free[this.#freeCount++] = token;
    const used = this.ring.usedBytes;
    if (used <= this.#shape.bufferBytes) return used;
    this.#report(`used length ${used} is beyond the buffer of ${this.#shape.bufferBytes} bytes`);
    return -1;
  }

  #append(address: number, count: number): boolean {
    if (this.length + count > this.#storage.bytes.length) {
      this.#malformed(`a packet is longer than ${this.#storage.bytes.length} bytes`);
      return false;
    }
    this.#memory.copyOut(address, this.#storage.bytes, this.length, count);
    this.length += count;
    return true;
  }

  #readHeader(packet: ReceivedPacket): void {
    const { headerBytes } = this.#shape;
    readNetHeader(this.#headerView, 0, packet);
    const field = headerBytes >= NET_HEADER_BYTES
      ? this.#headerView.getUint16(NUM_BUFFERS, true)
      : UNWRITTEN_NUM_BUFFERS;
    packet.numBuffersWritten = field !== UNWRITTEN_NUM_BUFFERS;
    packet.numBuffers = packet.numBuffersWritten ? field : 1;
    if (headerBytes < MAX_HEADER_BYTES) return;
    packet.hash ??= { value: 0, report: 0 };
    packet.hash.value = this.#headerView.getUint32(HASH_VALUE, true);
    packet.hash.report = this.#headerView.getUint16(HASH_REPORT, true);
  }

  #malformed(problem: string): "malformed" {
    this.#report(problem);
    return "malformed";
  }
}

/** The hash that a device reports with a packet (virtio 1.2, section 5.1.6.4.4). */
export interface PacketHash {
  /** `hash_value`, 32 bits. */
  value: number;
  /** `hash_report`: what was hashed. */
  report: number;
}

const NO_BYTES: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/**
 * One received packet. With option `reuse` there is only one such object, valid during the call of
 * `onPacket`.
 */
export class ReceivedPacket implements NetHeaderFields {
  /** The queue pair it came on. */
  queuePair = 0;
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
  /**
   * `num_buffers` as it stands in the header; 1 if the header has no such field or the device did not write
   * it.
   */
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
 * Where the bytes of a packet are gathered. A packet that is kept gets a copy; for one that is only looked at
 * there is a view of the gathered bytes, and views are kept by length, so that after a while none is made any
 * more.
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
