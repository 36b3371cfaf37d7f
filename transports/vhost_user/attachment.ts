/**
 * Attaches rings to queue workers, and detaches them.
 *
 * Theory of operation. The queues of the device's sets (`Device.workers`) that run and are enabled are
 * attached as a whole, with the memory behind them. Everything else stays here. `detach` comes before
 * anything about rings, memory or device changes, and gives each ring its place back: the queue is made anew
 * there, so that what follows finds it as if it had been served here. `attach` follows when the changes are
 * over.
 *
 *     here --attach--> attached: kicks wake the worker only --detach--> here, until the next round of the runner
 *
 * Invariant: while anything is attached, nothing here reads or writes its rings, and no memory is unmapped.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { GuestError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { AttachedLog, AttachedRing, QueueWorkers } from "../../plugins/queue_workers.ts";
import type { MemoryTable } from "./memory_table.ts";
import type { RingSet, Vring } from "./rings.ts";

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
