/**
 * The packed virtqueue, device side (virtio 1.2, section 2.8).
 *
 * Theory of operation. One ring of 16-byte descriptors, written by both sides, and two words that say who
 * wants to be told of what:
 *
 *     address | length | id, flags     AVAIL and USED in the flags say whose turn it is, relative to a wrap counter
 *
 * The device walks the ring twice. `available` is the slot from which `pop` reads next, `used` the slot to
 * which `push` writes next; each has a wrap counter that flips at the end of the ring. Instead of the
 * counters we keep the flags that follow from them: `availableMark` is what a descriptor at `available` shows
 * if it is the device's, `usedMark` what one at `used` is to show. Slots from `used` to `available` are in
 * flight; a list takes as many slots as it has direct descriptors, and its used descriptor is written to the
 * first slot of the next in turn, the others are skipped.
 *
 * A batch appears at once: `push` writes all used descriptors, but keeps the flags of the first; `publish`
 * stores those. The driver polls that slot only, so that it sees nothing before.
 *
 * `look` counts the lists that are there, ahead of `pop`, with one atomic a burst (see `countLists`). What it
 * saw is not trusted; `pop` reads each descriptor's fields once and judges those.
 *
 * Lists that were put back are no reason to stay awake: their device waits for more of them. `enableKicks`
 * finds the place behind them as they stand now, asks for a kick there, and if it is taken already, looks as
 * `pop` does: what it then counts is what `pop` goes by, so that "worth another round" and "there to be
 * popped" are one observation, whatever the driver takes back meanwhile. Each such round pops more lists than
 * the one before, or meets a GuestError, so that rounds without a result are fewer than the ring has slots.
 *
 * Ids are the driver's. The ledger knows how many slots the buffer of each took, and in which order they went
 * out.
 *
 * The order of stores to the ring and loads of the event words is as in split_virtqueue.ts, by atomics.
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
import type { DirtyLog, GuestMemory, MemoryHolder } from "./memory.ts";
import * as ringErrors from "./ring_errors.ts";
import {
  BufferLedger,
  EVENT_DESC,
  EVENT_DISABLE,
  EVENT_ENABLE,
  packedEventDue,
  RoundBudget,
  type Virtqueue,
  type VirtqueueSetup,
} from "./virtqueue.ts";

/** Slots that `look` looks at: a bound for its work, long enough for a burst. */
const LOOK_AHEAD = 64;

/** A packed virtqueue. See {@linkcode Virtqueue} for what the methods promise. */
export class PackedVirtqueue implements Virtqueue, MemoryHolder {
  /** Entries of the ring: 1 to 32768. */
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #table: IndirectTable;
  readonly #budget: RoundBudget;
  readonly #maxElements: number;
  readonly #indirect: boolean;
  #ring32: Uint32Array<ArrayBuffer>;
  #ring16: Uint16Array<ArrayBuffer>;
  readonly #events: PackedEvents;
  readonly #ledger: BufferLedger;
  #available: number;
  #availableMark: number;
  #used: number;
  #usedMark: number;
  /** Slots from `used` to `available`. */
  #inFlight: number;
  /** Lists that `look` has counted and `pop` has not taken. */
  #ready = 0;
  /** Slot and flags of the first used descriptor that is not shown yet; -1 if there is none. */
  #first = -1;
  #firstFlags = 0;
  /** Slots used since an interrupt was last considered; at first a whole lap, since that is unknown. */
  #since: number;
  /** Lists popped since the last push: so many can be put back. */
  #returnable = 0;
  /** Lists put back and not popped again. */
  #unpopped = 0;
  /**
   * The budget of the round kept further lists from a device: it does not know what comes behind those it
   * puts back.
   */
  #heldBack = false;
  /** Told of what is written into the ring. */
  #log: DirtyLog | null = null;
  readonly #ringAddress: number;

  /**
   * Takes a queue over.
   * @param memory the guest's memory
   * @param setup where the driver has put the queue
   * @param base where to go on, packed as {@linkcode unpackPosition} has it; without it, the start of a fresh
   * ring.
   *   GuestError `queue-size-invalid`, `ring-misaligned`, `address-out-of-range` or `ring-state-invalid`.
   * @param budget what may be done in a round, shared with the other queues of a session; without it,
   * anything
   */
  constructor(
    memory: GuestMemory,
    setup: VirtqueueSetup,
    base: number = FRESH_RING,
    budget: RoundBudget = new RoundBudget(),
  ) {
    const { size } = setup;
    if (!Number.isInteger(size) || size < 1 || size > 32768) throw ringErrors.packedSizeInvalid(size);
    this.size = size;
    this.#memory = memory;
    this.#table = new IndirectTable(memory);
    this.#budget = budget;
    this.#maxElements = maxElements(size);
    this.#indirect = setup.indirect;
    const ring = memory.window(setup.descriptors, size * DESC_BYTES, 16, this);
    this.#ring32 = ring.u32;
    this.#ring16 = ring.u16;
    this.#events = new PackedEvents(memory, setup);
    this.#ringAddress = setup.descriptors;
    this.#since = size;
    this.#ledger = new BufferLedger(size);
    const position = unpackPosition(base, size);
    this.#available = position.available;
    this.#availableMark = position.availableMark;
    this.#used = position.used;
    this.#usedMark = position.usedMark;
    this.#inFlight = position.inFlight;
  }

  /** The ring is taken away: what still uses the queue meets an empty one, and RangeErrors. */
  letGo(): void {
    this.#ring32 = new Uint32Array(0);
    this.#ring16 = new Uint16Array(0);
    this.#ready = 0;
    this.#log = null;
  }

  /** Where the ring stands, packed as the constructor takes it: what a restart needs to go on here. */
  get base(): number {
    return packPosition(this.#available, this.#availableMark, this.#used, this.#usedMark);
  }

  /** Ring slots of the buffers that were popped and not pushed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /**
   * Has every write to the ring told to `log`, or no more if that is null.
   * @param deviceAddress where the device event suppression structure is to be logged, whatever its address
   */
  logTo(log: DirtyLog | null, deviceAddress: number): void {
    this.#log = log;
    this.#events.logTo(log, deviceAddress);
  }

  /** Takes the next available list into `chain`; false if there is none. GuestError for a broken list. */
  pop(chain: DescriptorChain): boolean {
    if (this.#ready === 0 && !this.#look(0)) return false;
    const budget = this.#budget;
    if (budget.left <= 0) return this.#holdBack();
    const size = this.size;
    const ring = this.#ring32;
    const free = size - this.#inFlight;
    chain.begin();
    let slot = this.#available;
    let mark = this.#availableMark;
    let count = 0;
    let id = 0;
    let more = true;
    while (more) {
      if (++count > free) throw count > size ? ringErrors.loop(size) : ringErrors.ringOverrun(count, free);
      const at = slot << 2;
      // Flags and id in one load, to be of one moment.
      const word = ring[at + 3];
      const flags = word >>> 16;
      if ((flags & TURN) !== mark) throw ringErrors.notAvailable(slot, flags);
      const low = ring[at];
      const high = ring[at + 1];
      const length = ring[at + 2];
      const address = high === 0 ? low : wideAddress(low, high);
      if ((flags & DESC_F_INDIRECT) !== 0) {
        if (!this.#indirect) throw ringErrors.indirectNotNegotiated();
        if (count !== 1 || (flags & DESC_F_NEXT) !== 0) throw ringErrors.indirectInList();
        this.#table.addInOrder(chain, address, length, this.#maxElements);
      } else chain.add(this.#memory, address, length, (flags & DESC_F_WRITE) !== 0);
      if (++slot === size) {
        slot = 0;
        mark ^= TURN;
      }
      id = word & 0xffff;
      more = (flags & DESC_F_NEXT) !== 0;
    }
    chain.finish(id, count);
    budget.left -= chain.units;
    if (!this.#ledger.take(id, count)) throw ringErrors.idInUse(id);
    this.#available = slot;
    this.#availableMark = mark;
    this.#inFlight += count;
    this.#ready--;
    this.#returnable++;
    if (this.#unpopped !== 0) this.#unpopped--;
    return true;
  }

  /**
   * Names a buffer that an earlier owner of the ring has popped: it can be pushed. False if one of that id is
   * out.
   */
  adopt(id: number, slots: number): boolean {
    return this.#ledger.take(id, slots);
  }

  /** Puts the `count` chains popped last back. RangeError if fewer were popped since the last push. */
  unpop(count: number): void {
    if (!(count >= 0 && count <= this.#returnable)) throw ringErrors.notReturnable(count, this.#returnable);
    for (let i = 0; i < count; i++) {
      const slots = this.#ledger.untake();
      this.#inFlight -= slots;
      this.#available -= slots;
      if (this.#available < 0) {
        this.#available += this.size;
        this.#availableMark ^= TURN;
      }
    }
    this.#returnable -= count;
    this.#unpopped = this.#heldBack ? 0 : this.#unpopped + count;
    this.#heldBack = false;
  }

  /** Returns a buffer, with the number of bytes written into it. RangeError if it is not out. */
  push(head: number, writtenBytes: number): void {
    const slots = this.#ledger.giveBack(head);
    if (slots === 0) throw ringErrors.notInFlight(head);
    const slot = this.#used;
    const flags = writtenBytes > 0 ? this.#usedMark | DESC_F_WRITE : this.#usedMark;
    const at = slot << 2;
    this.#ring32[at + 2] = writtenBytes;
    if (this.#first < 0) {
      this.#ring16[(slot << 3) + 6] = head;
      this.#first = slot;
      this.#firstFlags = flags;
    } else {
      this.#ring32[at + 3] = flags << 16 | head;
      if (this.#log !== null) this.#log.mark(this.#ringAddress + slot * DESC_BYTES, DESC_BYTES);
    }
    const after = slot + slots;
    if (after >= this.size) {
      this.#used = after - this.size;
      this.#usedMark ^= TURN;
    } else this.#used = after;
    this.#inFlight -= slots;
    this.#since += slots;
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
    const first = this.#first;
    if (first < 0) return false;
    Atomics.store(this.#ring16, (first << 3) + 7, this.#firstFlags);
    if (this.#log !== null) this.#log.mark(this.#ringAddress + first * DESC_BYTES, DESC_BYTES);
    this.#first = -1;
    const since = this.#since;
    this.#since = 0;
    return this.#events.isInterruptDue(this.#used, this.#usedMark === TURN, since);
  }

  /**
   * Asks for a kick. True if lists are there already that were not popped yet; those put back do not count.
   */
  enableKicks(): boolean {
    const { size } = this;
    const ring = this.#ring16;
    const free = size - this.#inFlight;
    const unpopped = this.#unpopped;
    const known = unpopped === 0
      ? 0
      : slotsOfLists(ring, size, this.#available, this.#availableMark, unpopped, free);
    let slot = this.#available + known;
    let mark = this.#availableMark;
    if (slot >= size) {
      slot -= size;
      mark ^= TURN;
    }
    this.#events.askForKick(slot, mark === AVAILABLE_1);
    // What was seen the last time, and not popped since, is still so.
    if (this.#ready > unpopped) return this.#budget.allows();
    if (known >= free || (Atomics.load(ring, (slot << 3) + 7) & TURN) !== mark) return false;
    return this.#look(known) && this.#ready > unpopped && this.#budget.allows();
  }

  /** Tells the driver that kicks are a waste. */
  disableKicks(): void {
    this.#events.refuseKicks();
  }

  /** Is the next slot available, of which nothing is known yet? */
  peek(): boolean {
    if (this.#ready > 0 || this.#unpopped > 0 || this.#inFlight >= this.size) return false;
    return (Atomics.load(this.#ring16, (this.#available << 3) + 7) & TURN) === this.#availableMark;
  }

  /** Tells a kernel how the ring stands. False if it cannot work it: it does not know which ids are out. */
  #enter(burst: Burst): boolean {
    if (this.#log !== null || this.#inFlight !== 0 || this.#ring32.length === 0) return false;
    if (!burst.reaches(this.#memory)) return false;
    const { words, doubles } = burst.arena;
    const at = burst.block / 4;
    doubles[at / 2 + layout.DESCRIPTORS / 8] = this.#ring32.byteOffset;
    doubles[at / 2 + layout.BUDGET / 8] = burst.units = Math.min(this.#budget.left, burst.maxUnits);
    words[at + layout.SIZE / 4] = this.size;
    words[at + layout.FLAGS / 4] = layout.PACKED | layout.READS_TABLES |
      (this.#indirect ? layout.INDIRECT : 0);
    words[at + layout.MAX_ELEMENTS / 4] = this.#maxElements;
    words[at + layout.ITEM_COUNT / 4] = burst.items;
    words[at + layout.NEXT / 4] = this.#available;
    words[at + layout.AVAILABLE_MARK / 4] = this.#availableMark;
    words[at + layout.USED_NEXT / 4] = this.#used;
    words[at + layout.USED_MARK / 4] = this.#usedMark;
    words[at + layout.FIRST / 4] = this.#first;
    words[at + layout.FIRST_FLAGS / 4] = this.#firstFlags;
    words[at + layout.FREE / 4] = this.size;
    return true;
  }

  /** Takes over how a kernel has left the ring. */
  #leave(burst: Burst): void {
    const { words, doubles } = burst.arena;
    const at = burst.block / 4;
    burst.units -= doubles[at / 2 + layout.BUDGET / 8];
    this.#budget.left -= burst.units;
    const chains = words[at + layout.CHAINS / 4];
    burst.chains = chains;
    burst.neededBytes = words[at + layout.NEEDED / 4];
    if (chains === 0) return;
    this.#available = words[at + layout.NEXT / 4];
    this.#availableMark = words[at + layout.AVAILABLE_MARK / 4];
    this.#used = words[at + layout.USED_NEXT / 4];
    this.#usedMark = words[at + layout.USED_MARK / 4];
    this.#first = words[at + layout.FIRST / 4] | 0;
    this.#firstFlags = words[at + layout.FIRST_FLAGS / 4];
    this.#since += words[at + layout.SLOTS / 4];
    this.#ready = Math.max(0, this.#ready - chains);
    this.#returnable = 0;
    this.#unpopped = Math.max(0, this.#unpopped - chains);
  }

  /** Gives no list out in this round, and has none count as waited for in vain. */
  #holdBack(): boolean {
    this.#unpopped = 0;
    this.#heldBack = true;
    return this.#budget.allows();
  }

  /**
   * Counts the lists that are there. False if there is none.
   * @param known slots that are not worth a bound
   */
  #look(known: number): boolean {
    const limit = Math.min(known + LOOK_AHEAD, this.size - this.#inFlight);
    this.#ready = countLists(this.#ring16, this.size, this.#available, this.#availableMark, limit);
    return this.#ready !== 0;
  }
}

// Marks and positions of packed rings: what follows from the wrap counters (virtio 1.2, section 2.8.1).

/** The AVAIL and USED flags of a descriptor: whose turn it is. */
export const TURN = 0x8080;
/**
 * What they are on a descriptor that a driver with wrap counter 1 made available; with 0 it is the other
 * flag.
 */
export const AVAILABLE_1 = 0x0080;
/** The packed position of a ring that was never used: both slots 0, both wrap counters 1. */
export const FRESH_RING = 0x80008000;

/** Where a packed ring stands, by both of its walkers. */
export interface PackedPosition {
  /** The slot that is read next. */
  readonly available: number;
  /** What AVAIL and USED are there if it is the device's turn. */
  readonly availableMark: number;
  /** The slot that is written next. */
  readonly used: number;
  /** What AVAIL and USED are to be there. */
  readonly usedMark: number;
  /** Slots between the two. */
  readonly inFlight: number;
}

/**
 * Unpacks a position: available slot (bits 0 to 14), its wrap counter (15), used slot (16 to 30), its wrap
 * counter (31). GuestError `ring-state-invalid` if a ring of `size` cannot stand so.
 */
export function unpackPosition(base: number, size: number): PackedPosition {
  const available = base & 0x7fff;
  const used = base >>> 16 & 0x7fff;
  const availableWrap = base >>> 15 & 1;
  const usedWrap = base >>> 31;
  const inFlight = available - used + (availableWrap === usedWrap ? 0 : size);
  if (
    !Number.isInteger(base) || base < 0 || base > 0xffffffff ||
    available >= size || used >= size || inFlight < 0 || inFlight > size
  ) {
    throw ringErrors.stateInvalid(
      `Position of a packed ring of ${size} is ${base} (available slot ${available}, used slot ${used}); both must ` +
        "lie in the ring, the first at most a lap ahead of the second",
    );
  }
  return {
    available,
    availableMark: availableWrap === 1 ? AVAILABLE_1 : TURN ^ AVAILABLE_1,
    used,
    usedMark: usedWrap === 1 ? TURN : 0,
    inFlight,
  };
}

/** Packs a position, the inverse of {@linkcode unpackPosition}. */
export function packPosition(
  available: number,
  availableMark: number,
  used: number,
  usedMark: number,
): number {
  const low = available | (availableMark === AVAILABLE_1 ? 0x8000 : 0);
  const high = used | (usedMark === TURN ? 0x8000 : 0);
  return high * 0x10000 + low;
}

/**
 * Counts the lists that are available in a ring of `size` from `slot` on, looking at no more than `limit`
 * slots. After it, all that the driver wrote into them can be seen.
 *
 * The flags are loaded plainly but for those of the last list's first descriptor, which are loaded again by
 * an atomic: the driver writes lists in order, and in each of them these flags last.
 */
function countLists(
  ring: Uint16Array<ArrayBuffer>,
  size: number,
  slot: number,
  mark: number,
  limit: number,
): number {
  let last = -1;
  let lists = 0;
  let inList = false;
  let at = slot;
  let expected = mark;
  for (let i = 0; i < limit; i++) {
    const flags = ring[(at << 3) + 7];
    if ((flags & TURN) !== expected) break;
    if (!inList) {
      lists++;
      last = at;
    }
    inList = (flags & DESC_F_NEXT) !== 0;
    if (++at === size) {
      at = 0;
      expected ^= TURN;
    }
  }
  if (lists !== 0) Atomics.load(ring, (last << 3) + 7);
  return lists;
}

/** Slots that the next `lists` lists take from `slot` on, as far as they are available; at most `limit`. */
function slotsOfLists(
  ring: Uint16Array<ArrayBuffer>,
  size: number,
  slot: number,
  mark: number,
  lists: number,
  limit: number,
): number {
  let at = slot;
  let expected = mark;
  let left = lists;
  let slots = 0;
  for (; left > 0 && slots < limit; slots++) {
    const flags = ring[(at << 3) + 7];
    if ((flags & TURN) !== expected) break;
    if ((flags & DESC_F_NEXT) === 0) left--;
    if (++at === size) {
      at = 0;
      expected ^= TURN;
    }
  }
  return slots;
}

// The two event suppression structures of a packed ring (virtio 1.2, section 2.8.10): the driver's, which is
// read here, says when it wants to be interrupted; the device's, which is written here, when it wants to be
// kicked. Each is one 32-bit word: offset and wrap counter, flags.

/** Who wants to be told of what, for one packed ring. */
export class PackedEvents implements MemoryHolder {
  readonly #size: number;
  readonly #eventIndex: boolean;
  #driver: Uint32Array<ArrayBuffer>;
  #device: Uint32Array<ArrayBuffer>;
  #log: DirtyLog | null = null;
  #logAddress = 0;

  /**
   * Changes nothing in guest memory. GuestError `ring-misaligned` or `address-out-of-range`.
   * @param setup where the words are
   */
  constructor(memory: GuestMemory, setup: VirtqueueSetup) {
    this.#size = setup.size;
    this.#eventIndex = setup.eventIndex;
    this.#driver = memory.window(setup.driver, 4, 4, this).u32;
    this.#device = memory.window(setup.device, 4, 4, this).u32;
  }

  /** The words are taken away. */
  letGo(): void {
    this.#driver = this.#device = new Uint32Array(0);
    this.#log = null;
  }

  /**
   * Has every write of the device's word told to `log`, or no more if that is null.
   * @param address where it is to be logged
   */
  logTo(log: DirtyLog | null, address: number): void {
    this.#log = log;
    this.#logAddress = address;
  }

  /**
   * Does the driver want to be interrupted? The load is in order with atomics before it.
   * @param slot the slot after the last used one; @param wrap its wrap counter; @param since slots used since
   * this was asked
   */
  isInterruptDue(slot: number, wrap: boolean, since: number): boolean {
    const word = Atomics.load(this.#driver, 0);
    return packedEventDue(word, this.#eventIndex, slot, wrap, Math.min(since, this.#size), this.#size);
  }

  /**
   * Asks for a kick: with EVENT_IDX for one when `slot` under this wrap counter is made available. An atomic
   * store.
   */
  askForKick(slot: number, wrap: boolean): void {
    const place = EVENT_DESC << 16 | (wrap ? 0x8000 : 0) | slot;
    Atomics.store(this.#device, 0, this.#eventIndex ? place : EVENT_ENABLE << 16);
    if (this.#log !== null) this.#log.mark(this.#logAddress, 4);
  }

  /** Asks for no kicks. */
  refuseKicks(): void {
    this.#device[0] = EVENT_DISABLE << 16;
    if (this.#log !== null) this.#log.mark(this.#logAddress, 4);
  }
}
