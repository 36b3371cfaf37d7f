/**
 * Which buffers of a packed ring the device has: by id, and in order of popping.
 * @module
 */

/** The buffers that were popped from one packed ring and not pushed. Ids are any 16-bit number, chosen by the driver. */
export class BufferLedger {
  // 0 for an id that is not out. All ids have room: the specification does not bound them by the size of the ring.
  readonly #slotsOf: Uint16Array<ArrayBuffer> = new Uint16Array(65536);
  readonly #order: Uint16Array<ArrayBuffer>;
  #at = 0;

  /** Makes an empty one. @param size slots of the ring, and so the most buffers that can be out */
  constructor(size: number) {
    this.#order = new Uint16Array(size);
  }

  /** Notes that the buffer `id` of `slots` ring slots is out. False if one of that id is out already. */
  take(id: number, slots: number): boolean {
    if (this.#slotsOf[id] !== 0) return false;
    this.#slotsOf[id] = slots;
    const order = this.#order;
    order[this.#at] = id;
    if (++this.#at === order.length) this.#at = 0;
    return true;
  }

  /** Forgets the buffer taken last, as long as none was returned after it, and tells how many slots it took. */
  untake(): number {
    if (--this.#at < 0) this.#at = this.#order.length - 1;
    return this.giveBack(this.#order[this.#at]);
  }

  /** Notes that the buffer `id` is returned, and tells how many slots it took; 0 if it was not out. */
  giveBack(id: number): number {
    const slots = this.#slotsOf[id];
    if (slots === undefined) return 0;
    this.#slotsOf[id] = 0;
    return slots;
  }
}
