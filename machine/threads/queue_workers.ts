/**
 * All threads of a device: what borrows its rings.
 *
 * Every command goes to all of them first, and then all replies are waited for, up to one time limit: they work at the same
 * time. A thread that has failed ends its device, with the next round; what it was lent counts as given back, unless it is
 * stuck.
 * @module
 */
import { GuestError, HostError } from "../../core/errors.ts";
import { newClaimMemory } from "../../core/flow_claims.ts";
import type { DeviceThreads, RecalledRings, RingNews, RingsLoan } from "../../core/threads.ts";
import type { FrameTransport } from "../../core/transport.ts";
import { NOTICE_FAULT, NOTICE_INTERRUPT } from "./command_channel.ts";
import { readError, type WorkerCommand, type WorkerReply } from "./commands.ts";
import { QueueWorker } from "./queue_worker.ts";

/** What queue workers are made from. */
export interface QueueWorkersParts {
  /** What the device is called. */
  readonly name: string;
  /** The configuration, as JSON. */
  readonly text: string;
  /** URL of the configuration's file. */
  readonly baseUrl: string;
  /** Which of its devices. */
  readonly device: number;
  /** How many queue pairs it has. */
  readonly pairs: number;
  /** How long all of them together may take to answer a command, in ms. */
  readonly limitMs: number;
  /** Gives its queues. */
  readonly network: FrameTransport;
  /** Where the threads' counters are added, by group. */
  readonly counters: Record<string, Record<string, number>>;
  /** Wakes the reactor. */
  wake(): void;
}

const NO_NOTICES = 0;

/** The threads of one device. */
export class QueueWorkers implements DeviceThreads {
  readonly #parts: QueueWorkersParts;
  readonly #workers: QueueWorker[] = [];
  readonly #news: number[] = [];
  #isReady = false;

  /** Starts nothing before `start`. */
  constructor(parts: QueueWorkersParts) {
    this.#parts = parts;
  }

  /** Do all threads work? */
  get isReady(): boolean {
    return this.#isReady;
  }

  /** What one of them has failed with. */
  get failure(): Error | null {
    for (let i = 0; i < this.#workers.length; i++) {
      const { failure } = this.#workers[i];
      if (failure !== null) return failure;
    }
    return null;
  }

  /** Has one of them not given back what it was lent? */
  get isStuck(): boolean {
    return this.#workers.some((worker) => worker.isStuck);
  }

  /** Frames that the threads had not given back when they ended. */
  get framesKept(): number {
    return this.#workers.reduce((sum, worker) => sum + worker.framesKept, 0);
  }

  /** Starts a thread for each pair. */
  start(): void {
    const { name, text, baseUrl, device, pairs, limitMs, network, wake } = this.#parts;
    const claims = newClaimMemory();
    for (let pair = 0; pair < pairs; pair++) {
      const given = network.giveQueue?.(pair);
      if (given === undefined) {
        throw new HostError(`Cannot have ${name} worked by threads: its network does not give queue ${pair}`);
      }
      this.#news.push(NO_NOTICES);
      this.#workers.push(
        new QueueWorker({
          name: `pair ${pair} of ${name}`,
          limitMs,
          start: { claims, text, baseUrl, device, pair, given },
          wake,
          count: (counters) => this.#count(counters),
        }),
      );
    }
  }

  /** Hears what the threads have to say. True if one of them is ready now. Throws what one has failed with. */
  poll(_nowNs: number): boolean {
    const failure = this.failure;
    if (failure !== null) throw failure;
    this.#hear();
    const before = this.#isReady;
    this.#isReady = this.#workers.length > 0 && this.#workers.every((worker) => worker.isReady);
    return this.#isReady !== before;
  }

  /** Never by itself: threads wake the reactor. */
  deadlineNs(): number {
    return Infinity;
  }

  /** Lends each thread the rings of its pair. */
  lend(loan: RingsLoan): void {
    this.#all((pair) => ({
      kind: "lend",
      loan: { ...loan, rings: loan.rings.filter(({ index }) => index >>> 1 === pair) },
    }));
  }

  /** Takes all rings back. */
  recall(): RecalledRings {
    const bases = new Map<number, number>();
    let fault: GuestError | null = null;
    for (const reply of this.#all(() => ({ kind: "recall" }))) {
      for (const [index, base] of reply.bases ?? []) bases.set(index, base);
      const error = reply.fault ? readError(reply.fault) : null;
      if (error instanceof GuestError) fault ??= error;
    }
    for (const worker of this.#workers) {
      for (const [index, base] of worker.takeBases()) bases.set(index, base);
    }
    // What was raised up to now is told by the replies.
    this.#hear();
    for (let i = 0; i < this.#news.length; i++) this.#news[i] &= ~NOTICE_FAULT;
    return { bases, fault };
  }

  /** The driver takes the device back. */
  reset(): void {
    this.#all(() => ({ kind: "reset" }));
    // The next driver is not told what this one was to hear.
    this.#hear();
    this.#news.fill(NO_NOTICES);
  }

  /** What the threads have raised since the last time. */
  takeNews(): RingNews | null {
    let any = NO_NOTICES;
    for (let i = 0; i < this.#news.length; i++) any |= this.#news[i];
    if (any === NO_NOTICES) return null;
    const interrupts: number[] = [];
    for (const [pair, notices] of this.#news.entries()) {
      if ((notices & NOTICE_INTERRUPT) !== 0) interrupts.push(2 * pair);
      if ((notices & (NOTICE_INTERRUPT << 1)) !== 0) interrupts.push(2 * pair + 1);
    }
    this.#news.fill(NO_NOTICES);
    return { hasFault: (any & NOTICE_FAULT) !== 0, interrupts };
  }

  /** Adds what was counted. */
  pullCounters(): void {
    this.#all(() => ({ kind: "count" }));
  }

  /** Lets go what is held. */
  drain(): void {
    this.#all(() => ({ kind: "drain" }));
  }

  /** Ends the threads. Rejects with what one of them failed with at the last. */
  async close(): Promise<void> {
    const failed = this.#workers.map(({ failure }) => failure);
    await Promise.all(this.#workers.map((worker) => worker.close()));
    const late = this.#workers.find(({ failure }, i) => failure !== null && failed[i] === null);
    if (late !== undefined) throw late.failure;
  }

  /** What the workers reply. Those that were given a command reply also if another cannot be given its own. */
  #all(command: (pair: number) => WorkerCommand): WorkerReply[] {
    const replies: WorkerReply[] = [];
    try {
      for (const [pair, worker] of this.#workers.entries()) worker.command(command(pair));
    } finally {
      let leftMs = this.#parts.limitMs;
      for (const worker of this.#workers) {
        const [reply, nextMs] = worker.reply(leftMs);
        leftMs = nextMs;
        if (reply !== null) replies.push(reply);
      }
    }
    return replies;
  }

  #hear(): void {
    for (let i = 0; i < this.#workers.length; i++) this.#news[i] |= this.#workers[i].takeNotices();
  }

  #count(counters: WorkerReply["counters"]): void {
    for (const [group, counts] of Object.entries(counters)) {
      const sums = this.#parts.counters[group] ??= {};
      for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
    }
  }
}
