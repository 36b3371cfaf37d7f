/**
 * The first and the last step from the guest: transmit queues into frames, frames to the network.
 *
 * Theory of operation. `poll` takes up to 64 chains from the transmit queue of each pair, as far as MAX_UNITS go, copies each into a frame, checks
 * what its virtio header claims, and hands the batch to the stages. What comes out of them arrives at `accept`, which sends
 * it; frames that the network does not take now wait in `unsent`, in order, and the pair is not popped until they are gone:
 * the guest's own queue is the back-pressure. Buffers are returned to the guest as soon as they are copied.
 *
 * Invariants: a chain popped is returned in the same round; a frame is sent, waiting, or dropped and counted by name. Frames
 * that came before a broken chain are sent all the same. Whatever a header claims has been checked before a stage sees it.
 *
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import type { Session } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { FrameBatch } from "../../pipeline/frame_batch.ts";
import { type FramePool, MAX_FRAME_BYTES } from "../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { FrameSink, Pipeline } from "../../pipeline/pipeline.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";
import { TransportHeader } from "../../wire/transport_header.ts";
import {
  headerBytes,
  readNetHeader,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";
import type { FromGuestCounters } from "./path_counters.ts";

/** Chains taken from one queue in one round. */
const BURST = 64;
/** What all transmit queues may take of the round's budget: 64 of the largest frames. The rest is for frames to the guest. */
const MAX_UNITS = 7_340_032;
/** What a segment counts into which a frame is to be cut, by a stage or by the network. */
const SEGMENT_UNITS = 512;

/** Told of each frame that the guest sends: receive steering learns from it. */
export interface FlowLearner {
  /** The guest sent this frame on queue pair `pair`. */
  learn(bytes: Uint8Array, start: number, length: number, pair: number): void;
}

/** Empties transmit queues. */
export class FromGuest implements FrameSink {
  readonly #counters: FromGuestCounters;
  readonly #pool: FramePool;
  readonly #network: FrameTransport;
  readonly #learner: FlowLearner;
  readonly #unsent: FrameBatch[];
  readonly #batch = new FrameBatch();
  readonly #chain = new DescriptorChain();
  /** Is the link up? Frames that arrive at the end of the line while it is not are dropped. */
  linkUp = true;
  #session: Session | null = null;
  #sends!: GuestSends;
  /** What may still be taken in this round, and the pair that is first in it: the one behind that which used it up. */
  #unitsLeft = 0;
  #firstPair = 0;

  /** Nothing is taken before `activate`. @param queuePairs how many the device has */
  constructor(
    queuePairs: number,
    counters: FromGuestCounters,
    pool: FramePool,
    network: FrameTransport,
    learner: FlowLearner,
  ) {
    this.#counters = counters;
    this.#pool = pool;
    this.#network = network;
    this.#learner = learner;
    this.#unsent = Array.from({ length: queuePairs }, () => new FrameBatch());
  }

  /** The driver is ready. `sends` is what it may send. */
  activate(session: Session, sends: GuestSends): void {
    this.#session = session;
    this.#sends = sends;
  }

  /**
   * The driver is gone. What it has sent goes out as far as the network takes it at once; the rest is released. Returns how
   * many frames that were.
   */
  reset(nowNs: number): number {
    this.#session = null;
    let frames = 0;
    for (let pair = 0; pair < this.#unsent.length; pair++) {
      const unsent = this.#unsent[pair];
      if (unsent.length > 0) this.#send(unsent, pair, nowNs);
      frames += unsent.length;
      unsent.releaseAll();
    }
    return frames;
  }

  /** Is a frame waiting for the network? */
  get isCongested(): boolean {
    for (let pair = 0; pair < this.#unsent.length; pair++) if (this.#unsent[pair].length > 0) return true;
    return false;
  }

  /** How many frames the network has not taken yet. */
  get waitingFrames(): number {
    return this.#unsent.reduce((sum, unsent) => sum + unsent.length, 0);
  }

  /** Sends what waits, then takes from the transmit queues. True if anything moved. Throws GuestError and PluginError. */
  poll(pipeline: Pipeline, nowNs: number): boolean {
    let did = false;
    let pair = this.#firstPair;
    this.#unitsLeft = MAX_UNITS;
    for (let left = this.#unsent.length; left > 0; left--, pair = this.#after(pair)) {
      if (this.#unitsLeft <= 0) {
        this.#firstPair = pair;
        break;
      }
      const unsent = this.#unsent[pair];
      if (unsent.length > 0) {
        if (this.#send(unsent, pair, nowNs)) did = true;
        if (unsent.length > 0) continue;
      }
      const queue = this.#session?.queues[2 * pair + 1] ?? null;
      if (queue !== null && this.#take(queue, pair, pipeline, nowNs)) did = true;
    }
    return did;
  }

  /** Takes every frame: sent, waiting for the network, or dropped and counted. */
  accept(frames: FrameBatch, nowNs: number): void {
    if (!this.linkUp) {
      this.#counters.dropped_link_down += frames.length;
      frames.releaseAll();
      return;
    }
    let first = 0;
    while (first < frames.length) {
      const pair = frames.at(first).queue;
      const unsent = this.#unsent[pair];
      const before = unsent.length;
      while (first < frames.length && frames.at(first).queue === pair) unsent.push(frames.at(first++));
      if (before === 0) this.#send(unsent, pair, nowNs);
    }
    frames.clear();
  }

  #after(pair: number): number {
    return pair + 1 === this.#unsent.length ? 0 : pair + 1;
  }

  #send(unsent: FrameBatch, pair: number, nowNs: number): boolean {
    const offered = unsent.length;
    const taken = this.#network.send(unsent, Math.min(pair, this.#network.queuePairs - 1), nowNs);
    unsent.dropFirst(taken);
    this.#counters.sent += taken;
    if (taken < offered) this.#counters.delayed++;
    return taken > 0;
  }

  #take(queue: Virtqueue, pair: number, pipeline: Pipeline, nowNs: number): boolean {
    let chains = 0;
    try {
      while (chains < BURST && this.#unitsLeft > 0 && this.#takeOne(queue, pair)) chains++;
    } finally {
      // Also after a GuestError: what came before it was sent, and has been returned.
      if (queue.publish()) {
        this.#counters.interrupts++;
        this.#session!.interrupt(2 * pair + 1);
      }
      if (this.#batch.length > 0) pipeline.push(this.#batch, nowNs);
    }
    return chains > 0;
  }

  /** One chain of the queue; false if there is none, or no frame to copy it to. */
  #takeOne(queue: Virtqueue, pair: number): boolean {
    const chain = this.#chain;
    if (!queue.pop(chain)) return false;
    this.#unitsLeft -= chain.units;
    // DPDK 22.11 leaves WRITE on some elements of such tables, which are part of the frame all the same. Nothing in a
    // transmit queue is to be written, so that there is no doubt what is meant.
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
    const headerBytes = this.#sends.headerBytes;
    if (chain.readableBytes < headerBytes) throw shorterThanHeader(chain.readableBytes, headerBytes);
    const length = chain.readableBytes - headerBytes;
    if (length < ETHERNET_HEADER_BYTES) return this.#drop("dropped_too_short");
    if (length > Math.min(MAX_FRAME_BYTES, this.#network.maxFrameBytes)) {
      return this.#drop("dropped_too_long");
    }
    const frame = this.#pool.take(length);
    if (frame === null) return undefined;
    // One copy for both: a new frame has headroom for its header.
    const headerAt = frame.start - headerBytes;
    chain.read(frame.bytes, headerAt, headerBytes + length);
    readNetHeader(frame.view, headerAt, frame.header);
    frame.queue = pair;
    if (!isHeaderSound(frame, this.#sends)) {
      frame.release();
      return this.#drop("dropped_bad_header");
    }
    const { gsoSize } = frame.header;
    if (gsoSize !== 0) this.#unitsLeft -= Math.ceil(length / gsoSize) * SEGMENT_UNITS;
    this.#counters.packets++;
    this.#counters.bytes += length;
    this.#learner.learn(frame.bytes, frame.start, length, pair);
    return frame;
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

// What the guest may send, read once from what it accepted.

const transport = new TransportHeader();

/** What may come from the guest. */
export interface GuestSends {
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  readonly headerBytes: number;
  /** Unfinished frames. */
  readonly capabilities: OffloadCapabilities;
}

/** What a guest with these features may send. */
export function guestSends(features: FeatureSet): GuestSends {
  return {
    headerBytes: headerBytes(features),
    capabilities: OffloadCapabilities.ofHost(features),
  };
}

/**
 * Is the header of this frame in keeping with the frame and with what was negotiated (virtio 1.2, section 5.1.6.2)? What
 * has no meaning is taken off: flags that are not the driver's, fields that do not belong to what is asked for.
 */
export function isHeaderSound(frame: Frame, sends: GuestSends): boolean {
  const { header } = frame;
  header.flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (!sends.capabilities.admits(header)) return false;
  if (header.flags === 0) {
    header.csumStart = 0;
    header.csumOffset = 0;
  } else if (header.csumStart + header.csumOffset + 2 > frame.length) return false;
  const kind = header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  if (kind !== VIRTIO_NET_HDR_GSO_NONE) return isLargeSound(frame, kind);
  header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
  header.gsoSize = 0;
  header.hdrLen = 0;
  return true;
}

/**
 * A frame to be segmented must say how large the segments are and leave the checksum to us (virtio 1.2, 5.1.6.2). It must be
 * of the kind that it claims to be, with lengths that agree: its receiver relies on that.
 */
function isLargeSound(frame: Frame, kind: number): boolean {
  const { header, view, start } = frame;
  if (header.gsoSize === 0 || header.flags !== VIRTIO_NET_HDR_F_NEEDS_CSUM) return false;
  if (transport.locate(frame, true) !== null) return false;
  const { at, endAt, ipEndAt } = transport;
  if (kind !== transport.gsoType || endAt !== ipEndAt) return false;
  if (header.csumStart !== at - start || header.csumOffset !== transport.checksumOffset) return false;
  // A receiver that cuts the frame, such as the kernel behind a TAP, takes what is behind the packet for payload.
  frame.trim(ipEndAt - start);
  // The length of the headers is a hint, which must not be relied upon: one that cannot be is no hint.
  const headerBytes = at - start + transport.headerBytes;
  if (header.hdrLen > frame.length || header.hdrLen < headerBytes) header.hdrLen = 0;
  // TSO needs no IP length. The receivers of frames that are passed on as they are need one.
  if (transport.lacksIpLength) transport.fillIpLength(view);
  return true;
}
