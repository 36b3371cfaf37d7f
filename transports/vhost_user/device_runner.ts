/**
 * Runs a device for one front-end: gives it rings and memory, and deals with a guest that breaks a rule.
 *
 * Theory of operation. The front-end's messages change rings, features and memory, one at a time and in any
 * order, also while the device works. After each change `settle` does what follows: rings that are described
 * and called for are started; the device is activated with the first of them, once features are known; the
 * session's `queues` are made to be those of rings that run and are enabled, and the device is told if that
 * has changed.
 *
 *     features known + first ring running --> activate --> reset: other features, a fault, SET_STATUS 0, disconnect
 *
 * A message that changes memory, features, or a ring that runs waits until the device has nothing in flight
 * (`quiesce`), so that a ring can be made anew at the place where it stood: when the memory is replaced, when
 * its addresses are told again (a migration begins), when features change. Before a ring is disabled or
 * stopped the device is drained, so that what it holds for the guest gets there. A device that does not come
 * to rest in time fails, as by a fault; it is not activated again before what it had in flight is over.
 *
 * A GuestError in a round is the guest's doing, or the front-end's: it is unknown what the device has done by
 * then, so that it is reset and every ring is broken. Error events are signalled, the fault is counted, and
 * the front-end begins again when it likes. Errors of our own pass through.
 *
 * `poll` and the messages come in turn, never one within the other.
 *
 * Where workers serve the data queues (`RingAttachment`), `poll` attaches them at its end. `detach` must come
 * before every message, and the device asks for it before a command.
 * @module
 */
import type { Device, DeviceEventListener, Session } from "../../core/device.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { Quiescence, type RequestsInFlight } from "../../core/in_flight.ts";
import type { DirtyLog, GuestMemory } from "../../rings/memory.ts";
import type { FaultLog } from "../../core/session.ts";
import { type AttachedLog, type QueueWorkers, RING_POLL_INTERVAL_NS } from "../../plugins/queue_workers.ts";
import type { Virtqueue } from "../../rings/virtqueue.ts";
import type { DescriptorBag, EventHandle, Host } from "./host.ts";
import type { InFlightMemory } from "./in_flight_memory.ts";
import type { MemoryTable } from "./memory_table.ts";
import { type Message, type Payload, ProtocolError, Request } from "./messages.ts";
import { RingAttachment, type RingHooks, RingSet, type Vring } from "./rings.ts";

/**
 * Rounds from one look for kicks of disabled rings to the next while the device has work: a look is a system
 * call.
 */
const ROUNDS_PER_KICK = 64;

/** Whom the runner tells. */
export interface RunnerHooks extends RingHooks {
  /** Configuration space, or whether the device needs a reset, has changed. */
  configChanged(): void;
}

/** A device and the rings of one front-end. */
export class DeviceRunner implements Disposable {
  readonly #device: DeviceActivation;
  readonly #table: MemoryTable;
  readonly #faults: FaultLog;
  readonly #hooks: RunnerHooks;
  readonly #rings: RingSet;
  readonly #attachment: RingAttachment;
  readonly #inFlight: Device["inflight"];
  readonly #quiescence: Quiescence;
  /** The device is not activated because of what an earlier driver has left in flight. */
  #activationWaits = false;
  #features: FeatureSet | null = null;
  #needsReset = false;
  #nowNs = 0;
  #round = 0;

  /**
   * Begins with a device that is reset.
   * @param table whose memory is used; its owner changes it and calls `memoryChanged`
   * @param workers who serves the sets of the device; null if the main thread does
   */
  constructor(
    device: Device,
    table: MemoryTable,
    faults: FaultLog,
    hooks: RunnerHooks,
    workers: QueueWorkers | null = null,
  ) {
    this.#table = table;
    this.#faults = faults;
    this.#hooks = hooks;
    this.#rings = new RingSet(device, table, faults, hooks);
    this.#attachment = new RingAttachment(workers, device, table, this.#rings);
    this.#inFlight = device.inflight;
    this.#quiescence = new Quiescence(this.#inFlight && withResubmits(this.#inFlight, this.#rings));
    this.#device = new DeviceActivation(device, {
      interrupt: (index) => this.#rings.interrupt(index),
      configChanged: () => hooks.configChanged(),
      detachWorkers: () => this.#detach(),
      event: hooks.event,
    }, this.#attachment.queues);
  }

  /**
   * The rings, by index. A change of one is followed by `settle`, and disabling or stopping one preceded by
   * `drain`.
   */
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
   * The features that the device works by, judged already; null to forget them. With others than before the
   * device is reset, and begins anew with the same rings at the same places.
   */
  setFeatures(features: FeatureSet | null): void {
    const before = this.#features;
    if (features !== null && before !== null && features.equals(before) && !this.#isAbandoned) return;
    this.drain();
    this.#release();
    this.#rings.halt();
    const isPacked = features?.has(VIRTIO_F_RING_PACKED);
    if (before !== null && before.has(VIRTIO_F_RING_PACKED) !== isPacked) this.#rings.inFlight?.clear();
    this.#features = features;
    if (features !== null) this.#hooks.event?.({ event: "features", features });
    this.settle();
  }

  /**
   * Has the device lost all its rings, and was none of them stopped? So User-mode Linux takes a driver away;
   * the features are those of the next one.
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

  /**
   * Writes are logged in `log` from now on, by workers in the same one, which is `attached`; null if they are
   * not.
   */
  logTo(log: DirtyLog | null, attached: AttachedLog | null): void {
    this.#attachment.log = attached;
    this.#rings.logTo(log);
  }

  /**
   * Takes back what the workers have, before anything changes. What they have found broken is dealt with.
   * @param giveUp requests in flight are given up, for the device is reset next
   */
  detach(giveUp = false): void {
    this.#guard(() => this.#detach(giveUp));
  }

  /** Have workers rings, which every message takes back? */
  get isAttached(): boolean {
    return this.#attachment.isAttached;
  }

  /** Uses this memory to record requests in flight, and repeats those that it knows of. */
  recordIn(memory: InFlightMemory): void {
    this.#rings.halt();
    this.#rings.inFlight?.[Symbol.dispose]();
    this.#rings.inFlight = memory;
    this.settle();
  }

  /** Are requests of an earlier driver in flight, if the device is not active? */
  get #isLate(): boolean {
    return (this.#inFlight?.count ?? 0) > 0;
  }

  /** Is something in flight? */
  get isBusy(): boolean {
    return !this.#quiescence.isQuiet;
  }

  /**
   * May rings, memory and features be changed now? If not, the device is paused: ask again after its next
   * round. When that takes too long, the device fails.
   */
  quiesce(): boolean {
    if (!this.#device.isActive) return true;
    const state = this.#quiescence.check(this.#nowNs);
    if (state === "late") this.#fail(this.#quiescence.error());
    return state !== "waiting";
  }

  /** The change is made: the device takes requests again. */
  unquiesce(): void {
    this.#quiescence.end();
  }

  /**
   * The driver resets the device, or the front-end stops it that way. What the device holds gets out, then
   * everything is forgotten but memory and how to reach the driver.
   */
  reset(): void {
    this.drain();
    this.#rings.inFlight?.clear();
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
    this.#update();
    this.#rings.sendInterrupts();
  }

  /** One round of the device. True if anything moved. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    this.#rings.budget.refill();
    let did = false;
    if (this.#activationWaits && !this.#isLate) this.settle();
    try {
      if (this.#attachment.takeNotices()) this.#detach(true);
      did = this.#rings.discard();
      if (this.#device.poll(nowNs) || this.#rings.budget.isExceeded) did = true;
    } catch (error) {
      this.#fail(error);
      did = true;
    }
    this.#rings.sendInterrupts();
    this.#round = (this.#round + 1) % ROUNDS_PER_KICK;
    if (!did || this.#round === 0) did = this.#lookForKicks() || did;
    // Workers that got rings while a message waits for them would take requests again.
    if (this.#attachment.isDue && !this.#quiescence.isWaiting) this.#attach();
    return did;
  }

  /** Does the guest's memory show work? */
  look(): boolean {
    return this.#device.look();
  }

  /** When to poll although nothing kicks, in ns. */
  deadlineNs(): number {
    const due = Math.min(this.#device.deadlineNs(), this.#quiescence.deadlineNs());
    return this.#rings.isPolled ? Math.min(due, this.#nowNs + RING_POLL_INTERVAL_NS) : due;
  }

  /** The front-end is gone. */
  [Symbol.dispose](): void {
    this.detach(true);
    this.#forget();
    this.#rings[Symbol.dispose]();
  }

  /** Looks for kicks of disabled rings. True if there was one. */
  #lookForKicks(): boolean {
    const kicked = this.#rings.takeKicks();
    if (this.#features === null || !this.#rings.startKicked(this.#features)) return kicked;
    this.detach();
    this.#update();
    return true;
  }

  /** Has the device see the queues that it should have. */
  #update(): void {
    this.#rings.changed();
    const features = this.#features;
    const isWanted = features !== null && (this.#device.isActive || !this.isSuspended);
    this.#activationWaits = isWanted && !this.#device.isActive && this.#isLate;
    if (isWanted && !this.#activationWaits) {
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
    if (this.#device.end()) this.#attachment.reset();
  }

  /** Throws GuestError for what the guest has broken meanwhile. */
  #detach(giveUp = false): void {
    const fault = this.#attachment.detach(this.#features, giveUp);
    if (fault !== null) throw fault;
  }

  #attach(): void {
    this.#update();
    if (this.#device.isActive && this.#features !== null) this.#attachment.attach(this.#features);
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
    const second = this.#attachment.detach(this.#features, true);
    if (second !== null) this.#faults.note(second);
    this.#rings.break();
    this.#rings.changed();
    this.#rings.tellChanges();
    this.#release();
    this.#needsReset = true;
    this.#hooks.configChanged();
  }
}

/** What rings have to give out again is in flight as well. */
function withResubmits(inFlight: RequestsInFlight, rings: RingSet): RequestsInFlight {
  return {
    get count() {
      return inFlight.count + rings.resubmits;
    },
    limitNs: inFlight.limitNs,
    pause: () => inFlight.pause(),
    resume: () => inFlight.resume(),
  };
}

// The device, and its session while it is active.
//
// Theory of operation. `use` activates the device, and makes the session's queues those of rings that run and
// are enabled, as often as that changes. It never sees the queues that workers serve, only whether they are
// enabled. `end` takes everything back, and what is in flight is given up. Nothing is caught here: the caller
// deals with a GuestError, and the session is there until `end`.

/** What a device asks for while it is active. */
export interface ActivationHooks {
  /** Ring `index` has used buffers. */
  interrupt(index: number): void;
  /** Configuration space has changed. */
  configChanged(): void;
  /** Queues are to be taken back from workers. Throws GuestError. */
  detachWorkers(): void;
  /** The device was activated or reset. Left out: nothing is told. */
  event?: DeviceEventListener | undefined;
}

/** What a device has while it is active. Its queues come and go, and its memory may be replaced. */
interface ActiveSession extends Session {
  memory: GuestMemory;
  readonly queues: (Virtqueue | null)[];
}

/** One device of one front-end. */
export class DeviceActivation {
  readonly #device: Device;
  readonly #hooks: ActivationHooks;
  readonly #ofWorkers: ReadonlySet<number>;
  #session: ActiveSession | null = null;
  #enabled: boolean[] = [];

  /** The device is reset. @param ofWorkers the queues that workers serve */
  constructor(device: Device, hooks: ActivationHooks, ofWorkers: ReadonlySet<number>) {
    this.#device = device;
    this.#hooks = hooks;
    this.#ofWorkers = ofWorkers;
  }

  /** Is it active? */
  get isActive(): boolean {
    return this.#session !== null;
  }

  /**
   * Makes its queues those of rings that run and are enabled, and tells it if they were others; activates it
   * first, if it is not. Throws what the device throws.
   */
  use(features: FeatureSet, memory: GuestMemory, rings: readonly Vring[]): void {
    const { queues } = this.#session ?? this.#begin(features, memory, rings.length);
    let changed = false;
    for (const { index, enabled, queue } of rings) {
      const isEnabled = enabled && queue !== null;
      const used: Virtqueue | null = isEnabled && !this.#ofWorkers.has(index) ? queue : null;
      if (queues[index] === used && this.#enabled[index] === isEnabled) continue;
      queues[index] = used;
      this.#enabled[index] = isEnabled;
      changed = true;
    }
    if (changed) this.#device.queuesChanged();
  }

  /** The memory was replaced. */
  useMemory(memory: GuestMemory): void {
    if (this.#session !== null) this.#session.memory = memory;
  }

  /** One round. True if anything moved. Throws what the device throws. */
  poll(nowNs: number): boolean {
    return this.#session !== null && this.#device.poll(nowNs);
  }

  /** Does it see work in its queues? */
  look(): boolean {
    return this.#session !== null && this.#device.look?.() === true;
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

  #begin(features: FeatureSet, memory: GuestMemory, rings: number): ActiveSession {
    const { interrupt, configChanged, detachWorkers } = this.#hooks;
    const session: ActiveSession = {
      startsQueues: true,
      features,
      memory,
      queues: new Array<Virtqueue | null>(rings).fill(null),
      isEnabled: (index) => this.#enabled[index] === true,
      interrupt,
      configChanged,
      detachWorkers,
    };
    this.#session = session;
    this.#enabled = new Array<boolean>(rings).fill(false);
    this.#device.activate(session);
    this.#hooks.event?.({ event: "ready" });
    return session;
  }
}

// The messages about rings: SET_VRING_NUM, ADDR, BASE, KICK, CALL, ERR, ENABLE, GET_VRING_BASE, VRING_KICK.

/** Carries out messages about the rings of a runner. */
export class RingMessages {
  readonly #host: Host;
  readonly #runner: DeviceRunner;
  /** Rings whose base was set while they ran: it counts when they are made anew. */
  readonly #newBases = new Map<Vring, number>();

  /** Keeps nothing but what was said of rings that run. @param runner whose rings the messages are about */
  constructor(host: Host, runner: DeviceRunner) {
    this.#host = host;
    this.#runner = runner;
  }

  /**
   * Carries out a message. Returns where the ring stands for GET_VRING_BASE, null for the others.
   * ProtocolError `ring-index-invalid` or `value-invalid`.
   */
  serve(message: Message, bag: DescriptorBag): number | null {
    const { payload } = message;
    switch (payload.kind) {
      case "ring":
        return this.#number(message.id, this.#ring(payload.index), payload.num);
      case "ringAddress":
        this.#place(this.#ring(payload.index), payload);
        return null;
      case "ringEvent":
        this.#event(message.id, this.#ring(payload.index), bag);
        return null;
      default:
        throw new RangeError(`${message.name} is not about a ring`);
    }
  }

  #number(id: number, ring: Vring, num: number): number | null {
    switch (id) {
      case Request.SET_VRING_NUM:
        if (num < 1 || num > ring.maxSize) {
          throw new ProtocolError(
            "value-invalid",
            `Size of ring ${ring.index} is ${num}; it must be from 1 to ${ring.maxSize}: lower it at the front-end, ` +
              'or raise the device\'s "queueSize"',
          );
        }
        if (num === ring.size) return null;
        ring.size = num;
        if (ring.queue === null) this.#redescribe(ring, null);
        return null;
      case Request.SET_VRING_BASE:
        if (ring.queue === null) this.#redescribe(ring, num);
        else this.#newBases.set(ring, num);
        return null;
      case Request.GET_VRING_BASE:
        return this.#stop(ring);
      case Request.SET_VRING_ENABLE:
        if (num > 1) {
          throw new ProtocolError(
            "value-invalid",
            `Ring ${ring.index} is enabled by ${num}; it must be 0 or 1`,
          );
        }
        this.#enable(ring, num === 1);
        return null;
      default:
        ring.kickGiven = true;
        ring.kickedByMessage = true;
        ring.mustLook = true;
        this.#runner.settle();
        return null;
    }
  }

  #place(ring: Vring, payload: Extract<Payload, { kind: "ringAddress" }>): void {
    const { descriptors, used, available, log } = payload;
    ring.addresses = { descriptors, used, available, log };
    this.#remake(ring);
  }

  #event(id: number, ring: Vring, bag: DescriptorBag): void {
    const watched = id === Request.SET_VRING_KICK;
    const isCall = id === Request.SET_VRING_CALL;
    const event: EventHandle | null = bag.count === 0 ? null : this.#host.event(bag.take(), watched, isCall);
    switch (id) {
      case Request.SET_VRING_CALL:
        ring.call?.[Symbol.dispose]();
        ring.call = event;
        // What was used while the event changed hands may never have been told.
        if (ring.queue !== null) event?.signal();
        return;
      case Request.SET_VRING_ERR:
        ring.error?.[Symbol.dispose]();
        ring.error = event;
        return;
      default:
        ring.forgetKick();
        ring.kick = event;
        ring.kickGiven = true;
        if (ring.queue === null || this.#newBases.has(ring)) this.#remake(ring);
        else {
          ring.wasKicked = true;
          this.#runner.settle();
        }
    }
  }

  #remake(ring: Vring): void {
    const base = this.#newBases.get(ring) ?? null;
    this.#newBases.delete(ring);
    this.#redescribe(ring, base);
  }

  #redescribe(ring: Vring, base: number | null): void {
    ring.redescribe(base);
    this.#runner.settle();
  }

  #enable(ring: Vring, enabled: boolean): void {
    if (ring.enabled === enabled) return;
    if (!enabled && ring.queue !== null) this.#runner.drain();
    ring.enable(enabled);
    this.#runner.settle();
  }

  #stop(ring: Vring): number {
    this.#newBases.delete(ring);
    if (ring.queue !== null) this.#runner.drain();
    ring.halt("stopped");
    ring.wasEnabled = false;
    ring.forgetKick();
    this.#runner.settle();
    return ring.place(this.#runner.features?.has(VIRTIO_F_RING_PACKED) === true);
  }

  #ring(index: number): Vring {
    const { rings } = this.#runner;
    if (index < rings.length) return rings[index];
    throw new ProtocolError(
      "ring-index-invalid",
      `Ring index is ${index}; the device has rings 0 to ${rings.length - 1}`,
    );
  }
}
