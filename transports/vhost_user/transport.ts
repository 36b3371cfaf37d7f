/**
 * The vhost-user transport: brings the guest of a hypervisor, or whatever else speaks the protocol.
 *
 * Theory of operation. `serve` makes the socket; everything else happens in `poll`, round by round, in one
 * thread: look for a front-end if there is none, carry out its messages, turn the device. There is one
 * front-end at a time. When it goes, everything about it is forgotten: its memory is unmapped, its
 * descriptors are closed, the device is reset; and the next one is served, without limit, in either role.
 * Requests in flight are given up, but their memory stays mapped, and no other front-end is served, until
 * they are over.
 *
 * Between rounds the reactor sleeps; it is woken by the socket, by a listening socket, and by kicks, all of
 * which are watched edge-triggered, so that a kick need not be read. What cannot wake anybody has a deadline:
 * an attempt to reach the front-end, and rings whose driver does not kick.
 *
 * Faults of the guest, and messages against the protocol, are counted by name, as `fault_…`; they never end
 * the program.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { PartContext } from "../../plugins/plugin.ts";
import { Quiescence } from "../../core/in_flight.ts";
import { FaultLog } from "../../core/session.ts";
import type { QueueWorkers } from "../../plugins/queue_workers.ts";
import type { DriverTransport } from "../../plugins/plugin.ts";
import type { Pollable } from "../../core/reactor.ts";
import { type ConnectionSource, type IncomingConnection, openSource } from "../../host/connection_source.ts";
import type { FileDescriptor } from "../../host/descriptors.ts";
import { prepareSignals } from "../../host/event_fd.ts";
import { Backend } from "./backend.ts";
import { Connection } from "./connection.ts";
import { SystemHost } from "./host.ts";
import type { VhostUserOptions } from "./options.ts";
import type { ProtocolTrace } from "./protocol_trace.ts";

/** What the transport counts. Faults join under names of their own, such as `fault_descriptor-loop`. */
export interface VhostUserCounters extends Record<string, number> {
  /** Front-ends that came. */
  connections: number;
  /** Front-ends that went. */
  disconnections: number;
  /** Messages carried out or refused. */
  messages: number;
  /** Messages refused. */
  refused: number;
  /** Pages written during a migration behind the end of the log. */
  unlogged_pages: number;
  /** Chains thrown away, unsent, because the front-end had not enabled their transmit ring. */
  discarded_while_disabled: number;
}

/** A vhost-user back-end as a driver transport. */
export class VhostUserTransport implements DriverTransport, Pollable {
  /**
   * Listens to the dialogue, if anybody does; may be set before `serve`, and counts from the next connection
   * on.
   */
  trace: ProtocolTrace | null = null;
  /** What it has counted; live. */
  readonly counters: VhostUserCounters;
  readonly #context: Pick<PartContext, "arena" | "resolvePath" | "watch" | "wake" | "report">;
  readonly #options: VhostUserOptions;
  readonly #faults: FaultLog;
  #workers: QueueWorkers | null = null;
  #device: Device | null = null;
  #source: ConnectionSource | null = null;
  #connection: Connection<FileDescriptor> | null = null;
  #socketWatch: Disposable | null = null;
  /** Its front-end has gone, and requests of it are in flight: its memory is still mapped. */
  #leaving: Backend | null = null;
  #leavingUntilNs = Infinity;
  /** Says that there is no front-end to be served any more. */
  #served: () => void = () => {};

  /** Opens nothing before `serve`. */
  constructor(
    context: Pick<PartContext, "arena" | "resolvePath" | "watch" | "wake" | "publish" | "report">,
    options: VhostUserOptions,
  ) {
    this.#context = context;
    this.#options = options;
    this.counters = context.publish({
      connections: 0,
      disconnections: 0,
      messages: 0,
      refused: 0,
      unlogged_pages: 0,
      discarded_while_disabled: 0,
    });
    this.#faults = new FaultLog(({ fault, message }) => {
      countFault(this.counters, fault);
      context.report?.({ event: "fault", fault, message });
    });
  }

  /** Is there a front-end? */
  get connected(): boolean {
    return this.#connection !== null;
  }

  /** The back-end of the present connection, for inspection; null without one. */
  get backend(): Backend | null {
    return this.#connection?.backend ?? null;
  }

  /** Attaches the rings of every front-end, as far as they are of the device's sets. */
  useWorkers(workers: QueueWorkers): void {
    this.#workers = workers;
  }

  /**
   * Serves front-ends until `signal` aborts, or the only one that can ever come has gone. Rejects with
   * HostError if the socket cannot be made.
   */
  // deno-lint-ignore require-await -- a refusal must reject, not throw
  async serve(device: Device, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    // Said now, and not when the first guest is to be told something.
    prepareSignals();
    const { socket } = this.#options;
    const path = socket === null ? "" : this.#context.resolvePath(socket);
    this.#source = openSource(this.#options, path, (descriptor) => this.#context.watch(descriptor));
    this.#device = device;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#served = resolve;
    signal.addEventListener("abort", () => {
      this[Symbol.dispose]();
      resolve();
    }, { once: true });
    this.#context.wake();
    return promise;
  }

  /** One round: the socket, then the device. True if anything moved. */
  poll(nowNs: number): boolean {
    if (this.#leaving !== null && !this.#release(nowNs)) return false;
    if (this.#device === null) return false;
    const connection = this.#connection ?? this.#accept(this.#device, nowNs);
    if (connection === null) return false;
    const did = connection.poll(nowNs);
    if (connection.endedBecause === null) {
      return did || this.#source?.attend?.() === true;
    }
    this.#end(connection.endedBecause);
    if (this.#leaving !== null) this.#leavingUntilNs = nowNs + this.#device.inflight!.limitNs;
    return true;
  }

  /** Does the guest's memory show work for the device? */
  look(): boolean {
    return this.#leaving === null && this.#connection?.look() === true;
  }

  /** When to be polled although nothing wakes, in ns. */
  deadlineNs(): number {
    if (this.#leaving !== null) return this.#leavingUntilNs;
    return this.#connection?.deadlineNs() ?? this.#source?.deadlineNs() ?? Infinity;
  }

  /** Lets the front-end go, and closes the socket. */
  [Symbol.dispose](): void {
    this.#end("the back-end stops");
    if (this.#leaving?.release() === true) this.#leaving = null;
    this.#source?.[Symbol.dispose]();
    this.#source = null;
    this.#device = null;
  }

  /** Lets the last front-end's memory go, if nothing is in flight. Until then no other one is served. */
  #release(nowNs: number): boolean {
    if (this.#leaving!.release()) {
      this.#leaving = null;
      this.#leavingUntilNs = Infinity;
      return true;
    }
    if (nowNs < this.#leavingUntilNs) return false;
    this.#leavingUntilNs = Infinity;
    this.#faults.note(new Quiescence(this.#device?.inflight).error());
    return false;
  }

  #accept(device: Device, nowNs: number): Connection<FileDescriptor> | null {
    const incoming = this.#source?.next(nowNs) ?? null;
    return incoming === null ? null : this.#begin(device, incoming);
  }

  #begin(device: Device, incoming: IncomingConnection): Connection<FileDescriptor> {
    using stack = new DisposableStack();
    stack.use(incoming);
    this.#socketWatch = stack.use(this.#context.watch(incoming.number));
    const { counters, trace } = this;
    const { report } = this.#context;
    const backend = new Backend(device, {
      host: new SystemHost({
        watch: (descriptor) => this.#context.watch(descriptor),
        arena: this.#context.arena,
        terms: this.#options,
        risk: (message) => report?.({ event: "memory-at-risk", message }),
        outOfReach: (message) => report?.({ event: "memory-out-of-reach", message }),
      }),
      profile: this.#options.profile,
      faults: this.#faults,
      refused: (fault, message) => {
        counters.refused++;
        countFault(counters, fault);
        report?.({ event: "refused", fault, message });
      },
      trace,
      workers: this.#workers,
      report,
    });
    stack.move();
    counters.connections++;
    trace?.note({ event: "connected" });
    report?.({ event: "connected" });
    this.#connection = new Connection(incoming, backend, counters);
    return this.#connection;
  }

  #end(reason: string): void {
    const connection = this.#connection;
    if (connection === null) return;
    this.#connection = null;
    this.counters.disconnections++;
    this.counters.unlogged_pages += connection.backend.unloggedPages;
    this.counters.discarded_while_disabled += connection.backend.discardedChains;
    // The watch first: a number that was closed may be another file's at once.
    this.#socketWatch?.[Symbol.dispose]();
    this.#socketWatch = null;
    connection[Symbol.dispose]();
    if (!connection.backend.release()) this.#leaving = connection.backend;
    this.trace?.note({ event: "disconnected", reason });
    this.#context.report?.({ event: "disconnected", reason });
    if (this.#source?.isOver === true) this.#served();
  }
}

function countFault(counters: VhostUserCounters, fault: string): void {
  const key = `fault_${fault}`;
  counters[key] = (counters[key] ?? 0) + 1;
}
