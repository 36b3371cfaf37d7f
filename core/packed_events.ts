/**
 * The two event suppression structures of a packed ring (virtio 1.2, section 2.8.10): the driver's, which is read here, says
 * when it wants to be interrupted; the device's, which is written here, when it wants to be kicked. Each is one 32-bit
 * word: offset and wrap counter, flags.
 * @module
 */
import { EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, packedEventDue } from "./event_suppression.ts";
import type { DirtyLog, GuestMemory } from "./memory.ts";
import type { VirtqueueSetup } from "./virtqueue.ts";

/** Who wants to be told of what, for one packed ring. */
export class PackedEvents {
  readonly #size: number;
  readonly #eventIndex: boolean;
  readonly #driver: Uint32Array<ArrayBuffer>;
  readonly #device: Uint32Array<ArrayBuffer>;
  #log: DirtyLog | null = null;
  #logAddress = 0;

  /** Changes nothing in guest memory. GuestError `ring-misaligned` or `address-out-of-range`. @param setup where the words are */
  constructor(memory: GuestMemory, setup: VirtqueueSetup) {
    this.#size = setup.size;
    this.#eventIndex = setup.eventIndex;
    this.#driver = memory.window(setup.driver, 4, 4).u32;
    this.#device = memory.window(setup.device, 4, 4).u32;
  }

  /** Has every write of the device's word told to `log`, or to nobody. @param address where it is to be logged */
  logTo(log: DirtyLog | null, address: number): void {
    this.#log = log;
    this.#logAddress = address;
  }

  /**
   * Does the driver want to be interrupted? The load is in order with atomics before it.
   * @param slot the slot after the last used one; @param wrap its wrap counter; @param since slots used since this was asked
   */
  isInterruptDue(slot: number, wrap: boolean, since: number): boolean {
    const word = Atomics.load(this.#driver, 0);
    return packedEventDue(word, this.#eventIndex, slot, wrap, Math.min(since, this.#size), this.#size);
  }

  /** Asks for a kick: with EVENT_IDX for one when `slot` under this wrap counter is made available. An atomic store. */
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
