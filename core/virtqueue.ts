/**
 * A virtqueue as the device sees it, whatever its layout: `SplitVirtqueue` and `PackedVirtqueue` implement it.
 * @module
 */
import type { DescriptorChain } from "./descriptor_chain.ts";

/**
 * The device's side of a virtqueue (virtio 1.2, sections 2.7 and 2.8). Fill, then publish: any number of `push`, one
 * `publish`. Whatever the driver writes is checked; a broken rule throws GuestError, after which the queue must not be
 * used until the device has been reset.
 */
export interface Virtqueue {
  /** Entries of the ring. */
  readonly size: number;
  /** Takes the next available chain into `chain`; false if there is none, or none any more in this round (see {@linkcode RoundBudget}). */
  pop(chain: DescriptorChain): boolean;
  /** Puts the `count` chains popped last back, so that they are popped again. Nothing may have been pushed since. */
  unpop(count: number): void;
  /** Returns a chain to the driver, with the number of bytes written into it. The driver sees it after `publish`. */
  push(head: number, writtenBytes: number): void;
  /** Shows the driver all that was pushed. True if it wants to be interrupted. */
  publish(): boolean;
  /**
   * Asks the driver to kick when it adds buffers. True if some are there already that were never popped: look again before
   * going to sleep. Those that were put back do not count: a device that did that waits for more. What makes it true is
   * what the next `pop` finds, even if the driver takes it back meanwhile.
   */
  enableKicks(): boolean;
  /** Tells the driver that kicks are a waste for now. */
  disableKicks(): void;
}

/**
 * What one round of a device may take of its queues, in units: 1 a byte, `PIECE_UNITS` a piece of a chain. That is some
 * milliseconds of work, and a bound for it whatever sizes a driver chooses; the last chain may go beyond it.
 */
export const ROUND_UNITS = 14_680_064;

/**
 * What the queues of one session may still do in this round. When it is used up `pop` finds nothing any more, and
 * `enableKicks` no reason to look again; the session then has another round follow, so that a device need not know of it.
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
