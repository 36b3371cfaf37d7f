/**
 * The driver's side of both ring layouts, as the specification describes it (virtio 1.2, sections 2.7.13 and
 * 2.8.19), written for clarity and sharing no code with core.
 * @module
 */
import type { VirtqueueSetup } from "../../../rings/virtqueue.ts";
import type { TestGuest } from "./guest.ts";

/** One element of a buffer. */
export interface Element {
  readonly address: number;
  readonly length: number;
  readonly writable: boolean;
}

/**
 * How a buffer is to be described; a table, if there is one, lies at `table` and takes over at element
 * `direct`.
 */
export interface Description {
  readonly elements: readonly Element[];
  readonly table: number | null;
  /** Elements before the table; only in a split ring. */
  readonly direct: number;
}

/** What came back from the device. */
export interface UsedBuffer {
  readonly id: number;
  readonly length: number;
}

/** A driver of one queue. */
export interface TestDriver {
  readonly setup: VirtqueueSetup;
  /** Makes a buffer available; its id, or null if the ring has no room. The device sees it after `expose`. */
  post(buffer: Description): number | null;
  /** Shows the device all that was posted. */
  expose(): void;
  /** Takes back what the device has shown as used. */
  collect(): UsedBuffer[];
}

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

/** Where the tests put the parts of a queue; the ring of 256 packed or split descriptors fits in each. */
export function setupAt(base: number, size: number, eventIndex = true, indirect = true): VirtqueueSetup {
  const driver = base + 16 * size;
  const device = driver + Math.ceil((6 + 2 * size) / 4) * 4;
  return { size, descriptors: base, driver, device, eventIndex, indirect };
}

function slotsFor(buffer: Description): number {
  return buffer.table === null ? buffer.elements.length : buffer.direct + 1;
}

/**
 * A driver of a split ring. Free descriptors are taken from a list, so that chains soon run all over the
 * table.
 */
export class SplitDriver implements TestDriver {
  readonly setup: VirtqueueSetup;
  readonly #guest: TestGuest;
  readonly #free: number[];
  readonly #taken: Map<number, number[]> = new Map();
  #added: number;
  #seen: number;

  constructor(guest: TestGuest, setup: VirtqueueSetup, start = 0) {
    this.#guest = guest;
    this.setup = setup;
    this.#free = Array.from({ length: setup.size }, (_, i) => i);
    this.#added = start;
    this.#seen = start;
    guest.setNumber(setup.driver + 2, 2, start);
    guest.setNumber(setup.device + 2, 2, start);
  }

  post(buffer: Description): number | null {
    const slots = slotsFor(buffer);
    if (slots > this.#free.length || buffer.elements.length > this.setup.size) return null;
    const taken = this.#free.splice(0, slots);
    const { descriptors, size, driver } = this.setup;
    const guest = this.#guest;
    const inTable = buffer.table === null ? [] : buffer.elements.slice(buffer.direct);
    taken.forEach((index, i) => {
      const at = descriptors + 16 * index;
      if (buffer.table !== null && i === slots - 1) {
        // The WRITE flag means nothing here, and a device must not mind it.
        guest.setDescriptor(at, buffer.table, 16 * inTable.length, INDIRECT | (index & 1 ? WRITE : 0), 0);
        return;
      }
      const { address, length, writable } = buffer.elements[i];
      const more = i < slots - 1;
      guest.setDescriptor(
        at,
        address,
        length,
        (writable ? WRITE : 0) | (more ? NEXT : 0),
        more ? taken[i + 1] : 0,
      );
    });
    // Tables are linked backwards, to show that `next` counts and not the order.
    inTable.forEach(({ address, length, writable }, i) => {
      const place = (k: number) => k === 0 ? 0 : inTable.length - k;
      const more = i < inTable.length - 1;
      const flags = (writable ? WRITE : 0) | (more ? NEXT : 0);
      guest.setDescriptor(
        buffer.table! + 16 * place(i),
        address,
        length,
        flags,
        more ? place(i + 1) : 0xffff,
      );
    });
    this.#taken.set(taken[0], taken);
    guest.setNumber(driver + 4 + 2 * (this.#added % size), 2, taken[0]);
    this.#added = (this.#added + 1) % 65536;
    return taken[0];
  }

  expose(): void {
    this.#guest.setNumber(this.setup.driver + 2, 2, this.#added);
  }

  collect(): UsedBuffer[] {
    const { device, size } = this.setup;
    const used: UsedBuffer[] = [];
    const index = this.#guest.number(device + 2, 2);
    while (this.#seen !== index) {
      const at = device + 4 + 8 * (this.#seen % size);
      const id = this.#guest.number(at, 4);
      const taken = this.#taken.get(id);
      if (taken === undefined) throw new Error(`The device returned chain ${id}, which it does not have`);
      this.#taken.delete(id);
      this.#free.push(...taken);
      used.push({ id, length: this.#guest.number(at + 4, 4) });
      this.#seen = (this.#seen + 1) % 65536;
    }
    return used;
  }
}

/** A driver of a packed ring. Ids are of its own choice and need not be slots. */
export class PackedDriver implements TestDriver {
  readonly setup: VirtqueueSetup;
  readonly #guest: TestGuest;
  readonly #ids: number[];
  readonly #slots: Map<number, number> = new Map();
  #free: number;
  #next = 0;
  #wrap = 1;
  #nextUsed = 0;
  #usedWrap = 1;
  #held: (() => void)[] = [];

  constructor(guest: TestGuest, setup: VirtqueueSetup, idStep = 1) {
    this.#guest = guest;
    this.setup = setup;
    this.#free = setup.size;
    this.#ids = Array.from({ length: setup.size }, (_, i) => (i * idStep + idStep - 1) % 65536);
  }

  post(buffer: Description): number | null {
    const slots = slotsFor(buffer);
    if (slots > this.#free || buffer.elements.length > this.setup.size) return null;
    const id = this.#ids.shift()!;
    const guest = this.#guest;
    const { descriptors, size } = this.setup;
    for (let i = 0; i < slots; i++) {
      const turn = this.#wrap === 1 ? 0x0080 : 0x8000;
      const at = descriptors + 16 * this.#next;
      let flags = turn | (i < slots - 1 ? NEXT : 0);
      if (buffer.table !== null) {
        guest.setNumber(at, 8, buffer.table);
        guest.setNumber(at + 8, 4, 16 * buffer.elements.length);
        flags |= INDIRECT | (id & 1 ? WRITE : 0);
      } else {
        guest.setNumber(at, 8, buffer.elements[i].address);
        guest.setNumber(at + 8, 4, buffer.elements[i].length);
        if (buffer.elements[i].writable) flags |= WRITE;
      }
      // Only the last id of a list counts.
      guest.setNumber(at + 12, 2, i === slots - 1 ? id : 0xbeef);
      if (i === 0) this.#held.push(() => guest.setNumber(at + 14, 2, flags));
      else guest.setNumber(at + 14, 2, flags);
      if (++this.#next === size) {
        this.#next = 0;
        this.#wrap ^= 1;
      }
    }
    if (buffer.table !== null) {
      buffer.elements.forEach(({ address, length, writable }, i) => {
        // Reserved fields hold nonsense: a device must ignore them.
        guest.setDescriptor(
          buffer.table! + 16 * i,
          address,
          length,
          0xdead,
          (writable ? WRITE : 0) | 0x8080 | NEXT,
        );
      });
    }
    this.#slots.set(id, slots);
    this.#free -= slots;
    return id;
  }

  expose(): void {
    // In order, as the specification wants it.
    for (const set of this.#held) set();
    this.#held = [];
  }

  collect(): UsedBuffer[] {
    const used: UsedBuffer[] = [];
    const { descriptors, size } = this.setup;
    for (;;) {
      const at = descriptors + 16 * this.#nextUsed;
      const flags = this.#guest.number(at + 14, 2);
      if ((flags & 0x8080) !== (this.#usedWrap === 1 ? 0x8080 : 0) || this.#free === size) return used;
      const id = this.#guest.number(at + 12, 2);
      const slots = this.#slots.get(id);
      if (slots === undefined) throw new Error(`The device returned buffer ${id}, which it does not have`);
      this.#slots.delete(id);
      this.#ids.push(id);
      this.#free += slots;
      // Without WRITE the length means nothing.
      used.push({ id, length: (flags & WRITE) !== 0 ? this.#guest.number(at + 8, 4) : 0 });
      this.#nextUsed += slots;
      if (this.#nextUsed >= size) {
        this.#nextUsed -= size;
        this.#usedWrap ^= 1;
      }
    }
  }
}
