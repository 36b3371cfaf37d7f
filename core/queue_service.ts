/**
 * The serve loop of a device: takes requests from the queues of its driver and gives them back answered, at
 * once or later.
 *
 * Theory of operation. A device has a handler for each queue. A round (`poll`) takes a bounded number of
 * requests from each queue and hands them to its handler. What the handlers have answered, and what was
 * completed since the last round, is published in one step at the end, also if a handler or a ring throws:
 * that is the driver's. The life of a request:
 *
 *     ring --pop--> handler -- bytes written ----------------------------------> ring, published, free again
 *                     |  `--- putBack() --> the ring as it was, for another round
 *                     `- KEEP --> in flight -- complete() --> done -- round --> ring, published, free again
 *                                     |
 *                                     `-- reset(): given up -- complete() --> free again, nothing was touched
 *
 * Completions come in any order and from anywhere, such as a promise; they wake the device. Requests come
 * from a pool, which bounds how many are in flight; on the way that ends in the handler nothing is allocated.
 * When the pool is empty the queue is left alone until a completion.
 *
 * Given-up requests still count as in flight, because the host may still write to the memory behind them: who
 * unmaps that memory waits for `count` to be 0.
 *
 * Notifications of the driver are suppressed while rounds do something ({@linkcode NotificationSuppression}),
 * and stay so at a queue whose handler has put a request back.
 *
 * @module
 */
import { DescriptorChain } from "../rings/descriptor_chain.ts";
import type { Session } from "./device.ts";
import { DEFAULT_QUIESCE_LIMIT_NS, type RequestsInFlight } from "./in_flight.ts";
import type { Virtqueue } from "../rings/virtqueue.ts";

/** What a handler returns for a request that it keeps: {@linkcode QueueService.complete} answers it later. */
export const KEEP: number = -1;
const PUT_BACK = -2;

/** Answers a request: bytes written, {@linkcode KEEP}, or what {@linkcode QueueRequest.putBack} returns. */
export type RequestHandler = (request: QueueRequest, nowNs: number) => number;

/** One request of a driver: bytes to read, then bytes to write. Valid until it is answered. */
export interface QueueRequest {
  /** Index of its queue. */
  readonly queue: number;
  /** Bytes that can be read in all. */
  readonly readableBytes: number;
  /** Bytes that can be written in all. */
  readonly writableBytes: number;
  /** False once it was given up: a reset took its memory back, and nothing of it may be touched. */
  readonly isLive: boolean;
  /** What the device has to remember of a kept request; null when the request is taken. */
  context: unknown;
  /** Copies up to `length` bytes to `target[at]` on. Returns how many: 0 at the end, and once given up. */
  read(target: Uint8Array, at: number, length: number): number;
  /** Copies up to `length` bytes from `source[at]` on. Returns how many: 0 at the end, and once given up. */
  write(source: Uint8Array, at: number, length: number): number;
  /** Starts reading and writing at the first byte again. */
  rewind(): void;
  /**
   * Where bytes lie in this process: see {@linkcode DescriptorChain.locate}; 0 of a given-up request. They
   * may be read and written there by system calls until the request is completed, also if it is given up
   * meanwhile.
   */
  locate(part: "readable" | "writable", offset: number, length: number, places: Float64Array): number;
  /** Tells, before completion, that the host has written the first `length` writable bytes in place. */
  wroteInPlace(length: number): void;
  /**
   * Puts the request back into its ring; the handler returns the result. Its queue is left alone until
   * `untilNs`, or until {@linkcode QueueService.retry}; the driver may have changed the request by then.
   */
  putBack(untilNs?: number): number;
}

/** How a device wants its queues served. */
export interface QueueServiceOptions {
  /** Handlers by queue index; null for a queue from which the device takes requests by `take`. */
  readonly handlers: readonly (RequestHandler | null)[];
  /** Wakes the reactor: `() => this.wake()`. */
  wake(): void;
  /** Requests taken from one queue in a round; left out: 64. */
  readonly maxRoundRequests?: number;
  /** Bytes, read and written, after which a queue has had its round; left out: any number. */
  readonly maxRoundBytes?: number;
  /** Requests in flight at once, of all queues; left out: 256. */
  readonly maxInFlight?: number;
  /** How long resets wait for requests in flight, in ns; left out: {@linkcode DEFAULT_QUIESCE_LIMIT_NS}. */
  readonly quiesceLimitNs?: number;
  /** The driver wants its requests back: cancels what would take long. Every request is still completed. */
  onPause?(): void;
  /** Where interrupts are counted; left out: nowhere. */
  readonly counters?: { interrupts: number };
}

/** Serves the queues of one device. */
export class QueueService implements RequestsInFlight {
  /** How long resets wait for requests in flight, in ns. */
  readonly limitNs: number;
  readonly #options: QueueServiceOptions;
  readonly #queues: ServedQueue[];
  readonly #maxRequests: number;
  readonly #maxBytes: number;
  readonly #maxInFlight: number;
  readonly #notifications: NotificationSuppression;
  readonly #pool: PooledRequest[] = [];
  readonly #free: PooledRequest[] = [];
  readonly #done: PooledRequest[] = [];
  #session: Session | null = null;
  #isPaused = false;

  /** Serves nothing before `activate`. */
  constructor(options: QueueServiceOptions) {
    this.#options = options;
    this.limitNs = options.quiesceLimitNs ?? DEFAULT_QUIESCE_LIMIT_NS;
    this.#maxRequests = options.maxRoundRequests ?? 64;
    this.#maxBytes = options.maxRoundBytes ?? Infinity;
    this.#maxInFlight = options.maxInFlight ?? 256;
    this.#queues = options.handlers.map((handler, index) => new ServedQueue(index, handler));
    const queues = this.#queues;
    this.#notifications = new NotificationSuppression({
      isServed: (index) => queues[index]?.isServed === true && !this.#isFull,
      isStarved: (index) => queues[index]?.isStarved === true,
    });
  }

  /** Requests that are not over. */
  get count(): number {
    return this.#pool.length - this.#free.length;
  }

  /** Takes no further requests until `resume` or `reset`. */
  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#options.onPause?.();
  }

  /** Takes requests again. */
  resume(): void {
    this.#isPaused = false;
    this.#notifications.renew();
  }

  /** The driver is ready. */
  activate(session: Session): void {
    this.#session = session;
    this.queuesChanged();
  }

  /** Queues have come or gone. Nothing may be in flight from one that went. */
  queuesChanged(): void {
    const session = this.#session;
    if (session === null) return;
    for (const served of this.#queues) served.use(session.queues[served.index] ?? null);
    this.#notifications.begin(session.queues);
  }

  /** The driver takes everything back: requests in flight are given up. */
  reset(): void {
    this.#session = null;
    this.#isPaused = false;
    for (const served of this.#queues) served.use(null);
    for (const request of this.#pool) request.isLive = false;
    for (const request of this.#done) this.#free.push(request);
    this.#done.length = 0;
  }

  /** Publishes what was completed: all that can be let go while the driver is there. */
  drain(): void {
    const session = this.#session;
    if (session === null) return;
    // A pool that was full has asked for no notification, and the next round may give nothing back.
    if (this.#returnDone()) this.#notifications.renew();
    this.#publish(session);
  }

  /** When a queue that was left alone may be served again, in ns; Infinity if none waits for a time. */
  deadlineNs(): number {
    if (this.#session === null || this.#isPaused) return Infinity;
    let first = Infinity;
    for (const { queue, resumeNs } of this.#queues) {
      if (queue !== null && resumeNs !== 0 && resumeNs < first) first = resumeNs;
    }
    return first;
  }

  /** Are there requests that a round would take, and that nothing has told of? For `Device.look`. */
  look(): boolean {
    const session = this.#session;
    return session !== null && !this.#isPaused && this.#notifications.look(session.queues);
  }

  /** One round. True if anything moved. Throws what handlers throw, and GuestError of a broken ring. */
  poll(nowNs: number): boolean {
    const session = this.#session;
    if (session === null) return false;
    let did = false;
    try {
      for (let i = 0; i < this.#queues.length; i++) if (this.#serve(this.#queues[i], nowNs)) did = true;
    } finally {
      if (this.#returnDone()) did = true;
      this.#publish(session);
    }
    return this.#notifications.after(did, session.queues);
  }

  /**
   * Answers a kept request with the number of bytes written into it, from wherever: the driver sees it after
   * the next round. False if it was given up meanwhile. Throws Error if it is not kept.
   */
  complete(request: QueueRequest, writtenBytes: number): boolean {
    if (!(request instanceof PooledRequest) || request.service !== this || !request.isHeld) {
      throw new Error("Cannot complete a request that is not in flight: each is completed once");
    }
    request.isHeld = false;
    const { isLive } = request;
    if (isLive) {
      request.writtenBytes = writtenBytes;
      this.#done.push(request);
    } else {
      this.#free.push(request);
      // A pool full of given-up requests has asked for no notification, and this round gives nothing back.
      this.#notifications.renew();
    }
    this.#options.wake();
    return isLive;
  }

  /**
   * Takes a request from a queue without a handler, to be completed like a kept one. Null if there is none
   * now: the driver is then asked to tell of the next one.
   */
  take(index: number): QueueRequest | null {
    const served = this.#queues[index];
    if (served.queue === null || this.#isPaused) return null;
    const request = this.#pop(served);
    served.isStarved = request === null && !this.#isFull;
    return request;
  }

  /** Serves a queue again that was left alone because a request was put back. */
  retry(index: number): void {
    this.#queues[index].resumeNs = 0;
    this.#notifications.renew();
    this.#options.wake();
  }

  get #isFull(): boolean {
    return this.count >= this.#maxInFlight;
  }

  /** Serves one queue. True if a request was taken and not put back. */
  #serve(served: ServedQueue, nowNs: number): boolean {
    const { queue, handler } = served;
    if (queue === null || handler === null || nowNs < served.resumeNs) return false;
    if (this.#isPaused && (queue.resubmits ?? 0) === 0) return false;
    if (served.resumeNs !== 0) this.#notifications.renew();
    served.resumeNs = 0;
    let requests = 0;
    let bytes = 0;
    while (requests < this.#maxRequests && bytes < this.#maxBytes) {
      const request = this.#pop(served);
      if (request === null) break;
      let written = PUT_BACK;
      try {
        written = handler(request, nowNs);
      } finally {
        if (written !== KEEP) this.#release(request);
      }
      if (written === PUT_BACK) {
        queue.unpop(1);
        if (this.#notifications.isOn) queue.disableKicks();
        break;
      }
      requests++;
      if (written === KEEP) continue;
      queue.push(request.chain.head, written);
      served.hasNews = true;
      bytes += request.readableBytes + written;
    }
    return requests > 0;
  }

  /** Pops the next request of a queue; null if there is none, or as many are in flight as may be. */
  #pop(served: ServedQueue): PooledRequest | null {
    const free = this.#free;
    if (free.length === 0) {
      if (this.#isFull) return null;
      const added = new PooledRequest(this);
      this.#pool.push(added);
      free.push(added);
    }
    const request = free[free.length - 1];
    if (!served.queue!.pop(request.chain)) return null;
    free.pop();
    request.begin(served);
    return request;
  }

  /** The device has answered a request, or put it back, without having kept it. */
  #release(request: PooledRequest): void {
    if (!request.isHeld) throw new Error("Cannot answer a request that was completed already: return KEEP");
    request.isHeld = false;
    this.#free.push(request);
  }

  /** Gives back what was completed. True if there was anything. */
  #returnDone(): boolean {
    const done = this.#done;
    if (done.length === 0) return false;
    for (let i = 0; i < done.length; i++) {
      const request = done[i];
      const served = request.served!;
      // A queue that went while its requests were in flight took them with it.
      if (served.queue === request.ring) {
        served.queue!.push(request.chain.head, request.writtenBytes);
        served.hasNews = true;
      }
      this.#free.push(request);
    }
    done.length = 0;
    return true;
  }

  #publish(session: Session): void {
    for (let i = 0; i < this.#queues.length; i++) {
      const served = this.#queues[i];
      if (!served.hasNews) continue;
      served.hasNews = false;
      if (!served.queue!.publish()) continue;
      if (this.#options.counters !== undefined) this.#options.counters.interrupts++;
      session.interrupt(i);
    }
  }
}

class PooledRequest implements QueueRequest {
  readonly service: QueueService;
  readonly chain = new DescriptorChain();
  queue = 0;
  isLive = false;
  /** Has the device to answer it? */
  isHeld = false;
  context: unknown = null;
  writtenBytes = 0;
  served: ServedQueue | null = null;
  /** The ring that it was taken from: the queue may have another one when it is over. */
  ring: Virtqueue | null = null;

  constructor(service: QueueService) {
    this.service = service;
  }

  get readableBytes(): number {
    return this.chain.readableBytes;
  }

  get writableBytes(): number {
    return this.chain.writableBytes;
  }

  begin(served: ServedQueue): void {
    this.queue = served.index;
    this.served = served;
    this.ring = served.queue;
    this.isHeld = true;
    this.isLive = true;
    this.context = null;
  }

  read(target: Uint8Array, at: number, length: number): number {
    return this.isLive ? this.chain.read(target, at, length) : 0;
  }

  write(source: Uint8Array, at: number, length: number): number {
    return this.isLive ? this.chain.write(source, at, length) : 0;
  }

  rewind(): void {
    this.chain.rewind();
  }

  locate(part: "readable" | "writable", offset: number, length: number, places: Float64Array): number {
    return this.isLive ? this.chain.locate(part, offset, length, places) : 0;
  }

  wroteInPlace(length: number): void {
    if (this.isLive) this.chain.wroteInPlace(length);
  }

  putBack(untilNs = Infinity): number {
    this.served!.resumeNs = untilNs;
    return PUT_BACK;
  }
}

/** One queue and how its service stands. */
class ServedQueue {
  readonly index: number;
  readonly handler: RequestHandler | null;
  queue: Virtqueue | null = null;
  /** When it is served again, after a request was put back; 0 if it is not left alone. */
  resumeNs = 0;
  /** Was anything pushed that is not published? */
  hasNews = false;
  /** Did `take` find nothing the last time? */
  isStarved = false;

  constructor(index: number, handler: RequestHandler | null) {
    this.index = index;
    this.handler = handler;
  }

  /** Does the next request of the driver concern the device now? */
  get isServed(): boolean {
    return this.handler !== null && this.resumeNs === 0;
  }

  use(queue: Virtqueue | null): void {
    this.queue = queue;
    this.resumeNs = 0;
    this.hasNews = false;
    this.isStarved = false;
  }
}

/** Which queues a device wants to hear of. */
export interface QueueInterest {
  /** Is a buffer that is added to this queue work for the device? */
  isServed(index: number): boolean;
  /** Does it wait for buffers of this queue, which is not served? */
  isStarved(index: number): boolean;
}

/**
 * Notification suppression. Notifications of new buffers are off while rounds do something. The first round
 * that does not turns them on for queues that are served, and has the device look once more at what came
 * meanwhile. A queue whose buffers the device waits for is asked in every idle round: with EVENT_IDX a
 * notification is for one place in the ring, and the buffer that it brings may not be enough.
 *
 * While the reactor polls (`look`), queues that are served are looked at instead, and their notifications are
 * off. The round between polling and sleep is an idle one: it turns them on and looks once more.
 */
export class NotificationSuppression {
  readonly #interest: QueueInterest;
  #on = false;
  /** The queues that are looked at, by index, and how many these are. */
  readonly #looked: number[] = [];
  #lookedCount = 0;

  /** Is off. */
  constructor(interest: QueueInterest) {
    this.#interest = interest;
  }

  /** Are notifications asked for? */
  get isOn(): boolean {
    return this.#on;
  }

  /** The queues are others than before. */
  begin(queues: Session["queues"]): void {
    this.renew();
    for (let i = 0; i < queues.length; i++) if (!this.#interest.isServed(i)) queues[i]?.disableKicks();
  }

  /** Has the next idle round ask again: other queues are served than before. */
  renew(): void {
    this.#on = false;
  }

  /** Has the driver added to a queue that is served? Looks at memory; notifications are off from then on. */
  look(queues: Session["queues"]): boolean {
    if (this.#on) this.#lookAtServed(queues);
    for (let i = 0; i < this.#lookedCount; i++) if (queues[this.#looked[i]]?.peek?.() === true) return true;
    return false;
  }

  /** After a round. True if there must be another: it did something, or something came meanwhile. */
  after(did: boolean, queues: Session["queues"]): boolean {
    if (did) {
      for (let i = 0; this.#on && i < queues.length; i++) queues[i]?.disableKicks();
      this.#on = false;
      return true;
    }
    const interest = this.#interest;
    let more = false;
    for (let i = 0; !this.#on && i < queues.length; i++) {
      if (interest.isServed(i) && queues[i]?.enableKicks()) more = true;
    }
    this.#on = true;
    for (let i = 0; i < queues.length; i++) {
      if (interest.isStarved(i) && queues[i]?.enableKicks()) more = true;
    }
    return more;
  }

  #lookAtServed(queues: Session["queues"]): void {
    this.#on = false;
    this.#lookedCount = 0;
    for (let i = 0; i < queues.length; i++) {
      const queue = queues[i];
      if (queue?.peek === undefined || !this.#interest.isServed(i)) continue;
      queue.disableKicks();
      this.#looked[this.#lookedCount++] = i;
    }
  }
}
