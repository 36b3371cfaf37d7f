/**
 * The driver's side of a transmit queue: frames copied into guest memory, and the memory taken back.
 *
 * Theory of operation. The transmit memory is an array of slots of equal size. A frame, with the virtio
 * header in front of it, fills as many slots as it needs; `#next` links the slots of a frame, and the number
 * of the first is its token in the ring. Free slots lie on the stack `#free`. The first slot may be cut into
 * several descriptors, so that the header has one of its own; the others are one descriptor each, which makes
 * a frame of 64 KiB a chain of some thirty.
 * @module
 */
import type { GuestMemory } from "../../../rings/memory.ts";
import { type NetHeaderFields, writeNetHeader } from "../../../wire/virtio_net_header.ts";
import { BAD_USED, BufferList, type DriverRing, NOTHING_USED } from "../../../guest/driver_ring.ts";

const MAX_HEADER_BYTES = 20;

/** What `reclaim` found: a frame, nothing, or something that was never sent and has been reported. */
export type Reclaimed = "frame" | "nothing" | "malformed";

/** How the memory of a transmit queue looks. */
export interface TransmitShape {
  /** Guest address of the first slot; the others follow. */
  readonly address: number;
  /** Bytes of each slot. */
  readonly slotBytes: number;
  /** How many slots there are. */
  readonly slots: number;
  /** Descriptors into which the first slot of a frame is cut. */
  readonly pieces: number;
  /** The most descriptors that a chain may have. */
  readonly maxDescriptors: number;
  /** Bytes of the header: 10, 12 or 20. */
  readonly headerBytes: number;
}

/** A transmit queue, driven. */
export class TransmitQueue {
  /** Its ring. */
  readonly ring: DriverRing;
  readonly #memory: GuestMemory;
  readonly #shape: TransmitShape;
  readonly #report: (problem: string) => void;
  readonly #list: BufferList;
  readonly #free: Int32Array;
  readonly #next: Int32Array;
  readonly #header = new Uint8Array(MAX_HEADER_BYTES);
  readonly #headerView: DataView = new DataView(this.#header.buffer);
  readonly #fields: NetHeaderFields = {
    flags: 0,
    gsoType: 0,
    hdrLen: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  #freeCount: number;

  /**
   * Begins with all slots free.
   * @param report told about everything that a device must not do
   */
  constructor(
    ring: DriverRing,
    memory: GuestMemory,
    shape: TransmitShape,
    report: (problem: string) => void,
  ) {
    this.ring = ring;
    this.#memory = memory;
    this.#shape = shape;
    this.#report = report;
    this.#list = new BufferList(shape.slots + shape.pieces);
    this.#free = Int32Array.from({ length: shape.slots }, (_, i) => shape.slots - 1 - i);
    this.#next = new Int32Array(shape.slots).fill(-1);
    this.#freeCount = shape.slots;
  }

  /** Would a frame of this length fit into an empty ring? */
  fits(frameBytes: number): boolean {
    const { slotBytes, slots, pieces, maxDescriptors, headerBytes } = this.#shape;
    const wanted = Math.ceil((headerBytes + frameBytes) / slotBytes);
    return wanted <= slots && wanted + pieces - 1 <= maxDescriptors;
  }

  /**
   * Adds `frame` behind a header with these fields, the rest 0. False if the ring is full; the device sees
   * the frame after `ring.publish()`. RangeError for a frame that would not fit into an empty ring either.
   */
  add(frame: Uint8Array, header: Readonly<Partial<NetHeaderFields>>): boolean {
    const { address, slotBytes, slots, pieces, maxDescriptors, headerBytes } = this.#shape;
    if (!this.fits(frame.length)) {
      throw new RangeError(
        `Cannot send a frame of ${frame.length} bytes in ${Math.min(slots, maxDescriptors)} buffers of ` +
          `${slotBytes} bytes: raise transmitBufferBytes or queueSize`,
      );
    }
    const total = headerBytes + frame.length;
    const wanted = Math.ceil(total / slotBytes);
    if (wanted > this.#freeCount) return false;
    const first = this.#free[this.#freeCount - 1];
    const firstBytes = Math.min(slotBytes, total);
    this.#list.clear();
    this.#list.addCut(address + first * slotBytes, firstBytes, pieces, headerBytes, false);
    for (let i = 1; i < wanted; i++) {
      const slot = this.#free[this.#freeCount - 1 - i];
      this.#list.addReadable(address + slot * slotBytes, Math.min(slotBytes, total - i * slotBytes));
    }
    if (!this.ring.add(this.#list, first)) return false;
    this.#fillHeader(header);
    this.#memory.copyIn(address + first * slotBytes, this.#header, 0, headerBytes);
    this.#memory.copyIn(address + first * slotBytes + headerBytes, frame, 0, firstBytes - headerBytes);
    this.#takeSlots(wanted, frame, firstBytes - headerBytes);
    return true;
  }

  /**
   * Takes back one frame that the device has used.
   * @param legacy do not trust the used length
   */
  reclaim(legacy: boolean): Reclaimed {
    const token = this.ring.takeUsed();
    if (token === NOTHING_USED) return "nothing";
    if (token === BAD_USED) {
      this.#report(this.ring.fault);
      return "malformed";
    }
    // Old devices put the length of the frame there, and old drivers had to ignore it (section 5.1.6.1).
    if (this.ring.usedBytes !== 0 && !legacy) {
      this.#report(
        `used length ${this.ring.usedBytes} of a transmitted frame, in which nothing can be written`,
      );
    }
    for (let slot = token; slot >= 0; slot = this.#next[slot]) this.#free[this.#freeCount++] = slot;
    return "frame";
  }

  #fillHeader(header: Readonly<Partial<NetHeaderFields>>): void {
    const fields = this.#fields;
    fields.flags = header.flags ?? 0;
    fields.gsoType = header.gsoType ?? 0;
    fields.hdrLen = header.hdrLen ?? 0;
    fields.gsoSize = header.gsoSize ?? 0;
    fields.csumStart = header.csumStart ?? 0;
    fields.csumOffset = header.csumOffset ?? 0;
    // num_buffers is unused on transmission and must be 0 (section 5.1.6.2.1).
    writeNetHeader(this.#headerView, 0, fields, 0, this.#shape.headerBytes);
  }

  #takeSlots(count: number, frame: Uint8Array, copied: number): void {
    const { address, slotBytes } = this.#shape;
    let slot = this.#free[--this.#freeCount];
    let at = copied;
    for (let i = 1; i < count; i++) {
      const next = this.#free[--this.#freeCount];
      this.#next[slot] = next;
      slot = next;
      const length = Math.min(slotBytes, frame.length - at);
      this.#memory.copyIn(address + slot * slotBytes, frame, at, length);
      at += length;
    }
    this.#next[slot] = -1;
  }
}
