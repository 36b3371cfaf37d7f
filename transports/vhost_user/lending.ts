/**
 * Lends rings to other threads, and takes them back.
 *
 * Theory of operation. What the device leaves to threads (`Device.lendsQueue`), runs and is enabled is lent as a whole, with
 * the memory behind it; everything else stays here. `recall` comes before anything about rings, memory or device changes,
 * and gives each ring its place back: the queue is made anew there, so that whatever follows finds it as if it had been
 * worked here. `lend` follows when the changes are over.
 *
 *     here --lend--> lent: kicks wake the borrower only --recall--> here, until the next round of the link
 *
 * Invariant: while anything is lent, nothing here reads or writes its rings, and no memory is unmapped.
 * @module
 */
import type { Device, Session } from "../../core/device.ts";
import type { GuestError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { GuestMemory } from "../../core/memory.ts";
import type { LogLoan, RegionLoan, RingBorrower, RingLoan } from "../../core/threads.ts";
import type { Virtqueue } from "../../core/virtqueue.ts";
import type { MemoryTable } from "./memory_table.ts";
import type { RingSet, Vring } from "./rings.ts";

/** What is lent: the rings of one link. */
export class Lending {
  readonly #borrower: RingBorrower | null;
  readonly #device: Device;
  readonly #table: MemoryTable;
  readonly #rings: RingSet;
  #isLent = false;

  /** To whom writes of the borrower are told from its next loan on; null for nobody. */
  log: LogLoan | null = null;

  /** Nothing is lent yet. @param borrower who works the queues that the device leaves to threads; null if it leaves none */
  constructor(borrower: RingBorrower | null, device: Device, table: MemoryTable, rings: RingSet) {
    this.#borrower = borrower;
    this.#device = device;
    this.#table = table;
    this.#rings = rings;
  }

  /** Is there a borrower that has not got what it should have? */
  get isDue(): boolean {
    return this.#borrower !== null && !this.#isLent;
  }

  /** Passes on what the borrower has to say. True if a guest has broken a rule there: `recall` says which. */
  hear(): boolean {
    const news = this.#borrower?.takeNews() ?? null;
    if (news === null) return false;
    for (const index of news.interrupts) this.#rings.interrupt(index);
    return news.hasFault;
  }

  /** Lends what is to be lent, unless it is lent already or the borrower is not ready. */
  lend(features: FeatureSet): void {
    const borrower = this.#borrower;
    if (borrower === null || this.#isLent || !borrower.isReady) return;
    const rings: RingLoan[] = [];
    for (const ring of this.#rings.all) {
      if (!this.#isToLend(ring)) continue;
      rings.push(describe(ring, this.#table));
      ring.lent = true;
    }
    this.#isLent = true;
    const state = this.#device.migration?.save();
    borrower.lend({
      features: features.toString(),
      regions: regionsOf(this.#table),
      log: this.log,
      rings,
      state,
    });
  }

  /** Takes everything back. Returns the rule that the guest has broken meanwhile, if it has. */
  recall(features: FeatureSet | null): GuestError | null {
    if (!this.#isLent || this.#borrower === null) return null;
    this.#isLent = false;
    const { bases, fault } = this.#borrower.recall();
    for (const ring of this.#rings.all) {
      if (!ring.lent) continue;
      ring.lent = false;
      ring.kick?.takeBack();
      ring.halt("stopped");
      ring.base = bases.get(ring.index) ?? ring.base;
    }
    if (features !== null) this.#rings.start(features);
    return fault;
  }

  /** The device begins anew, there as well. Nothing is lent. */
  reset(): void {
    this.#borrower?.reset();
  }

  #isToLend({ index, enabled, queue }: Vring): boolean {
    return enabled && queue !== null && this.#device.lendsQueue?.(index) === true;
  }
}

function describe(ring: Vring, table: MemoryTable): RingLoan {
  const { index, size, kick, call, queue, addresses } = ring;
  const { descriptors, available, used, log } = addresses!;
  return {
    index,
    size,
    descriptors: table.guestAddressOf(descriptors),
    driver: table.guestAddressOf(available),
    device: table.guestAddressOf(used),
    base: queue!.base,
    kick: kick?.lend() ?? null,
    polled: ring.isPolled,
    call: call?.number ?? null,
    logAddress: log,
  };
}

function regionsOf(table: MemoryTable): RegionLoan[] {
  return table.regions.map(({ description: { guestAddress, size }, mapping }) => ({
    guestAddress,
    size,
    address: String(mapping.address),
  }));
}

// What the device is lent: the rings that run and are enabled.

/** A session whose queues come and go, and whose memory may be replaced, between two rounds of the device. */
export class LentSession implements Session {
  /** Queues come and go. */
  readonly startsQueues = true;
  /** What was agreed on. */
  readonly features: FeatureSet;
  /** The guest's memory, as of now. */
  memory: GuestMemory;
  /** The queues by index; null where there is none now. */
  readonly queues: (Virtqueue | null)[];
  readonly #interrupt: (index: number) => void;
  readonly #configChanged: () => void;
  readonly #recall: () => void;

  /** Begins without queues. @param interrupt told which ring has news; @param configChanged told of configuration space; @param recall takes queues back from other threads */
  constructor(
    features: FeatureSet,
    memory: GuestMemory,
    queues: number,
    interrupt: (index: number) => void,
    configChanged: () => void,
    recall: () => void = () => {},
  ) {
    this.features = features;
    this.memory = memory;
    this.queues = new Array<Virtqueue | null>(queues).fill(null);
    this.#interrupt = interrupt;
    this.#configChanged = configChanged;
    this.#recall = recall;
  }

  /** For the device: ring `index` has used buffers. */
  interrupt(index: number): void {
    this.#interrupt(index);
  }

  /** For the device: takes back what other threads have. */
  recall(): void {
    this.#recall();
  }

  /** For the device: configuration space has changed. */
  configChanged(): void {
    this.#configChanged();
  }
}
