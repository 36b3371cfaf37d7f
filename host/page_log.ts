/**
 * The dirty log of a migration: one bit for each page of 4096 bytes, in memory that is shared with the
 * front-end.
 * @module
 */
import type { DirtyLog, MemoryHolder } from "../rings/memory.ts";

/**
 * Bytes of a page of the log, as the kernel's vhost and vhost-user have it, whatever the pages of this host.
 */
export const VHOST_LOG_PAGE_BYTES = 4096;

/** Marks pages. The front-end clears bits at the same time, hence the atomic for every page. */
export class PageLog implements DirtyLog, MemoryHolder {
  #bits: Uint8Array<ArrayBuffer>;
  #modified = false;
  /**
   * Pages written that lie behind the end of the log, as often as they were written: the front-end will miss
   * them.
   */
  unloggedPages = 0;

  /** Nothing was marked yet. @param bits the log */
  constructor(bits: Uint8Array<ArrayBuffer>) {
    this.#bits = bits;
  }

  /** The log is taken away: what is marked later is lost. */
  letGo(): void {
    this.#bits = new Uint8Array(0);
  }

  /** Bytes of the log. */
  get sizeBytes(): number {
    return this.#bits.length;
  }

  /**
   * Marks every page of a range. A store before this cannot be seen after the mark: an atomic is a barrier.
   */
  mark(guestAddress: number, lengthBytes: number): void {
    const bits = this.#bits;
    const last = Math.floor((guestAddress + lengthBytes - 1) / VHOST_LOG_PAGE_BYTES);
    for (let page = Math.floor(guestAddress / VHOST_LOG_PAGE_BYTES); page <= last; page++) {
      if (page < 8 * bits.length) Atomics.or(bits, Math.floor(page / 8), 1 << page % 8);
      else this.unloggedPages++;
    }
    this.#modified = true;
  }

  /** Has anything been marked since this was last asked? */
  takeModified(): boolean {
    const modified = this.#modified;
    this.#modified = false;
    return modified;
  }
}
