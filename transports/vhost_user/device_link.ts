/**
 * Between rings and device: what the device is lent, and what happens when the guest breaks a rule.
 *
 * Theory of operation. The front-end's messages change rings, features and memory, one at a time and in any order, also
 * while the device works. After each change `settle` does what follows: rings that are described and called for are
 * started; the device is activated with the first of them, once features are known; the session's `queues` are made to
 * be those of rings that run and are enabled, and the device is told if that has changed.
 *
 *     features known + first ring running --> activate --> reset: other features, a fault, SET_STATUS 0, disconnect
 *
 * Nothing is ever in flight between two rounds of the device: it returns every buffer in the round in which it took it.
 * A ring can hence be made anew at any time, at the place where it stood: when the memory is replaced, when its addresses
 * are told again (a migration begins), when features change. Before a ring is disabled or stopped the device is drained,
 * so that what it holds for the guest gets there.
 *
 * A ring that runs but is disabled has no effect: the device says which of them are to be emptied all the same
 * (`discardsWhenDisabled`), the others are left alone.
 *
 * A GuestError in a round is the guest's doing, or the front-end's: nobody can say what the device has done by then, so
 * that it is reset and every ring is broken. Error events are signalled, the fault is counted, and the front-end begins
 * again when it likes. Errors of our own pass through.
 *
 * `poll` and the messages come in turn, never one within the other.
 *
 * Where other threads work the data queues (`lending.ts`), `poll` lends them at its end; `recall` must come before every
 * message, and the device asks for it before a command.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { FaultLog } from "../../core/fault_log.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { DirtyLog } from "../../core/memory.ts";
import { FRESH_RING } from "../../core/packed_ring.ts";
import type { LogLoan, RingBorrower } from "../../core/threads.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import { Lending } from "./lending.ts";
import { LentSession } from "./lent_session.ts";
import type { MemoryTable } from "./memory_table.ts";
import { type RingHooks, RingSet } from "./ring_set.ts";
import type { Vring } from "./vring.ts";

/** How often rings are looked at whose driver does not kick, in ns. */
export const POLL_INTERVAL_NS = 200_000;

/** Whom the link tells. */
export interface LinkHooks extends RingHooks {
  /** Configuration space, or whether the device needs a reset, has changed. */
  configChanged(): void;
}

/** A device and the rings of one front-end. */
export class DeviceLink implements Disposable {
  readonly #device: Device;
  readonly #table: MemoryTable;
  readonly #faults: FaultLog;
  readonly #hooks: LinkHooks;
  readonly #rings: RingSet;
  readonly #lending: Lending | null;
  #logLoan: LogLoan | null = null;
  #features: FeatureSet | null = null;
  #session: LentSession | null = null;
  #needsReset = false;
  #nowNs = 0;

  /**
   * Begins with a device that is reset.
   * @param table whose memory is used; its owner changes it and calls `memoryChanged`
   * @param borrower who works the queues that the device leaves to threads; null if it leaves none
   */
  constructor(
    device: Device,
    table: MemoryTable,
    faults: FaultLog,
    hooks: LinkHooks,
    borrower: RingBorrower | null = null,
  ) {
    this.#device = device;
    this.#table = table;
    this.#faults = faults;
    this.#hooks = hooks;
    this.#rings = new RingSet(device, table, faults, hooks);
    this.#lending = borrower && new Lending(borrower, device, table, this.#rings);
  }

  /** The rings, by index. Whoever changes one calls `settle`, `redescribed` or one of the methods that take a ring. */
  get rings(): readonly Vring[] {
    return this.#rings.all;
  }

  /** Chains that disabled rings were emptied of. */
  get discardedChains(): number {
    return this.#rings.discardedChains;
  }

  /** What was agreed on; null before. */
  get features(): FeatureSet | null {
    return this.#features;
  }

  /** Does the device wait for being set up anew, after a fault? */
  get needsReset(): boolean {
    return this.#needsReset;
  }

  /** Is no ring running? */
  get isSuspended(): boolean {
    return this.#rings.isSuspended;
  }

  /**
   * The features that the device works by, judged already; null to forget them. With others than before the device is
   * reset, and begins anew with the same rings at the same places.
   */
  setFeatures(features: FeatureSet | null): void {
    const before = this.#features;
    if (features !== null && before !== null && features.equals(before)) return;
    this.#drain();
    this.#release();
    this.#rings.halt();
    this.#features = features;
    this.settle();
  }

  /** Enables every ring: the front-end knows no SET_VRING_ENABLE. */
  enableAll(): void {
    for (const ring of this.rings) ring.enabled = true;
    this.settle();
  }

  /** Enables or disables a ring. What the device holds gets out before. */
  setEnabled(ring: Vring, enabled: boolean): void {
    if (ring.enabled === enabled) return;
    if (!enabled && ring.queue !== null) this.#drain();
    ring.enabled = enabled;
    ring.kicksOn = false;
    this.settle();
  }

  /** The ring is described differently now: it is made anew, from `base` on if that is not null. */
  redescribed(ring: Vring, base: number | null = null): void {
    ring.halt("stopped");
    ring.forgottenBase = null;
    if (base !== null) ring.base = base;
    this.settle();
  }

  /** The memory behind the rings was replaced: all of them are made anew. */
  memoryChanged(): void {
    this.#rings.halt();
    if (this.#session !== null) this.#session.memory = this.#table.memory;
    this.settle(true);
  }

  /** Writes are told to `log` from now on, by other threads to the same one, which is `loan`; null for nobody. */
  logTo(log: DirtyLog | null, loan: LogLoan | null): void {
    this.#logLoan = loan;
    this.#rings.logTo(log);
  }

  /** Takes back what other threads have, before anything changes. What they have found broken is dealt with. */
  recall(): void {
    this.#guard(() => this.#takeBack());
  }

  /** Stops a ring and returns where it stands: the next available index, or both packed positions. */
  stop(ring: Vring): number {
    if (ring.queue !== null) this.#drain();
    ring.halt("stopped");
    ring.forgetKick();
    this.settle();
    const base = ring.base ?? ring.forgottenBase;
    if (base !== null) return base;
    return this.#features?.has(VIRTIO_F_RING_PACKED) === true ? FRESH_RING : 0;
  }

  /**
   * The driver resets the device, or the front-end stops it that way. What the device holds gets out, then everything is
   * forgotten but memory and how to reach the driver.
   */
  reset(): void {
    this.#drain();
    this.#forget();
  }

  /** Does what follows from a change. @param quiet a ring that cannot be started now is no fault */
  settle(quiet = false): void {
    if (this.#features !== null && this.#rings.start(this.#features, quiet)) this.#needsReset = false;
    this.#lend();
    this.#rings.sendInterrupts();
  }

  /** One round of the device. True if anything moved. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    let did = false;
    try {
      this.#hearThreads();
      did = this.#rings.discard();
      if (this.#session !== null && this.#device.poll(nowNs)) did = true;
    } catch (error) {
      this.#fail(error);
      did = true;
    }
    this.#rings.sendInterrupts();
    if (!did && this.#features !== null && this.#rings.startKicked(this.#features)) {
      this.recall();
      this.#lend();
      did = true;
    }
    if (this.#lending !== null && !this.#lending.isLent) this.#lendToThreads(this.#lending);
    return did;
  }

  /** When to poll although nothing kicks, in ns. */
  deadlineNs(): number {
    const due = this.#session === null ? Infinity : this.#device.deadlineNs();
    return this.#rings.isPolled ? Math.min(due, this.#nowNs + POLL_INTERVAL_NS) : due;
  }

  /** The front-end is gone. */
  [Symbol.dispose](): void {
    this.recall();
    this.#forget();
    this.#rings[Symbol.dispose]();
  }

  /** Makes the session's queues those that it should have, and tells the device if they were others. */
  #lend(): void {
    this.#rings.changed();
    if (this.#session === null) {
      if (this.#features === null || this.isSuspended) return;
      this.#activate(this.#features);
    }
    const queues = this.#session?.queues;
    if (queues === undefined) return;
    let changed = false;
    for (const { index, enabled, queue } of this.rings) {
      const lent: Virtqueue | null = enabled ? queue : null;
      if (queues[index] === lent) continue;
      queues[index] = lent;
      changed = true;
    }
    if (changed) this.#guard(() => this.#device.queuesChanged?.());
  }

  #activate(features: FeatureSet): void {
    const session = new LentSession(
      features,
      this.#table.memory,
      this.rings.length,
      (index) => this.#rings.interrupt(index),
      () => this.#hooks.configChanged(),
      () => this.#takeBack(),
    );
    this.#session = session;
    this.#guard(() => this.#device.activate(session));
  }

  #drain(): void {
    if (this.#session !== null) this.#guard(() => this.#device.drain(this.#nowNs));
    this.#rings.sendInterrupts();
  }

  #forget(): void {
    this.#release();
    this.#features = null;
    this.#needsReset = false;
    this.#rings.forget();
  }

  #release(): void {
    if (this.#session === null) return;
    this.#session.queues.fill(null);
    this.#session = null;
    this.#device.reset();
    this.#lending?.reset();
  }

  /** Throws GuestError for what the guest has broken meanwhile. */
  #takeBack(): void {
    const fault = this.#lending?.recall(this.#features) ?? null;
    if (fault !== null) throw fault;
  }

  #hearThreads(): void {
    const news = this.#lending?.takeNews() ?? null;
    if (news === null) return;
    for (const index of news.interrupts) this.#rings.interrupt(index);
    if (news.hasFault) this.#takeBack();
  }

  #lendToThreads(lending: Lending): void {
    // What was taken back was made anew: the device must see these queues before somebody else gets them.
    this.#lend();
    if (this.#session !== null && this.#features !== null) lending.lend(this.#features, this.#logLoan);
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#faults.note(error);
    const second = this.#lending?.recall(this.#features) ?? null;
    if (second !== null) this.#faults.note(second);
    this.#rings.break();
    this.#rings.changed();
    this.#release();
    this.#needsReset = true;
    this.#hooks.configChanged();
  }
}
