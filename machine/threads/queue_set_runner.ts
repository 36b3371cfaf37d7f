/**
 * A set of queues in its thread: carries commands out, and turns the device in between.
 *
 * Theory of operation. The device here is a replica in the role `{ set }`. It is activated with the first
 * rings of a driver and reset when it is told so; in between its session stays, and only queues and memory
 * come and go, as they do with a front-end that enables and disables rings. With every attach it takes over
 * what the driver has programmed, and looks at its rings once without having been kicked: it is not known
 * what has come meanwhile.
 *
 *     no rings --attach--> polls the device --detach--> drains, shows everything, says where each ring stands
 *                               |
 *                               +--GuestError--> touches nothing; says so by a notice, and in answer to detach
 *
 * A device with requests in flight (`Device.inflight`) is paused before a detach, and polled until they are
 * over; only then is the detach answered. If that takes too long, the device is reset, and its requests are
 * given up. They still count until they are over, which a notice tells: until then the main thread keeps
 * their memory mapped.
 *
 * Errors that are not the guest's end the thread, and with it the device.
 * @module
 */
import type { CounterGroups } from "../../plugins/plugin.ts";
import type { Device, Session } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { FeatureSet } from "../../core/features.ts";
import { GuestMemory } from "../../rings/memory.ts";
import type { PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { buildQueue } from "../../core/session.ts";
import type { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import {
  type AttachedLog,
  type AttachedRing,
  type AttachedRings,
  RING_POLL_INTERVAL_NS,
} from "../../plugins/queue_workers.ts";
import type { Pollable } from "../../core/reactor.ts";
import { RoundBudget, type Virtqueue } from "../../rings/virtqueue.ts";
import { FileDescriptor } from "../../host/descriptors.ts";
import { ReceivedEvent } from "../../host/event_fd.ts";
import { MemoryView } from "../../host/memory_mapping.ts";
import { PageLog } from "../../host/page_log.ts";
import {
  type CommandChannel,
  INTERRUPT_BITS,
  NOTICE_FAULT,
  NOTICE_INTERRUPT,
  NOTICE_QUIET,
  type WorkerCommand,
  type WorkerReply,
  writeError,
} from "./command_channel.ts";

/** What a set of queues is served with. */
export interface QueueSetParts {
  /** Where commands come from. */
  readonly channel: CommandChannel;
  /** The replica. */
  readonly device: Device;
  /** Where guests' memory may lie; null if the main thread has no such memory. */
  readonly arena: PlacedArena | null;
  /** The queues of its set. */
  readonly queues: readonly number[];
  /** What it counts. */
  readonly deltas: CounterDeltas;
  /** Counts pages that could not be logged. */
  readonly logCounters: Record<"unlogged_pages", number>;
  /** Wakes this thread by a descriptor. */
  watch(number: number): Disposable;
  /** Raises a notice. */
  notice(bit: number): void;
  /** The main thread wants the end. */
  stop(): void;
}

/** What the device has while it is active. */
interface WorkerSession extends Session {
  memory: GuestMemory;
  readonly queues: (Virtqueue | null)[];
}

/** Serves one set of queues. */
export class QueueSetRunner implements Pollable {
  readonly #parts: QueueSetParts;
  #rings: WorkerRings | null = null;
  #session: WorkerSession | null = null;
  #fault: GuestError | null = null;
  /** When a detach is answered at the latest, in ns; null if none is to be. */
  #detachUntilNs: number | null = null;
  #isPaused = false;
  /** Requests in flight that the main thread knows of. */
  #reported = 0;
  #nowNs = 0;

  /** There are no rings yet. */
  constructor(parts: QueueSetParts) {
    this.#parts = parts;
  }

  /** Carries out a command, if there is one, and turns the device. Throws PluginError and the like. */
  poll(nowNs: number): boolean {
    this.#nowNs = nowNs;
    const { channel } = this.#parts;
    // Looked at first: the main thread may have stopped waiting for an answer to the command that is there.
    if (channel.mustStop) {
      this.#parts.stop();
      return true;
    }
    const commanded = channel.hasCommand;
    if (commanded) this.#serve(channel.takeCommand() as WorkerCommand);
    const did = this.#pollDevice() || commanded;
    if (this.#detachUntilNs !== null) this.#detach(this.#detachUntilNs);
    if (this.#reported > 0 && !this.#mayTake && this.#inFlight === 0) {
      this.#reported = 0;
      this.#parts.notice(NOTICE_QUIET);
    }
    return did;
  }

  #pollDevice(): boolean {
    const rings = this.#rings;
    if (rings === null || this.#fault !== null) return false;
    let did = false;
    rings.budget.refill();
    try {
      did = this.#parts.device.poll(this.#nowNs) || rings.budget.isExceeded;
    } catch (error) {
      this.#fail(error);
    }
    rings.tellLog();
    return did;
  }

  /** May the device take requests that it keeps? */
  get #mayTake(): boolean {
    const isServing = this.#rings !== null && !this.#isPaused && this.#fault === null;
    return isServing && this.#parts.device.inflight !== undefined;
  }

  get #inFlight(): number {
    return this.#parts.device.inflight?.count ?? 0;
  }

  /** Does the guest's memory show work for the device? */
  look(): boolean {
    return this.#rings !== null && this.#fault === null && this.#parts.device.look?.() === true;
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    const rings = this.#rings;
    if (rings === null || this.#fault !== null) return Infinity;
    const due = Math.min(this.#parts.device.deadlineNs(), this.#detachUntilNs ?? Infinity);
    return rings.isPolled ? Math.min(due, this.#nowNs + RING_POLL_INTERVAL_NS) : due;
  }

  /**
   * Lets everything go: the thread ends. Returns where the rings stand that it had, and what is still in
   * flight.
   */
  close(): Pick<WorkerReply, "bases" | "inFlight"> {
    const bases = this.#bases();
    this.#letGo();
    this.#reset();
    return { bases, inFlight: this.#inFlight };
  }

  #serve(command: WorkerCommand): void {
    switch (command.kind) {
      case "attach":
        this.#attempt(() => this.#attach(command.rings));
        break;
      case "detach":
        this.#pause();
        this.#detach(this.#detachUntilNs = this.#nowNs + command.limitMs * 1e6);
        return;
      case "pause":
        this.#pause();
        break;
      case "resume":
        this.#resume();
        break;
      case "reset":
        this.#reset();
        break;
      case "drain":
        this.#attempt(() => this.#drain());
        break;
      case "count":
        break;
    }
    this.#answer({});
  }

  #answer(more: Partial<WorkerReply>): void {
    const { channel, deltas } = this.#parts;
    this.#reported = Math.max(this.#inFlight, this.#mayTake ? 1 : 0);
    channel.answer({ counters: deltas.take(), inFlight: this.#reported, ...more } satisfies WorkerReply);
  }

  #pause(): void {
    this.#isPaused = true;
    this.#parts.device.inflight?.pause();
  }

  #resume(): void {
    this.#isPaused = false;
    this.#parts.device.inflight?.resume();
  }

  #attach(attached: AttachedRings): void {
    const { device, watch, arena } = this.#parts;
    const features = FeatureSet.fromBigInt(BigInt(attached.features));
    const rings = this.#rings = new WorkerRings(attached, features, watch, arena);
    const session = this.#session ?? this.#activate(features);
    this.#resume();
    device.migration?.restore(attached.state);
    session.memory = rings.memory;
    session.queues.fill(null);
    for (const { attached: { index }, queue } of rings.all) session.queues[index] = queue;
    device.queuesChanged();
  }

  #activate(features: FeatureSet): WorkerSession {
    const { device, queues, notice } = this.#parts;
    const session: WorkerSession = {
      startsQueues: true,
      features,
      memory: new GuestMemory([]),
      queues: device.queueSizes.map(() => null),
      interrupt: (index) => {
        if (this.#rings?.interrupt(index) !== false) return;
        notice(NOTICE_INTERRUPT << Math.min(queues.indexOf(index), INTERRUPT_BITS - 1));
      },
      configChanged: () => {},
    };
    this.#session = session;
    device.activate(session);
    return session;
  }

  /** Answers a detach, unless requests are in flight that may be waited for. */
  #detach(untilNs: number): void {
    const isOver = this.#inFlight === 0 || this.#rings === null || this.#fault !== null;
    if (!isOver && this.#nowNs < untilNs) return;
    this.#detachUntilNs = null;
    this.#attempt(() => this.#drain());
    const bases = this.#bases();
    const count = this.#inFlight;
    if (count > 0) {
      this.#fault ??= new GuestError("quiesce-timeout", `${count} requests of a queue worker are in flight`);
      this.#reset();
    }
    const fault = this.#fault && writeError(this.#fault);
    this.#fault = null;
    this.#letGo();
    this.#answer({ bases, fault });
  }

  #bases(): NonNullable<WorkerReply["bases"]> {
    return this.#rings?.all.map(({ attached, queue }) => [attached.index, queue.base] as const) ?? [];
  }

  #drain(): void {
    if (this.#rings === null || this.#fault !== null) return;
    this.#rings.budget.refill(Infinity);
    this.#parts.device.drain(this.#nowNs);
    this.#rings.tellLog();
  }

  #reset(): void {
    if (this.#session === null) return;
    this.#session = null;
    this.#parts.device.reset();
  }

  #letGo(): void {
    const rings = this.#rings;
    if (rings === null) return;
    this.#rings = null;
    this.#session?.queues.fill(null);
    this.#parts.logCounters.unlogged_pages += rings.unloggedPages;
    rings[Symbol.dispose]();
  }

  #attempt(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (!(error instanceof GuestError)) throw error;
    this.#fault ??= error;
    this.#parts.notice(NOTICE_FAULT);
  }
}

/** An arena, and where it lies in this process. */
export interface PlacedArena {
  /** The memory. */
  readonly buffer: ArrayBuffer;
  /** Its address. */
  readonly address: bigint;
}

/** A ring and its queue. */
export interface WorkerRing {
  /** What was told of it. */
  readonly attached: AttachedRing;
  /** What the device works on. */
  readonly queue: SplitVirtqueue | PackedVirtqueue;
  /** Tells the driver of used buffers; null if there is no event for that. */
  readonly call: ReceivedEvent | null;
}

/**
 * The rings of one attach: memory, queues, events, made of their description and let go as a whole. After
 * `dispose` nothing of them can be reached: every view of the memory is empty.
 */
export class WorkerRings implements Disposable {
  /** The guest's memory. */
  readonly memory: GuestMemory;
  /** The rings. */
  readonly all: readonly WorkerRing[];
  /** What may be done with all of them in a round; refilled where one begins. */
  readonly budget: RoundBudget = new RoundBudget();
  /** Must they be looked at without being asked? */
  readonly isPolled: boolean;
  readonly #owned: DisposableStack;
  readonly #log: PageLog | null;
  readonly #logEvent: ReceivedEvent | null;

  /**
   * Takes rings over. GuestError if one of them is not as it was described; nothing is held then.
   * @param features what was agreed on; @param watch wakes this thread by a descriptor; @param arena where
   * memory may lie
   */
  constructor(
    attached: AttachedRings,
    features: FeatureSet,
    watch: (number: number) => Disposable,
    arena: PlacedArena | null = null,
  ) {
    using made = new DisposableStack();
    const regions = attached.regions.map(({ guestAddress, size, address }) => {
      const hostAddress = Number(address);
      const offset = arena === null ? -1 : Number(BigInt(address) - arena.address);
      if (arena !== null && offset >= 0 && offset + size <= arena.buffer.byteLength) {
        return { guestAddress, size, buffer: arena.buffer, bufferOffset: offset, hostAddress };
      }
      const { buffer } = made.use(new MemoryView(BigInt(address), size));
      return { guestAddress, size, buffer, bufferOffset: 0, hostAddress };
    });
    this.memory = new GuestMemory(regions);
    this.#log = attached.log && openLog(attached.log, made);
    // Events of its own: a thread that comes round late signals nothing that got the number of a closed one.
    const openEvent = (number: number | null | undefined, isCall = false) =>
      number === null || number === undefined
        ? null
        : made.use(new ReceivedEvent(FileDescriptor.duplicate(number, "an event of the front-end"), isCall));
    this.#logEvent = openEvent(attached.log?.event);
    this.memory.dirtyLog = this.#log;
    this.all = attached.rings.map((ring) => {
      if (ring.kick !== null) made.use(watch(ring.kick));
      const { size, descriptors, driver, device, base } = ring;
      const queue = buildQueue(
        this.memory,
        { size, descriptors, driver, device },
        features,
        base,
        this.budget,
      );
      queue.logTo(ring.logAddress === null ? null : this.#log, ring.logAddress ?? 0);
      return { attached: ring, queue, call: openEvent(ring.call, true) };
    });
    this.isPolled = attached.rings.some(({ polled }) => polled);
    this.#owned = made.move();
  }

  /** Pages that were written behind the end of the log. */
  get unloggedPages(): number {
    return this.#log?.unloggedPages ?? 0;
  }

  /** Tells the driver that queue `index` has used buffers. False if it has no event for that. */
  interrupt(index: number): boolean {
    for (let i = 0; i < this.all.length; i++) {
      const { attached, call } = this.all[i];
      if (attached.index !== index) continue;
      if (call === null) return false;
      call.signal();
    }
    return true;
  }

  /** Tells the front-end that pages were marked, if any were. */
  tellLog(): void {
    if (this.#log?.takeModified() === true && this.#logEvent !== null) this.#logEvent.signal();
  }

  /** Lets everything go; queues and memory must not be used any more. */
  [Symbol.dispose](): void {
    this.memory.revoke();
    this.#owned.dispose();
  }
}

function openLog({ address, sizeBytes }: AttachedLog, made: DisposableStack): PageLog {
  return new PageLog(new Uint8Array(made.use(new MemoryView(BigInt(address), sizeBytes)).buffer));
}

/** By how much counters have grown since they were last asked for. */
export class CounterDeltas {
  readonly #groups: CounterGroups;
  #reported: Record<string, Record<string, number>> = {};

  /** Everything counts as grown the first time. @param groups live counters */
  constructor(groups: CounterGroups) {
    this.#groups = groups;
  }

  /** By how much each counter has grown since the last time; only those that have. */
  take(): Record<string, Record<string, number>> {
    const grown: Record<string, Record<string, number>> = {};
    for (const [group, counters] of Object.entries(this.#groups)) {
      const reported = this.#reported[group] ??= {};
      for (const [name, count] of Object.entries(counters)) {
        if (typeof count !== "number") {
          throw new TypeError(`the counter "${name}" of ${group} is a ${typeof count}, not a number`);
        }
        const more = count - (reported[name] ?? 0);
        if (more === 0) continue;
        (grown[group] ??= {})[name] = more;
        reported[name] = count;
      }
    }
    return grown;
  }
}
