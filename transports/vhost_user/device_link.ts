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
 * Nothing is ever in flight between two rounds of the device (`active_device.ts`). A ring can hence be made anew at any time,
 * at the place where it stood: when the memory is replaced, when its addresses are told again (a migration begins), when
 * features change. Before a ring is disabled or stopped the device is drained, so that what it holds for the guest gets there.
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
import type { FeatureSet } from "../../core/features.ts";
import type { DirtyLog } from "../../core/memory.ts";
import type { LogLoan, RingBorrower } from "../../core/threads.ts";
import { ActiveDevice } from "./active_device.ts";
import { Lending } from "./lending.ts";
import type { MemoryTable } from "./memory_table.ts";
import { type RingHooks, RingSet } from "./ring_set.ts";
import type { Vring } from "./vring.ts";

/** How often rings are looked at whose driver does not kick, in ns. */
export const POLL_INTERVAL_NS = 200_000;
/** Rounds from one look for kicks of disabled rings to the next while the device has work: a look is a system call. */
const ROUNDS_PER_KICK = 64;

/** Whom the link tells. */
export interface LinkHooks extends RingHooks {
  /** Configuration space, or whether the device needs a reset, has changed. */
  configChanged(): void;
}

/** A device and the rings of one front-end. */
export class DeviceLink implements Disposable {
  readonly #device: ActiveDevice;
  readonly #table: MemoryTable;
  readonly #faults: FaultLog;
  readonly #hooks: LinkHooks;
  readonly #rings: RingSet;
  readonly #lending: Lending;
  #features: FeatureSet | null = null;
  #needsReset = false;
  #nowNs = 0;
  #round = 0;

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
    this.#table = table;
    this.#faults = faults;
    this.#hooks = hooks;
    this.#rings = new RingSet(device, table, faults, hooks);
    this.#lending = new Lending(borrower, device, table, this.#rings);
    this.#device = new ActiveDevice(device, {
      interrupt: (index) => this.#rings.interrupt(index),
      configChanged: () => hooks.configChanged(),
      recall: () => this.#takeBack(),
      event: hooks.event,
    });
  }

  /** The rings, by index. Whoever changes one calls `settle`, and before one is disabled or stopped `drain`. */
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
    if (features !== null && before !== null && features.equals(before) && !this.#isAbandoned) return;
    this.drain();
    this.#release();
    this.#rings.halt();
    this.#features = features;
    if (features !== null) this.#hooks.event?.({ event: "features", features });
    this.settle();
  }

  /**
   * Has the device lost all its rings, and was none of them stopped? So User-mode Linux takes a driver away; the features are
   * those of the next one.
   */
  get #isAbandoned(): boolean {
    return this.#device.isActive && this.rings.some(({ wasEnabled }) => wasEnabled) &&
      !this.rings.some(({ enabled }) => enabled);
  }

  /** Enables every ring: the front-end knows no SET_VRING_ENABLE. */
  enableAll(): void {
    for (const ring of this.rings) ring.enable(true);
    this.settle();
  }

  /** The memory behind the rings was replaced: all of them are made anew. */
  memoryChanged(): void {
    this.#rings.halt();
    this.#device.useMemory(this.#table.memory);
    this.settle(true);
  }

  /** Writes are told to `log` from now on, by other threads to the same one, which is `loan`; null for nobody. */
  logTo(log: DirtyLog | null, loan: LogLoan | null): void {
    this.#lending.log = loan;
    this.#rings.logTo(log);
  }

  /** Takes back what other threads have, before anything changes. What they have found broken is dealt with. */
  recall(): void {
    this.#guard(() => this.#takeBack());
  }

  /**
   * The driver resets the device, or the front-end stops it that way. What the device holds gets out, then everything is
   * forgotten but memory and how to reach the driver.
   */
  reset(): void {
    this.drain();
    this.#forget();
  }

  /** Lets what the device holds get to the guest. */
  drain(): void {
    this.#rings.budget.refill(Infinity);
    this.#guard(() => this.#device.drain(this.#nowNs));
    this.#rings.sendInterrupts();
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
    this.#rings.budget.refill();
    let did = false;
    try {
      if (this.#lending.hear()) this.#takeBack();
      did = this.#rings.discard();
      if (this.#device.poll(nowNs) || this.#rings.budget.isExceeded) did = true;
    } catch (error) {
      this.#fail(error);
      did = true;
    }
    this.#rings.sendInterrupts();
    this.#round = (this.#round + 1) % ROUNDS_PER_KICK;
    if (!did || this.#round === 0) did = this.#lookForKicks() || did;
    if (this.#lending.isDue) this.#lendToThreads();
    return did;
  }

  /** When to poll although nothing kicks, in ns. */
  deadlineNs(): number {
    const due = this.#device.deadlineNs();
    return this.#rings.isPolled ? Math.min(due, this.#nowNs + POLL_INTERVAL_NS) : due;
  }

  /** The front-end is gone. */
  [Symbol.dispose](): void {
    this.recall();
    this.#forget();
    this.#rings[Symbol.dispose]();
  }

  /** Looks for kicks of disabled rings. True if there was one. */
  #lookForKicks(): boolean {
    const kicked = this.#rings.takeKicks();
    if (this.#features === null || !this.#rings.startKicked(this.#features)) return kicked;
    this.recall();
    this.#lend();
    return true;
  }

  /** Has the device see the queues that it should have. */
  #lend(): void {
    this.#rings.changed();
    const features = this.#features;
    if (features !== null && (this.#device.isActive || !this.isSuspended)) {
      this.#guard(() => this.#device.use(features, this.#table.memory, this.rings));
    }
    this.#rings.tellChanges();
  }

  #forget(): void {
    this.#release();
    this.#features = null;
    this.#needsReset = false;
    this.#rings.forget();
  }

  #release(): void {
    if (this.#device.end()) this.#lending.reset();
  }

  /** Throws GuestError for what the guest has broken meanwhile. */
  #takeBack(): void {
    const fault = this.#lending.recall(this.#features);
    if (fault !== null) throw fault;
  }

  #lendToThreads(): void {
    // What was taken back was made anew: the device must see these queues before somebody else gets them.
    this.#lend();
    if (this.#device.isActive && this.#features !== null) this.#lending.lend(this.#features);
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
    const second = this.#lending.recall(this.#features);
    if (second !== null) this.#faults.note(second);
    this.#rings.break();
    this.#rings.changed();
    this.#rings.tellChanges();
    this.#release();
    this.#needsReset = true;
    this.#hooks.configChanged();
  }
}
