/**
 * In-flight memory (INFLIGHT_SHMFD): which requests the device has, written where the front-end keeps it, so
 * that the back-end that comes after a killed one repeats exactly what was not answered.
 *
 * Theory of operation. GET_INFLIGHT_FD makes the memory, SET_INFLIGHT_FD, now or to a later back-end, says to
 * use it. Each queue has a region of its own; what is in it is the specification's (docs/interop/vhost-user,
 * "Inflight I/O tracking"):
 *
 *     split   features u64 | version u16 | desc_num u16 | last_batch_head u16 | used_idx u16
 *             desc[size]: inflight u8, -[5], next u16, counter u64
 *     packed  features u64 | version u16 | desc_num u16 | free_head u16 | old_free_head u16 | used_idx u16 | old_used_idx u16
 *             used_wrap_counter u8 | old_used_wrap_counter u8 | -[10]
 *             desc[size]: inflight u8, -, next u16, last u16, num u16, counter u64, id u16, flags u16, len u32, addr u64
 *
 * Every step that a kill may come after is one store: a request is in flight from the store of its `inflight`
 * byte on; a batch of used requests is linked first, then the driver sees it, then their bytes are cleared,
 * and `used_idx` (or `old_used_idx`) follows. `restore` looks whether the driver saw the last batch, and
 * completes the clearing or forgets the batch.
 *
 * What is in the memory is the front-end's word: it is read once, when a ring starts, and judged; GuestError
 * `ring-state-invalid` for what cannot be. After that it is only written, from copies that are kept here. A
 * batch is put on the free list of a packed ring when it is published and not before: until then its entries
 * are what says that it is in flight.
 * @module
 */
import { GuestError } from "../../rings/guest_error.ts";
import {
  DESC_BYTES,
  DESC_F_INDIRECT,
  DESC_F_NEXT,
  DESC_F_WRITE,
  type DescriptorChain,
  IndirectTable,
  maxElements,
  wideAddress,
} from "../../rings/descriptor_chain.ts";
import { type DirtyLog, type GuestMemory, type MemoryHolder, MemoryHolders } from "../../rings/memory.ts";
import {
  AVAILABLE_1,
  FRESH_RING,
  PackedVirtqueue,
  packPosition,
  TURN,
  unpackPosition,
} from "../../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import * as ringErrors from "../../rings/ring_errors.ts";
import type { RoundBudget, Virtqueue, VirtqueueSetup } from "../../rings/virtqueue.ts";
import type { Mapping } from "./host.ts";
import { type InFlightDescription, ProtocolError } from "./messages.ts";

const VERSION = 1;
const VERSION_AT = 8;
const SIZE_AT = 10;
const SPLIT_HEADER_BYTES = 16;
const SPLIT_ENTRY_BYTES = 16;
const PACKED_HEADER_BYTES = 32;
const PACKED_ENTRY_BYTES = 32;
const MAX_QUEUE_SIZE = 32768;
const NONE = 0xffff;

/** Bytes of one queue's region, whichever the layout of its ring: whole cache lines. */
function regionBytes(queueSize: number): number {
  return (PACKED_HEADER_BYTES + PACKED_ENTRY_BYTES * queueSize + 63) & ~63;
}

/**
 * Bytes of the memory for so many queues. ProtocolError `value-invalid` if there cannot be so many, or so
 * large ones.
 */
export function inFlightBytes({ queues, queueSize }: InFlightDescription, maxQueues: number): number {
  if (queues >= 1 && queues <= maxQueues && queueSize >= 1 && queueSize <= MAX_QUEUE_SIZE) {
    return queues * regionBytes(queueSize);
  }
  throw new ProtocolError(
    "value-invalid",
    `In-flight memory for ${queues} queues of ${queueSize} must be for 1 to ${maxQueues} of up to ${MAX_QUEUE_SIZE}`,
  );
}

/** The memory of one front-end. */
export class InFlightMemory implements Disposable {
  readonly #mapping: Mapping;
  readonly #description: InFlightDescription;
  readonly #records = new MemoryHolders();

  /** Owns the mapping, of as many bytes as `inFlightBytes` says. */
  constructor(mapping: Mapping, description: InFlightDescription) {
    this.#mapping = mapping;
    this.#description = description;
  }

  /**
   * The record of a queue; null if the memory is not for so many. GuestError `ring-state-invalid` if its ring
   * is too large.
   */
  record(queue: number, size: number, packed: boolean): SplitRecord | PackedRecord | null {
    const { queues, queueSize } = this.#description;
    if (queue >= queues) return null;
    if (size > queueSize) throw invalid(`is for queues of up to ${queueSize}; queue ${queue} has ${size}`);
    const view = this.#region(queue);
    const record = packed ? new PackedRecord(view, size) : new SplitRecord(view, size);
    this.#records.add(record);
    return record;
  }

  /** The driver has taken everything back: nothing is to be repeated. */
  clear(): void {
    for (let queue = 0; queue < this.#description.queues; queue++) {
      this.#region(queue).setUint16(VERSION_AT, 0, true);
    }
  }

  /** Unmaps it; records are let go before. */
  [Symbol.dispose](): void {
    this.#records.letGo();
    this.#mapping[Symbol.dispose]();
  }

  #region(queue: number): DataView<ArrayBuffer> {
    const bytes = regionBytes(this.#description.queueSize);
    return new DataView(this.#mapping.buffer, this.#mapping.bufferOffset + queue * bytes, bytes);
  }
}

/**
 * Gives out what an earlier program took and did not return, then what is in the ring, and records both. The
 * ring itself is worked by a queue of its layout.
 */
export class RecordedQueue implements Virtqueue {
  readonly size: number;
  readonly #memory: GuestMemory;
  readonly #setup: VirtqueueSetup;
  readonly #budget: RoundBudget;
  readonly #table: IndirectTable;
  readonly #queue: SplitVirtqueue | PackedVirtqueue;
  readonly #record: SplitRecord | PackedRecord;
  /** What is to be repeated: heads, or lists. */
  readonly #again: readonly (number | RecordedList)[];
  #againAt = 0;
  /** Of those, how many were popped since the last push, and how many chains of the ring. */
  #againOut = 0;
  #freshOut = 0;

  /**
   * Takes a queue over. Throws as the constructors of the queues.
   * @param base as there
   * @param budget as there
   */
  constructor(
    memory: GuestMemory,
    setup: VirtqueueSetup,
    base: number | undefined,
    budget: RoundBudget,
    record: SplitRecord | PackedRecord,
  ) {
    this.size = setup.size;
    this.#memory = memory;
    this.#setup = setup;
    this.#budget = budget;
    this.#table = new IndirectTable(memory);
    this.#record = record;
    if (record instanceof PackedRecord) {
      const { descriptors } = setup;
      const restored = record.restore(base, (slot) => memory.readU16(descriptors + slot * DESC_BYTES + 14));
      const queue = new PackedVirtqueue(memory, setup, restored.base, budget);
      for (const { words } of restored.lists) {
        const id = words[words.length - 1] & 0xffff;
        if (!queue.adopt(id, words.length / 4)) throw ringErrors.idInUse(id);
      }
      this.#again = restored.lists;
      this.#queue = queue;
    } else {
      const usedIndex = memory.readU16(setup.device + 2);
      this.#again = record.restore(usedIndex);
      const again = this.#again.length;
      const next = again > 0 ? (usedIndex + again) & 0xffff : base;
      this.#queue = new SplitVirtqueue(memory, setup, next, budget);
    }
  }

  /** Chains that an earlier program took and did not return, as far as they were not popped again. */
  get resubmits(): number {
    return this.#again.length - this.#againAt;
  }

  /** Where the ring stands. */
  get base(): number {
    return this.#queue.base;
  }

  /** See the queues of both layouts. */
  logTo(log: DirtyLog | null, deviceAddress: number): void {
    this.#queue.logTo(log, deviceAddress);
  }

  pop(chain: DescriptorChain): boolean {
    if (this.#againAt < this.#again.length) return this.#popAgain(chain);
    const { base } = this.#queue;
    if (!this.#queue.pop(chain)) return false;
    if (this.#record instanceof PackedRecord) this.#note(this.#record, base & 0x7fff, chain.descriptors);
    this.#record.taken(chain.head);
    this.#freshOut++;
    return true;
  }

  unpop(count: number): void {
    const fresh = Math.min(count, this.#freshOut);
    const again = count - fresh;
    if (again > this.#againOut) throw ringErrors.notReturnable(count, this.#freshOut + this.#againOut);
    for (let i = 0; i < fresh; i++) this.#record.untaken();
    this.#queue.unpop(fresh);
    this.#freshOut -= fresh;
    this.#againOut -= again;
    this.#againAt -= again;
  }

  push(head: number, writtenBytes: number): void {
    this.#queue.push(head, writtenBytes);
    this.#record.returned(head);
    this.#freshOut = 0;
    this.#againOut = 0;
  }

  publish(): boolean {
    const queue = this.#queue;
    const record = this.#record;
    // Of a packed ring: slot and wrap counter. Of a split one the index itself.
    const used = queue instanceof PackedVirtqueue
      ? queue.base >>> 16
      : (queue.base - queue.inFlight) & 0xffff;
    record.publishing(used);
    const isDue = queue.publish();
    record.published(used);
    return isDue;
  }

  enableKicks(): boolean {
    return this.resubmits > 0 || this.#queue.enableKicks();
  }

  disableKicks(): void {
    this.#queue.disableKicks();
  }

  peek(): boolean {
    return this.#queue.peek();
  }

  #popAgain(chain: DescriptorChain): boolean {
    if (this.#budget.left <= 0) return this.#budget.allows();
    const again = this.#again[this.#againAt];
    if (typeof again === "number") this.#readChain(chain, again);
    else this.#readList(chain, again.words);
    this.#budget.left -= chain.units;
    this.#againAt++;
    this.#againOut++;
    return true;
  }

  /** Reads the chain of a split ring that begins at `head`, as the queue does it for an available one. */
  #readChain(chain: DescriptorChain, head: number): void {
    const { size, descriptors } = this.#setup;
    const memory = this.#memory;
    chain.begin();
    let index = head;
    for (let count = 1;; count++) {
      if (index >= size) throw ringErrors.indexOutOfRange(index, size);
      if (count > size) throw ringErrors.loop(size);
      const at = descriptors + index * DESC_BYTES;
      const address = wideAddress(memory.readU32(at), memory.readU32(at + 4));
      const word = memory.readU32(at + 12);
      const isLast = this.#add(chain, address, memory.readU32(at + 8), word, count);
      if (isLast) return chain.finish(head, count);
      index = word >>> 16;
    }
  }

  /** Reads a list as it was recorded. */
  #readList(chain: DescriptorChain, words: Uint32Array): void {
    const count = words.length / 4;
    chain.begin();
    for (let at = 0; at < words.length; at += 4) {
      // As of a single descriptor: a list that has a table has nothing else.
      const flags = words[at + 3] >>> 16 & ~DESC_F_NEXT;
      this.#add(chain, wideAddress(words[at], words[at + 1]), words[at + 2], flags, count);
    }
    chain.finish(words[words.length - 1] & 0xffff, count);
  }

  /** Adds an element, or the table that it stands for. True if the chain ends with it. */
  #add(chain: DescriptorChain, address: number, length: number, flags: number, count: number): boolean {
    if ((flags & DESC_F_INDIRECT) === 0) {
      chain.add(this.#memory, address, length, (flags & DESC_F_WRITE) !== 0);
      return (flags & DESC_F_NEXT) === 0;
    }
    const { indirect, size } = this.#setup;
    const packed = this.#record instanceof PackedRecord;
    if (!indirect) throw ringErrors.indirectNotNegotiated();
    if ((flags & DESC_F_NEXT) !== 0 || packed && count !== 1) throw ringErrors.indirectInList();
    if (packed) this.#table.addInOrder(chain, address, length, maxElements(size));
    else this.#table.addLinked(chain, address, length, maxElements(size) - count + 1);
    return true;
  }

  /** Records the descriptors of a list that was popped from `slot` on. */
  #note(record: PackedRecord, slot: number, count: number): void {
    const { descriptors, size } = this.#setup;
    const memory = this.#memory;
    for (let i = 0; i < count; i++) {
      const at = descriptors + ((slot + i) % size) * DESC_BYTES;
      const address = memory.readU32(at);
      record.descriptor(address, memory.readU32(at + 4), memory.readU32(at + 8), memory.readU32(at + 12));
    }
  }
}

/** A list of descriptors as it was taken from a packed ring. */
interface RecordedList {
  /** Four words a descriptor, as in the ring. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** The entries that it lies in; as many as descriptors. */
  readonly entries: readonly number[];
}

/** What both layouts have in common. */
abstract class RegionRecord implements MemoryHolder {
  protected view: DataView<ArrayBuffer>;
  protected readonly size: number;
  /** Used requests that the driver does not see yet: entries of the region. */
  protected readonly batch: number[] = [];
  /** Entries in order of taking: a ring, so that the last can be put back. */
  readonly #order: Uint16Array<ArrayBuffer>;
  #at = 0;
  #counter = 1;
  #bytes: Uint8Array<ArrayBuffer>;

  constructor(view: DataView<ArrayBuffer>, size: number) {
    this.view = view;
    this.size = size;
    this.#bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.#order = new Uint16Array(size);
  }

  /** The memory is taken away: nothing is recorded any more. */
  letGo(): void {
    this.#bytes = new Uint8Array(0);
    this.view = new DataView(this.#bytes.buffer);
  }

  /** Where an entry starts. */
  protected abstract place(entry: number): number;

  /** Is there anything of an earlier program? If not, the region is begun anew. */
  protected open(): boolean {
    const version = this.view.getUint16(VERSION_AT, true);
    if (version > VERSION) throw invalid(`has version ${version}; it must be ${VERSION}, or 0 for none`);
    const size = this.view.getUint16(SIZE_AT, true);
    if (version === VERSION && size === this.size) return true;
    this.#bytes.fill(0);
    return false;
  }

  /** The region is whole. */
  protected seal(): void {
    this.view.setUint16(SIZE_AT, this.size, true);
    this.view.setUint16(VERSION_AT, VERSION, true);
  }

  /** Entries in flight, in the order in which they were taken. Those that follow get higher counters. */
  protected inFlight(): number[] {
    const entries: { entry: number; counter: bigint }[] = [];
    for (let entry = 0; entry < this.size; entry++) {
      const at = this.place(entry);
      if (this.view.getUint8(at) === 1) {
        entries.push({ entry, counter: this.view.getBigUint64(at + 8, true) });
      }
    }
    entries.sort((a, b) => a.counter < b.counter ? -1 : a.counter > b.counter ? 1 : a.entry - b.entry);
    const last = entries.at(-1)?.counter ?? 0n;
    if (last > 2n ** 52n) throw invalid(`has a counter of ${last}, which no queue can have come to`);
    this.#counter = Number(last) + 1;
    return entries.map(({ entry }) => entry);
  }

  /** An entry is in flight from now on. */
  protected mark(entry: number): void {
    const at = this.place(entry);
    const counter = this.#counter++;
    this.view.setUint32(at + 8, counter, true);
    this.view.setUint32(at + 12, counter / 0x100000000, true);
    this.setInFlight(entry, 1);
    this.#order[this.#at] = entry;
    if (++this.#at === this.size) this.#at = 0;
  }

  /** The entry marked last, which is to be put back. */
  protected unmark(): number {
    if (--this.#at < 0) this.#at = this.size - 1;
    const entry = this.#order[this.#at];
    this.setInFlight(entry, 0);
    return entry;
  }

  /** An atomic store: what was stored before it is there before it. */
  protected setInFlight(entry: number, value: 0 | 1): void {
    Atomics.store(this.#bytes, this.place(entry), value);
  }
}

const LAST_BATCH_HEAD_AT = 12;
const SPLIT_USED_AT = 14;

/** The region of a split ring. An entry is the head of a chain. */
export class SplitRecord extends RegionRecord {
  #lastBatchHead = 0;

  /** Heads that an earlier program took and did not return, in that order. @param usedIndex of the ring */
  restore(usedIndex: number): number[] {
    const { view, size } = this;
    let heads: number[] = [];
    if (this.open()) {
      const batch = (usedIndex - view.getUint16(SPLIT_USED_AT, true)) & 0xffff;
      // A used index that is further away is that of another ring: nothing is known of it.
      if (batch > size) { for (let entry = 0; entry < size; entry++) this.setInFlight(entry, 0); }
      else this.#completeBatch(batch);
      heads = this.inFlight();
    }
    view.setUint16(SPLIT_USED_AT, usedIndex, true);
    this.#lastBatchHead = view.getUint16(LAST_BATCH_HEAD_AT, true);
    this.seal();
    return heads;
  }

  /** The chain of this head was popped. */
  taken(head: number): void {
    this.mark(head);
  }

  /** What was popped last is put back. */
  untaken(): void {
    this.unmark();
  }

  /** It was pushed; the driver does not see it yet. */
  returned(head: number): void {
    this.batch.push(head);
  }

  /** The driver is about to see what was returned. */
  publishing(_used: number): void {
    for (let i = 0; i < this.batch.length; i++) {
      const head = this.batch[i];
      this.view.setUint16(this.place(head) + 6, this.#lastBatchHead, true);
      this.#lastBatchHead = head;
    }
    this.view.setUint16(LAST_BATCH_HEAD_AT, this.#lastBatchHead, true);
  }

  /** It sees it. */
  published(usedIndex: number): void {
    for (let i = 0; i < this.batch.length; i++) this.setInFlight(this.batch[i], 0);
    this.batch.length = 0;
    this.view.setUint16(SPLIT_USED_AT, usedIndex, true);
  }

  protected override place(head: number): number {
    return SPLIT_HEADER_BYTES + head * SPLIT_ENTRY_BYTES;
  }

  /** The driver saw the last batch, but it was not cleared. */
  #completeBatch(count: number): void {
    let head = this.view.getUint16(LAST_BATCH_HEAD_AT, true);
    for (let i = 0; i < count; i++) {
      if (head >= this.size) throw invalid(`links to entry ${head} of ${this.size}`);
      this.setInFlight(head, 0);
      head = this.view.getUint16(this.place(head) + 6, true);
    }
  }
}

const FREE_AT = 12;
const OLD_FREE_AT = 14;
const USED_AT = 16;
const OLD_USED_AT = 18;
const WRAP_AT = 20;
const OLD_WRAP_AT = 21;

/** The region of a packed ring. An entry is a descriptor; that of a list's first one stands for the list. */
export class PackedRecord extends RegionRecord {
  /** What follows an entry, in its list or among the free ones. */
  readonly #next: Uint16Array<ArrayBuffer>;
  readonly #lastOf: Uint16Array<ArrayBuffer>;
  readonly #entryOf = new Uint16Array(65536);
  #free = 0;
  #head = NONE;
  #last = NONE;
  #count = 0;

  constructor(view: DataView<ArrayBuffer>, size: number) {
    super(view, size);
    this.#next = new Uint16Array(size);
    this.#lastOf = new Uint16Array(size);
  }

  restore(
    base: number | undefined,
    flagsAt: (slot: number) => number,
  ): { base: number; lists: RecordedList[] } {
    const { view, size } = this;
    const isOpen = this.open();
    const lists = isOpen ? this.#restoreLists(flagsAt) : [];
    this.#linkFree(lists);
    this.#storeFree();
    let position = base ?? FRESH_RING;
    if (isOpen) {
      const used = view.getUint16(OLD_USED_AT, true);
      const usedMark = view.getUint8(OLD_WRAP_AT) !== 0 ? TURN : 0;
      const available = used + lists.reduce((slots, { entries }) => slots + entries.length, 0);
      const isWrapped = (available < size) === (usedMark !== 0);
      position = packPosition(available % size, isWrapped ? AVAILABLE_1 : TURN ^ AVAILABLE_1, used, usedMark);
    }
    const { used, usedMark } = unpackPosition(position, size);
    this.#setUsed(used, usedMark !== 0);
    this.published();
    this.seal();
    return { base: position, lists };
  }

  /** An element of the list that was popped, as in the ring. GuestError if there is no room for it. */
  descriptor(low: number, high: number, length: number, word: number): void {
    const entry = this.#free;
    if (entry === NONE) throw invalid("has no entry left: the ring gives out more than it holds");
    const { view } = this;
    const at = this.place(entry);
    view.setUint32(at + 16, word, true);
    view.setUint32(at + 20, length, true);
    view.setUint32(at + 24, low, true);
    view.setUint32(at + 28, high, true);
    if (this.#count === 0) this.#head = entry;
    this.#last = entry;
    this.#count++;
    this.#free = this.#next[entry];
  }

  /** The list of this buffer id was popped. */
  taken(id: number): void {
    const { view } = this;
    const head = this.#head;
    const at = this.place(head);
    view.setUint16(at + 4, this.#last, true);
    view.setUint16(at + 6, this.#count, true);
    this.#lastOf[head] = this.#last;
    this.#entryOf[id] = head;
    this.#count = 0;
    this.mark(head);
    this.#storeFree();
  }

  /** What was popped last is put back. */
  untaken(): void {
    this.#setFree(this.unmark());
    this.#storeFree();
  }

  /** It was pushed; the driver does not see it yet. */
  returned(id: number): void {
    this.batch.push(this.#entryOf[id]);
  }

  /** The driver is about to see what was returned. */
  publishing(used: number): void {
    for (let i = 0; i < this.batch.length; i++) this.#setFree(this.batch[i]);
    this.view.setUint16(FREE_AT, this.#free, true);
    this.#setUsed(used & 0x7fff, used > 0x7fff);
  }

  /** It sees it. */
  published(): void {
    const { view } = this;
    for (let i = 0; i < this.batch.length; i++) this.setInFlight(this.batch[i], 0);
    this.batch.length = 0;
    view.setUint16(OLD_FREE_AT, view.getUint16(FREE_AT, true), true);
    view.setUint16(OLD_USED_AT, view.getUint16(USED_AT, true), true);
    view.setUint8(OLD_WRAP_AT, view.getUint8(WRAP_AT));
  }

  protected override place(entry: number): number {
    return PACKED_HEADER_BYTES + entry * PACKED_ENTRY_BYTES;
  }

  #storeFree(): void {
    this.view.setUint16(FREE_AT, this.#free, true);
    this.view.setUint16(OLD_FREE_AT, this.#free, true);
  }

  #setUsed(slot: number, isWrapped: boolean): void {
    this.view.setUint16(USED_AT, slot, true);
    this.view.setUint8(WRAP_AT, isWrapped ? 1 : 0);
  }

  /** Puts a whole list in front of the free entries. */
  #setFree(head: number): void {
    this.#link(this.#lastOf[head], this.#free);
    this.#free = head;
  }

  #link(entry: number, next: number): void {
    this.#next[entry] = next;
    this.view.setUint16(this.place(entry) + 2, next, true);
  }

  /** Decides what became of the last batch, and reads the lists that are in flight. */
  #restoreLists(flagsAt: (slot: number) => number): RecordedList[] {
    const { view, size } = this;
    const oldUsed = view.getUint16(OLD_USED_AT, true);
    const used = view.getUint16(USED_AT, true);
    if (oldUsed >= size || used >= size) {
      throw invalid(`has the used slots ${oldUsed} and ${used} of ${size}`);
    }
    const oldWrap = view.getUint8(OLD_WRAP_AT);
    if (used !== oldUsed || view.getUint8(WRAP_AT) !== oldWrap) {
      // What a driver has made available there shows one flag, what was used both or none.
      const isSeen = (flagsAt(oldUsed) & TURN) !== (oldWrap !== 0 ? AVAILABLE_1 : TURN ^ AVAILABLE_1);
      if (isSeen) this.published();
    }
    let free = view.getUint16(OLD_FREE_AT, true);
    for (let i = 0; i < size && free < size; i++) {
      this.setInFlight(free, 0);
      free = view.getUint16(this.place(free) + 2, true);
    }
    const isTaken = new Uint8Array(size);
    return this.inFlight().map((head) => this.#restoreList(head, isTaken));
  }

  #restoreList(head: number, isTaken: Uint8Array): RecordedList {
    const { view, size } = this;
    const count = view.getUint16(this.place(head) + 6, true);
    const entries: number[] = [];
    for (let entry = head; entries.length < count; entry = view.getUint16(this.place(entry) + 2, true)) {
      if (entry >= size || isTaken[entry] !== 0) throw invalid(`has a list that leads to entry ${entry}`);
      isTaken[entry] = 1;
      entries.push(entry);
    }
    if (count === 0) throw invalid(`has an empty list at entry ${head}`);
    const words = new Uint32Array(4 * count);
    entries.forEach((entry, i) => {
      const at = this.place(entry);
      words[4 * i] = view.getUint32(at + 24, true);
      words[4 * i + 1] = view.getUint32(at + 28, true);
      words[4 * i + 2] = view.getUint32(at + 20, true);
      words[4 * i + 3] = view.getUint32(at + 16, true);
    });
    return { words, entries };
  }

  /** All entries but those of these lists are free; the lists are as they were. */
  #linkFree(lists: readonly RecordedList[]): void {
    const isTaken = new Uint8Array(this.size);
    for (const { words, entries } of lists) {
      const last = entries.length - 1;
      entries.forEach((entry, i) => {
        isTaken[entry] = 1;
        if (i < last) this.#next[entry] = entries[i + 1];
      });
      this.#lastOf[entries[0]] = entries[last];
      this.#entryOf[words[4 * last + 3] & 0xffff] = entries[0];
    }
    this.#free = NONE;
    for (let entry = this.size - 1; entry >= 0; entry--) {
      if (isTaken[entry] !== 0) continue;
      this.#link(entry, this.#free);
      this.#free = entry;
    }
  }
}

function invalid(what: string): GuestError {
  return new GuestError("ring-state-invalid", `In-flight memory ${what}`);
}
