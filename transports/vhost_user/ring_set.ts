/**
 * All rings of one front-end: starting them, telling the driver of used buffers, emptying those that are disabled.
 *
 * A ring that runs but is disabled has no effect: the device says which of them are to be emptied all the same
 * (`discardsWhenDisabled`), the others are left alone. It is emptied when it is disabled, before the front-end hears that it
 * is, and after that when it is kicked. It is not looked at otherwise: User-mode Linux disables a ring and frees its memory,
 * and says nothing more. What is found broken in it is no fault of the guest, then; the ring is let go until it is kicked again. Nothing here knows whether a device is active. Interrupts are collected and sent once, at the end of a round or of a
 * change: writing to an event is a system call.
 * @module
 */
import { DescriptorChain } from "../../core/descriptor_chain.ts";
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import type { DeviceEventListener } from "../../core/events.ts";
import type { FaultLog } from "../../core/fault_log.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { DirtyLog } from "../../core/memory.ts";
import { ROUND_UNITS, RoundBudget } from "../../core/virtqueue.ts";
import type { MemoryTable } from "./memory_table.ts";
import { Vring } from "./vring.ts";

/** Chains taken from a disabled ring in one round. */
const BURST = 64;

/** Whom the rings tell what they cannot tell by an event. */
export interface RingHooks {
  /** Ring `index` has used buffers, and there is no event to signal. */
  interruptWithoutEvent(index: number): void;
  /** Ring `index` cannot be worked, and there is no event to signal. */
  errorWithoutEvent(index: number): void;
  /** A ring was started or stopped, or more. Left out: nothing is told. */
  event?: DeviceEventListener | undefined;
}

/** The rings of one front-end. */
export class RingSet implements Disposable {
  /** The rings, by index. */
  readonly all: readonly Vring[];
  /** Chains that disabled rings were emptied of. */
  discardedChains = 0;
  /** What may be done with all of them in a round; refilled where one begins. */
  readonly budget: RoundBudget = new RoundBudget();
  readonly #device: Device;
  readonly #table: MemoryTable;
  readonly #faults: FaultLog;
  readonly #hooks: RingHooks;
  readonly #chain = new DescriptorChain();
  #log: DirtyLog | null = null;
  #interruptsDue = false;
  /** Rings that were last told to be started. */
  readonly #working = new Set<number>();
  /** Rings that run, are disabled, and must be emptied. */
  #discarding: readonly Vring[] = [];
  /** Rings that run and whose driver does not kick. */
  #polled: readonly Vring[] = [];

  /** As many rings as the device has queues, all stopped. */
  constructor(device: Device, table: MemoryTable, faults: FaultLog, hooks: RingHooks) {
    this.#device = device;
    this.#table = table;
    this.#faults = faults;
    this.#hooks = hooks;
    this.all = device.queueSizes.map((maxSize, index) => new Vring(index, maxSize));
  }

  /** Is no ring running? */
  get isSuspended(): boolean {
    return this.all.every((ring) => ring.queue === null);
  }

  /** Does a ring run here whose driver does not kick? */
  get isPolled(): boolean {
    for (let i = 0; i < this.#polled.length; i++) if (!this.#polled[i].lent) return true;
    return false;
  }

  /**
   * Starts every ring that is described and called for. True if one was started. One that cannot be is counted as a fault
   * and its error event is signalled, once; it is tried again every time, so that the order of messages does not matter.
   * @param quiet say nothing: memory is being replaced piece by piece, and the rest will come
   */
  start(features: FeatureSet, quiet = false): boolean {
    let started = false;
    for (const ring of this.all) {
      if (this.#mayStart(ring) && ring.takeCall() && this.#start(ring, features, quiet)) started = true;
    }
    this.#applyLog();
    return started;
  }

  /** Starts rings that have been kicked while they were disabled. True if there was one. Costs a system call for each. */
  startKicked(features: FeatureSet): boolean {
    for (const ring of this.all) {
      if (ring.enabled || ring.kick === null || ring.state === "failed") continue;
      if (this.#mayStart(ring) && ring.takeCall()) return this.start(features);
    }
    return false;
  }

  /** Lets go of every queue; broken rings stay broken. */
  halt(): void {
    for (const ring of this.all) if (ring.state !== "broken") ring.halt("stopped");
  }

  /** A fault: every ring that runs is broken, and its driver is told. Only a new kick, told last, starts it again. */
  break(): void {
    for (const ring of this.all) {
      if (ring.queue === null) continue;
      ring.halt("broken");
      ring.forgetKick();
      this.#tellError(ring);
    }
  }

  /** Rings were started, stopped, enabled or disabled. */
  changed(): void {
    this.#discarding = this.all.filter((ring) =>
      ring.queue !== null && !ring.enabled && this.#device.discardsWhenDisabled?.(ring.index) === true
    );
    this.budget.refill(ROUND_UNITS / 4);
    while (this.discard() && !this.budget.isExceeded);
    this.#polled = this.all.filter((ring) => ring.queue !== null && ring.isPolled);
  }

  /** Tells which rings the device works now and did not, or the reverse, when that was told last. */
  tellChanges(): void {
    for (const { index, queue, enabled } of this.all) {
      const works = queue !== null && enabled;
      if (works === this.#working.has(index)) continue;
      if (works) this.#working.add(index);
      else this.#working.delete(index);
      this.#hooks.event?.({ event: works ? "queue-started" : "queue-stopped", queue: index });
    }
  }

  /** Writes to memory and rings are told to `log` from now on; null for nobody. */
  logTo(log: DirtyLog | null): void {
    this.#log = log;
    this.#applyLog();
  }

  /** The driver is to be told of ring `index`. */
  interrupt(index: number): void {
    this.all[index].interruptDue = true;
    this.#interruptsDue = true;
  }

  /** Tells the driver what it is to be told. */
  sendInterrupts(): void {
    if (!this.#interruptsDue) return;
    this.#interruptsDue = false;
    for (let i = 0; i < this.all.length; i++) {
      const ring = this.all[i];
      if (!ring.interruptDue) continue;
      ring.interruptDue = false;
      if (ring.call !== null) ring.call.signal();
      else this.#hooks.interruptWithoutEvent(i);
    }
  }

  /** Empties disabled rings that were kicked, as far as the device wants that. True if anything was there. */
  discard(): boolean {
    let did = false;
    for (let i = 0; i < this.#discarding.length; i++) {
      const ring = this.#discarding[i];
      if (ring.queue !== null && (ring.mustLook || ring.isPolled) && this.#empty(ring)) did = true;
    }
    return did;
  }

  /** Has a disabled ring that is to be emptied been kicked? Costs a system call for each of them. */
  takeKicks(): boolean {
    let kicked = false;
    for (let i = 0; i < this.#discarding.length; i++) {
      const ring = this.#discarding[i];
      if (ring.queue === null || ring.kick?.take() !== true) continue;
      ring.mustLook = true;
      kicked = true;
    }
    return kicked;
  }

  /** Forgets all that the driver has told. */
  forget(): void {
    for (const ring of this.all) ring.forget();
    this.changed();
    this.tellChanges();
  }

  /** The front-end is gone. */
  [Symbol.dispose](): void {
    for (const ring of this.all) ring[Symbol.dispose]();
    this.changed();
    this.tellChanges();
  }

  #mayStart(ring: Vring): boolean {
    return ring.queue === null && ring.isDescribed && ring.state !== "broken" && this.#table.size > 0;
  }

  #start(ring: Vring, features: FeatureSet, quiet: boolean): boolean {
    const silent = quiet || ring.state === "failed";
    try {
      ring.start(this.#table, features, this.budget);
      return true;
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      if (!silent) {
        this.#faults.note(error);
        this.#tellError(ring);
      }
      return false;
    }
  }

  #empty(ring: Vring): boolean {
    const queue = ring.queue!;
    let chains = 0;
    ring.mustLook = false;
    try {
      while (chains < BURST && queue.pop(this.#chain)) {
        queue.push(this.#chain.head, 0);
        chains++;
      }
      this.discardedChains += chains;
      if (queue.publish()) this.interrupt(ring.index);
      ring.mustLook = chains === BURST || this.budget.isExceeded || queue.enableKicks();
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      ring.halt("stopped");
    }
    return chains > 0 || ring.mustLook;
  }

  #tellError(ring: Vring): void {
    if (ring.error !== null) ring.error.signal();
    else this.#hooks.errorWithoutEvent(ring.index);
  }

  #applyLog(): void {
    this.#table.memory.dirtyLog = this.#log;
    for (const { queue, addresses } of this.all) {
      if (queue === null || addresses === null) continue;
      queue.logTo(addresses.log === null ? null : this.#log, addresses.log ?? 0);
    }
  }
}
