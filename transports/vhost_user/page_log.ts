/**
 * The dirty log of a migration: one bit for each page of 4096 bytes, in memory shared with the front-end.
 * @module
 */
import type { DirtyLog } from "../../core/memory.ts";
import type { Mapping } from "./host.ts";
import { VHOST_LOG_PAGE_BYTES } from "./messages.ts";

/** Marks pages. The front-end clears bits at the same time, hence the atomic for every page. */
export class PageLog implements DirtyLog, Disposable {
  readonly #mapping: Mapping;
  readonly #bits: Uint8Array<ArrayBuffer>;
  readonly #pages: number;
  /** Bytes of the log. */
  readonly sizeBytes: number;
  #modified = false;
  /** Pages written that lie behind the end of the log, as often as they were written: the front-end will miss them. */
  unloggedPages = 0;

  /** Owns the mapping. @param sizeBytes bytes of the log */
  constructor(mapping: Mapping, sizeBytes: number) {
    this.#mapping = mapping;
    this.#bits = new Uint8Array(mapping.buffer, mapping.bufferOffset, sizeBytes);
    this.sizeBytes = sizeBytes;
    this.#pages = sizeBytes * 8;
  }

  /** Where it starts in this process. */
  get address(): bigint {
    return this.#mapping.address;
  }

  /** Marks every page of a range. A store before this cannot be seen after the mark: an atomic is a barrier. */
  mark(guestAddress: number, lengthBytes: number): void {
    const bits = this.#bits;
    const last = Math.floor((guestAddress + lengthBytes - 1) / VHOST_LOG_PAGE_BYTES);
    for (let page = Math.floor(guestAddress / VHOST_LOG_PAGE_BYTES); page <= last; page++) {
      if (page < this.#pages) Atomics.or(bits, Math.floor(page / 8), 1 << page % 8);
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

  /** Unmaps the log. */
  [Symbol.dispose](): void {
    this.#mapping[Symbol.dispose]();
  }
}
