/**
 * A guest made of software: a virtio driver that drives a device through real rings in memory of its own,
 * without a hypervisor.
 *
 * Theory of operation. `attach()` chooses features, lays memory and queues out, and takes the device over as
 * section 3.1.1 of virtio 1.2 says; `poll()` works the queues; `detach()` resets the device. This class is
 * what all drivers have in common. The driver of a device type extends it, or {@linkcode RequestGuest}, which
 * has buffers to post by hand.
 *
 *     attach -> chooseFeatures -> planQueues -> prepare -> (handshake) -> begin -> work, work, …  -> detach
 *
 * The guest distrusts the device as the device distrusts the guest: what is wrong with what comes back is
 * counted as `malformed` and, for the first hundred times, described in `errors`. When the device needs a
 * reset, the guest stops until it is attached again. Memory is made anew at each attachment.
 * @module
 */
import {
  type Device,
  type DeviceEvent,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "../core/device.ts";
import type { Arena } from "../rings/arena.ts";
import { HostError } from "../core/errors.ts";
import type { FeatureSet } from "../core/features.ts";
import type { GuestMemory } from "../rings/memory.ts";
import type { Pollable } from "../core/reactor.ts";
import { type DriverNotifications, DriverSession } from "../core/session.ts";
import type { DriverRing } from "./driver_ring.ts";
import { type GuestStorage, type PlacedQueue, QueuePlan } from "./guest_queues.ts";
import type { SoftwareGuestOptions } from "./options.ts";

const MAX_ERRORS = 100;
const PAGE_BYTES = 4096;
/** Chains that one turn takes from one queue at most. */
const BUDGET = 64;

/** What a software guest tells of itself. */
export interface GuestHooks {
  /** Something has happened between guest and device. */
  onEvent?(event: DeviceEvent): void;
  /**
   * The configuration has changed. The device is in the middle of its work: the guest must not be detached
   * here.
   */
  onConfigChanged?(): void;
}

/** What every software guest counts. */
export type GuestCounters = {
  /** Interrupts. */
  interrupts: number;
  /** Interrupts of a queue on which they were refused: allowed, but a waste. */
  unwantedInterrupts: number;
  /** Kicks. */
  kicks: number;
  /** Configuration changes that the device told. */
  configChanges: number;
  /** Times that the device needed a reset. */
  needsReset: number;
  /** Things that a device must not do; see `errors`. */
  malformed: number;
};

/** Counters of every software guest, all 0. */
export function newGuestCounters(): GuestCounters {
  return { interrupts: 0, unwantedInterrupts: 0, kicks: 0, configChanges: 0, needsReset: 0, malformed: 0 };
}

/** What a guest has between `attach` and the next one. */
interface Attachment {
  readonly features: FeatureSet;
  readonly memory: GuestMemory;
  readonly notifications: QueueNotifications;
  readonly session: DriverSession;
}

/** What all software guests have in common. */
export abstract class SoftwareGuest implements Pollable {
  /** Its options, complete. */
  readonly options: SoftwareGuestOptions;
  /** Whom it tells what; may be filled at any time. */
  readonly hooks: GuestHooks;
  /** What it has counted, over all attachments; live. */
  readonly counters: GuestCounters;
  /** What the device has done wrong, in words: the first hundred times. */
  readonly errors: string[] = [];
  /**
   * Where its memory is to lie, beside the frames of its machine; null for a buffer of its own. Set before
   * `attach`.
   */
  arena: Arena | null = null;
  #link: Attachment | null = null;
  /** What it has of the arena: used again at each attachment. */
  #range = { start: 0, bytes: 0 };
  #attached = false;
  #broken = false;

  /** Makes a guest that is not attached yet. @param options complete options */
  constructor(options: SoftwareGuestOptions, hooks: GuestHooks, counters: GuestCounters) {
    this.options = options;
    this.hooks = hooks;
    this.counters = counters;
  }

  /** Is it driving a device? */
  get attached(): boolean {
    return this.#attached;
  }

  /**
   * Has the driver done all that it was told to do, so that its machine may end? A driver that only serves
   * never has.
   */
  get finished(): boolean {
    return false;
  }

  /** The session of the last attachment. Error if there was none, as with all that follow. */
  get session(): DriverSession {
    return this.#lastLink().session;
  }

  /** The guest's memory, made anew at each attachment. */
  get memory(): GuestMemory {
    return this.#lastLink().memory;
  }

  /** The features that were agreed on. */
  get features(): FeatureSet {
    return this.#lastLink().features;
  }

  /** The driver's side of every queue by index; null where the guest has none. */
  get rings(): readonly (DriverRing | null)[] {
    return this.#lastLink().notifications.rings;
  }

  /** Interrupts and kicks of the last attachment. */
  protected get notifications(): QueueNotifications {
    return this.#lastLink().notifications;
  }

  /**
   * Takes the device over, from reset to DRIVER_OK (virtio 1.2, section 3.1.1); a device that it had before
   * is let go. HostError, with the reason, if the device refuses or the options do not fit it.
   */
  attach(device: Device): DriverSession {
    this.detach();
    const features = this.chooseFeatures(device.features);
    const plan = new QueuePlan(device, this.options, features);
    this.planQueues(plan, device);
    // It may lie in the same place again.
    this.#link?.memory.revoke();
    const { memory, placed } = plan.build((bytes) => this.#storage(bytes));
    const notifications = new QueueNotifications(device, placed, this);
    const session = new DriverSession(device, memory, notifications);
    this.#link = { features, memory, notifications, session };
    this.#broken = false;
    this.prepare(placed);
    session.writeStatus(0);
    this.#advance(device, STATUS_ACKNOWLEDGE, "noticed");
    this.#advance(device, STATUS_DRIVER, "known");
    session.writeDriverFeatures(features);
    // Before virtio 1.0 there was no step at which a device could refuse.
    if (!this.options.legacy) this.#advance(device, STATUS_FEATURES_OK, `driven with features ${features}`);
    for (const { index, place: { size, descriptors, driver, device } } of placed) {
      session.setupQueue(index, { size, descriptors, driver, device });
    }
    notifications.prepare();
    this.#advance(device, STATUS_DRIVER_OK, "started");
    this.#attached = true;
    this.begin();
    return session;
  }

  /**
   * Lets the device go: resets it, and waits for none of its requests in flight, which touch nothing from now
   * on. Does nothing if the guest is not attached. The device cannot be attached again before those are over.
   */
  detach(): void {
    if (!this.#attached) return;
    this.#attached = false;
    const { notifications, session } = this.#link!;
    notifications.closed = true;
    session.writeStatus(0);
    session.giveUp();
  }

  /** Works the queues: takes what the device has used. True if anything was done. */
  poll(nowNs: number): boolean {
    if (!this.#attached || this.#isBroken()) return false;
    this.#link!.notifications.due = false;
    return this.work(nowNs);
  }

  /** When the guest wants to be polled although nothing wakes it, in ns; Infinity if never. */
  deadlineNs(): number {
    if (!this.#attached || this.#broken) return Infinity;
    return this.#link!.notifications.due ? 0 : this.nextNs();
  }

  /** Counts something that a device must not do, and keeps it in words if there is room. */
  malformed(problem: string): void {
    this.counters.malformed++;
    this.#note(problem);
  }

  /** Which of the offered features the driver accepts. HostError if it cannot drive such a device. */
  protected abstract chooseFeatures(offered: FeatureSet): FeatureSet;

  /** Says which queues the driver uses. HostError if the device does not have them. */
  protected abstract planQueues(plan: QueuePlan, device: Device): void;

  /** Memory and queues are there; the device has not heard of them. */
  protected prepare(_queues: readonly PlacedQueue[]): void {}

  /** The device has started: buffers may be posted. */
  protected begin(): void {}

  /** Works all queues once, within bounds. True if anything was done. */
  protected abstract work(nowNs: number): boolean;

  /** When the driver wants to work although nothing has interrupted it, in ns. */
  protected nextNs(): number {
    return Infinity;
  }

  #storage(bytes: number): ReturnType<GuestStorage> {
    const { arena } = this;
    if (arena === null) return { buffer: new ArrayBuffer(bytes), bufferOffset: 0 };
    if (this.#range.bytes >= bytes) {
      new Uint8Array(arena.buffer, this.#range.start, bytes).fill(0);
    } else {
      const start = arena.takeRange(bytes, PAGE_BYTES);
      if (start === null) return { buffer: new ArrayBuffer(bytes), bufferOffset: 0 };
      this.#range = { start, bytes };
    }
    return { buffer: arena.buffer, bufferOffset: this.#range.start };
  }

  #note(problem: string): void {
    if (this.errors.length < MAX_ERRORS) this.errors.push(problem);
  }

  /** Sets a bit of the status; HostError, with the device's reasons, if the device does not take it. */
  #advance(device: Device, bit: number, what: string): void {
    const { session } = this.#link!;
    session.writeStatus(session.status | bit);
    const { status, lastFault } = session;
    if ((status & (bit | STATUS_NEEDS_RESET)) === bit && lastFault === null) return;
    session.writeStatus(status | STATUS_FAILED);
    session.writeStatus(0);
    const reason = lastFault?.message ?? "no reason given";
    throw new HostError(`Cannot attach to device ${device.name}: it refuses to be ${what} (${reason})`);
  }

  #isBroken(): boolean {
    const { session } = this.#link!;
    if (!this.#broken && (session.status & STATUS_NEEDS_RESET) !== 0) {
      this.#broken = true;
      this.counters.needsReset++;
      this.#note(`the device needs a reset: ${JSON.stringify(session.faults)}`);
    }
    return this.#broken;
  }

  #lastLink(): Attachment {
    if (this.#link === null) {
      throw new Error("Cannot look into a guest that was never attached: attach it first");
    }
    return this.#link;
  }
}

// Interrupts and kicks of all queues of a software guest.
//
// Theory of operation. Two marks for each queue:
//
//     #pending[queue]   an interrupt has come, or the budget ran out before the work did
//     #quiet[queue]     interrupts are refused: while a queue is worked, and until it has been found empty
//
// A queue that wants work is worked in three steps (`work`): refuse interrupts; take what the device has
// used, up to `BUDGET`; if nothing is left, ask for interrupts again and look once more, since the device may
// have been faster. So the guest sleeps on every queue unless an interrupt came, and a device that forgets
// one is found out. A polling guest wants work on every queue at every turn and refuses interrupts
// throughout.
//
// The other way round, `publish()` kicks the device (`device.wake()`) only if the device asked for it at that
// place in the ring. A device that has switched kicks off must look by itself, or it will not hear of new
// buffers.

/** Interrupts and kicks of one attachment. */
export class QueueNotifications implements DriverNotifications {
  /** The driver's side of every queue by index; null where the guest has none. */
  readonly rings: readonly (DriverRing | null)[];
  /** Has an interrupt come since this was last set to false? */
  due = false;
  /** Is the attachment over? Then the device must not be heard of any more. */
  closed = false;

  readonly #device: Device;
  readonly #guest: SoftwareGuest;
  readonly #polling: boolean;
  readonly #pending: Uint8Array;
  readonly #quiet: Uint8Array;

  /**
   * Begins with all queues asleep.
   * @param placed the queues by ascending index
   * @param guest whose queues they are
   */
  constructor(device: Device, placed: readonly PlacedQueue[], guest: SoftwareGuest) {
    this.#device = device;
    this.#guest = guest;
    this.#polling = guest.options.polling;
    const rings = new Array<DriverRing | null>((placed.at(-1)?.index ?? -1) + 1).fill(null);
    for (const { index, ring } of placed) rings[index] = ring;
    this.rings = rings;
    this.#pending = new Uint8Array(rings.length);
    this.#quiet = new Uint8Array(rings.length);
  }

  /** Tells the device, before it is started, on which queues the guest wants interrupts. */
  prepare(): void {
    for (let index = 0; index < this.rings.length; index++) {
      if (this.rings[index] === null) continue;
      if (this.#polling) this.#refuse(index);
      else this.rings[index]!.enableInterrupts();
    }
  }

  /** The device says that queue `index` has used chains. */
  interrupt(index: number): void {
    this.#guest.counters.interrupts++;
    if (this.closed || (this.rings[index] ?? null) === null) {
      this.#guest.malformed(`interrupt of queue ${index}, which is not in use`);
      return;
    }
    if (this.#quiet[index] === 1) this.#guest.counters.unwantedInterrupts++;
    this.#pending[index] = 1;
    this.due = true;
  }

  /** The device says that its configuration has changed. */
  configChanged(): void {
    this.#guest.counters.configChanges++;
    this.#guest.hooks.onConfigChanged?.();
  }

  /** Something has happened between guest and device. */
  event(event: DeviceEvent): void {
    this.#guest.hooks.onEvent?.(event);
  }

  /** Shows the device what was added to queue `index`, and kicks it if it wants that. */
  publish(index: number): void {
    if (!this.rings[index]!.publish()) return;
    this.#guest.counters.kicks++;
    this.#device.wake();
  }

  /**
   * Works queue `index`, if there is work on it as far as the guest can know. What is left after 64 chains
   * waits for the next turn. Returns how many were taken.
   * @param takeOne takes the next chain that the device has used; false if there is none
   */
  work(index: number, takeOne: (index: number) => boolean): number {
    let taken = 0;
    if (this.closed || !(this.#polling || this.#pending[index] === 1)) return taken;
    do {
      this.#refuse(index);
      while (taken < BUDGET && !this.closed && takeOne(index)) taken++;
    } while (taken < BUDGET && this.#rest(index));
    return taken;
  }

  /** Tells the device that interrupts of queue `index` are a waste for now. */
  #refuse(index: number): void {
    this.#quiet[index] = 1;
    this.rings[index]!.disableInterrupts();
  }

  /** Queue `index` was found empty: sleep until the next interrupt. True if there is something after all. */
  #rest(index: number): boolean {
    if (this.closed || this.#polling) return false;
    this.#quiet[index] = 0;
    if (this.rings[index]!.enableInterrupts()) return true;
    this.#pending[index] = 0;
    return false;
  }
}
