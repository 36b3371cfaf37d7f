/**
 * A front-end for tests: says what it is told to, in the order in which it is told, and reads what is
 * answered.
 *
 * It has a guest (`guest.ts`) in memory of its own, and one kick, call and error event for each ring. `Wire`
 * is where the messages go: straight into a back-end here, through a socket in the tests with the real host.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { FLAG_NEED_REPLY, HEADER_BYTES, Request } from "../../transports/vhost_user/messages.ts";
import { RING_SIZE, type TestGuest, USER_OFFSET } from "./guest.ts";
import { concat, message, pair, region, table, u64, words } from "./payload.ts";

/** Where messages go. `D` is what stands for a descriptor. */
export interface Wire<D> {
  /** Sends a message and returns the answer, whole, or null. @param expectsReply wait for one */
  exchange(
    bytes: Uint8Array<ArrayBuffer>,
    descriptors: readonly D[],
    expectsReply: boolean,
  ): Uint8Array | null;
  /** A new descriptor of the guest's memory. */
  memory(): D;
  /** New descriptors of the events of a ring. */
  kick(ring: number): D;
  call(ring: number): D;
  error(ring: number): D;
}

const VALUE_REQUESTS: readonly number[] = [
  Request.GET_FEATURES,
  Request.GET_PROTOCOL_FEATURES,
  Request.GET_QUEUE_NUM,
  Request.GET_MAX_MEM_SLOTS,
  Request.GET_VRING_BASE,
  Request.GET_STATUS,
  Request.GET_CONFIG,
  Request.SET_DEVICE_STATE_FD,
  Request.CHECK_DEVICE_STATE,
];

/** Everything that a front-end may say. Each method is one message. */
export class FrontEnd<D> {
  readonly guest: TestGuest;
  readonly #wire: Wire<D>;
  /** Messages that get the flag need_reply. */
  asksFor: (id: number) => boolean = () => false;
  /** REPLY_ACK was agreed on. */
  #acknowledged = false;
  #protocol = 0n;

  constructor(wire: Wire<D>, guest: TestGuest) {
    this.#wire = wire;
    this.guest = guest;
  }

  /**
   * Says anything. Returns the payload of the answer, or null; asserts that the answer has the right form.
   */
  say(
    id: number,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly D[] = [],
  ): Uint8Array | null {
    const asks = this.asksFor(id);
    const logged = id === Request.SET_LOG_BASE && (this.#protocol >> 1n & 1n) === 1n;
    const expects = VALUE_REQUESTS.includes(id) || asks && this.#acknowledged || logged;
    const bytes = message(id, payload, asks ? FLAG_NEED_REPLY : 0);
    const answer = this.#wire.exchange(bytes, descriptors, expects);
    assertEquals(answer !== null, expects, `message ${id} ${expects ? "was not" : "was"} answered`);
    if (answer === null) return null;
    const view = new DataView(answer.buffer, answer.byteOffset);
    assertEquals(view.getUint32(0, true), id);
    assertEquals(view.getUint32(4, true), 5, "flags of a reply are exactly version 1 and the reply bit");
    assertEquals(view.getUint32(8, true), answer.length - HEADER_BYTES);
    return answer.subarray(HEADER_BYTES);
  }

  /** Says something that is answered by 64 bits. */
  ask(id: number, payload?: Uint8Array, descriptors?: readonly D[]): bigint {
    const answer = this.say(id, payload, descriptors)!;
    assertEquals(answer.length, 8);
    return new DataView(answer.buffer, answer.byteOffset).getBigUint64(0, true);
  }

  /** Says something with need_reply and returns whether it was carried out. */
  succeeds(id: number, payload?: Uint8Array, descriptors?: readonly D[]): boolean {
    const { asksFor } = this;
    this.asksFor = () => true;
    try {
      return this.ask(id, payload, descriptors) === 0n;
    } finally {
      this.asksFor = asksFor;
    }
  }

  features(): bigint {
    return this.ask(Request.GET_FEATURES);
  }

  protocolFeatures(): bigint {
    return this.ask(Request.GET_PROTOCOL_FEATURES);
  }

  setProtocolFeatures(bits: bigint): void {
    this.say(Request.SET_PROTOCOL_FEATURES, u64(bits));
    this.#protocol = bits;
    this.#acknowledged = (bits >> 3n & 1n) === 1n;
  }

  setFeatures(bits: bigint): void {
    this.say(Request.SET_FEATURES, u64(bits));
  }

  setMemoryTable(): void {
    this.say(Request.SET_MEM_TABLE, table(region()), [this.#wire.memory()]);
  }

  addMemory(): void {
    this.say(Request.ADD_MEM_REG, concat(u64(0), region()), [this.#wire.memory()]);
  }

  removeMemory(): void {
    this.say(Request.REM_MEM_REG, concat(u64(0), region()));
  }

  setNum(ring: number): void {
    this.say(Request.SET_VRING_NUM, pair(ring, RING_SIZE));
  }

  setBase(ring: number, base: number): void {
    this.say(Request.SET_VRING_BASE, pair(ring, base));
  }

  setAddress(ring: number, flags = 0, log = 0): void {
    const { descriptors, driver, device } = this.guest.place(ring);
    this.say(
      Request.SET_VRING_ADDR,
      concat(
        words(ring, flags),
        u64(descriptors + USER_OFFSET),
        u64(device + USER_OFFSET),
        u64(driver + USER_OFFSET),
        u64(log),
      ),
    );
  }

  setKick(ring: number): void {
    this.say(Request.SET_VRING_KICK, u64(ring), [this.#wire.kick(ring)]);
  }

  /** Says that there is no kick descriptor: the ring must be looked at. */
  setNoKick(ring: number): void {
    this.say(Request.SET_VRING_KICK, u64(ring | 0x100));
  }

  setCall(ring: number): void {
    this.say(Request.SET_VRING_CALL, u64(ring), [this.#wire.call(ring)]);
  }

  setError(ring: number): void {
    this.say(Request.SET_VRING_ERR, u64(ring), [this.#wire.error(ring)]);
  }

  enable(ring: number, on: boolean): void {
    this.say(Request.SET_VRING_ENABLE, pair(ring, on ? 1 : 0));
  }

  /** Stops a ring and returns where it stood; asserts that the index is echoed. */
  base(ring: number): number {
    const answer = this.say(Request.GET_VRING_BASE, pair(ring, 0))!;
    const view = new DataView(answer.buffer, answer.byteOffset);
    assertEquals(answer.length, 8);
    assertEquals(view.getUint32(0, true), ring);
    return view.getUint32(4, true);
  }

  setStatus(status: number): void {
    this.say(Request.SET_STATUS, u64(status));
  }

  status(): number {
    return Number(this.ask(Request.GET_STATUS));
  }

  /** Describes a ring completely, in the order of most front-ends. */
  describe(ring: number, base = this.guest.layout.packed ? 0x8000 : 0): void {
    this.setNum(ring);
    this.setBase(ring, base);
    this.setAddress(ring);
    this.setKick(ring);
    this.setCall(ring);
  }

  /** Configuration space. */
  config(offset: number, size: number): Uint8Array {
    const answer = this.say(Request.GET_CONFIG, concat(words(offset, size, 0), new Uint8Array(size)))!;
    assert(answer.length === 12 + size || answer.length === 12);
    return answer.subarray(12);
  }
}

/** Accepted by a usual Linux guest through a front-end that ends the control queue in itself. */
export function usualFeatures(offered: bigint, ...more: number[]): bigint {
  const wanted = [0, 1, 7, 8, 9, 11, 12, 13, 15, 21, 28, 30, 32, ...more];
  return wanted.reduce((bits, bit) => bits | 1n << BigInt(bit), 0n) & offered;
}
