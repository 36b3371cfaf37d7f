/**
 * What the network is told of the guest: what it accepts, and how many queue pairs are in use.
 * @module
 */
import type { FrameTransport, GuestAccepts } from "../../core/transport.ts";
import { ETHERNET_HEADER_BYTES } from "../../wire/ethernet.ts";

/** Bounds of the field `mtu` (virtio 1.2, section 5.1.4.1). */
const LEAST_MTU = 68;
const MOST_MTU = 65_535;
/** What a guest accepts that is not there. */
const NOTHING_ACCEPTED: GuestAccepts = { checksum: false, tso4: false, tso6: false, ecn: false, uso: false };

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

  /** The guest accepts this from now on; null if there is no guest any more. */
  guestAccepts(accepts: GuestAccepts | null): void {
    if (this.#speaks) this.#network.guestAccepts?.(accepts ?? NOTHING_ACCEPTED);
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
    const most = Math.min(configured ?? MOST_MTU, this.#network.maxFrameBytes - ETHERNET_HEADER_BYTES);
    return mtuBytes >= LEAST_MTU && mtuBytes <= most;
  }
}
