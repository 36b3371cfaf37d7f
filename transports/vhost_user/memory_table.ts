/**
 * The front-end's memory regions: mapped, and found by guest address and by user address.
 *
 * Theory of operation. Rings are given by *user* address, that is, by where they lie in the front-end's process; buffers
 * by *guest* address. A table holds both for each region. `replace` (SET_MEM_TABLE), `add` and `remove` are all or
 * nothing: if one region cannot be mapped, the table stays as it was, and what had been mapped is unmapped again.
 * Some front-ends (QEMU up to 7.2) add and remove each region once for every queue pair: a region counts how often it was
 * added, and goes when it has been removed as often.
 *
 * After each change `memory` is a new object, and views of the old one may be detached: whoever holds a queue makes it
 * anew.
 * @module
 */
import { GuestError } from "../../core/errors.ts";
import { GuestMemory } from "../../core/memory.ts";
import type { DescriptorBag, Host, Mapping } from "./host.ts";
import { MAX_MEMORY_SLOTS, type RegionDescription } from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";

/** A region and where it is mapped. */
export interface Slot {
  /** What the front-end says of it. */
  readonly description: RegionDescription;
  /** Its memory. */
  readonly mapping: Mapping;
  /** How often it was added, less how often it was removed. */
  times: number;
}

/** All memory that one front-end has shared. */
export class MemoryTable implements Disposable {
  readonly #host: Host;
  #slots: readonly Slot[] = [];
  #memory = new GuestMemory([]);

  /** Begins without memory. */
  constructor(host: Host) {
    this.#host = host;
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

  /** The end of the highest region, in bytes of guest address; 0 without memory. */
  get endAddress(): number {
    return this.#slots.reduce((end, { description }) => {
      return Math.max(end, description.guestAddress + description.size);
    }, 0);
  }

  /**
   * Puts these regions in place of all others; each takes a descriptor out of `bag`. HostError if the host cannot map
   * one, GuestError `memory-map-invalid` if they do not fit together.
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

  /** Adds a region, whose memory is the next of `bag`. Errors as of `replace`, and ProtocolError if the table is full. */
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

  /** Removes the region of this guest address, user address and size; the rest of the description does not count. */
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

  /** Unmaps everything. */
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
    return { description, mapping, times: 1 };
  }

  /** Takes these slots over, and disposes of those that are not among them. */
  #use(slots: readonly Slot[]): void {
    const memory = new GuestMemory(slots.map(({ description, mapping }) => ({
      guestAddress: description.guestAddress,
      size: description.size,
      buffer: mapping.buffer,
      bufferOffset: mapping.bufferOffset,
      ...(mapping.copier === undefined ? {} : { copier: mapping.copier }),
    })));
    const gone = this.#slots.filter((slot) => !slots.includes(slot));
    this.#slots = slots;
    this.#memory = memory;
    dispose(gone);
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
  for (const { mapping } of slots) mapping[Symbol.dispose]();
}
