/**
 * The thread of one queue pair, as the main thread sees it.
 *
 *     started --ready--> works, sleeps, answers orders --stop--> ended
 *        |                          |
 *        +------- fails ------------+--> ended: `failure` says why
 *
 * A thread that does not answer within ten seconds has failed; it is broken off, and the machine ends.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { EventFd } from "../../transports/host/event_fd.ts";
import { messageOf } from "../errors.ts";
import { Mailbox, NOTICE_READY } from "./mailbox.ts";
import { type LaneOrder, type LaneReply, type LaneStart, readError } from "./orders.ts";

/** Time for an answer, in ms. Usual are some hundred microseconds. */
const PATIENCE_MS = 10_000;

/** What a lane is made from. */
export interface LaneParts {
  /** What it is called in messages, such as `pair 1 of net0`. */
  readonly name: string;
  /** What its thread begins with, besides what the lane makes itself. */
  readonly start: Omit<LaneStart, "mailbox" | "wake">;
  /** Told when the thread has something to say. */
  wake(): void;
  /** Takes what every answer says of counters. */
  count(counters: LaneReply["counters"]): void;
}

/** A thread and its mailbox. */
export class Lane {
  readonly #parts: LaneParts;
  readonly #mailbox = new Mailbox();
  readonly #event: EventFd;
  readonly #worker: Worker;
  readonly #ended = Promise.withResolvers<void>();
  #isReady = false;
  #isOver = false;
  #isOrdered = false;
  #isStuck = false;
  #failure: Error | null = null;
  #framesKept = 0;

  /** Starts the thread. Throws SystemCallError. */
  constructor(parts: LaneParts) {
    this.#parts = parts;
    this.#event = EventFd.create();
    this.#worker = new Worker(new URL("./lane_worker.ts", import.meta.url).href, {
      type: "module",
      name: parts.name,
    });
    // A message says only that there is something to look at.
    this.#worker.onmessage = () => {
      if (this.#mailbox.hasEnded) this.#end();
      this.#parts.wake();
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(new HostError(`The thread of ${parts.name} has failed: ${messageOf(event.message)}`));
    };
    const start: LaneStart = {
      ...parts.start,
      mailbox: this.#mailbox.buffer,
      wake: this.#event.fd.number,
    };
    this.#worker.postMessage(start);
  }

  /** Does it take orders? */
  get isReady(): boolean {
    return this.#isReady && !this.#isOver;
  }

  /** Has it not answered? Breaking it off stops it only when its program comes round, if ever. */
  get isStuck(): boolean {
    return this.#isStuck;
  }

  /** Why it has ended without being told to; null if it has not. */
  get failure(): Error | null {
    return this.#failure;
  }

  /** Frames that it had not given back when it ended. */
  get framesKept(): number {
    return this.#framesKept;
  }

  /** The notices that it has raised since the last time. */
  takeNotices(): number {
    const notices = this.#mailbox.takeNotices();
    if ((notices & NOTICE_READY) !== 0) this.#isReady = true;
    return notices;
  }

  /** Gives an order, unless the thread takes none. */
  order(order: LaneOrder): void {
    if (!this.isReady) return;
    this.#mailbox.order(order);
    this.#event.signal();
    this.#isOrdered = true;
  }

  /** Waits for the answer to the last order; null if none was given, or none comes. */
  answer(): LaneReply | null {
    if (!this.#isOrdered) return null;
    this.#isOrdered = false;
    const reply = this.#mailbox.answer(PATIENCE_MS) as LaneReply | null;
    if (reply === null) {
      this.#isStuck = true;
      this.#fail(
        new HostError(
          `The thread of ${this.#parts.name} has not answered for ${
            PATIENCE_MS / 1000
          } s: a plugin may not come to its end`,
        ),
      );
      return null;
    }
    if (this.#mailbox.hasEnded) this.#end(reply);
    else this.#parts.count(reply.counters);
    return reply;
  }

  /** Has the thread end, and waits for it. */
  async close(): Promise<void> {
    if (!this.#isOver) {
      // Also a thread that is not ready yet takes this, as its first order.
      this.#mailbox.order({ kind: "stop" } satisfies LaneOrder);
      this.#event.signal();
      const timer = setTimeout(() => this.#end({ counters: {} }), PATIENCE_MS);
      await this.#ended.promise;
      clearTimeout(timer);
    }
    this.#event[Symbol.dispose]();
  }

  #fail(failure: Error): void {
    if (this.#isOver) return;
    this.#failure = failure;
    this.#end({ counters: {} });
    this.#parts.wake();
  }

  #end(reply = this.#mailbox.answer(0) as LaneReply): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#parts.count(reply.counters);
    if (reply.failure !== undefined) this.#failure = readError(reply.failure);
    this.#framesKept = reply.framesKept ?? 0;
    this.#worker.terminate();
    this.#ended.resolve();
  }
}
