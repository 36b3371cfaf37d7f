/**
 * A virtqueue as the device sees it, whatever its layout: `SplitVirtqueue` and `PackedVirtqueue` implement
 * it.
 * @module
 */
import type { Burst } from "./burst.ts";
import type { DescriptorChain } from "./descriptor_chain.ts";

/**
 * The device's side of a virtqueue (virtio 1.2, sections 2.7 and 2.8). Fill, then publish: any number of
 * `push`, one `publish`. Whatever the driver writes is checked; a broken rule throws GuestError, after which
 * the queue must not be used until the device has been reset.
 */
export interface Virtqueue {
  /** Entries of the ring. */
  readonly size: number;
  /** Chains that an earlier program took and did not return: `pop` gives these first. */
  readonly resubmits?: number;
  /**
   * Takes the next available chain into `chain`; false if there is none, or none any more in this round (see
   * {@linkcode RoundBudget}).
   */
  pop(chain: DescriptorChain): boolean;
  /**
   * Puts the `count` chains popped last back, so that they are popped again. Nothing may have been pushed
   * since.
   */
  unpop(count: number): void;
  /**
   * Returns a chain to the driver, with the number of bytes written into it. The driver sees it after
   * `publish`.
   */
  push(head: number, writtenBytes: number): void;
  /**
   * Writes the items of a burst into chains, as `pop` and `push` would one by one, and returns how many are
   * done: fewer than there are if the next one is not for a kernel, or finds no room. What is wrong is then
   * found by `pop`. Left out: none.
   */
  enqueueBurst?(burst: Burst): number;
  /** Copies chains into the items of a burst and returns them, in the same way. Left out: none. */
  dequeueBurst?(burst: Burst): number;
  /** Shows the driver all that was pushed. True if it wants to be interrupted. */
  publish(): boolean;
  /**
   * Asks the driver to kick when it adds buffers. True if some are there already that were never popped: look
   * again before going to sleep. Those that were put back do not count: a device that did that waits for
   * more. What makes it true is what the next `pop` finds, even if the driver takes it back meanwhile.
   */
  enableKicks(): boolean;
  /** Tells the driver that kicks are a waste for now. */
  disableKicks(): void;
  /**
   * Has the driver shown a chain since `enableKicks` found none? Looks at memory and changes nothing. False
   * where that does not show: `enableKicks` has the last word. Left out: it never shows.
   */
  peek?(): boolean;
}

/**
 * What one round of a device may take of its queues, in units: 1 a byte, `PIECE_UNITS` a piece of a chain.
 * That is some milliseconds of work, and a bound for it whatever sizes a driver chooses; the last chain may
 * go beyond it.
 */
export const ROUND_UNITS = 14_680_064;

/**
 * What the queues of one session may still do in this round. When it is used up `pop` finds nothing any more,
 * and `enableKicks` no reason to look again; the session then has another round follow, so that a device need
 * not know of it.
 */
export class RoundBudget {
  /** Units left; Infinity for queues that no session works. */
  left = Infinity;
  /** Has a queue held something back in this round? Then another one must follow. */
  isExceeded = false;

  /** A new round begins. @param units what may be done in it */
  refill(units: number = ROUND_UNITS): void {
    this.left = units;
    this.isExceeded = false;
  }

  /** For queues that have something: may it be given out in this round? */
  allows(): boolean {
    if (this.left > 0) return true;
    this.isExceeded = true;
    return false;
  }
}

/** Where a driver has put the three parts of a queue, and how it is used. */
export interface VirtqueueSetup {
  /** Entries: a power of two for a split ring, anything for a packed one; 1 to 32768. */
  readonly size: number;
  /** Guest address of the descriptor table (split) or descriptor ring (packed). */
  readonly descriptors: number;
  /** Guest address of the available ring (split) or of the driver event suppression structure (packed). */
  readonly driver: number;
  /** Guest address of the used ring (split) or of the device event suppression structure (packed). */
  readonly device: number;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  readonly eventIndex: boolean;
  /** VIRTIO_F_INDIRECT_DESC was negotiated. */
  readonly indirect: boolean;
}

// Who wants to be told of what: the arithmetic of used_event and of the event suppression words, for both
// layouts.

/** Flags of an event word: tell of everything. */
export const EVENT_ENABLE = 0;
/** Flags of an event word: tell of nothing. */
export const EVENT_DISABLE = 1;
/** Flags of an event word: tell when a certain slot is reached; only with VIRTIO_F_EVENT_IDX. */
export const EVENT_DESC = 2;

/**
 * Has a split ring's index, going from `from` to `to`, passed the element that is awaited (virtio 1.2,
 * section 2.7.7.2)? Indices are free-running 16-bit numbers; element `event` is passed when the index becomes
 * `event + 1`.
 */
export function splitEventDue(event: number, from: number, to: number): boolean {
  return ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);
}

/**
 * Does a driver with this event suppression word want an interrupt (virtio 1.2, section 2.8.10)?
 * @param word offset (bits 0 to 14), wrap counter (15) and flags (16 and 17), as in the ring
 * @param eventIndex VIRTIO_F_EVENT_IDX was negotiated; without it, waiting for a slot has no meaning and all
 * is told
 * @param slot the slot after the last used one
 * @param wrap the wrap counter that belongs to `slot`
 * @param since slots used since this was last asked, 0 to `size`
 * @param size slots of the ring
 */
export function packedEventDue(
  word: number,
  eventIndex: boolean,
  slot: number,
  wrap: boolean,
  since: number,
  size: number,
): boolean {
  const flags = word >>> 16 & 3;
  if (flags === EVENT_DISABLE) return false;
  if (flags !== EVENT_DESC || !eventIndex) return true;
  const sameLap = ((word & 0x8000) !== 0) === wrap;
  // How far the awaited slot lies behind: over a lap if it belongs to the next one, which is to say, ahead.
  const behind = slot + (sameLap ? 0 : size) - (word & 0x7fff);
  return behind >= 1 && behind <= since;
}

// Which buffers of a packed ring the device has: by id, and in order of popping.

/**
 * The buffers that were popped from one packed ring and not pushed. Ids are any 16-bit number, chosen by the
 * driver.
 */
export class BufferLedger {
  // 0 for an id that is not out. All ids have room: the specification does not bound them by the size of the
  // ring.
  readonly #slotsOf: Uint16Array<ArrayBuffer> = new Uint16Array(65536);
  readonly #order: Uint16Array<ArrayBuffer>;
  #at = 0;

  /** Makes an empty one. @param size slots of the ring, and so the most buffers that can be out */
  constructor(size: number) {
    this.#order = new Uint16Array(size);
  }

  /** Notes that the buffer `id` of `slots` ring slots is out. False if one of that id is out already. */
  take(id: number, slots: number): boolean {
    if (this.#slotsOf[id] !== 0) return false;
    this.#slotsOf[id] = slots;
    const order = this.#order;
    order[this.#at] = id;
    if (++this.#at === order.length) this.#at = 0;
    return true;
  }

  /**
   * Forgets the buffer taken last, as long as none was returned after it, and tells how many slots it took.
   */
  untake(): number {
    if (--this.#at < 0) this.#at = this.#order.length - 1;
    return this.giveBack(this.#order[this.#at]);
  }

  /** Notes that the buffer `id` is returned, and tells how many slots it took; 0 if it was not out. */
  giveBack(id: number): number {
    const slots = this.#slotsOf[id];
    if (slots === undefined) return 0;
    this.#slotsOf[id] = 0;
    return slots;
  }
}
