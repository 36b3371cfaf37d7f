/**
 * Interrupts and kicks of all queues of a software guest: who may sleep, and who is told.
 *
 * Theory of operation. Two marks for each queue:
 *
 *     #pending[queue]   an interrupt has come, or the budget ran out before the work did
 *     #quiet[queue]     interrupts are refused: while a queue is worked, and until it has been found empty
 *
 * A queue that `wants()` work is worked in three steps: `refuse()` interrupts; take what the device has used, up to a
 * budget; if nothing is left, `rest()`: ask for interrupts again and look once more, since the device may have been
 * faster. So the guest sleeps on every queue unless an interrupt came, and a device that forgets one is found out. A
 * polling guest wants work on every queue at every turn and refuses interrupts throughout.
 *
 * The other way round, `publish()` kicks the device (`device.wake()`) only if the device asked for it at that place in
 * the ring. A device that has switched kicks off must look by itself, or it will not hear of new buffers.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { DeviceEvent } from "../../core/events.ts";
import type { DriverNotifications } from "../../core/session.ts";
import type { DriverRing } from "./driver_ring.ts";
import type { GuestHooks, GuestRecord } from "./guest_counters.ts";
import type { PlacedQueue } from "./guest_queues.ts";

/** Interrupts and kicks of one attachment. */
export class QueueNotifications implements DriverNotifications {
  /** The driver's side of every queue by index; null where the guest has none. */
  readonly rings: readonly (DriverRing | null)[];
  /** Has an interrupt come since this was last set to false? */
  due = false;
  /** Is the attachment over? Then the device must not be heard of any more. */
  closed = false;

  readonly #device: Device;
  readonly #polling: boolean;
  readonly #hooks: GuestHooks;
  readonly #record: GuestRecord;
  readonly #pending: Uint8Array;
  readonly #quiet: Uint8Array;

  /**
   * Begins with all queues asleep.
   * @param placed the queues, at least one, by ascending index
   * @param polling never sleep
   */
  constructor(
    device: Device,
    placed: readonly PlacedQueue[],
    polling: boolean,
    hooks: GuestHooks,
    record: GuestRecord,
  ) {
    this.#device = device;
    this.#polling = polling;
    this.#hooks = hooks;
    this.#record = record;
    const rings = new Array<DriverRing | null>(placed[placed.length - 1].index + 1).fill(null);
    for (const { index, ring } of placed) rings[index] = ring;
    this.rings = rings;
    this.#pending = new Uint8Array(rings.length);
    this.#quiet = new Uint8Array(rings.length);
  }

  /** Tells the device, before it is started, on which queues the guest wants interrupts. */
  prepare(): void {
    for (let index = 0; index < this.rings.length; index++) {
      if (this.rings[index] === null) continue;
      if (this.#polling) this.refuse(index);
      else this.rings[index]!.enableInterrupts();
    }
  }

  /** The device says that queue `index` has used chains. */
  interrupt(index: number): void {
    this.#record.counters.interrupts++;
    if (this.closed || (this.rings[index] ?? null) === null) {
      this.#record.malformed(`interrupt of queue ${index}, which is not in use`);
      return;
    }
    if (this.#quiet[index] === 1) this.#record.counters.unwantedInterrupts++;
    this.#pending[index] = 1;
    this.due = true;
  }

  /** The device says that its configuration has changed. */
  configChanged(): void {
    this.#record.counters.configChanges++;
    this.#hooks.onConfigChanged?.();
  }

  /** Something has happened between guest and device. */
  event(event: DeviceEvent): void {
    this.#hooks.onEvent?.(event);
  }

  /** Shows the device what was added to queue `index`, and kicks it if it wants that. */
  publish(index: number): void {
    if (!this.rings[index]!.publish()) return;
    this.#record.counters.kicks++;
    this.#device.wake();
  }

  /** Is there work on queue `index`, as far as the guest can know? */
  wants(index: number): boolean {
    return !this.closed && (this.#polling || this.#pending[index] === 1);
  }

  /** Tells the device that interrupts of queue `index` are a waste for now. */
  refuse(index: number): void {
    this.#quiet[index] = 1;
    this.rings[index]!.disableInterrupts();
  }

  /** Queue `index` was found empty: sleep until the next interrupt. True if there is something after all. */
  rest(index: number): boolean {
    if (this.closed || this.#polling) return false;
    this.#quiet[index] = 0;
    if (this.rings[index]!.enableInterrupts()) return true;
    this.#pending[index] = 0;
    return false;
  }
}
