/**
 * The split virtqueue, device side (virtio 1.2, section 2.7).
 *
 * Theory of operation. Three arrays in guest memory, each under a small window of typed arrays:
 *
 *     descriptors  size entries of 16 bytes, written by the driver, chained by `next`
 *     available    flags | idx | ring[size] | used_event     written by the driver, read here
 *     used         flags | idx | ring[size] | avail_event    written here
 *
 * Indices run freely through 16 bits; `index & mask` is the slot. Four of them move, always in this order:
 *
 *     signalled  <=  published  <=  used  <=  next  <=  seen  <=  published + size
 *
 * `seen` is the driver's idx as last loaded, once a burst. `next` is the chain that `pop` takes. `used` is
 * where `push` writes. `published` is the idx that the driver sees. `signalled` is `published` as it was when
 * an interrupt was last considered. The last inequality is the driver's duty, and is checked with every load:
 * a driver cannot have more chains out than the ring has slots.
 *
 * Order of memory. The driver writes descriptors, then idx: idx is loaded by an atomic, and what it covers
 * after that. We write used elements, then idx, then look at used_event, while the driver writes used_event,
 * then looks at idx; one of the two must see the other. Stores and loads by Atomics are sequentially
 * consistent, which gives that; plain ones were measured to be reordered by the processor. `enableKicks` is
 * the same dance with the roles exchanged. It costs two atomics a burst, none a chain.
 *
 * `unpop` moves `next` back. The chains are then popped, and judged, anew. Chains that were put back are no
 * reason to stay awake: their device waits for more of them, so `enableKicks` asks for what comes behind
 * them. What `enableKicks` sees there it keeps as `seen`: "worth another round" and "there to be popped" are
 * one observation, whatever the driver does to its index meanwhile. The place that is waited for only moves
 * forward while nothing is pushed, so that rounds without a result are fewer than the ring has slots.
 *
 * A GuestError leaves the queue where it was; the device needs a reset.
 * @module
 */
import type { Burst } from "./burst.ts";
import * as layout from "../kernels/layout.ts";
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  type DescriptorChain,
  IndirectTable,
  maxElements,
  wideAddress,
} from "./descriptor_chain.ts";
import { GuestError } from "./guest_error.ts";
import type { DirtyLog, GuestMemory, MemoryHolder } from "./memory.ts";
import * as ringErrors from "./ring_errors.ts";
import { RoundBudget, splitEventDue, type Virtqueue, type VirtqueueSetup } from "./virtqueue.ts";

const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;
const FLAGS = 0;
const INDEX = 1;
const RING = 2;

/** A split virtqueue. See {@linkcode Virtqueue} for what the methods promise. */
export class SplitVirtqueue implements Virtqueue, MemoryHolder {
  /** Entries of the ring: a power of two, 1 to 32768. */
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #table: IndirectTable;
  readonly #budget: RoundBudget;
  readonly #maxElements: number;
  readonly #eventIndex: boolean;
  readonly #indirect: boolean;
  readonly #mask: number;
  #descriptors: Uint32Array<ArrayBuffer>;
  #available: Uint16Array<ArrayBuffer>;
  #used: Uint16Array<ArrayBuffer>;
  #usedRing: Uint32Array<ArrayBuffer>;
  readonly #usedEvent: number;
  readonly #availEvent: number;
  #seen: number;
  #next: number;
  #usedIndex: number;
  #published: number;
  #signalled: number;
  /** Chains popped since the last push: so many can be put back. */
  #returnable = 0;
  /** Chains put back and not popped again. */
  #unpopped = 0;
  /**
   * The budget of the round kept further chains from a device: it does not know what comes behind those it
   * puts back.
   */
  #heldBack = false;
  /** Told of what is written into the used ring, by where the ring is said to lie. */
  #log: DirtyLog | null = null;
  #logAddress = 0;

  /**
   * Takes a queue over. The used index is read from guest memory: the ring may have been in use before.
   * @param memory the guest's memory
   * @param setup where the driver has put the queue
   * @param base the available index to go on at, 0 to 65535; without it, the used index, so that chains which
   * have
   *   not been returned are served again. GuestError `queue-size-invalid`, `ring-misaligned`, `address-out-of-range` or
   *   `ring-state-invalid`.
   * @param budget what may be done in a round, shared with the other queues of a session; without it,
   * anything
   */
  constructor(
    memory: GuestMemory,
    setup: VirtqueueSetup,
    base?: number,
    budget: RoundBudget = new RoundBudget(),
  ) {
    const { size, eventIndex } = setup;
    if (!Number.isInteger(size) || size < 1 || size > 32768 || (size & (size - 1)) !== 0) {
      throw ringErrors.splitSizeInvalid(size);
    }
    if (base !== undefined && (!Number.isInteger(base) || base < 0 || base > 0xffff)) {
      throw new GuestError("ring-state-invalid", `Available index is ${base}; it must be from 0 to 65535`);
    }
    // Without EVENT_IDX a driver need not have reserved room for the event field.
    const tail = eventIndex ? 2 : 0;
    this.size = size;
    this.#memory = memory;
    this.#table = new IndirectTable(memory);
    this.#budget = budget;
    this.#maxElements = maxElements(size);
    this.#eventIndex = eventIndex;
    this.#indirect = setup.indirect;
    this.#mask = size - 1;
    this.#descriptors = memory.window(setup.descriptors, size * DESC_BYTES, 16, this).u32;
    this.#available = memory.window(setup.driver, 4 + 2 * size + tail, 2, this).u16;
    const used = memory.window(setup.device, 4 + 8 * size + tail, 4, this);
    this.#used = used.u16;
    this.#usedRing = used.u32;
    this.#usedEvent = RING + size;
    this.#availEvent = RING + 4 * size;
    const usedIndex = Atomics.load(used.u16, INDEX);
    this.#usedIndex = usedIndex;
    this.#published = usedIndex;
    // Before a restart an interrupt may have been due and not been sent: whatever a full ring may hold counts
    // as news.
    this.#signalled = (usedIndex - Math.min(size, 32767)) & 0xffff;
    this.#next = base ?? usedIndex;
    this.#seen = this.#next;
    if (((this.#next - usedIndex) & 0xffff) > size) {
      throw new GuestError(
        "ring-state-invalid",
        `Available index ${this.#next} must be at most ${size} ahead of the used index ${usedIndex}`,
      );
    }
  }

  /** The ring is taken away: what still uses the queue meets an empty one, and RangeErrors. */
  letGo(): void {
    this.#descriptors = this.#usedRing = new Uint32Array(0);
    this.#available = this.#used = new Uint16Array(0);
    this.#seen = this.#next;
    this.#log = null;
  }

  /** The available index of the next chain to pop: what a restart needs to go on here. */
  get base(): number {
    return this.#next;
  }

  /** Chains that were popped and not pushed. */
  get inFlight(): number {
    return (this.#next - this.#usedIndex) & 0xffff;
  }

  /**
   * Has every write to the used ring told to `log`, or no more if that is null.
   * @param usedAddress where the ring is to be logged, whatever its address (vhost-user may give another one)
   */
  logTo(log: DirtyLog | null, usedAddress: number): void {
    this.#log = log;
    this.#logAddress = usedAddress;
  }

  /**
   * Takes the next available chain into `chain`; false if there is none. GuestError for a broken ring or
   * chain.
   */
  pop(chain: DescriptorChain): boolean {
    if (this.#next === this.#seen && !this.#look()) return false;
    const budget = this.#budget;
    if (budget.left <= 0) return this.#holdBack();
    const size = this.size;
    const descriptors = this.#descriptors;
    const head = this.#available[RING + (this.#next & this.#mask)];
    chain.begin();
    let index = head;
    let count = 0;
    for (;;) {
      if (index >= size) throw ringErrors.indexOutOfRange(index, size);
      if (++count > size) throw ringErrors.loop(size);
      const at = index << 2;
      const low = descriptors[at];
      const high = descriptors[at + 1];
      const length = descriptors[at + 2];
      const word = descriptors[at + 3];
      const address = high === 0 ? low : wideAddress(low, high);
      if ((word & DESC_F_INDIRECT) !== 0) {
        if (!this.#indirect) throw ringErrors.indirectNotNegotiated();
        if ((word & DESC_F_NEXT) !== 0) throw ringErrors.indirectInList();
        this.#table.addLinked(chain, address, length, this.#maxElements - count + 1);
        break;
      }
      chain.add(this.#memory, address, length, (word & DESC_F_WRITE) !== 0);
      if ((word & DESC_F_NEXT) === 0) break;
      index = word >>> 16;
    }
    chain.finish(head, count);
    budget.left -= chain.units;
    this.#next = (this.#next + 1) & 0xffff;
    this.#returnable++;
    if (this.#unpopped !== 0) this.#unpopped--;
    return true;
  }

  /** Puts the `count` chains popped last back. RangeError if fewer were popped since the last push. */
  unpop(count: number): void {
    if (!(count >= 0 && count <= this.#returnable)) throw ringErrors.notReturnable(count, this.#returnable);
    this.#next = (this.#next - count) & 0xffff;
    this.#returnable -= count;
    this.#unpopped = this.#heldBack ? 0 : this.#unpopped + count;
    this.#heldBack = false;
  }

  /** Returns a chain, with the number of bytes written into it. RangeError if none is out. */
  push(head: number, writtenBytes: number): void {
    const used = this.#usedIndex;
    if (used === this.#next) throw ringErrors.notInFlight(head);
    const at = ((used & this.#mask) << 1) + 1;
    this.#usedRing[at] = head;
    this.#usedRing[at + 1] = writtenBytes;
    this.#usedIndex = (used + 1) & 0xffff;
    this.#returnable = 0;
  }

  /** Writes items into chains by a kernel. Returns how many. */
  enqueueBurst(burst: Burst): number {
    if (!this.#enter(burst)) return 0;
    const done = burst.arena.kernels.enqueue(burst.block);
    this.#leave(burst);
    return done;
  }

  /** Copies chains into items by a kernel. Returns how many. */
  dequeueBurst(burst: Burst): number {
    if (!this.#enter(burst)) return 0;
    const done = burst.arena.kernels.dequeue(burst.block);
    this.#leave(burst);
    return done;
  }

  /** Shows the driver all that was pushed. True if it wants to be interrupted. */
  publish(): boolean {
    const used = this.#usedIndex;
    if (used === this.#published) return false;
    Atomics.store(this.#used, INDEX, used);
    if (this.#log !== null) this.#logUsed(this.#published, used);
    this.#published = used;
    if (!this.#eventIndex) return (Atomics.load(this.#available, FLAGS) & NO_INTERRUPT) === 0;
    const event = Atomics.load(this.#available, this.#usedEvent);
    const from = this.#signalled;
    this.#signalled = used;
    return splitEventDue(event, from, used);
  }

  /**
   * Asks for a kick. True if chains are there already that were not popped yet; those put back do not count.
   * GuestError for an available index that cannot be.
   */
  enableKicks(): boolean {
    const waited = (this.#next + this.#unpopped) & 0xffff;
    if (this.#eventIndex) Atomics.store(this.#used, this.#availEvent, waited);
    else Atomics.store(this.#used, FLAGS, 0);
    if (this.#log !== null) {
      this.#log.mark(this.#logAddress + 2 * (this.#eventIndex ? this.#availEvent : FLAGS), 2);
    }
    if (this.#seen === waited) {
      const index = Atomics.load(this.#available, INDEX);
      if (index === waited) return false;
      this.#see(index);
    }
    return this.#budget.allows();
  }

  /**
   * Tells the driver that kicks are a waste. With EVENT_IDX that is an event in the past, which is not
   * reached.
   */
  disableKicks(): void {
    const at = this.#eventIndex ? this.#availEvent : FLAGS;
    this.#used[at] = this.#eventIndex ? this.#next - 1 : NO_NOTIFY;
    if (this.#log !== null) this.#log.mark(this.#logAddress + 2 * at, 2);
  }

  /** Has the driver moved its index since it was last seen? */
  peek(): boolean {
    return Atomics.load(this.#available, INDEX) !== this.#seen;
  }

  /** Tells a kernel how the ring stands. False if it cannot work it. */
  #enter(burst: Burst): boolean {
    if (this.#log !== null || this.#used.length === 0 || !burst.reaches(this.#memory)) return false;
    const { words, doubles } = burst.arena;
    const at = burst.block / 4;
    doubles[at / 2 + layout.DESCRIPTORS / 8] = this.#descriptors.byteOffset;
    doubles[at / 2 + layout.AVAILABLE / 8] = this.#available.byteOffset;
    doubles[at / 2 + layout.USED / 8] = this.#used.byteOffset;
    doubles[at / 2 + layout.BUDGET / 8] = burst.units = Math.min(this.#budget.left, burst.maxUnits);
    words[at + layout.SIZE / 4] = this.size;
    words[at + layout.FLAGS / 4] = this.#indirect ? layout.INDIRECT : 0;
    words[at + layout.MAX_ELEMENTS / 4] = this.#maxElements;
    words[at + layout.ITEM_COUNT / 4] = burst.items;
    words[at + layout.NEXT / 4] = this.#next;
    words[at + layout.SEEN / 4] = this.#seen;
    words[at + layout.USED_NEXT / 4] = this.#usedIndex;
    words[at + layout.PUBLISHED / 4] = this.#published;
    return true;
  }

  /** Takes over how a kernel has left the ring. */
  #leave(burst: Burst): void {
    const { words, doubles } = burst.arena;
    const at = burst.block / 4;
    burst.units -= doubles[at / 2 + layout.BUDGET / 8];
    this.#budget.left -= burst.units;
    this.#next = words[at + layout.NEXT / 4];
    this.#seen = words[at + layout.SEEN / 4];
    this.#usedIndex = words[at + layout.USED_NEXT / 4];
    const chains = words[at + layout.CHAINS / 4];
    burst.chains = chains;
    burst.neededBytes = words[at + layout.NEEDED / 4];
    if (chains === 0) return;
    this.#returnable = 0;
    this.#unpopped = Math.max(0, this.#unpopped - chains);
  }

  /** Logs the used elements from index `from` to before `to`, and the index. */
  #logUsed(from: number, to: number): void {
    const log = this.#log!;
    const ring = this.#logAddress + 4;
    const first = from & this.#mask;
    const count = (to - from) & 0xffff;
    const straight = Math.min(count, this.size - first);
    log.mark(ring + 8 * first, 8 * straight);
    if (straight < count) log.mark(ring, 8 * (count - straight));
    log.mark(this.#logAddress + 2, 2);
  }

  /** Gives no chain out in this round, and has none count as waited for in vain. */
  #holdBack(): boolean {
    this.#unpopped = 0;
    this.#heldBack = true;
    return this.#budget.allows();
  }

  /** Loads the driver's index. False if nothing has been added. */
  #look(): boolean {
    const index = Atomics.load(this.#available, INDEX);
    if (index === this.#next) return false;
    this.#see(index);
    return true;
  }

  /** Judges the driver's index and keeps it. */
  #see(index: number): void {
    const out = (index - this.#published) & 0xffff;
    // An index that went back shows as one that is far ahead of `published`, or between it and what was seen.
    if (out > this.size || out < ((this.#seen - this.#published) & 0xffff)) {
      throw ringErrors.tooFar(index, this.#published, this.#seen, this.size);
    }
    this.#seen = index;
  }
}
