/**
 * The device, and what it is lent while it is active.
 *
 * Theory of operation. `use` lends it a session, activates it by that, and makes the session's queues those of rings that run
 * and are enabled, as often as that changes; `end` takes everything back. Nothing is ever in flight between two rounds: the
 * device returns every buffer in the round in which it took it. Nothing is caught here: whoever calls deals with a
 * GuestError, and the session is there until `end`.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { DeviceEventListener } from "../../core/events.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import { LentSession } from "./lent_session.ts";
import type { Vring } from "./vring.ts";

/** What a device asks for while it is active. */
export interface ActiveDeviceHooks {
  /** Ring `index` has used buffers. */
  interrupt(index: number): void;
  /** Configuration space has changed. */
  configChanged(): void;
  /** Queues are to be taken back from other threads. Throws GuestError. */
  recall(): void;
  /** The device was activated or reset. Left out: nothing is told. */
  event?: DeviceEventListener | undefined;
}

/** One device of one front-end. */
export class ActiveDevice {
  readonly #device: Device;
  readonly #hooks: ActiveDeviceHooks;
  #session: LentSession | null = null;

  /** The device is reset. */
  constructor(device: Device, hooks: ActiveDeviceHooks) {
    this.#device = device;
    this.#hooks = hooks;
  }

  /** Is it active? */
  get isActive(): boolean {
    return this.#session !== null;
  }

  /**
   * Makes its queues those of rings that run and are enabled, and tells it if they were others; activates it first, if it is
   * not. Throws what the device throws.
   */
  use(features: FeatureSet, memory: GuestMemory, rings: readonly Vring[]): void {
    const { queues } = this.#session ?? this.#begin(features, memory, rings.length);
    let changed = false;
    for (const { index, enabled, queue } of rings) {
      const used: Virtqueue | null = enabled ? queue : null;
      if (queues[index] === used) continue;
      queues[index] = used;
      changed = true;
    }
    if (changed) this.#device.queuesChanged?.();
  }

  /** The memory was replaced. */
  useMemory(memory: GuestMemory): void {
    if (this.#session !== null) this.#session.memory = memory;
  }

  /** One round. True if anything moved. Throws what the device throws. */
  poll(nowNs: number): boolean {
    return this.#session !== null && this.#device.poll(nowNs);
  }

  /** When it wants to be polled, in ns. */
  deadlineNs(): number {
    return this.#session === null ? Infinity : this.#device.deadlineNs();
  }

  /** Lets go what it holds. Throws what the device throws. */
  drain(nowNs: number): void {
    if (this.#session !== null) this.#device.drain(nowNs);
  }

  /** Resets it. False if it was not active. */
  end(): boolean {
    if (this.#session === null) return false;
    this.#session.queues.fill(null);
    this.#session = null;
    this.#device.reset();
    this.#hooks.event?.({ event: "reset" });
    return true;
  }

  #begin(features: FeatureSet, memory: GuestMemory, rings: number): LentSession {
    const { interrupt, configChanged, recall } = this.#hooks;
    const session = new LentSession(features, memory, rings, interrupt, configChanged, recall);
    this.#session = session;
    this.#device.activate(session);
    this.#hooks.event?.({ event: "ready" });
    return session;
  }
}
