/**
 * The queue workers of a device, as the main thread sees them: one thread for each set of queues.
 *
 * Theory of operation. Every command goes to all threads first, and then all replies are waited for, up to
 * one time limit: they work at the same time. A thread that has failed ends its device, with the next round;
 * its rings count as given back, unless it is stuck.
 *
 *     started --ready--> works, sleeps, answers commands --stop--> ended
 *        |                          |
 *        +------- fails ------------+--> ended: `failure` says why
 *
 * A thread that does not answer within its time limit, or does not begin to work within a minute, has failed:
 * it is told to stop, broken off, and its device ends. Until it has really come to its end it may still touch
 * its rings.
 *
 * While the main thread waits for an answer, all devices wait. So the time limit is short.
 * It is one of time that the process has had: a process that was stopped, or frozen with its machine, finds
 * late an answer that could not come, and goes on to wait. Requests in flight are not waited for by a
 * command, but paused first, and a notice tells when they are over.
 *
 * @module
 */
import { messageOf } from "../../config/errors.ts";
import type { Arena } from "../../rings/arena.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { HostError } from "../../core/errors.ts";
import { DEFAULT_QUIESCE_LIMIT_NS, type RequestsInFlight } from "../../core/in_flight.ts";
import type { AttachedRings, DetachedRings, WorkerNotices } from "../../plugins/queue_workers.ts";
import type { WorkersCapability } from "../../core/device.ts";
import { EventFd } from "../../host/event_fd.ts";
import { arenaAddress } from "../../host/memory_mapping.ts";
import type { DeviceWorkers } from "../machine.ts";
import {
  CommandChannel,
  INTERRUPT_BITS,
  NOTICE_FAULT,
  NOTICE_INTERRUPT,
  NOTICE_QUIET,
  NOTICE_READY,
  readError,
  type WorkerCommand,
  type WorkerReply,
  type WorkerStart,
} from "./command_channel.ts";

/** A part of a device whose queues threads serve. */
export interface WorkerPart {
  /** What the part of one set is made from in its thread (`PluginBase.createInWorker`). */
  giveToWorker?(set: number): unknown;
}

/** What the workers of a device are made from. */
export interface ThreadWorkersParts {
  /** What the device is called. */
  readonly name: string;
  /** The configuration, as JSON. */
  readonly text: string;
  /** URL of the configuration's file. */
  readonly baseUrl: string;
  /** Which of its devices. */
  readonly device: number;
  /** What the device in the main thread has in flight, if it keeps requests. */
  readonly inflight: RequestsInFlight | undefined;
  /** Where frames and guests lie; null where no such memory can be had. */
  readonly arena: Arena | null;
  /** Memory for the frames of each thread, in bytes. */
  readonly frameMemoryBytes: number;
  /** Its sets of queues. */
  readonly sets: WorkersCapability;
  /** How long all of them together may take to answer a command, in ms. */
  readonly limitMs: number;
  /** Its parts by their places in the configuration: each has something to give to every worker. */
  readonly parts: Readonly<Record<string, WorkerPart>>;
  /** Where the threads' counters are added, by group. */
  readonly counters: Record<string, Record<string, number>>;
  /** Wakes the reactor. */
  wake(): void;
}

const NO_NOTICES = 0;
/** Memory for what the kernels of one thread are told, and the flow tables of its stages. */
const BURST_BYTES = 4 * 2 ** 20;

/** The threads of one device. */
export class ThreadWorkers implements DeviceWorkers {
  readonly #parts: ThreadWorkersParts;
  readonly #workers: QueueWorker[] = [];
  readonly #notices: number[] = [];
  #isReady = false;

  /** What the device has in flight, here and in all threads. */
  readonly inflight: AllInFlight;

  /** Starts nothing before `start`. */
  constructor(parts: ThreadWorkersParts) {
    this.#parts = parts;
    this.inflight = new AllInFlight(
      parts.inflight,
      this.#workers,
      (kind) => void this.#all(() => ({ kind })),
    );
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

  /** Has one of them not given back its rings? */
  get isStuck(): boolean {
    return this.#workers.some((worker) => worker.isStuck);
  }

  /** Frames that the threads had not given back when they ended. */
  get framesKept(): number {
    return this.#workers.reduce((sum, worker) => sum + worker.framesKept, 0);
  }

  /** Starts a thread for each set. */
  start(): void {
    const { name, text, baseUrl, device, limitMs, wake, sets: { queueSets, sharedMemory } } = this.#parts;
    for (const [set, queues] of queueSets.entries()) {
      const given = this.#give(set);
      this.#notices.push(NO_NOTICES);
      this.#workers.push(
        new QueueWorker({
          name: `set ${set} of ${name}`,
          limitMs,
          start: { sharedMemory, arena: this.#arenaOfWorker(), text, baseUrl, device, set, queues, given },
          wake,
          count: (counters) => this.#count(counters),
        }),
      );
    }
  }

  /** A part of the low arena for the frames of one worker, and some more for what kernels are told. */
  #arenaOfWorker(): WorkerStart["arena"] {
    const { arena, frameMemoryBytes } = this.#parts;
    if (arena === null) return null;
    const bytes = frameMemoryBytes + BURST_BYTES;
    const start = arena.allocate(bytes);
    return {
      memory: arena.memory,
      address: arenaAddress(arena),
      start: start ?? 0,
      bytes: start === null ? 0 : bytes,
    };
  }

  /** What the parts give to the worker of a set. */
  #give(set: number): WorkerStart["given"] {
    const { name, parts } = this.#parts;
    const given: Record<string, unknown> = {};
    for (const [path, part] of Object.entries(parts)) {
      if (part === null) continue;
      given[path] = part.giveToWorker?.(set);
      if (given[path] !== undefined) continue;
      throw new HostError(
        `Cannot have ${name} served by threads: its ${path} gives nothing to worker ${set}`,
      );
    }
    return given;
  }

  /**
   * Collects what the threads have to say. True if one of them is ready now. Throws what one has failed with.
   */
  poll(_nowNs: number): boolean {
    const failure = this.failure;
    if (failure !== null) throw failure;
    this.#collect();
    const before = this.#isReady;
    this.#isReady = this.#workers.length > 0 && this.#workers.every((worker) => worker.isReady);
    return this.#isReady !== before;
  }

  /** Never by itself: threads wake the reactor. */
  deadlineNs(): number {
    return Infinity;
  }

  /** Gives each thread the rings of its set. */
  attach(attached: AttachedRings): void {
    const { queueSets } = this.#parts.sets;
    this.#all((set) => ({
      kind: "attach",
      rings: { ...attached, rings: attached.rings.filter(({ index }) => queueSets[set].includes(index)) },
    }));
    this.inflight.attached();
  }

  /** Takes all rings back. */
  detach(giveUp: boolean): DetachedRings {
    const bases = new Map<number, number>();
    let fault: GuestError | null = null;
    const limitMs = giveUp ? 0 : this.#parts.limitMs / 2;
    for (const reply of this.#all(() => ({ kind: "detach", limitMs }))) {
      for (const [index, base] of reply.bases ?? []) bases.set(index, base);
      const error = reply.fault ? readError(reply.fault) : null;
      if (!(error instanceof GuestError) || giveUp && error.fault === "quiesce-timeout") continue;
      fault ??= error;
    }
    for (const worker of this.#workers) {
      for (const [index, base] of worker.takeBases()) bases.set(index, base);
    }
    // What was raised up to now is told by the replies.
    this.#collect();
    for (let i = 0; i < this.#notices.length; i++) this.#notices[i] &= ~NOTICE_FAULT;
    return { bases, fault };
  }

  /** The driver takes the device back. */
  reset(): void {
    this.#all(() => ({ kind: "reset" }));
    // The next driver is not told what this one was to hear.
    this.#collect();
    this.#notices.fill(NO_NOTICES);
  }

  /** What the threads have raised since the last time. */
  takeNotices(): WorkerNotices | null {
    let any = NO_NOTICES;
    for (let i = 0; i < this.#notices.length; i++) any |= this.#notices[i];
    if (any === NO_NOTICES) return null;
    const interrupts: number[] = [];
    for (const [set, queues] of this.#parts.sets.queueSets.entries()) {
      for (const [i, queue] of queues.entries()) {
        const bit = NOTICE_INTERRUPT << Math.min(i, INTERRUPT_BITS - 1);
        if ((this.#notices[set] & bit) !== 0) interrupts.push(queue);
      }
    }
    this.#notices.fill(NO_NOTICES);
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

  /**
   * What the workers reply. Those that were given a command reply also if another cannot be given its own.
   */
  #all(command: (set: number) => WorkerCommand): WorkerReply[] {
    const replies: WorkerReply[] = [];
    try {
      for (const [set, worker] of this.#workers.entries()) worker.command(command(set));
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

  #collect(): void {
    let any = NO_NOTICES;
    for (let i = 0; i < this.#workers.length; i++) {
      const notices = this.#workers[i].takeNotices();
      any |= notices;
      this.#notices[i] |= notices & ~(NOTICE_READY | NOTICE_QUIET);
    }
    // A notice may be older than the last reply: only what is asked for now is certain.
    if ((any & NOTICE_QUIET) !== 0) this.pullCounters();
  }

  #count(counters: WorkerReply["counters"]): void {
    for (const [group, counts] of Object.entries(counters)) {
      const sums = this.#parts.counters[group] ??= {};
      for (const [name, count] of Object.entries(counts)) sums[name] = (sums[name] ?? 0) + count;
    }
  }
}

/** What a device in several threads has in flight. */
class AllInFlight implements RequestsInFlight {
  readonly limitNs: number;
  readonly #own: RequestsInFlight | undefined;
  readonly #workers: readonly QueueWorker[];
  readonly #command: (kind: "pause" | "resume") => void;
  #isPaused = false;

  constructor(
    own: RequestsInFlight | undefined,
    workers: readonly QueueWorker[],
    command: (kind: "pause" | "resume") => void,
  ) {
    this.limitNs = own?.limitNs ?? DEFAULT_QUIESCE_LIMIT_NS;
    this.#own = own;
    this.#workers = workers;
    this.#command = command;
  }

  get count(): number {
    let count = this.#own?.count ?? 0;
    for (let i = 0; i < this.#workers.length; i++) count += this.#workers[i].inFlight;
    return count;
  }

  pause(): void {
    this.#own?.pause();
    if (!this.#isPaused) this.#command("pause");
    this.#isPaused = true;
  }

  /** Workers that have got rings take requests. */
  attached(): void {
    this.#isPaused = false;
  }

  resume(): void {
    this.#own?.resume();
    if (this.#isPaused) this.#command("resume");
    this.#isPaused = false;
  }
}

/** Longest wait for an answer at a time, in ms: what it takes longer, the process has not had. */
const SLICE_MS = 50;
/** Time for a thread to end that has not begun yet, in ms. */
const CLOSE_LIMIT_MS = 10_000;
/** Time to begin, in ms: modules are loaded and compiled. Usual are some tens of milliseconds. */
const START_LIMIT_MS = 60_000;

/** What a queue worker is made from. */
export interface QueueWorkerParts {
  /** What it is called in messages, such as `set 1 of net0`. */
  readonly name: string;
  /** What its thread begins with, besides what is made here. */
  readonly start: Omit<WorkerStart, "channel" | "wake">;
  /** Time for an answer to a command, in ms. Usual are some hundred microseconds. */
  readonly limitMs: number;
  /** Time to begin, in ms; a minute, if left out. */
  readonly startLimitMs?: number;
  /** Told when the thread has something to say. */
  wake(): void;
  /** Takes what every answer says of counters. */
  count(counters: WorkerReply["counters"]): void;
}

/** A thread and its command channel. */
export class QueueWorker {
  readonly #parts: QueueWorkerParts;
  readonly #channel = new CommandChannel();
  readonly #event: EventFd;
  readonly #worker: Worker;
  readonly #ended = Promise.withResolvers<void>();
  readonly #startTimer: ReturnType<typeof setTimeout>;
  #isReady = false;
  #isOver = false;
  #isCommanded = false;
  #isStuck = false;
  #failure: Error | null = null;
  #framesKept = 0;
  #inFlight = 0;
  #bases: WorkerReply["bases"] = [];

  /** Starts the thread. Throws SystemCallError. */
  constructor(parts: QueueWorkerParts) {
    this.#parts = parts;
    this.#event = EventFd.create();
    this.#worker = new Worker(new URL("./worker_main.ts", import.meta.url).href, {
      type: "module",
      name: parts.name,
    });
    // A message says only that there is something to look at.
    this.#worker.onmessage = () => {
      if (this.#channel.hasEnded) this.#end();
      else this.#parts.wake();
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(`has failed: ${messageOf(event.message)}`);
    };
    const start: WorkerStart = {
      ...parts.start,
      channel: this.#channel.buffer,
      wake: this.#event.fd.number,
    };
    this.#worker.postMessage(start);
    const { startLimitMs = START_LIMIT_MS } = parts;
    this.#startTimer = setTimeout(() => {
      if (!this.#isReady) this.#giveUp(`has not begun to work for ${startLimitMs / 1000} s`);
    }, startLimitMs);
  }

  /** Does it take commands? */
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

  /** Requests that it has in flight, or may have. What it had when it ended stays in flight. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Frames that it had not given back when it ended. */
  get framesKept(): number {
    return this.#framesKept;
  }

  /** Where the rings stand that it had when it ended, once. */
  takeBases(): NonNullable<WorkerReply["bases"]> {
    const bases = this.#bases ?? [];
    this.#bases = [];
    return bases;
  }

  /** The notices that it has raised since the last time. */
  takeNotices(): number {
    const notices = this.#channel.takeNotices();
    if ((notices & NOTICE_READY) !== 0) {
      this.#isReady = true;
      clearTimeout(this.#startTimer);
    }
    return notices;
  }

  /**
   * Gives a command, unless the thread takes none. RangeError if it is too long; the thread has not got it
   * then.
   */
  command(command: WorkerCommand): void {
    if (!this.isReady) return;
    this.#channel.command(command);
    this.#event.signal();
    this.#isCommanded = true;
  }

  /**
   * Waits for the reply to the last command, for `limitMs` at most; null if none was given or none comes.
   * Returns as well how much of that is left.
   */
  reply(limitMs: number): [reply: WorkerReply | null, leftMs: number] {
    if (!this.#isCommanded) return [null, limitMs];
    this.#isCommanded = false;
    let leftMs = limitMs;
    let reply: WorkerReply | null = null;
    for (;;) {
      const sliceMs = Math.min(leftMs, SLICE_MS);
      const beganMs = performance.now();
      reply = this.#channel.reply(sliceMs) as WorkerReply | null;
      leftMs -= Math.min(performance.now() - beganMs, sliceMs);
      if (reply !== null || this.#channel.hasEnded || leftMs <= 0) break;
    }
    if (reply !== null) {
      this.#parts.count(reply.counters);
      const { inFlight = 0 } = reply;
      // Something may wait for this, also if it was asked for outside of a round.
      if (inFlight === 0 && this.#inFlight > 0) this.#parts.wake();
      this.#inFlight = inFlight;
    }
    if (this.#channel.hasEnded) this.#end();
    else if (reply === null) this.#giveUp(`has not answered for ${this.#parts.limitMs / 1000} s`);
    return [reply, leftMs];
  }

  /** Has the thread end, and waits for it. It has failed if it does not. */
  async close(): Promise<void> {
    if (!this.#isOver) {
      // Also a thread that is not ready yet looks for this as soon as it is.
      this.#stop();
      const limitMs = this.#isReady ? this.#parts.limitMs : CLOSE_LIMIT_MS;
      const timer = setTimeout(() => this.#giveUp(`has not ended for ${limitMs / 1000} s`), limitMs);
      await this.#ended.promise;
      clearTimeout(timer);
    }
    // One that may still come round waits for this: without it, it would sleep for ever.
    if (!this.#isStuck) this.#event[Symbol.dispose]();
  }

  #stop(): void {
    this.#channel.stop();
    this.#event.signal();
  }

  #giveUp(problem: string): void {
    if (this.#isOver) return;
    this.#isStuck = true;
    this.#stop();
    this.#fail(`${problem}: a plugin may not come to its end`);
  }

  #fail(problem: string): void {
    if (this.#isOver) return;
    this.#failure = new HostError(`The thread of ${this.#parts.name} ${problem}`);
    this.#end({ counters: {} });
  }

  #end(last = this.#channel.lastWords as WorkerReply): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#startTimer);
    this.#parts.count(last.counters);
    if (last.failure !== undefined) this.#failure = readError(last.failure);
    this.#framesKept = last.framesKept ?? 0;
    this.#inFlight = last.inFlight ?? this.#inFlight;
    this.#bases = last.bases;
    this.#worker.terminate();
    this.#ended.resolve();
    // Also if it is found out in the midst of something else: the next round tells.
    this.#parts.wake();
  }
}
