/**
 * The first step to the guest: frames from the network, filtered and steered, into the line of stages.
 *
 * Theory of operation. `receive` takes up to 64 frames a round from each queue of the network, until a frame has to wait for
 * buffers: a network may have moved its flow to a queue that is received later, and then goes on where it stopped. A frame must pass the receive
 * filter *before* a stage may hold it; then it is given its queue pair. While the link is down frames are received and
 * dropped: the network must not be held up by a guest that is not there. `offerAgain` takes the frames that found no room
 * and were marked for another try, and runs them through the stages anew, one by one, until one finds no room again.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";
import type { Frame } from "../../pipeline/frame.ts";
import { FrameBatch } from "../../pipeline/frame_batch.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Negotiated } from "../../pipeline/stage.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import { ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES } from "../../wire/ethernet.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU } from "../../wire/net_features.ts";
import {
  headerBytes,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
} from "../../wire/virtio_net_header.ts";
import type { ReceiveFilter } from "./receive_filter.ts";
import type { Steering } from "./steering.ts";
import type { ToGuest } from "./to_guest.ts";

/** Frames taken from one queue of the network in one round. */
const BURST = 64;

/** What frames from the network go through. */
export interface FromNetworkParts {
  /** Where they come from. */
  readonly network: FrameTransport;
  /** Which of them the guest gets to see. */
  readonly filter: ReceiveFilter;
  /** Which queue pair they go to. */
  readonly steering: Steering;
  /** The stages. */
  readonly line: Pipeline;
  /** The end of the line. */
  readonly toGuest: ToGuest;
  /** The queue pair to which everything goes that comes; null if each frame is steered. */
  readonly pair: number | null;
}

/** Receives frames for the guest. */
export class FromNetwork {
  readonly #parts: FromNetworkParts;
  readonly #batch = new FrameBatch();
  readonly #offered = new FrameBatch();
  /** The queue of the network that is received next. */
  #next = 0;

  /** Receives when told to. @param parts what frames go through */
  constructor(parts: FromNetworkParts) {
    this.#parts = parts;
  }

  /** Takes a burst from each queue of the network. True if there was a frame. Throws GuestError and PluginError. */
  receive(linkUp: boolean, nowNs: number): boolean {
    const { network, line, toGuest } = this.#parts;
    let did = false;
    const { queuePairs } = network;
    for (let i = 0; i < queuePairs; i++) {
      const queue = this.#next;
      this.#next = queue + 1 < queuePairs ? queue + 1 : 0;
      if (network.receive(this.#batch, BURST, queue, nowNs) === 0) continue;
      did = true;
      if (linkUp) {
        this.#admit(queue);
        line.push(this.#batch, nowNs);
      } else toGuest.dropLinkDown(this.#batch);
      if (queuePairs > 1 && toGuest.isBlocked) break;
    }
    return did;
  }

  /**
   * Runs frames through the stages again that found no room, if the guest has posted buffers since. True if one of them is
   * not where it was. Throws GuestError and PluginError.
   */
  offerAgain(session: Session, nowNs: number): boolean {
    const { line, toGuest: { again } } = this.#parts;
    if (again.length === 0) return false;
    const queue = session.queues[2 * again.at(0).queue] ?? null;
    if (queue === null || !queue.enableKicks()) return false;
    const offered = this.#offered;
    for (let i = 0; i < again.length; i++) offered.push(again.at(i));
    again.clear();
    let done = 0;
    let did = false;
    try {
      while (done < offered.length && again.length === 0) {
        this.#batch.push(offered.at(done++));
        line.push(this.#batch, nowNs);
      }
      did = done > 1 || again.length === 0;
    } finally {
      while (done < offered.length) again.push(offered.at(done++));
      offered.clear();
    }
    return did;
  }

  /** Filters the batch and gives every frame its queue pair. */
  #admit(queue: number): void {
    const { network, filter, steering, pair } = this.#parts;
    const batch = this.#batch;
    const ownQueues = network.queuePairs > 1;
    let kept = 0;
    for (let i = 0; i < batch.length; i++) {
      const frame = batch.at(i);
      if (filter.accepts(frame.bytes, frame.start, frame.length) !== "accepted") {
        frame.release();
        continue;
      }
      if (pair !== null) frame.queue = pair;
      else if (ownQueues && queue < steering.pairs && !steering.usesRss) frame.queue = queue;
      else frame.queue = steering.select(frame.bytes, frame.start, frame.length);
      batch.set(kept++, frame);
    }
    batch.shorten(kept);
  }
}

// What the network is told of the guest: what it accepts, and how many queue pairs are in use.

/** Bounds of the field `mtu` (virtio 1.2, section 5.1.4.1). */
const MIN_MTU = 68;
const MAX_MTU = 65_535;

/** Speaks for the guest to one network, and of several threads only in the main one. */
export class NetworkTerms {
  readonly #network: FrameTransport;
  readonly #speaks: boolean;
  /** Queue pairs that the network was told of; 0 for none. */
  #pairs = 0;

  /** Has said nothing yet. @param speaks false where another thread speaks for the guest: nothing is said here */
  constructor(network: FrameTransport, speaks: boolean) {
    this.#network = network;
    this.#speaks = speaks;
  }

  /** The guest takes this unfinished from now on; nothing if there is no guest any more. */
  guestCapabilities(capabilities: OffloadCapabilities): void {
    if (this.#speaks) this.#network.guestCapabilities?.(capabilities);
  }

  /** There is a guest from now on, or there is none any more. Every thread tells of its own queue. */
  hasGuest(present: boolean): void {
    this.#network.hasGuest?.(present);
  }

  /** The guest uses the first `pairs` queue pairs from now on. */
  usePairs(pairs: number): void {
    const used = Math.min(pairs, this.#network.queuePairs);
    if (used === this.#pairs || !this.#speaks) return;
    this.#pairs = used;
    this.#network.usePairs?.(used);
  }

  /** Is this an MTU, and does the network carry it, and does `configured`, if there is one, not forbid it? In bytes. */
  carriesMtu(mtuBytes: number, configured: number | undefined): boolean {
    const most = Math.min(configured ?? MAX_MTU, this.#network.maxFrameBytes - ETHERNET_HEADER_BYTES);
    return mtuBytes >= MIN_MTU && mtuBytes <= most;
  }
}

// What the guest takes, read once from what it accepted: the data path asks plain booleans.

/** What may be delivered to the guest. */
export interface GuestTakes {
  /** Bytes of the virtio-net header: 10, 12 or 20. */
  readonly headerBytes: number;
  /** Frames over several receive buffers. */
  readonly mergeable: boolean;
  /** The rule book is the reference's, which delivers whatever it has. */
  readonly anything: boolean;
  /** Unfinished frames. With `csum` the guest also looks at DATA_VALID. */
  readonly capabilities: OffloadCapabilities;
  /** Longest frame that is not a large one, in bytes, without VLAN tags: by the MTU, if that was negotiated; or Infinity. */
  readonly mostFrameBytes: number;
}

/** What a guest that agreed to this takes. @param mtu the MTU that the device advises, in bytes, if it does */
export function guestTakes(
  { features, offloads }: Negotiated,
  rules: RuleBook,
  mtu: number | undefined,
): GuestTakes {
  return {
    headerBytes: headerBytes(features),
    mergeable: features.has(VIRTIO_NET_F_MRG_RXBUF),
    anything: rules === "qemu",
    capabilities: OffloadCapabilities.ofGuest(offloads),
    mostFrameBytes: features.has(VIRTIO_NET_F_MTU) ? ETHERNET_HEADER_BYTES + (mtu ?? Infinity) : Infinity,
  };
}

/** Why a frame must not be delivered to a guest, which is also what counts it. */
export type Refusal = "dropped_large" | "dropped_partial_checksum" | "dropped_over_mtu";

/** Why this frame must not be delivered to a guest that takes this; null if it may be (virtio 1.2, 5.1.4.1 and 5.1.6.4). */
export function refusal(frame: Frame, takes: GuestTakes): Refusal | null {
  if (takes.anything) return null;
  const { header } = frame;
  const isOrdinary = (header.gsoType & ~VIRTIO_NET_HDR_GSO_ECN) === VIRTIO_NET_HDR_GSO_NONE;
  if (isOrdinary && frame.total > takes.mostFrameBytes && isOverMtu(frame, takes.mostFrameBytes)) {
    return "dropped_over_mtu";
  }
  if (takes.capabilities.admits(header)) return null;
  return takes.capabilities.admitsGso(header.gsoType) ? "dropped_partial_checksum" : "dropped_large";
}

const headers = new HeaderLocator();

/** The MTU is that of the payload: VLAN tags belong to the header. */
function isOverMtu(frame: Frame, mostFrameBytes: number): boolean {
  headers.locate(frame.bytes, frame.start, frame.length);
  return frame.total > mostFrameBytes + headers.vlanTags * VLAN_TAG_BYTES;
}
