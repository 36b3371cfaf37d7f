/**
 * Logging of writes for a migration: SET_LOG_BASE, SET_LOG_FD, and the feature bit that switches it on.
 * @module
 */
import type { DeviceLink } from "./device_link.ts";
import type { DescriptorBag, EventHandle, Host } from "./host.ts";
import { PageLog } from "./page_log.ts";
import { ProtocolError } from "./protocol_error.ts";

/** The log, if there is one, and whether it is used. */
export class DirtyLogging implements Disposable {
  readonly #host: Host;
  readonly #link: DeviceLink;
  #log: PageLog | null = null;
  #event: EventHandle | null = null;
  #on = false;

  /** Nothing is logged yet. @param link what is to log its writes */
  constructor(host: Host, link: DeviceLink) {
    this.#host = host;
    this.#link = link;
  }

  /** Pages written behind the end of the log. */
  get unloggedPages(): number {
    return this.#log?.unloggedPages ?? 0;
  }

  /** LOG_ALL was accepted, or is no longer. */
  switch(on: boolean): void {
    this.#on = on;
    this.#apply();
  }

  /**
   * Logs into this memory from now on. ProtocolError `log-invalid` without a descriptor, or if it is empty.
   * @param sizeBytes bytes of the log
   * @param offsetBytes where it starts in the memory
   */
  setBase(sizeBytes: number, offsetBytes: number, bag: DescriptorBag): void {
    if (bag.count === 0 || sizeBytes === 0) {
      throw new ProtocolError(
        "log-invalid",
        `A log of ${sizeBytes} bytes came with ${bag.count} descriptors; it must have a size and one descriptor`,
      );
    }
    const log = new PageLog(this.#host.map(bag.take(), sizeBytes, offsetBytes), sizeBytes);
    const before = this.#log;
    this.#log = log;
    this.#apply();
    before?.[Symbol.dispose]();
  }

  /** Whom to tell that something was logged; nobody without a descriptor. */
  setEvent(bag: DescriptorBag): void {
    this.#event?.[Symbol.dispose]();
    this.#event = bag.count === 0 ? null : this.#host.event(bag.take(), false);
    this.#apply();
  }

  /** Tells of what was logged since the last time. */
  poll(): void {
    if (this.#log?.takeModified() === true) this.#event?.signal();
  }

  /** Forgets log and event. */
  [Symbol.dispose](): void {
    this.#link.logTo(null, null);
    this.#log?.[Symbol.dispose]();
    this.#event?.[Symbol.dispose]();
    this.#log = null;
    this.#event = null;
  }

  #apply(): void {
    const log = this.#on ? this.#log : null;
    const event = this.#event?.number ?? null;
    this.#link.logTo(log, log && { address: String(log.address), sizeBytes: log.sizeBytes, event });
  }
}
