/**
 * The first step from the guest: transmit queues into frames.
 *
 * Theory of operation. `poll` takes up to 64 chains from the transmit queue of each queue pair, as far as
 * MAX_UNITS go, copies each into a frame, checks what its virtio header claims, and pushes the batch through
 * the pipeline, at whose end is `ToNetwork`. A pair whose frames wait for the network is left alone. Buffers
 * are returned to the guest as soon as they are copied.
 *
 * Invariants: a chain popped is returned in the same round; its frame is pushed, or dropped and counted by
 * name. Frames that came before a broken chain are pushed all the same. Whatever a header claims has been
 * checked before a stage sees it.
 *
 * @module
 */
import { Burst } from "../../rings/burst.ts";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import type { Virtqueue } from "../../rings/virtqueue.ts";
import { type Frame, FrameBatch, MAX_FRAME_BYTES } from "../../pipeline/frame.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import { TransportHeader } from "../../wire/transport_header.ts";
import {
  headerBytes,
  readNetHeader,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";
import type { Steering } from "./steering.ts";
import type { ToNetwork } from "./to_network.ts";

/** The longest frame that goes into the smallest slots of a pool. */
const SMALL_FRAME_BYTES = 2046;
/**
 * Where the virtio-net header has `gso_size`: a large frame counts as its segments, before more are taken.
 */
const GSO_SIZE_AT = 6;
/** NEEDS_CSUM of `flags`, and all of `gso_type` behind it: without them the other fields have no meaning. */
const ASKS_FOR_SOMETHING = VIRTIO_NET_HDR_F_NEEDS_CSUM | 0xff00;
/** Chains taken from one queue in one round. */
const BURST = 64;
/**
 * What all transmit queues may take of the round's budget: 64 of the largest frames. The rest is for frames
 * to the guest.
 */
const MAX_UNITS = 7_340_032;
/**
 * Bytes of frames that go through the pipeline together: a network that writes them at once finds them in the
 * processor's caches. More are taken in the same round, as long as the network takes them all.
 */
const MAX_BATCH_BYTES = 131_072;
/** What a segment counts into which a frame is to be cut, by a stage or by the network. */
const SEGMENT_UNITS = 512;

/** Counters of frames from the guest, all 0. */
export function newFromGuestCounters() {
  return {
    /** Frames taken from the guest. */
    packets: 0,
    /** Their bytes, without virtio headers. */
    bytes: 0,
    /** Frames that the network took. */
    sent: 0,
    /** Times the network took less than offered, and frames had to wait. */
    delayed: 0,
    /** Interrupts sent. */
    interrupts: 0,
    /** Dropped: shorter than an Ethernet header. */
    dropped_too_short: 0,
    /** Dropped: longer than the network carries. */
    dropped_too_long: 0,
    /** Dropped: the virtio header contradicts the frame or what was negotiated. */
    dropped_bad_header: 0,
    /** Dropped: the link is down. */
    dropped_link_down: 0,
  };
}

/** What became of frames from the guest. */
export type FromGuestCounters = ReturnType<typeof newFromGuestCounters>;

/** What is needed to take frames from the guest. */
export interface FromGuestParts {
  /** How many queue pairs the device has. */
  readonly queuePairs: number;
  /** What to count in. */
  readonly counters: FromGuestCounters;
  /** Frames come from here. */
  readonly pool: FramePool;
  /** Learns from each frame on which queue pair its flow is. */
  readonly steering: Steering;
  /** What frames go through. */
  readonly pipeline: Pipeline;
  /** The end of the pipeline. */
  readonly toNetwork: ToNetwork;
}

/** Empties transmit queues. */
export class FromGuest {
  readonly #parts: FromGuestParts;
  readonly #counters: FromGuestCounters;
  readonly #pool: FramePool;
  readonly #steering: Steering;
  readonly #maxFrameBytes: number;
  readonly #batch = new FrameBatch();
  /** Bytes in it. */
  #batchBytes = 0;
  /** What kernels empty; null where there are none. */
  readonly #burst: Burst | null;
  /** Frames into which chains are copied. */
  readonly #room = new FrameBatch();
  /** How many chains there may be. */
  #guess = 4;
  readonly #chain = new DescriptorChain();
  #session: Session | null = null;
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  #headerBytes = 0;
  /** What the guest may send unfinished. */
  #capabilities = OffloadCapabilities.none;
  /**
   * What may still be taken in this round, and the pair that is first in it: the one behind that which used
   * it up.
   */
  #unitsLeft = 0;
  #firstPair = 0;

  /** Takes nothing before `activate`. */
  constructor(parts: FromGuestParts) {
    this.#parts = parts;
    this.#counters = parts.counters;
    this.#pool = parts.pool;
    this.#burst = Burst.make(parts.pool.arena);
    this.#steering = parts.steering;
    this.#maxFrameBytes = Math.min(MAX_FRAME_BYTES, parts.toNetwork.maxFrameBytes);
  }

  /** The driver is ready. */
  activate(session: Session): void {
    this.#session = session;
    this.#headerBytes = headerBytes(session.features);
    this.#capabilities = OffloadCapabilities.ofHost(session.features);
  }

  /** The driver is gone. */
  reset(): void {
    this.#session = null;
  }

  /**
   * Sends what waits, then takes from the transmit queues. True if anything moved. Throws GuestError and
   * PluginError.
   */
  poll(nowNs: number): boolean {
    const { queuePairs, toNetwork } = this.#parts;
    let did = false;
    let pair = this.#firstPair;
    this.#unitsLeft = MAX_UNITS;
    for (let left = queuePairs; left > 0; left--, pair = pair + 1 === queuePairs ? 0 : pair + 1) {
      if (this.#unitsLeft <= 0) {
        this.#firstPair = pair;
        break;
      }
      if (toNetwork.isBlockedAt(pair)) {
        if (toNetwork.retry(pair, nowNs)) did = true;
        if (toNetwork.isBlockedAt(pair)) continue;
      }
      const queue = this.#session?.queues[2 * pair + 1] ?? null;
      if (queue !== null && this.#take(queue, pair, nowNs)) did = true;
    }
    return did;
  }

  #take(queue: Virtqueue, pair: number, nowNs: number): boolean {
    const { pipeline, toNetwork } = this.#parts;
    let chains = 0;
    try {
      while (chains < BURST && this.#unitsLeft > 0) {
        if (this.#batchBytes >= MAX_BATCH_BYTES) {
          this.#batchBytes = 0;
          pipeline.push(this.#batch, nowNs);
          if (toNetwork.isBlockedAt(pair)) break;
        }
        const taken = this.#takeBurst(queue, pair, BURST - chains);
        chains += taken;
        if (taken > 0) continue;
        if (!this.#takeOne(queue, pair)) break;
        chains++;
      }
    } finally {
      // Also after a GuestError: what came before it was taken, and has been returned.
      if (queue.publish()) {
        this.#counters.interrupts++;
        this.#session!.interrupt(2 * pair + 1);
      }
      this.#batchBytes = 0;
      if (this.#batch.length > 0) pipeline.push(this.#batch, nowNs);
    }
    return chains > 0;
  }

  /**
   * Has a kernel copy up to `most` chains into frames. Returns how many chains that were: fewer if there are
   * no more, or the next one is not for a kernel.
   */
  #takeBurst(queue: Virtqueue, pair: number, most: number): number {
    const burst = this.#burst;
    if (burst === null || queue.dequeueBurst === undefined) return 0;
    const wanted = Math.min(most, this.#guess);
    const done = this.#drain(queue, burst, pair, wanted, Math.min(SMALL_FRAME_BYTES, this.#maxFrameBytes));
    // Frames for chains that are not there are taken in vain: a few more than there were the last time.
    this.#guess = done === wanted ? Math.min(2 * wanted, BURST) : done + 4;
    const needed = burst.neededBytes - this.#headerBytes;
    if (done === wanted || !(needed > SMALL_FRAME_BYTES && needed <= this.#maxFrameBytes)) return done;
    return this.#unitsLeft <= 0 ? done : done + this.#drain(queue, burst, pair, 1, needed);
  }

  /** Has a kernel copy up to `wanted` chains into frames of `roomBytes`. Returns how many. */
  #drain(queue: Virtqueue, burst: Burst, pair: number, wanted: number, roomBytes: number): number {
    const headerBytes = this.#headerBytes;
    const room = this.#room;
    burst.beginDequeue(headerBytes + ETHERNET_HEADER_BYTES, GSO_SIZE_AT, this.#unitsLeft);
    for (let i = 0; i < wanted; i++) {
      const frame = this.#pool.take(roomBytes, false);
      if (frame === null) break;
      room.push(frame);
      burst.addRoom(frame.start - headerBytes, headerBytes + roomBytes);
    }
    const done = room.length === 0 ? 0 : queue.dequeueBurst!(burst);
    if (done > 0) this.#unitsLeft -= burst.units;
    for (let i = 0; i < done; i++) {
      const frame = room.at(i);
      frame.length = frame.total = burst.bytesOf(i) - headerBytes;
      if (this.#receive(frame, pair)) this.#batch.push(frame);
    }
    for (let i = done; i < room.length; i++) room.at(i).release();
    room.clear();
    return done;
  }

  /** One chain of the queue; false if there is none, or no frame to copy it to. */
  #takeOne(queue: Virtqueue, pair: number): boolean {
    const chain = this.#chain;
    if (!queue.pop(chain)) return false;
    this.#unitsLeft -= chain.units;
    // DPDK 22.11 leaves WRITE on some elements of such tables, which are part of the frame all the same.
    // Nothing in a transmit queue is to be written, so that there is no doubt what is meant.
    if (chain.inPackedTable && chain.writableBytes !== 0) chain.turnReadable();
    const frame = this.#copy(chain, pair);
    if (frame === undefined) {
      queue.unpop(1);
      return false;
    }
    queue.push(chain.head, 0);
    if (frame !== null) this.#batch.push(frame);
    return true;
  }

  /** The chain as a frame; null if it was dropped, undefined if the pool is empty and it must wait. */
  #copy(chain: DescriptorChain, pair: number): Frame | null | undefined {
    const headerBytes = this.#headerBytes;
    if (chain.readableBytes < headerBytes) throw shorterThanHeader(chain.readableBytes, headerBytes);
    const length = chain.readableBytes - headerBytes;
    if (length < ETHERNET_HEADER_BYTES) return this.#drop("dropped_too_short");
    if (length > this.#maxFrameBytes) return this.#drop("dropped_too_long");
    const frame = this.#pool.take(length);
    if (frame === null) return undefined;
    // One copy for both: a new frame has headroom for its header.
    const headerAt = frame.start - headerBytes;
    chain.read(frame.bytes, headerAt, headerBytes + length);
    return this.#receive(frame, pair) ? frame : null;
  }

  /** A frame has been copied, with its header in front of it. False if it was dropped. */
  #receive(frame: Frame, pair: number): boolean {
    const { length } = frame;
    const headerAt = frame.start - this.#headerBytes;
    frame.queuePair = pair;
    // Most frames ask for nothing, and the header of a new frame says so.
    if ((frame.view.getUint16(headerAt, true) & ASKS_FOR_SOMETHING) !== 0) {
      readNetHeader(frame.view, headerAt, frame.header);
      if (!isHeaderSound(frame, this.#capabilities)) {
        frame.release();
        this.#drop("dropped_bad_header");
        return false;
      }
      const { gsoSize } = frame.header;
      if (gsoSize !== 0) this.#unitsLeft -= Math.ceil(length / gsoSize) * SEGMENT_UNITS;
    }
    this.#counters.packets++;
    this.#counters.bytes += length;
    this.#batchBytes += length;
    this.#steering.learn(frame.bytes, frame.start, length, pair);
    return true;
  }

  #drop(reason: "dropped_too_short" | "dropped_too_long" | "dropped_bad_header"): null {
    this.#counters[reason]++;
    return null;
  }
}

function shorterThanHeader(bytes: number, headerBytes: number): GuestError {
  if (bytes === 0) {
    return new GuestError(
      "buffers-wrong-direction",
      "A chain in a transmit queue has no device-readable bytes",
    );
  }
  return new GuestError(
    "buffer-too-small",
    `A transmit chain of ${bytes} readable bytes has no room for the ${headerBytes}-byte virtio-net header`,
  );
}

const transport = new TransportHeader();

/**
 * Is the header of this frame in keeping with the frame and with what was negotiated (virtio 1.2, section
 * 5.1.6.2)? What has no meaning is taken off: flags that are not the driver's, fields that do not belong to
 * what is asked for.
 */
export function isHeaderSound(frame: Frame, capabilities: OffloadCapabilities): boolean {
  const { header } = frame;
  header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (header.flags === 0) {
    header.csumStart = 0;
    header.csumOffset = 0;
  } else if (header.csumStart + header.csumOffset + 2 > frame.length) return false;
  // Most frames ask for nothing.
  if ((header.flags | header.gsoType) !== 0 && !capabilities.admits(header)) return false;
  const kind = header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  if (kind !== VIRTIO_NET_HDR_GSO_NONE) return isLargeSound(frame, kind);
  header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
  header.gsoSize = 0;
  header.hdrLen = 0;
  return true;
}

/**
 * A frame to be segmented must say how large the segments are and leave the checksum to us (virtio 1.2,
 * 5.1.6.2). It must be of the kind that it claims to be, with lengths that agree: its receiver relies on
 * that.
 */
function isLargeSound(frame: Frame, kind: number): boolean {
  const { header, view, start } = frame;
  if (header.gsoSize === 0 || header.flags !== VIRTIO_NET_HDR_F_NEEDS_CSUM) return false;
  if (transport.locate(frame, true) !== null) return false;
  const { at, endAt, ipEndAt } = transport;
  if (kind !== transport.gsoType || endAt !== ipEndAt) return false;
  if (header.csumStart !== at - start || header.csumOffset !== transport.checksumOffset) return false;
  // A receiver that cuts the frame, such as the kernel behind a TAP, takes what is behind the packet for
  // payload.
  frame.trim(ipEndAt - start);
  // The length of the headers is a hint, which must not be relied upon: one that cannot be is no hint.
  const headerBytes = at - start + transport.headerBytes;
  if (header.hdrLen > frame.length || header.hdrLen < headerBytes) header.hdrLen = 0;
  // TSO needs no IP length. The receivers of frames that are passed on as they are need one.
  if (transport.lacksIpLength) transport.fillIpLength(view);
  return true;
}
