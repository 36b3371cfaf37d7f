/**
 * A guest for front-ends of the tests: split or packed rings, receive and transmit buffers, in memory that is
 * given.
 * @module
 */
import { GuestMemory } from "../../rings/memory.ts";
import {
  BufferList,
  type DriverRing,
  NOTHING_USED,
  PackedDriverRing,
  SplitDriverRing,
} from "../../guest/driver_ring.ts";

/** Where the guest's memory starts, as the guest sees it. */
export const GUEST_BASE = 0x100000;
/** What is added for the address in the front-end's process. */
export const USER_OFFSET = 0x7f00_0000_0000;
/** Bytes of memory of a guest. */
export const GUEST_BYTES = 0x80000;
/** Entries of every ring. */
export const RING_SIZE = 16;
/** Bytes of the virtio-net header. */
export const HEADER = 12;

const QUEUE_BYTES = 0x10000;
const BUFFER_BYTES = 2048;
const BUFFERS_AT = 0x2000;

/** How a guest is made. */
export interface GuestLayout {
  readonly packed?: boolean;
  readonly eventIndex?: boolean;
}

/** One guest with up to seven queues. */
export class TestGuest {
  readonly memory: GuestMemory;
  readonly layout: Required<GuestLayout>;
  readonly #rings = new Map<number, DriverRing>();
  readonly #freeBuffers = new Map<number, number[]>();
  readonly #list = new BufferList(1);

  constructor(buffer: ArrayBuffer, layout: GuestLayout = {}) {
    this.layout = { packed: layout.packed ?? false, eventIndex: layout.eventIndex ?? false };
    this.memory = new GuestMemory([
      { guestAddress: GUEST_BASE, size: GUEST_BYTES, buffer, bufferOffset: 0 },
    ]);
  }

  /** Guest addresses of the three parts of a queue. */
  place(queue: number): { descriptors: number; driver: number; device: number } {
    const base = GUEST_BASE + queue * QUEUE_BYTES;
    return { descriptors: base, driver: base + 0x400, device: base + 0x800 };
  }

  /** The driver's side of a queue. */
  ring(queue: number): DriverRing {
    let ring = this.#rings.get(queue);
    if (ring === undefined) {
      const { packed, eventIndex } = this.layout;
      const place = {
        ...this.place(queue),
        size: RING_SIZE,
        eventIndex,
        indirect: false,
        tables: 0,
        tableEntries: 1,
        indirectUse: "never" as const,
      };
      ring = packed ? new PackedDriverRing(this.memory, place) : new SplitDriverRing(this.memory, place);
      this.#rings.set(queue, ring);
      this.#freeBuffers.set(queue, Array.from({ length: RING_SIZE }, (_, i) => i));
    }
    return ring;
  }

  /** Forgets a queue, whose memory is zeroed: another driver takes over. */
  forget(queue: number): void {
    this.#rings.delete(queue);
    const { descriptors } = this.place(queue);
    this.memory.copyIn(descriptors, new Uint8Array(0x1000), 0, 0x1000);
  }

  /** Posts receive buffers. True if the device wants a kick. */
  post(queue: number, count: number): boolean {
    const ring = this.ring(queue);
    for (let i = 0; i < count; i++) {
      const slot = this.#freeBuffers.get(queue)!.shift()!;
      this.#list.clear();
      this.#list.addWritable(this.#buffer(queue, slot), BUFFER_BYTES);
      ring.add(this.#list, slot);
    }
    return ring.publish();
  }

  /** Sends a frame under an empty header. True if the device wants a kick. */
  send(queue: number, frame: Uint8Array): boolean {
    const ring = this.ring(queue);
    const slot = this.#freeBuffers.get(queue)!.shift()!;
    const address = this.#buffer(queue, slot);
    const bytes = new Uint8Array(HEADER + frame.length);
    bytes.set(frame, HEADER);
    this.memory.copyIn(address, bytes, 0, bytes.length);
    this.#list.clear();
    this.#list.addReadable(address, bytes.length);
    ring.add(this.#list, slot);
    return ring.publish();
  }

  /** Frames received on a queue since the last time, without headers; their buffers are free again. */
  received(queue: number): Uint8Array[] {
    return this.#used(queue, (address, bytes) => {
      const whole = new Uint8Array(bytes);
      this.memory.copyOut(address, whole, 0, bytes);
      return whole.subarray(HEADER);
    });
  }

  /** How many chains of a transmit queue came back since the last time. */
  returned(queue: number): number {
    return this.#used(queue, () => 0).length;
  }

  #used<T>(queue: number, take: (address: number, bytes: number) => T): T[] {
    const ring = this.ring(queue);
    const taken: T[] = [];
    for (let slot = ring.takeUsed(); slot !== NOTHING_USED; slot = ring.takeUsed()) {
      if (slot < 0) throw new Error(`The device used ${ring.fault}`);
      taken.push(take(this.#buffer(queue, slot), ring.usedBytes));
      this.#freeBuffers.get(queue)!.push(slot);
    }
    return taken;
  }

  #buffer(queue: number, slot: number): number {
    return GUEST_BASE + queue * QUEUE_BYTES + BUFFERS_AT + slot * BUFFER_BYTES;
  }
}
