/**
 * A queue pair in its thread: carries commands out, and turns the device in between.
 *
 * Theory of operation. The device here is a replica in the role `{ pair }`. It is activated with the first loan of a driver
 * and reset when it is told so; in between its session stays, and only queues and memory come and go, as they do with a
 * front-end that enables and disables rings. With every loan it takes over what the driver has programmed, and looks at its
 * rings once without having been kicked, since nobody knows what has come meanwhile.
 *
 *     nothing lent --lend--> polls the device --recall--> drains, shows everything, says where each ring stands
 *                               |
 *                               +--GuestError--> touches nothing; says so by a notice, and in answer to recall
 *
 * Errors that are not the guest's end the thread, and with it the device.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import { GuestMemory } from "../../core/memory.ts";
import type { RingsLoan } from "../../core/threads.ts";
import type { Pollable } from "../../core/transport.ts";
import { POLL_INTERVAL_NS } from "../../transports/vhost_user/device_link.ts";
import { LentSession } from "../../transports/vhost_user/lent_session.ts";
import { BorrowedRings } from "./borrowed_rings.ts";
import { type CommandChannel, NOTICE_FAULT, NOTICE_INTERRUPT } from "./command_channel.ts";
import { type WorkerCommand, type WorkerReply, writeError } from "./commands.ts";
import type { Tally } from "./tally.ts";

/** What a queue pair is worked with. */
export interface QueuePairParts {
  /** Where commands come from. */
  readonly channel: CommandChannel;
  /** The replica. */
  readonly device: Device;
  /** What it counts. */
  readonly tally: Tally;
  /** Counts pages that could not be logged. */
  readonly logCounters: Record<"unlogged_pages", number>;
  /** Wakes this thread by a descriptor. */
  watch(number: number): Disposable;
  /** Raises a notice. */
  notice(bit: number): void;
  /** The main thread wants the end. */
  stop(): void;
}

/** Works one queue pair. */
export class QueuePairRunner implements Pollable {
  readonly #parts: QueuePairParts;
  #rings: BorrowedRings | null = null;
  #session: LentSession | null = null;
  #fault: GuestError | null = null;
  #nowNs = 0;

  /** Nothing is lent yet. */
  constructor(parts: QueuePairParts) {
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
    const rings = this.#rings;
    if (rings === null || this.#fault !== null) return commanded;
    let did = commanded;
    rings.budget.refill();
    try {
      if (this.#parts.device.poll(nowNs) || rings.budget.isExceeded) did = true;
    } catch (error) {
      this.#fail(error);
    }
    rings.tellLog();
    return did;
  }

  /** When the device wants to be polled, in ns. */
  deadlineNs(): number {
    const rings = this.#rings;
    if (rings === null || this.#fault !== null) return Infinity;
    const due = this.#parts.device.deadlineNs();
    return rings.isPolled ? Math.min(due, this.#nowNs + POLL_INTERVAL_NS) : due;
  }

  /** Lets everything go: the thread ends. Returns where the rings stand that it had. */
  close(): WorkerReply["bases"] {
    const bases = this.#bases();
    this.#letGo();
    this.#reset();
    return bases;
  }

  #serve(command: WorkerCommand): void {
    const { channel, tally } = this.#parts;
    let more: Partial<WorkerReply> = {};
    switch (command.kind) {
      case "lend":
        this.#attempt(() => this.#lend(command.loan));
        break;
      case "recall":
        more = this.#recall();
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
    channel.answer({ counters: tally.take(), ...more } satisfies WorkerReply);
  }

  #lend(loan: RingsLoan): void {
    const { device, watch } = this.#parts;
    const features = FeatureSet.fromBigInt(BigInt(loan.features));
    const rings = this.#rings = new BorrowedRings(loan, features, watch);
    const session = this.#session ?? this.#activate(features);
    device.restoreState?.(loan.state);
    session.memory = rings.memory;
    session.queues.fill(null);
    for (const { loan: { index }, queue } of rings.all) session.queues[index] = queue;
    device.queuesChanged?.();
  }

  #activate(features: FeatureSet): LentSession {
    const { device, notice } = this.#parts;
    const session = new LentSession(
      features,
      new GuestMemory([]),
      device.queueSizes.length,
      (index) => {
        if (this.#rings?.interrupt(index) === false) notice(NOTICE_INTERRUPT << (index & 1));
      },
      () => {},
    );
    this.#session = session;
    device.activate(session);
    return session;
  }

  #recall(): Partial<WorkerReply> {
    this.#attempt(() => this.#drain());
    const bases = this.#bases();
    const fault = this.#fault && writeError(this.#fault);
    this.#fault = null;
    this.#letGo();
    return { bases, fault };
  }

  #bases(): NonNullable<WorkerReply["bases"]> {
    return this.#rings?.all.map(({ loan, queue }) => [loan.index, queue.base] as const) ?? [];
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
