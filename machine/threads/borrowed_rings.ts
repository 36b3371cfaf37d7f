/**
 * The rings that a thread was lent: memory, queues, events, made of their description and let go as a whole.
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import { GuestMemory } from "../../core/memory.ts";
import type { PackedVirtqueue } from "../../core/packed_virtqueue.ts";
import { buildQueue } from "../../core/queue_setup.ts";
import type { SplitVirtqueue } from "../../core/split_virtqueue.ts";
import type { RingLoan, RingsLoan } from "../../core/threads.ts";
import { RoundBudget } from "../../core/virtqueue.ts";
import { ReceivedEvent } from "../../host/event_fd.ts";
import { FileDescriptor } from "../../host/file_descriptor.ts";
import { MemoryView } from "../../host/memory_view.ts";
import { PageLog } from "../../transports/vhost_user/page_log.ts";

/** A ring and its queue. */
export interface BorrowedRing {
  /** What was told of it. */
  readonly loan: RingLoan;
  /** What the device works on. */
  readonly queue: SplitVirtqueue | PackedVirtqueue;
  /** Tells the driver of used buffers; null if there is no event for that. */
  readonly call: ReceivedEvent | null;
}

/** Rings of one loan. After `dispose` nothing of them can be reached: every view of the memory is empty. */
export class BorrowedRings implements Disposable {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** The rings. */
  readonly all: readonly BorrowedRing[];
  /** What may be done with all of them in a round; refilled where one begins. */
  readonly budget: RoundBudget = new RoundBudget();
  /** Must they be looked at without being asked? */
  readonly isPolled: boolean;
  readonly #owned: DisposableStack;
  readonly #log: PageLog | null;
  readonly #logEvent: ReceivedEvent | null;

  /**
   * Takes rings over. GuestError if one of them is not as it was described; nothing is held then.
   * @param features what was agreed on; @param watch wakes this thread by a descriptor
   */
  constructor(loan: RingsLoan, features: FeatureSet, watch: (number: number) => Disposable) {
    using made = new DisposableStack();
    const regions = loan.regions.map(({ guestAddress, size, address }) => {
      const { buffer, copier } = made.use(new MemoryView(BigInt(address), size));
      return { guestAddress, size, buffer, bufferOffset: 0, copier };
    });
    this.memory = new GuestMemory(regions);
    this.#log = loan.log && made.use(openLog(loan.log.address, loan.log.sizeBytes));
    // Events of its own: a thread that comes round late signals nothing that got the number of a closed one.
    const openEvent = (number: number | null | undefined, isCall = false) =>
      number === null || number === undefined
        ? null
        : made.use(new ReceivedEvent(FileDescriptor.duplicate(number, "an event of the front-end"), isCall));
    this.#logEvent = openEvent(loan.log?.event);
    this.memory.dirtyLog = this.#log;
    this.all = loan.rings.map((ring) => {
      if (ring.kick !== null) made.use(watch(ring.kick));
      const { size, descriptors, driver, device, base } = ring;
      const queue = buildQueue(
        this.memory,
        { addresses: { size, descriptors, driver, device }, base },
        features,
        this.budget,
      );
      queue.logTo(ring.logAddress === null ? null : this.#log, ring.logAddress ?? 0);
      return { loan: ring, queue, call: openEvent(ring.call, true) };
    });
    this.isPolled = loan.rings.some(({ polled }) => polled);
    this.#owned = made.move();
  }

  /** Pages that were written behind the end of the log. */
  get unloggedPages(): number {
    return this.#log?.unloggedPages ?? 0;
  }

  /** Tells the driver that queue `index` has used buffers. False if it has no event for that. */
  interrupt(index: number): boolean {
    for (let i = 0; i < this.all.length; i++) {
      const { loan, call } = this.all[i];
      if (loan.index !== index) continue;
      if (call === null) return false;
      call.signal();
    }
    return true;
  }

  /** Tells the front-end that pages were marked, if any were. */
  tellLog(): void {
    if (this.#log?.takeModified() === true && this.#logEvent !== null) this.#logEvent.signal();
  }

  /** Lets everything go; queues and memory must not be used any more. */
  [Symbol.dispose](): void {
    this.#owned.dispose();
  }
}

function openLog(address: string, sizeBytes: number): PageLog {
  const view = new MemoryView(BigInt(address), sizeBytes);
  const { buffer } = view;
  const dispose = () => view[Symbol.dispose]();
  return new PageLog(
    { buffer, bufferOffset: 0, address: BigInt(address), [Symbol.dispose]: dispose },
    sizeBytes,
  );
}
