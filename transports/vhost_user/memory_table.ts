/**
 * The front-end's memory regions: mapped, and found by guest address and by user address.
 *
 * Theory of operation. Rings are given by *user* address, that is, by where they lie in the front-end's
 * process; buffers by *guest* address. A table holds both for each region. `replace` (SET_MEM_TABLE), `add`
 * and `remove` are all or nothing: if one region cannot be mapped, the table stays as it was, and what had
 * been mapped is unmapped again. Some front-ends (QEMU up to 7.2) add and remove each region once for every
 * queue pair: a region counts how often it was added, and goes when it has been removed as often.
 *
 * After each change `memory` is a new object, of which the regions that stay are the same ones. A region that
 * goes is revoked before it is unmapped: its place may be another guest's afterwards. The holder of a queue
 * makes it anew.
 * @module
 */
import { GuestError } from "../../rings/guest_error.ts";
import { type DirtyLog, GuestMemory, MappedRegion } from "../../rings/memory.ts";
import type { AttachedLog } from "../../plugins/queue_workers.ts";
import { PageLog } from "../../host/page_log.ts";
import type { DescriptorBag, EventHandle, Host, Mapping } from "./host.ts";
import { MAX_MEMORY_SLOTS, ProtocolError, type RegionDescription } from "./messages.ts";

/** A region and where it is mapped. */
export interface Slot {
  /** What the front-end says of it. */
  readonly description: RegionDescription;
  /** Its memory. */
  readonly mapping: Mapping;
  /** The same, as it is used. */
  readonly region: MappedRegion;
  /** How often it was added, less how often it was removed. */
  times: number;
}

/** All memory that one front-end has shared. */
export class MemoryTable implements Disposable {
  readonly #host: Host;
  readonly #isInUse: () => boolean;
  /** Removed, and still mapped because it was in use. */
  #retired: Slot[] = [];
  #slots: readonly Slot[] = [];
  #memory = new GuestMemory([]);

  /**
   * Begins without memory.
   * @param isInUse may the host still write to memory that is removed? It stays mapped then
   */
  constructor(host: Host, isInUse: () => boolean = () => false) {
    this.#host = host;
    this.#isInUse = isInUse;
  }

  /** The guest's memory as of the last change. */
  get memory(): GuestMemory {
    return this.#memory;
  }

  /** The regions. */
  get regions(): readonly Slot[] {
    return this.#slots;
  }

  /** How many regions there are. */
  get size(): number {
    return this.#slots.length;
  }

  /**
   * Puts these regions in place of all others; each takes a descriptor out of `bag`. HostError if the host
   * cannot map one, GuestError `memory-map-invalid` if they do not fit together.
   */
  replace(descriptions: readonly RegionDescription[], bag: DescriptorBag): void {
    const made: Slot[] = [];
    try {
      for (const description of descriptions) made.push(this.#map(description, bag));
      this.#use(made);
    } catch (error) {
      dispose(made);
      throw error;
    }
  }

  /**
   * Adds a region, whose memory is the next of `bag`. Errors as of `replace`, and ProtocolError if the table
   * is full.
   */
  add(description: RegionDescription, bag: DescriptorBag): void {
    const known = this.#find(description);
    if (known !== undefined && known.description.mapOffset === description.mapOffset) {
      bag.take()[Symbol.dispose]();
      known.times++;
      return;
    }
    if (this.#slots.length >= MAX_MEMORY_SLOTS) {
      throw new ProtocolError(
        "memory-table-invalid",
        `The table has ${MAX_MEMORY_SLOTS} regions already; one must be removed before another is added`,
      );
    }
    const slot = this.#map(description, bag);
    try {
      this.#use([...this.#slots, slot]);
    } catch (error) {
      dispose([slot]);
      throw error;
    }
  }

  /**
   * Removes the region of this guest address, user address and size; the rest of the description does not
   * count.
   */
  remove(description: RegionDescription): void {
    const slot = this.#find(description);
    if (slot === undefined) {
      const { guestAddress, size } = description;
      throw new ProtocolError(
        "memory-table-invalid",
        `There is no region of ${size} bytes at guest address 0x${guestAddress.toString(16)} to remove`,
      );
    }
    if (--slot.times === 0) this.#use(this.#slots.filter((other) => other !== slot));
  }

  /** The guest address of a user address. GuestError `address-out-of-range` if it lies in no region. */
  guestAddressOf(userAddress: number): number {
    for (const { description } of this.#slots) {
      const offset = userAddress - description.userAddress;
      if (offset >= 0 && offset < description.size) return description.guestAddress + offset;
    }
    throw new GuestError(
      "address-out-of-range",
      `User address 0x${
        userAddress.toString(16)
      } of a ring lies in none of the ${this.#slots.length} regions`,
    );
  }

  /** Writes to all of it are told to `log`, also to what was removed and is in use; null ends that. */
  logTo(log: DirtyLog | null): void {
    this.#memory.dirtyLog = log;
    for (const { region } of this.#retired) region.dirtyLog = log;
  }

  /** Unmaps what was removed, unless it is in use. True if nothing of it is left. */
  release(): boolean {
    if (this.#retired.length > 0 && !this.#isInUse()) dispose(this.#retired.splice(0));
    return this.#retired.length === 0;
  }

  /** Removes everything. */
  [Symbol.dispose](): void {
    this.#use([]);
  }

  #find({ guestAddress, userAddress, size }: RegionDescription): Slot | undefined {
    return this.#slots.find(({ description }) =>
      description.guestAddress === guestAddress && description.userAddress === userAddress &&
      description.size === size
    );
  }

  #map(description: RegionDescription, bag: DescriptorBag): Slot {
    const descriptor = bag.take();
    const remedy = objection(description);
    if (remedy !== null) {
      descriptor[Symbol.dispose]();
      const { guestAddress, size, mapOffset } = description;
      throw new ProtocolError(
        "memory-table-invalid",
        `The region of ${size} bytes at guest address 0x${
          guestAddress.toString(16)
        }, offset ${mapOffset}, ${remedy}`,
      );
    }
    const mapping = this.#host.map(descriptor, description.size, description.mapOffset);
    try {
      const { guestAddress, size } = description;
      const { buffer, bufferOffset, address } = mapping;
      const hostAddress = Number(address);
      const region = new MappedRegion({ guestAddress, size, buffer, bufferOffset, hostAddress });
      return { description, mapping, region, times: 1 };
    } catch (error) {
      mapping[Symbol.dispose]();
      throw error;
    }
  }

  /** Takes these slots over, and unmaps those that are not among them as soon as that can be. */
  #use(slots: readonly Slot[]): void {
    const memory = new GuestMemory(slots.map(({ region }) => region));
    const gone = this.#slots.filter((slot) => !slots.includes(slot));
    this.#slots = slots;
    this.#memory = memory;
    this.#retired.push(...gone);
    this.release();
  }
}

/** What must be otherwise; null if nothing. */
function objection({ guestAddress, size, userAddress, mapOffset }: RegionDescription): string | null {
  if (size === 0) return "must have at least one byte";
  if (![guestAddress + size, userAddress + size, mapOffset + size].every(Number.isSafeInteger)) {
    return "must end below 2^53";
  }
  // Rings are worked in place, and what is aligned in the guest must be aligned here.
  return (guestAddress - mapOffset) % 16 === 0 ? null : "must lie at an offset that agrees with it modulo 16";
}

function dispose(slots: readonly Slot[]): void {
  for (const { mapping, region } of slots) {
    region.revoke();
    mapping[Symbol.dispose]();
  }
}

// Logging of writes for a migration: SET_LOG_BASE, SET_LOG_FD, and the feature bit that switches it on.

/** The log, if there is one, and whether it is used. */
export class DirtyLogging implements Disposable {
  readonly #host: Host;
  readonly #logTo: (log: DirtyLog | null, attached: AttachedLog | null) => void;
  #log: PageLog | null = null;
  #mapping: Mapping | null = null;
  #event: EventHandle | null = null;
  #on = false;

  /**
   * Nothing is logged yet.
   * @param logTo has writes logged, by workers in the same log, which is `attached`; null for none
   */
  constructor(host: Host, logTo: (log: DirtyLog | null, attached: AttachedLog | null) => void) {
    this.#host = host;
    this.#logTo = logTo;
  }

  /** Pages written behind the end of the log. */
  get unloggedPages(): number {
    return this.#log?.unloggedPages ?? 0;
  }

  /** LOG_ALL was accepted, or is no longer. */
  switch(on: boolean): void {
    this.#on = on;
    this.#apply();
  }

  /**
   * Logs into this memory from now on. ProtocolError `log-invalid` without a descriptor, or if it is empty.
   * @param sizeBytes bytes of the log
   * @param offsetBytes where it starts in the memory
   */
  setBase(sizeBytes: number, offsetBytes: number, bag: DescriptorBag): void {
    if (bag.count === 0 || sizeBytes === 0) {
      throw new ProtocolError(
        "log-invalid",
        `A log of ${sizeBytes} bytes came with ${bag.count} descriptors; it must have a size and one descriptor`,
      );
    }
    const before = this.#mapping;
    const logBefore = this.#log;
    const mapping = this.#mapping = this.#host.map(bag.take(), sizeBytes, offsetBytes);
    this.#log = new PageLog(new Uint8Array(mapping.buffer, mapping.bufferOffset, sizeBytes));
    this.#apply();
    logBefore?.letGo();
    before?.[Symbol.dispose]();
  }

  /** Whom to tell that something was logged; null without a descriptor. */
  setEvent(bag: DescriptorBag): void {
    this.#event?.[Symbol.dispose]();
    this.#event = bag.count === 0 ? null : this.#host.event(bag.take(), false);
    this.#apply();
  }

  /** Tells of what was logged since the last time. */
  poll(): void {
    if (this.#log?.takeModified() === true) this.#event?.signal();
  }

  /** Forgets log and event. */
  [Symbol.dispose](): void {
    this.#logTo(null, null);
    this.#log?.letGo();
    this.#mapping?.[Symbol.dispose]();
    this.#event?.[Symbol.dispose]();
    this.#log = null;
    this.#mapping = null;
    this.#event = null;
  }

  #apply(): void {
    const log = this.#on ? this.#log : null;
    const event = this.#event?.number ?? null;
    const address = String(this.#mapping?.address);
    this.#logTo(log, log && { address, sizeBytes: log.sizeBytes, event });
  }
}
