/**
 * The rings of one front-end: starting them, telling the driver of used buffers, emptying those that are
 * disabled, and handing them to queue workers.
 *
 * A ring that runs but is disabled has no effect. The device says which of them are emptied all the same
 * (`discardsWhenDisabled`); the others are left alone. Such a ring is emptied when it is disabled, before the
 * front-end hears that it is, and after that when it is kicked. It is not looked at otherwise: User-mode
 * Linux disables a ring and frees its memory, and says nothing more. What is found broken in it then is no
 * fault of the guest: the ring is let go until it is kicked again.
 *
 * Nothing here knows whether a device is active. Interrupts are collected and sent once, at the end of a
 * round or of a change: writing to an event is a system call.
 * @module
 */
import { DESC_BYTES, DescriptorChain } from "../../rings/descriptor_chain.ts";
import type { Device, DeviceEventListener } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { DirtyLog, GuestMemory } from "../../rings/memory.ts";
import { FRESH_RING, type PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { buildQueue, type FaultLog, queueSetup } from "../../core/session.ts";
import type { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import { ROUND_UNITS, RoundBudget } from "../../rings/virtqueue.ts";
import { networkCapability } from "../../pipeline/plugin.ts";
import type { AttachedLog, AttachedRing, QueueWorkers } from "../../plugins/queue_workers.ts";
import type { EventHandle } from "./host.ts";
import { type InFlightMemory, RecordedQueue } from "./in_flight_memory.ts";
import type { MemoryTable } from "./memory_table.ts";

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
  /** Where requests in flight are recorded; null for nowhere. */
  inFlight: InFlightMemory | null = null;
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
    for (let i = 0; i < this.#polled.length; i++) if (!this.#polled[i].isAttached) return true;
    return false;
  }

  /**
   * Starts every ring that is described and called for. True if one was started. One that cannot be is
   * counted as a fault and its error event is signalled, once; it is tried again every time, so that the
   * order of messages does not matter.
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

  /**
   * Starts rings that have been kicked while they were disabled. True if there was one. Costs a system call
   * for each.
   */
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

  /**
   * A fault: every ring that runs is broken, and its driver is told. Only a new kick, told last, starts it
   * again.
   */
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
      ring.queue !== null && !ring.enabled &&
      networkCapability(this.#device)?.discardsWhenDisabled(ring.index) === true
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

  /** Writes to memory and rings are told to `log` from now on; null ends that. */
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

  /** Requests of an earlier back-end that enabled rings have not given out again. */
  get resubmits(): number {
    return this.all.reduce(
      (sum, { enabled, queue }) => sum + (enabled && queue instanceof RecordedQueue ? queue.resubmits : 0),
      0,
    );
  }

  /** The front-end is gone. */
  [Symbol.dispose](): void {
    for (const ring of this.all) ring[Symbol.dispose]();
    this.inFlight?.[Symbol.dispose]();
    this.inFlight = null;
    this.changed();
    this.tellChanges();
  }

  #mayStart(ring: Vring): boolean {
    return ring.queue === null && ring.isDescribed && ring.state !== "broken" && this.#table.size > 0;
  }

  #start(ring: Vring, features: FeatureSet, quiet: boolean): boolean {
    const silent = quiet || ring.state === "failed";
    try {
      ring.start(this.#table, features, this.budget, this.inFlight);
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
    this.#table.logTo(this.#log);
    for (const { queue, addresses } of this.all) {
      if (queue === null || addresses === null) continue;
      queue.logTo(addresses.log === null ? null : this.#log, addresses.log ?? 0);
    }
  }
}

// One ring as the front-end describes it, and the queue that is made of it.
//
// Theory of operation. A ring is *stopped* until it has been described completely (size, addresses, and a
// kick descriptor or the word that there is none) and something starts it; then it has a `queue`. Started or
// not, it is *enabled* or not: the device gets the queue of a ring that is both.
//
//     stopped --start--> running --stop (GET_VRING_BASE)--> stopped: wants a new SET_VRING_KICK
//        ^                  |
//        |                  +--fault--> broken: until the front-end describes it anew
//        +--- start fails --> failed: tried again with every change
//
// What starts a ring: it ran before its description changed; there is no kick descriptor; or it has been
// kicked; or it is enabled, because a kick that an earlier back-end has consumed does not come again, and
// such a ring would sleep for ever.

const FLAGS_AT = 14;
const USED = 0x8000;

/** Where a ring lies, by user addresses. */
export interface RingAddresses {
  /** Descriptor table or ring. */
  readonly descriptors: number;
  /** Available ring, or driver event suppression. */
  readonly available: number;
  /** Used ring, or device event suppression. */
  readonly used: number;
  /** The guest address by which writes to the used part are logged; null if they are not. */
  readonly log: number | null;
}

/** What works a ring. */
export type RingQueue = SplitVirtqueue | PackedVirtqueue | RecordedQueue;

/** Why a ring has no queue, or that it has one. */
export type RingState = "stopped" | "running" | "failed" | "broken";

/** One ring. */
export class Vring implements Disposable {
  /** Its index. */
  readonly index: number;
  /** Most entries that it may have. */
  readonly maxSize: number;
  /** Entries; 0 until it is told. */
  size = 0;
  /** Where it lies; null until it is told. */
  addresses: RingAddresses | null = null;
  /** Where to go on, as the front-end gave it, or where it stood when it was stopped; null for the start. */
  base: number | null = null;
  /** Where it stood when it was made to forget that; null once it is described anew. */
  forgottenBase: number | null = null;
  /** May the device use it? */
  enabled = false;
  /** Has the front-end said how it kicks? */
  kickGiven = false;
  /**
   * Does the front-end kick by messages? Then it need not be looked at without being asked, though there is
   * no `kick`.
   */
  kickedByMessage = false;
  /** Has it run, or been kicked, since then? It needs no further kick to run again. */
  wasKicked = false;
  /** How it kicks; null if the ring must be looked at without being asked. */
  kick: EventHandle | null = null;
  /** How it wants to be told of used buffers; null if it looks by itself. */
  call: EventHandle | null = null;
  /** How it wants to be told that the ring is broken. */
  error: EventHandle | null = null;
  /** It is to be told of used buffers, and has not been. */
  interruptDue = false;
  /** A worker serves it: its memory must not be touched here. */
  isAttached = false;
  /** While it is disabled: was it kicked, or may something have come unasked? */
  mustLook = false;
  /** Has the device had it since it was set up, or last stopped? */
  wasEnabled = false;
  /** How it stands. */
  state: RingState = "stopped";
  #queue: RingQueue | null = null;

  /**
   * A ring that is stopped and not described.
   * @param index its index;
   * @param maxSize most entries that the device allows
   */
  constructor(index: number, maxSize: number) {
    this.index = index;
    this.maxSize = maxSize;
  }

  /** What the device works on; null unless the ring is running. */
  get queue(): RingQueue | null {
    return this.#queue;
  }

  /** Must it be looked at without being asked, if it runs? */
  get isPolled(): boolean {
    return this.kick === null && !this.kickedByMessage;
  }

  /** Is all said that must be said before it can run? */
  get isDescribed(): boolean {
    return this.size > 0 && this.addresses !== null && this.kickGiven;
  }

  /** Is it to start now? Consumes a kick, which then counts however often the start is tried. */
  takeCall(): boolean {
    if (this.enabled || this.wasKicked || this.kick === null) return true;
    this.wasKicked = this.kick.take();
    return this.wasKicked;
  }

  /**
   * Makes the queue. GuestError if the front-end's description cannot be right; the ring has failed then.
   * @param table the front-end's memory
   * @param features what was agreed on: layout, event index, indirect descriptors
   * @param budget what the rings of the front-end may do in a round
   * @param inFlight where requests in flight are recorded, and may have been before; null for nowhere
   */
  start(
    table: MemoryTable,
    features: FeatureSet,
    budget: RoundBudget,
    inFlight: InFlightMemory | null,
  ): void {
    const { descriptors, available, used } = this.addresses!;
    this.state = "failed";
    const addresses = {
      size: this.size,
      descriptors: table.guestAddressOf(descriptors),
      driver: table.guestAddressOf(available),
      device: table.guestAddressOf(used),
    };
    const packed = features.has(VIRTIO_F_RING_PACKED);
    // User-mode Linux says 0 of every new ring, also of a packed one, which starts with both wrap counters at
    // 1.
    const isFresh = packed && this.base === 0 && isUnused(table.memory, addresses.descriptors, this.size);
    const base = this.base === null || isFresh
      ? undefined
      : packed
      ? packedBase(this.base)
      : splitBase(this.base);
    const record = inFlight?.record(this.index, this.size, packed) ?? null;
    this.#queue = record === null
      ? buildQueue(table.memory, addresses, features, base, budget)
      : new RecordedQueue(table.memory, queueSetup(addresses, features), base, budget, record);
    this.state = "running";
    this.wasKicked = true;
    this.mustLook = true;
  }

  /** It is described differently now, and starts anew where it stood, or at `base` if that is not null. */
  redescribe(base: number | null): void {
    this.halt("stopped");
    this.forgottenBase = null;
    if (base !== null) this.base = base;
  }

  /** The device may use it, or may not any more. */
  enable(enabled: boolean): void {
    this.enabled = enabled;
    this.wasEnabled ||= enabled;
    this.mustLook = true;
    // Kicks are not read while it is enabled. What comes from now on is a sign that its memory is still its
    // own.
    if (!enabled) this.kick?.take();
  }

  /** Where it stands: the next available index, or both packed positions. */
  place(packed: boolean): number {
    return this.base ?? this.forgottenBase ?? (packed ? FRESH_RING : 0);
  }

  /**
   * Lets go of the queue and remembers where it stood. While it is disabled only a kick starts it again: its
   * memory may have been given away. @param state how the ring stands from now on
   */
  halt(state: Exclude<RingState, "running">): void {
    if (this.#queue !== null) {
      this.base = this.#queue.base;
      if (!this.enabled) this.wasKicked = false;
    }
    this.#queue = null;
    this.state = state;
  }

  /**
   * Forgets what the driver has told; how to reach it, and the ring's memory, may be needed again. So may the
   * place where it stood: QEMU 7 writes status 0 also to stop a guest that goes on later or elsewhere, and
   * asks for the place after that.
   */
  forget(): void {
    this.halt("stopped");
    this.forgottenBase = this.base ?? this.forgottenBase;
    this.size = 0;
    this.addresses = null;
    this.base = null;
    this.enabled = false;
    this.wasEnabled = false;
    this.interruptDue = false;
    this.forgetKick();
  }

  /** The next start wants a new SET_VRING_KICK. */
  forgetKick(): void {
    this.kick?.[Symbol.dispose]();
    this.kick = null;
    this.kickGiven = false;
    this.wasKicked = false;
    this.kickedByMessage = false;
  }

  /** Closes every event. */
  [Symbol.dispose](): void {
    this.forget();
    this.call?.[Symbol.dispose]();
    this.error?.[Symbol.dispose]();
    this.call = null;
    this.error = null;
  }
}

/** Is there no descriptor in a packed ring that has the flag USED? After a lap there is at least one. */
function isUnused(memory: GuestMemory, descriptors: number, size: number): boolean {
  for (let slot = 0; slot < size; slot++) {
    if ((memory.readU16(descriptors + slot * DESC_BYTES + FLAGS_AT) & USED) !== 0) return false;
  }
  return true;
}

/**
 * The position of a split ring from a SET_VRING_BASE; undefined for that of the used index. Some front-ends
 * say 0 also when they meet a back-end anew with a ring that has been used, and a ring that has not has the
 * used index 0.
 */
function splitBase(num: number): number | undefined {
  return num === 0 ? undefined : num;
}

/**
 * The position of a packed ring from a SET_VRING_BASE. Some front-ends give only the available half; nothing
 * can be in flight then, and the used half is the same.
 */
function packedBase(num: number): number {
  return num > 0xffff ? num : num * 0x10000 + num;
}

// The rings that queue workers serve.
//
// Theory of operation. The queues of the device's sets (`Device.workers`) that run and are enabled are
// attached as a whole, with the memory behind them. Everything else stays here. `detach` comes before
// anything about rings, memory or device changes, and gives each ring its place back: the queue is made anew
// there, so that what follows finds it as if it had been served here. `attach` follows when the changes are
// over.
//
//     here --attach--> attached: kicks wake the worker only --detach--> here, until the next round of the runner
//
// Invariant: while anything is attached, nothing here reads or writes its rings, and no memory is unmapped.

/** Which rings of one runner the workers have. */
export class RingAttachment {
  readonly #workers: QueueWorkers | null;
  readonly #device: Device;
  readonly #table: MemoryTable;
  readonly #rings: RingSet;
  /** The queues that workers serve; none without workers. */
  readonly queues: ReadonlySet<number>;
  #isAttached = false;

  /** Where the workers log their writes from the next `attach` on; null if they do not. */
  log: AttachedLog | null = null;

  /**
   * Nothing is attached yet. @param workers who serves the sets of the device; null if the main thread does
   */
  constructor(workers: QueueWorkers | null, device: Device, table: MemoryTable, rings: RingSet) {
    this.#workers = workers;
    this.#device = device;
    this.#table = table;
    this.#rings = rings;
    this.queues = new Set(workers === null ? [] : device.workers?.queueSets.flat());
  }

  /** Are there workers that have not got what they should have? */
  get isDue(): boolean {
    return this.#workers !== null && !this.#isAttached;
  }

  /** Passes on what the workers have to say. True if a guest has broken a rule there: `detach` says which. */
  takeNotices(): boolean {
    const notices = this.#workers?.takeNotices() ?? null;
    if (notices === null) return false;
    for (const index of notices.interrupts) this.#rings.interrupt(index);
    return notices.hasFault;
  }

  /**
   * Attaches the rings that are the workers', unless they are attached already or the workers are not ready.
   */
  attach(features: FeatureSet): void {
    const workers = this.#workers;
    if (workers === null || this.#isAttached || !workers.isReady) return;
    const rings: AttachedRing[] = [];
    for (const ring of this.#rings.all) {
      if (!ring.enabled || ring.queue === null || !this.queues.has(ring.index)) continue;
      rings.push(describe(ring, this.#table));
      ring.isAttached = true;
    }
    this.#isAttached = true;
    const regions = this.#table.regions.map(({ description: { guestAddress, size }, mapping }) => ({
      guestAddress,
      size,
      address: String(mapping.address),
    }));
    const state = this.#device.migration?.save();
    workers.attach({ features: features.toString(), regions, log: this.log, rings, state });
  }

  /** Have the workers rings? */
  get isAttached(): boolean {
    return this.#isAttached;
  }

  /**
   * Takes everything back. Returns the rule that the guest has broken meanwhile; null if none was.
   * @param giveUp requests in flight are given up, for the device is reset next
   */
  detach(features: FeatureSet | null, giveUp: boolean): GuestError | null {
    if (!this.#isAttached || this.#workers === null) return null;
    this.#isAttached = false;
    const { bases, fault } = this.#workers.detach(giveUp);
    for (const ring of this.#rings.all) {
      if (!ring.isAttached) continue;
      ring.isAttached = false;
      ring.kick?.takeBack();
      ring.halt("stopped");
      ring.base = bases.get(ring.index) ?? ring.base;
    }
    if (features !== null) this.#rings.start(features);
    return fault;
  }

  /** The device begins anew, there as well. Nothing is attached. */
  reset(): void {
    this.#workers?.reset();
  }
}

function describe(ring: Vring, table: MemoryTable): AttachedRing {
  const { index, size, kick, call, queue, addresses } = ring;
  const { descriptors, available, used, log } = addresses!;
  return {
    index,
    size,
    descriptors: table.guestAddressOf(descriptors),
    driver: table.guestAddressOf(available),
    device: table.guestAddressOf(used),
    base: queue!.base,
    kick: kick?.handOver() ?? null,
    polled: ring.isPolled,
    call: call?.number ?? null,
    logAddress: log,
  };
}
