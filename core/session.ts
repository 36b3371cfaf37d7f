/**
 * The device status machine: what a driver programs, by whichever transport (virtio 1.2, sections 2.1 and
 * 3.1).
 *
 * Theory of operation. A driver transport turns what its driver does into calls: `writeDriverFeatures`,
 * `setupQueue`, `writeStatus`, `readConfig`, `writeConfig`. The session judges them and gives the device
 * memory and queues.
 *
 *     0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK     the device is active: from activate to reset
 *              |             |           |             |
 *              +-------------+-----------+-------------+--> NEEDS_RESET (ours) or FAILED (the driver's) --> 0
 *
 * - Bits are only ever added; writing 0 resets. Several bits in one write count in the order above.
 * - Features are taken until FEATURES_OK, queues until DRIVER_OK, at which they are built.
 * - FEATURES_OK sticks if every accepted bit was offered and the device agrees; the driver reads it back.
 * - A driver that does not accept VIRTIO_F_VERSION_1 is a legacy one: it knows no FEATURES_OK, and its
 *   features are judged at DRIVER_OK. It cannot be refused by then, so that NEEDS_RESET is the answer.
 *
 * Nothing here throws at a driver. What it does against the rules is counted in `faults`, kept as
 * `lastFault`, and has no other effect. Broken rings, chains and requests, however, are beyond repair: `fail`
 * sets NEEDS_RESET, resets the device, which then touches nothing, and tells the driver (section 2.1.2).
 * Errors of our own pass through.
 *
 * A reset waits until the device has nothing in flight (`Device.inflight`): the status reads as before until
 * then, or, when the time limit is over, with NEEDS_RESET. `poll` goes on with it. Nothing but another 0 may
 * be written meanwhile.
 *
 * A transport may be called back, by `interrupt` and `configChanged`, from within `poll`, and must then not
 * call `writeStatus` before `poll` has returned: the device is in the middle of its work.
 * @module
 */
import {
  type Device,
  type DeviceEvent,
  type Session,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "./device.ts";
import { GuestError, type GuestFault } from "../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "./features.ts";
import { Quiescence } from "./in_flight.ts";
import type { GuestMemory } from "../rings/memory.ts";
import { PackedVirtqueue } from "../rings/packed_virtqueue.ts";
import type { Pollable } from "./reactor.ts";
import { SplitVirtqueue } from "../rings/split_virtqueue.ts";
import { RoundBudget, type Virtqueue, type VirtqueueSetup } from "../rings/virtqueue.ts";

/** What a driver programs of a queue; the rest of {@linkcode VirtqueueSetup} follows from the features. */
export type QueueAddresses = Omit<VirtqueueSetup, "eventIndex" | "indirect">;

/** What a transport does to tell its driver something. */
export interface DriverNotifications {
  /** The queue of this index has used buffers. */
  interrupt(queue: number): void;
  /** The configuration space or the status has changed. */
  configChanged(): void;
  /** Something has happened that a watching program may want to know. Left out: nothing is told. */
  event?(event: DeviceEvent): void;
}

/** One driver's dealings with one device. */
export class DriverSession implements Session, Pollable {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** How often each rule was broken, by the name of the fault; resets do not clear it. */
  readonly faults: Record<string, number>;
  readonly #log: FaultLog;
  readonly #budget: RoundBudget = new RoundBudget();
  readonly #device: Device;
  readonly #notifications: DriverNotifications;
  #status = 0;
  #driverFeatures = FeatureSet.none;
  #features = FeatureSet.none;
  /** What the driver has programmed of each queue, and where the queue goes on. */
  #setups: ({ readonly addresses: QueueAddresses; readonly base: number | undefined } | null)[];
  #queues: readonly (SplitVirtqueue | PackedVirtqueue | null)[];
  #active = false;
  /** The driver has written 0, and the device has requests in flight. */
  #resetting = false;
  readonly #quiescence: Quiescence;
  #configGeneration = 0;

  /** Begins with a device that is reset. @param notifications how to tell the driver something */
  constructor(device: Device, memory: GuestMemory, notifications: DriverNotifications) {
    this.memory = memory;
    this.#log = new FaultLog(({ fault, message }) => this.#tell({ event: "fault", fault, message }));
    this.faults = this.#log.counts;
    this.#device = device;
    this.#quiescence = new Quiescence(device.inflight);
    this.#notifications = notifications;
    this.#setups = device.queueSizes.map(() => null);
    this.#queues = this.#setups.map(() => null);
  }

  /** The device status field. */
  get status(): number {
    return this.#status;
  }

  /** The queues by index, from DRIVER_OK to reset; null where the driver has set none up. */
  get queues(): readonly (Virtqueue | null)[] {
    return this.#queues;
  }

  /** What driver and device agreed on: the empty set before that. */
  get features(): FeatureSet {
    return this.#features;
  }

  /** Changes with the configuration space: a driver that reads it twice the same has read that whole. */
  get configGeneration(): number {
    return this.#configGeneration;
  }

  /** Has the device memory and queues? */
  get active(): boolean {
    return this.#active;
  }

  /** The rule that was broken last, with the values, for logs; null if none ever was. */
  get lastFault(): GuestError | null {
    return this.#log.last;
  }

  /** The driver writes the status: 0 resets, as soon as nothing is in flight; else bits are added. */
  writeStatus(value: number): void {
    if (this.#resetting) {
      if (value !== 0) {
        this.#log.count("status-transition-invalid", `Status ${value} comes before the status was read as 0`);
      }
      return;
    }
    const legacy = !this.#driverFeatures.has(VIRTIO_F_VERSION_1);
    const objection = statusObjection(this.#status, value, legacy);
    if (objection !== null) {
      this.#log.count("status-transition-invalid", `Status ${value} after ${this.#status} ${objection}`);
      return;
    }
    if (value === 0) {
      if (this.#quiescence.isQuiet) return this.#reset();
      this.#resetting = true;
      return this.#device.wake();
    }
    const added = value & ~this.#status;
    this.#status |= added & (STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FAILED);
    if ((added & STATUS_FAILED) !== 0) this.#release();
    if ((added & STATUS_FEATURES_OK) !== 0) {
      if (!this.#log.attempt(() => this.#agree())) return;
      this.#status |= STATUS_FEATURES_OK;
    }
    if ((added & STATUS_DRIVER_OK) !== 0) this.#start();
  }

  /** The driver does not wait for the end of a reset: what is in flight is given up, and touches nothing. */
  giveUp(): void {
    if (!this.#resetting) return;
    this.#release();
    if (this.#quiescence.isQuiet) this.#reset();
  }

  /** The driver says which features it accepts; counted as `features-after-ok` if they are settled. */
  writeDriverFeatures(features: FeatureSet): void {
    if ((this.#status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) !== 0) {
      this.#log.count("features-after-ok", `Features ${features} must be written before FEATURES_OK`);
      return;
    }
    this.#driverFeatures = features;
  }

  /**
   * The driver has set queue `index` up; it is built at DRIVER_OK. Counted, and without effect, for an index
   * or a size that the device does not have, and after DRIVER_OK. `base` says where to go on with a ring that
   * was in use.
   */
  setupQueue(index: number, setup: QueueAddresses, base?: number): void {
    this.#log.attempt(() => {
      if ((this.#status & STATUS_DRIVER_OK) !== 0) {
        throw new GuestError("queue-setup-too-late", `Queue ${index} must be set up before DRIVER_OK`);
      }
      const { queueSizes } = this.#device;
      const { size } = setup;
      if (!Number.isInteger(index) || index < 0 || index >= queueSizes.length) {
        throw new GuestError(
          "queue-index-invalid",
          `Queue index is ${index}; the device has queues 0 to ${queueSizes.length - 1}`,
        );
      }
      if (!Number.isInteger(size) || size < 1 || size > queueSizes[index]) {
        throw new GuestError(
          "queue-size-invalid",
          `Size of queue ${index} is ${size}; it must be from 1 to ${queueSizes[index]}`,
        );
      }
      this.#setups[index] = { addresses: { ...setup }, base };
    });
  }

  /** Where queue `index` stands, for a restart; null if it is not there. Drain the device before. */
  queueBase(index: number): number | null {
    return this.#queues[index]?.base ?? null;
  }

  /** Copies `target.length` bytes of configuration space from `offset` on; zeros where there is none. */
  readConfig(offset: number, target: Uint8Array): void {
    if (Number.isSafeInteger(offset) && offset >= 0) this.#device.readConfig(offset, target);
    else target.fill(0);
  }

  /** The driver writes to configuration space; counted if it must not. */
  writeConfig(offset: number, source: Uint8Array): void {
    this.#log.attempt(() => {
      if (!Number.isSafeInteger(offset) || offset < 0) {
        throw new GuestError("config-write-invalid", `Offset ${offset} is not in configuration space`);
      }
      this.#device.writeConfig(offset, source);
    });
  }

  /** For the device: tells the driver that queue `index` has used buffers. */
  interrupt(index: number): void {
    if (this.#active) this.#notifications.interrupt(index);
  }

  /** For the device: tells the driver that the configuration space has changed. */
  configChanged(): void {
    this.#configGeneration = (this.#configGeneration + 1) >>> 0;
    if ((this.#status & STATUS_DRIVER_OK) !== 0) this.#notifications.configChanged();
  }

  /** Lets the device work for a round, if it is active. A GuestError goes to `fail`. */
  poll(nowNs: number): boolean {
    this.#budget.refill();
    let did = false;
    try {
      did = this.#active && (this.#device.poll(nowNs) || this.#budget.isExceeded);
    } catch (error) {
      this.fail(error);
    }
    return this.#resetting ? this.#goOnResetting(nowNs) || did : did;
  }

  /** When the device, or a reset with a time limit, wants to be polled again, in ns; Infinity if never. */
  deadlineNs(): number {
    const due = this.#active ? this.#device.deadlineNs() : Infinity;
    return this.#resetting ? Math.min(due, this.#quiescence.deadlineNs()) : due;
  }

  /** Has the device let go all that it holds, before a stop or a migration. */
  drain(nowNs: number): void {
    this.#budget.refill(Infinity);
    try {
      if (this.#active) this.#device.drain(nowNs);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Counts what the guest broke and stops the device until a reset. Throws on what is no GuestError. */
  fail(error: unknown): void {
    this.#log.note(error);
    if ((this.#status & STATUS_NEEDS_RESET) !== 0) return;
    this.#status |= STATUS_NEEDS_RESET;
    this.#release();
    // Last: the driver may answer at once, by a reset.
    if ((this.#status & STATUS_DRIVER_OK) !== 0) this.#notifications.configChanged();
  }

  #start(): void {
    this.#status |= STATUS_DRIVER_OK;
    try {
      if ((this.#status & STATUS_FEATURES_OK) === 0) this.#agree();
      this.#queues = this.#setups.map((setup) =>
        setup && buildQueue(this.memory, setup.addresses, this.#features, setup.base, this.#budget)
      );
      if (!this.#quiescence.isQuiet) throw this.#quiescence.error();
      this.#active = true;
      this.#device.activate(this);
      this.#tell({ event: "ready" });
      this.#tellQueues("queue-started");
    } catch (error) {
      this.fail(error);
    }
  }

  /** True if the reset is done, or the device has failed because it takes too long. */
  #goOnResetting(nowNs: number): boolean {
    const state = this.#quiescence.check(nowNs);
    if (state === "quiet") this.#reset();
    else if (state === "late") this.fail(this.#quiescence.error());
    return state !== "waiting";
  }

  #reset(): void {
    this.#release();
    this.#resetting = false;
    this.#quiescence.end();
    this.#status = 0;
    this.#driverFeatures = FeatureSet.none;
    this.#features = FeatureSet.none;
    this.#setups.fill(null);
    this.#queues = this.#setups.map(() => null);
  }

  #release(): void {
    if (!this.#active) return;
    this.#active = false;
    this.#device.reset();
    this.#tellQueues("queue-stopped");
    this.#tell({ event: "reset" });
  }

  /** What the driver accepts is what both agree on; GuestError if it must not. */
  #agree(): void {
    judgeFeatures(this.#device, this.#driverFeatures);
    this.#features = this.#driverFeatures;
    this.#tell({ event: "features", features: this.#features });
  }

  #tellQueues(event: "queue-started" | "queue-stopped"): void {
    this.#queues.forEach((queue, index) => queue && this.#tell({ event, queue: index }));
  }

  #tell(event: DeviceEvent): void {
    this.#notifications.event?.(event);
  }
}

const DRIVER_BITS = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK |
  STATUS_FAILED;

/**
 * Why a driver must not write `value` when the status is `status` (virtio 1.2, sections 2.1 and 3.1.1); null
 * if it may. Bits are only added, in order, and by the right side; NEEDS_RESET, which a driver may or may not
 * repeat, and FAILED leave no way but FAILED and 0.
 * @param legacy the driver does without FEATURES_OK
 */
function statusObjection(status: number, value: number, legacy: boolean): string | null {
  if (value === 0) return null;
  if (!Number.isInteger(value) || value < 0 || value > 255) return "must be from 0 to 255";
  if ((value & ~(DRIVER_BITS | (status & STATUS_NEEDS_RESET))) !== 0) {
    return "has bits that a driver must not set";
  }
  if ((status & DRIVER_BITS & ~value) !== 0) return "takes bits back; only 0 does, all of them";
  const added = value & ~status;
  if ((added & STATUS_FAILED) !== 0) {
    return (added & ~STATUS_FAILED) === 0 ? null : "gives up and goes on at once";
  }
  if (added !== 0 && (status & (STATUS_NEEDS_RESET | STATUS_FAILED)) !== 0) {
    return "goes on after an error; the driver must write 0 first";
  }
  const has = (bit: number) => (value & bit) !== 0;
  if (has(STATUS_DRIVER) && !has(STATUS_ACKNOWLEDGE)) return "needs ACKNOWLEDGE before DRIVER";
  if (has(STATUS_FEATURES_OK) && !has(STATUS_DRIVER)) return "needs DRIVER before FEATURES_OK";
  if (!has(STATUS_DRIVER_OK)) return null;
  if (!has(STATUS_DRIVER)) return "needs DRIVER before DRIVER_OK";
  if (!legacy && !has(STATUS_FEATURES_OK)) return "needs FEATURES_OK before DRIVER_OK";
  const isLate = (status & STATUS_DRIVER_OK) !== 0 && (added & STATUS_FEATURES_OK) !== 0;
  return isLate ? "comes too late with FEATURES_OK" : null;
}

/**
 * Judges what a driver accepts of a device's features (virtio 1.2, sections 2.2 and 6). GuestError
 * `features-unknown` for what was not offered, `features-dependency-missing` for the packed layout in a
 * legacy driver's hands, and what the device itself objects to.
 */
export function judgeFeatures(device: Device, features: FeatureSet): void {
  const unknown = features.minus(device.features);
  if (!unknown.isEmpty) {
    throw new GuestError("features-unknown", `Features ${unknown} were accepted, but must be offered first`);
  }
  if (features.has(VIRTIO_F_RING_PACKED) && !features.has(VIRTIO_F_VERSION_1)) {
    throw new GuestError(
      "features-dependency-missing",
      "VIRTIO_F_RING_PACKED must come with VIRTIO_F_VERSION_1",
    );
  }
  device.acceptFeatures(features);
}

/** A queue as features have it used. */
export function queueSetup(
  addresses: QueueAddresses,
  features: FeatureSet,
): VirtqueueSetup & { readonly packed: boolean } {
  return {
    ...addresses,
    eventIndex: features.has(VIRTIO_F_EVENT_IDX),
    indirect: features.has(VIRTIO_F_INDIRECT_DESC),
    packed: features.has(VIRTIO_F_RING_PACKED),
  };
}

/**
 * Builds the queue in the layout that `features` ask for. GuestError as thrown by the constructors.
 * @param base where to go on, as the constructors take it; undefined for their own choice; @param budget see
 * there
 */
export function buildQueue(
  memory: GuestMemory,
  addresses: QueueAddresses,
  features: FeatureSet,
  base?: number,
  budget?: RoundBudget,
): SplitVirtqueue | PackedVirtqueue {
  const setup = queueSetup(addresses, features);
  return setup.packed
    ? new PackedVirtqueue(memory, setup, base, budget)
    : new SplitVirtqueue(memory, setup, base, budget);
}

/** Counts the faults of one guest. */
export class FaultLog {
  /** How often each rule was broken, by the name of the fault. */
  readonly counts: Record<string, number> = {};
  readonly #listener: ((fault: GuestError) => void) | null;
  #last: GuestError | null = null;

  /** Nothing is counted yet. @param listener told of every fault, once it is counted */
  constructor(listener: ((fault: GuestError) => void) | null = null) {
    this.#listener = listener;
  }

  /** The fault noted last, with the values, for logs; null if there was none. */
  get last(): GuestError | null {
    return this.#last;
  }

  /** Counts a fault and returns it. An error that is not the guest's doing is thrown on. */
  note(error: unknown): GuestError {
    if (!(error instanceof GuestError)) throw error;
    this.counts[error.fault] = (this.counts[error.fault] ?? 0) + 1;
    this.#last = error;
    this.#listener?.(error);
    return error;
  }

  /** Counts a fault that need not be reported. */
  count(fault: GuestFault, message: string): void {
    this.note(new GuestError(fault, message));
  }

  /** Does something and counts the fault, if one comes up; then false. For the control plane. */
  attempt(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      this.note(error);
      return false;
    }
  }
}
