/**
 * One ring as the front-end describes it, and the queue that is made of it.
 *
 * Theory of operation. A ring is *stopped* until it has been described completely (size, addresses, and a kick
 * descriptor or the word that there is none) and something starts it; then it has a `queue`. Started or not, it is
 * *enabled* or not: the device gets the queue of a ring that is both.
 *
 *     stopped --start--> running --stop (GET_VRING_BASE)--> stopped: wants a new SET_VRING_KICK
 *        ^                  |
 *        |                  +--fault--> broken: until the front-end describes it anew
 *        +--- start fails --> failed: tried again with every change
 *
 * What starts a ring: it ran before its description changed; there is no kick descriptor; or it has been kicked; or it is enabled, because a kick that an
 * earlier back-end has consumed does not come again, and such a ring would sleep for ever.
 * @module
 */
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { DESC_BYTES } from "../../core/indirect_table.ts";
import type { GuestMemory } from "../../core/memory.ts";
import { FRESH_RING } from "../../core/packed_ring.ts";
import type { PackedVirtqueue } from "../../core/packed_virtqueue.ts";
import { buildQueue } from "../../core/queue_setup.ts";
import type { SplitVirtqueue } from "../../core/split_virtqueue.ts";
import type { RoundBudget } from "../../core/virtqueue.ts";
import type { EventHandle } from "./host.ts";
import type { MemoryTable } from "./memory_table.ts";

const FLAGS_AT = 14;
const USED = 0x8000;

/** Where a ring lies, by user addresses. */
export interface RingAddresses {
  /** Descriptor table or ring. */
  readonly descriptors: number;
  /** Available ring, or driver event suppression. */
  readonly available: number;
  /** Used ring, or device event suppression. */
  readonly used: number;
  /** The guest address by which writes to the used part are logged; null if they are not. */
  readonly log: number | null;
}

/** Why a ring has no queue, or that it has one. */
export type RingState = "stopped" | "running" | "failed" | "broken";

/** One ring. */
export class Vring implements Disposable {
  /** Its index. */
  readonly index: number;
  /** Most entries that it may have. */
  readonly maxSize: number;
  /** Entries; 0 until it is told. */
  size = 0;
  /** Where it lies; null until it is told. */
  addresses: RingAddresses | null = null;
  /** Where to go on, as the front-end gave it, or where it stood when it was stopped; null for the start. */
  base: number | null = null;
  /** Where it stood when it was made to forget that; null once it is described anew. */
  forgottenBase: number | null = null;
  /** May the device use it? */
  enabled = false;
  /** Has the front-end said how it kicks? */
  kickGiven = false;
  /** Does the front-end kick by messages? Then it need not be looked at without being asked, though there is no `kick`. */
  kickedByMessage = false;
  /** Has it run, or been kicked, since then? It needs no further kick to run again. */
  wasKicked = false;
  /** How it kicks; null if the ring must be looked at without being asked. */
  kick: EventHandle | null = null;
  /** How it wants to be told of used buffers; null if it looks by itself. */
  call: EventHandle | null = null;
  /** How it wants to be told that the ring is broken. */
  error: EventHandle | null = null;
  /** It is to be told of used buffers, and has not been. */
  interruptDue = false;
  /** Another thread works it: its memory must not be touched here. */
  lent = false;
  /** While it is disabled: was it kicked, or may something have come unasked? */
  mustLook = false;
  /** Has the device had it since it was set up, or last stopped? */
  wasEnabled = false;
  /** How it stands. */
  state: RingState = "stopped";
  #queue: SplitVirtqueue | PackedVirtqueue | null = null;

  /** A ring that is stopped and not described. @param index its index; @param maxSize most entries that the device allows */
  constructor(index: number, maxSize: number) {
    this.index = index;
    this.maxSize = maxSize;
  }

  /** What the device works on; null unless the ring is running. */
  get queue(): SplitVirtqueue | PackedVirtqueue | null {
    return this.#queue;
  }

  /** Must it be looked at without being asked, if it runs? */
  get isPolled(): boolean {
    return this.kick === null && !this.kickedByMessage;
  }

  /** Is all said that must be said before it can run? */
  get isDescribed(): boolean {
    return this.size > 0 && this.addresses !== null && this.kickGiven;
  }

  /** Is it to start now? Consumes a kick, which then counts however often the start is tried. */
  takeCall(): boolean {
    if (this.enabled || this.wasKicked || this.kick === null) return true;
    this.wasKicked = this.kick.take();
    return this.wasKicked;
  }

  /**
   * Makes the queue. GuestError if the front-end's description cannot be right; the ring has failed then.
   * @param table the front-end's memory
   * @param features what was agreed on: layout, event index, indirect descriptors
   * @param budget what the rings of the front-end may do in a round
   */
  start(table: MemoryTable, features: FeatureSet, budget: RoundBudget): void {
    const { descriptors, available, used } = this.addresses!;
    this.state = "failed";
    const addresses = {
      size: this.size,
      descriptors: table.guestAddressOf(descriptors),
      driver: table.guestAddressOf(available),
      device: table.guestAddressOf(used),
    };
    const packed = features.has(VIRTIO_F_RING_PACKED);
    // User-mode Linux says 0 of every new ring, also of a packed one, which starts with both wrap counters at 1.
    const isFresh = packed && this.base === 0 && isUnused(table.memory, addresses.descriptors, this.size);
    const base = this.base === null || isFresh
      ? undefined
      : packed
      ? packedBase(this.base)
      : splitBase(this.base);
    this.#queue = buildQueue(table.memory, { addresses, base }, features, budget);
    this.state = "running";
    this.wasKicked = true;
    this.mustLook = true;
  }

  /** It is described differently now, and starts anew where it stood, or at `base` if that is not null. */
  redescribe(base: number | null): void {
    this.halt("stopped");
    this.forgottenBase = null;
    if (base !== null) this.base = base;
  }

  /** The device may use it, or may not any more. */
  enable(enabled: boolean): void {
    this.enabled = enabled;
    this.wasEnabled ||= enabled;
    this.mustLook = true;
    // Kicks are not read while it is enabled. What comes from now on is a sign that its memory is still its own.
    if (!enabled) this.kick?.take();
  }

  /** Where it stands: the next available index, or both packed positions. */
  place(packed: boolean): number {
    return this.base ?? this.forgottenBase ?? (packed ? FRESH_RING : 0);
  }

  /**
   * Lets go of the queue and remembers where it stood. While it is disabled only a kick starts it again: its memory may have
   * been given away. @param state how the ring stands from now on
   */
  halt(state: Exclude<RingState, "running">): void {
    if (this.#queue !== null) {
      this.base = this.#queue.base;
      if (!this.enabled) this.wasKicked = false;
    }
    this.#queue = null;
    this.state = state;
  }

  /**
   * Forgets what the driver has told; how to reach it, and the ring's memory, may be needed again. So may the place where it
   * stood: QEMU 7 writes status 0 also to stop a guest that goes on later or elsewhere, and asks for the place after that.
   */
  forget(): void {
    this.halt("stopped");
    this.forgottenBase = this.base ?? this.forgottenBase;
    this.size = 0;
    this.addresses = null;
    this.base = null;
    this.enabled = false;
    this.wasEnabled = false;
    this.interruptDue = false;
    this.forgetKick();
  }

  /** The next start wants a new SET_VRING_KICK. */
  forgetKick(): void {
    this.kick?.[Symbol.dispose]();
    this.kick = null;
    this.kickGiven = false;
    this.wasKicked = false;
    this.kickedByMessage = false;
  }

  /** Closes every event. */
  [Symbol.dispose](): void {
    this.forget();
    this.call?.[Symbol.dispose]();
    this.error?.[Symbol.dispose]();
    this.call = null;
    this.error = null;
  }
}

/** Is there no descriptor in a packed ring that has the flag USED? After a lap there is at least one. */
function isUnused(memory: GuestMemory, descriptors: number, size: number): boolean {
  for (let slot = 0; slot < size; slot++) {
    if ((memory.readU16(descriptors + slot * DESC_BYTES + FLAGS_AT) & USED) !== 0) return false;
  }
  return true;
}

/**
 * The position of a split ring from a SET_VRING_BASE; undefined for that of the used index. Some front-ends say 0 also when
 * they meet a back-end anew with a ring that has been used, and a ring that has not has the used index 0.
 */
export function splitBase(num: number): number | undefined {
  return num === 0 ? undefined : num;
}

/**
 * The position of a packed ring from a SET_VRING_BASE. Some front-ends give only the available half; nothing can be in
 * flight then, and the used half is the same.
 */
export function packedBase(num: number): number {
  return num > 0xffff ? num : num * 0x10000 + num;
}
