/**
 * Orders to a thread and its answers, in memory that both share.
 *
 * Theory of operation. One side, the main thread, gives *orders*; the other, a worker, answers each of them before the next
 * comes. Both are JSON text, in an area of its own for each direction, with a number in front that is raised when the text
 * is complete. The worker looks at its number between two rounds, which is one atomic load; whoever gives an order wakes it
 * by other means if it sleeps. The main thread waits for the answer standing still: nothing must happen meanwhile that the
 * order forbids.
 *
 *     main:   order() ... answer(limitMs)            worker:   hasOrder, takeOrder() ... reply()
 *
 * Besides, the worker has *notices*: bits that it raises at any time and that the main thread takes. And it ends, once, with
 * a last answer that may say why, in an area of its own, for an earlier one may just be read; from then on every wait returns
 * at once.
 *
 * @module
 */

/** The thread has begun to work. */
export const NOTICE_READY = 1;
/** A guest has broken a rule. */
export const NOTICE_FAULT = 2;
/** The receive queue has used buffers and no event to say so; the transmit queue's bit is the next. */
export const NOTICE_INTERRUPT = 4;

const ORDER = 0;
const REPLY = 1;
const NOTICES = 2;
const ENDED = 3;
const ORDER_BYTES = 4;
const REPLY_BYTES = 5;
const END_BYTES = 6;
const WORDS = 8;
/** Room for a text; the longest has the state of a device with all tables full, and the memory map of a guest. */
const AREA_BYTES = 256 * 1024;

/** Both ends of a mailbox: each thread uses half of the methods. */
export class Mailbox {
  /** What both threads share. */
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #orderText: Uint8Array<SharedArrayBuffer>;
  readonly #replyText: Uint8Array<SharedArrayBuffer>;
  readonly #endText: Uint8Array<SharedArrayBuffer>;
  /** What this end has seen of the other's number. */
  #seen = 0;

  /** An empty mailbox, or the other end of one. */
  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(4 * WORDS + 3 * AREA_BYTES)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer, 0, WORDS);
    this.#orderText = new Uint8Array(buffer, 4 * WORDS, AREA_BYTES);
    this.#replyText = new Uint8Array(buffer, 4 * WORDS + AREA_BYTES, AREA_BYTES);
    this.#endText = new Uint8Array(buffer, 4 * WORDS + 2 * AREA_BYTES, AREA_BYTES);
  }

  /** Main: gives an order. The one before has been answered. RangeError if it is too long. */
  order(order: unknown): void {
    this.#put(this.#orderText, ORDER_BYTES, order);
    Atomics.add(this.#words, ORDER, 1);
  }

  /** Main: waits for the answer to the order. Null if it does not come in time. If the thread has ended, its last answer. */
  answer(limitMs: number): unknown {
    const inTime = this.hasEnded || Atomics.wait(this.#words, REPLY, this.#seen, limitMs) !== "timed-out";
    if (this.hasEnded) return this.#get(this.#endText, END_BYTES);
    if (!inTime) return null;
    this.#seen = Atomics.load(this.#words, REPLY);
    return this.#get(this.#replyText, REPLY_BYTES);
  }

  /** Main: takes the notices that were raised since the last time. */
  takeNotices(): number {
    return Atomics.load(this.#words, NOTICES) === 0 ? 0 : Atomics.exchange(this.#words, NOTICES, 0);
  }

  /** Main: has the thread ended? */
  get hasEnded(): boolean {
    return Atomics.load(this.#words, ENDED) !== 0;
  }

  /** Worker: is there an order? */
  get hasOrder(): boolean {
    return Atomics.load(this.#words, ORDER) !== this.#seen;
  }

  /** Worker: takes the order. */
  takeOrder(): unknown {
    this.#seen = Atomics.load(this.#words, ORDER);
    return this.#get(this.#orderText, ORDER_BYTES);
  }

  /** Worker: answers the order. RangeError if the answer is too long. */
  reply(answer: unknown): void {
    this.#put(this.#replyText, REPLY_BYTES, answer);
    this.#tell();
  }

  /** Worker: ends, with a last answer, whether there is an order or not. */
  end(answer: unknown): void {
    this.#put(this.#endText, END_BYTES, answer);
    Atomics.store(this.#words, ENDED, 1);
    this.#tell();
  }

  /** Worker: raises a notice. True if none was raised before, so that the main thread must be woken. */
  notice(bit: number): boolean {
    return Atomics.or(this.#words, NOTICES, bit) === 0;
  }

  #tell(): void {
    Atomics.add(this.#words, REPLY, 1);
    Atomics.notify(this.#words, REPLY);
  }

  #put(area: Uint8Array<SharedArrayBuffer>, lengthAt: number, value: unknown): void {
    const bytes = new TextEncoder().encode(JSON.stringify(value));
    if (bytes.length > area.length) {
      throw new RangeError(`Cannot pass ${bytes.length} bytes on to a thread: the most is ${area.length}`);
    }
    area.set(bytes);
    this.#words[lengthAt] = bytes.length;
  }

  #get(area: Uint8Array<SharedArrayBuffer>, lengthAt: number): unknown {
    return JSON.parse(new TextDecoder().decode(area.slice(0, this.#words[lengthAt])));
  }
}
