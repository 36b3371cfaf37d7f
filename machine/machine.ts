/**
 * A machine: everything that one configuration describes, built and ready to run.
 * @module
 */
import type { ResolvedDevice, ResolvedPart } from "../config/types.ts";
import { pluginError } from "../plugins/contract.ts";
import type { ManualClock } from "../core/clock.ts";
import type { CounterGroups, DriverTransport, MachineScope } from "../plugins/plugin.ts";
import type { Device } from "../core/device.ts";
import { GuestError } from "../rings/guest_error.ts";
import { HostError } from "../core/errors.ts";
import { Quiescence, type RequestsInFlight } from "../core/in_flight.ts";
import type { QueueWorkers } from "../plugins/queue_workers.ts";
import { isPollable, type Pollable, type Reactor } from "../core/reactor.ts";
import type { FileClaims } from "./file_claims.ts";
import { foreignParts, guardDevice, guardMember, isFrom, partBehind } from "./plugin_guards.ts";

/** The threads that serve sets of a device's queues. */
export interface DeviceWorkers extends QueueWorkers, Pollable {
  /** What the device has in flight, in the main thread and in theirs. */
  readonly inflight: RequestsInFlight;
  /** Frames that they had not given back when they ended; for tests. */
  readonly framesKept: number;
  /** Starts them. Throws HostError if a part of the device gives them nothing. */
  start(): void;
  /** Adds what they have counted since the last time to the machine's counters. */
  pullCounters(): void;
  /** Lets go everything that is held. */
  drain(): void;
  /**
   * Ends them, within seconds. No ring is attached any more. Rejects with what one of them failed with at the
   * last.
   */
  close(): Promise<void>;
}

/** What a plugin has built for a slot: it may be `Disposable` and `Pollable`. */
export interface BuiltPart {
  /** What it was made from. */
  readonly part: ResolvedPart;
  /** What the plugin has made. */
  readonly object: unknown;
}

/** What a part of any kind may have. */
export interface PartObject extends Partial<Disposable> {
  /** Has it done all that it ever will, as a capture has at its end? */
  readonly finished?: boolean;
  /** Completes what takes its time; called once, before it is disposed of. */
  close?(): Promise<void> | void;
}

/** A device of a machine, with its two ends. */
export interface MachineDevice {
  /** What it is called. */
  readonly name: string;
  /** The device. */
  readonly device: Device;
  /** Its way to the guest. */
  readonly driver: DriverTransport;
  /** What stands in its slots, by their names, as the plugins have built it: null where nothing does. */
  readonly parts: Readonly<Record<string, unknown>>;
  /** The same in the order in which it was built, with what it was made from. */
  readonly built: readonly BuiltPart[];
  /** The threads that serve sets of its queues, if it has any. */
  readonly workers?: DeviceWorkers | null;
  /** What it was made from. */
  readonly resolved: ResolvedDevice;
}

/** What a machine is made of. */
export interface MachineParts {
  /** What it is called. */
  readonly name: string;
  /** The devices. */
  readonly devices: readonly MachineDevice[];
  /** What turns them. */
  readonly reactor: Reactor;
  /** What their parts have in common. */
  readonly scope: MachineScope;
  /** Every counter, live. */
  readonly counters: CounterGroups;
  /** The clock, if it is a manual one. */
  readonly manualClock: ManualClock | null;
  /** What the devices share, such as in-memory cables. */
  readonly shared: ReadonlyMap<string, unknown>;
  /** Which files it reads and writes; what else its program is to write is to be claimed here first. */
  readonly files: FileClaims;
  /** What is to be done when it starts: files are emptied, and their headers written. */
  readonly starts: readonly (() => void)[];
  /** What parts have kept when everything is closed. */
  leftovers(): readonly Error[];
  /** Makes an error say where in the configuration it comes from: of what the host has refused, `path`. */
  locate(error: unknown, path: string): void;
  /**
   * Told when a device has failed, by its name, unless `run` rejects with it at once because there is no
   * other.
   */
  failed(device: string, error: Error): void;
}

/**
 * A machine that runs. Start it, let it run, stop it. Every step of it is a function of the configuration and
 * of what its transports deliver.
 *
 * What a transport or a plugin fails with ends its own device: its driver sees NEEDS_RESET or is let go,
 * other devices go on, and when the machine ends `run` rejects with what failed first, or else `close` does.
 * A device whose transport cannot begin to serve (HostError) ends the machine, and so does the last device
 * that fails. Nothing is drained of what has failed, but everything is still closed. What a guest does wrong
 * ends nothing.
 */
export class Machine implements AsyncDisposable {
  /** What it is made of. */
  readonly parts: MachineParts;
  readonly #stop = new AbortController();
  readonly #serving: Promise<void>[] = [];
  /** Those whose guest has gone for good. */
  readonly #abandoned = new Set<DriverTransport>();
  /** Those that have failed. */
  readonly #failed = new Set<MachineDevice>();
  /** What stops each device by itself. */
  readonly #stops = new Map<MachineDevice, AbortController>();
  #started = false;
  #broken = false;
  #first: { cause: unknown } | null = null;
  /** Has the caller been told of the first failure? */
  #isTold = false;
  #closing: Promise<void> | null = null;

  /** Made by `buildMachine`. */
  constructor(parts: MachineParts) {
    this.parts = parts;
  }

  /** The devices. */
  get devices(): readonly MachineDevice[] {
    return this.parts.devices;
  }

  /** Every counter by group, live; those of threads as of now. */
  get counters(): CounterGroups {
    for (const { workers } of this.parts.devices) workers?.pullCounters();
    return this.parts.counters;
  }

  /**
   * Starts serving every device. A guest in memory is attached when this returns, files to be written are
   * emptied before. Throws Error the second time, HostError if a file cannot be emptied.
   */
  start(): void {
    if (this.#started) throw new Error("Cannot start a machine twice: build another one");
    this.#started = true;
    for (const start of this.parts.starts) start();
    for (const one of this.parts.devices) this.#serve(one);
  }

  /**
   * Has every device come to its end: a part that has done all it ever will, or a guest that has gone for
   * good?
   */
  get isOver(): boolean {
    return this.parts.devices.every((one) =>
      this.#failed.has(one) || one.built.some(({ object }) => membersOf(object).finished === true) ||
      this.#abandoned.has(one.driver)
    );
  }

  /**
   * What has failed first; null as long as nothing has. It is what `run` or `close` rejects with, or has
   * rejected with.
   */
  get failure(): unknown {
    return this.#first?.cause ?? null;
  }

  /**
   * Runs until `signal` aborts, or until every device is at its end and nothing is held. By a manual clock,
   * time is moved from event to event; otherwise it passes. Rejects with what a transport or a plugin failed
   * with.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { reactor, manualClock } = this.parts;
    const either = AbortSignal.any([signal, this.#stop.signal]);
    try {
      if (manualClock === null) await reactor.run(either, () => this.isOver);
      else do await reactor.runToEnd(either); while (!either.aborted && await this.#awaitsHost());
    } catch (cause) {
      this.#break(cause);
    }
    this.#rethrow();
  }

  /**
   * Takes an error that came out of no hook: a callback of a plugin has thrown it, or it is the reason of a
   * promise that is rejected and that nothing waits for. Its device fails by that: the one whose plugin's
   * module stands in the error's stack (all of them, if several have that plugin), or else the only one that
   * has plugins of modules at all. False if there is no such device; nothing is done then. The program that
   * runs the machine listens for `error` and `unhandledrejection`, and calls this. @param hook where it came
   * from, for the message
   */
  blame(cause: unknown, hook: string): boolean {
    const foreign = this.parts.devices.filter(({ resolved }) => foreignParts(resolved).length > 0);
    const named = foreign.filter(({ resolved }) =>
      foreignParts(resolved).some((part) => isFrom(cause, part))
    );
    const blamed = named.length > 0 ? named : foreign;
    if (named.length === 0 && foreign.length !== 1) return false;
    for (const one of blamed) {
      this.#stopDevice(one, pluginError(partBehind(cause, one.resolved), hook, cause));
    }
    return true;
  }

  /** Lets go everything that is held and what can still be delivered of it; a device may fail by that. */
  drain(): void {
    const { reactor, devices } = this.parts;
    for (const one of devices) {
      if (this.#failed.has(one)) continue;
      const { device, workers } = one;
      workers?.drain();
      try {
        device.drain(reactor.clock.nowNs());
      } catch (error) {
        // A broken ring: the rounds that follow meet it again, where the session deals with it.
        if (!(error instanceof GuestError)) this.#failDevice(one, pluginError(one.resolved, "drain", error));
      }
    }
    // A guest that answers what it gets would keep this going for ever: a bounded number of rounds empties
    // the queues.
    for (let rounds = 0; rounds < 64 && reactor.turn(); rounds++);
  }

  /**
   * Drains, detaches every guest, closes every part. Everything is tried before it rejects with what failed
   * first. May be called twice: the second call only waits.
   */
  async close(): Promise<void> {
    if (this.#closing !== null) return await this.#closing;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#closing = promise;
    await this.#closeAll();
    resolve();
    this.#rethrow();
  }

  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Stops all devices. Each has a signal of its own: one made by AbortSignal.any() keeps what listens until
   * the event loop turns.
   */
  #stopAll(): void {
    this.#stop.abort();
    for (const stop of this.#stops.values()) stop.abort();
  }

  #serve(one: MachineDevice): void {
    const { device, driver, built, workers, resolved } = one;
    const { reactor } = this.parts;
    const failed = (error: Error) => this.#failDevice(one, error);
    device.wake = () => reactor.wake();
    if (workers) {
      workers.start();
      reactor.add(guardMember(workers, null, (error) => this.#stopDevice(one, error)));
    }
    if (isPollable(driver)) {
      reactor.add(guardMember(driver, resolved.driver, (error) => this.#stopDevice(one, error)));
    }
    for (const { part, object } of built) {
      const member = membersOf(object);
      if (isPollable(member)) {
        reactor.add(guardMember(member, part, (error) => this.#stopDevice(one, error)));
      }
    }
    const stop = new AbortController();
    this.#stops.set(one, stop);
    // A device that began before this one may have ended the machine.
    if (this.#stop.signal.aborted) stop.abort();
    const { signal } = stop;
    const served = this.#served(one, guardDevice(device, resolved, failed, inflightOf(one)), signal).then(
      () => {
        if (!signal.aborted) this.#abandoned.add(driver);
      },
      (cause: unknown) => {
        // What fails because its device has is no news.
        if (this.#failed.has(one)) return;
        if (cause instanceof HostError) {
          this.parts.locate(cause, resolved.driver.path);
          this.#break(cause);
          this.#stopAll();
        } else this.#stopDevice(one, pluginError(resolved.driver, "serve", cause));
      },
    ).finally(() => reactor.wake());
    this.#serving.push(served);
  }

  /** Never throws: what cannot serve rejects. */
  #served(one: MachineDevice, device: Device, signal: AbortSignal): Promise<void> {
    try {
      const serving = one.driver.serve(device, signal);
      if (typeof serving?.then === "function") return serving;
      throw new TypeError(
        "it returned no promise; one is needed that is fulfilled when its guest has gone for good",
      );
    } catch (cause) {
      return Promise.reject(cause);
    }
  }

  /** A device has failed; its driver has been told, or will be. */
  #failDevice(one: MachineDevice, error: Error): void {
    if (this.#failed.has(one)) return;
    this.#failed.add(one);
    this.#note(error);
    const isLast = this.#failed.size === this.parts.devices.length;
    // What ends the machine at once is told by `run`.
    if (!isLast || this.#first?.cause !== error) this.parts.failed(one.name, error);
    if (isLast) this.#stopAll();
    this.parts.reactor.wake();
  }

  /** A device has failed and cannot tell its driver: the driver is let go. */
  #stopDevice(one: MachineDevice, error: Error): void {
    this.#failDevice(one, error);
    this.#stops.get(one)?.abort();
  }

  async #closeAll(): Promise<void> {
    if (!this.#broken) {
      await this.#attempt(() => this.#quiesce());
      await this.#attempt(() => this.drain());
    }
    this.#stopAll();
    await Promise.all(this.#serving);
    for (const { driver, built, workers, resolved } of this.parts.devices) {
      await this.#attempt(() => workers?.close());
      for (const { part, object } of built.toReversed()) {
        const member = membersOf(object);
        await this.#attempt(() => member.close?.(), [part, "close"]);
        await this.#attempt(() => member[Symbol.dispose]?.(), [part, "dispose"]);
      }
      await this.#attempt(() => driver[Symbol.dispose](), [resolved.driver, "dispose"]);
    }
    if (this.#first === null) { for (const error of this.parts.leftovers()) this.#note(error); }
  }

  /** Has this device, which has not failed, requests in flight? */
  #isBusy(one: MachineDevice): boolean {
    return !this.#failed.has(one) && (inflightOf(one)?.count ?? 0) > 0;
  }

  /** Lets the host get on with requests in flight, which no clock of ours moves. False if there are none. */
  async #awaitsHost(): Promise<boolean> {
    if (!this.parts.devices.some((one) => this.#isBusy(one))) return false;
    await new Promise((resolve) => setTimeout(resolve, 1));
    return true;
  }

  /**
   * Has devices finish what they have in flight while their guests are there. One that takes too long has
   * failed.
   */
  async #quiesce(): Promise<void> {
    const { reactor, devices } = this.parts;
    const busy = devices.filter((one) => this.#isBusy(one)).map((one) => ({
      one,
      quiescence: new Quiescence(inflightOf(one)),
    }));
    // The host's time, also by a manual clock: requests are finished by the host.
    while (busy.some(({ one }) => this.#isBusy(one))) {
      for (const { one, quiescence } of busy) {
        if (this.#isBusy(one) && quiescence.check(performance.now() * 1e6) === "late") {
          this.#failDevice(one, pluginError(one.resolved, "quiesce", quiescence.error()));
        }
      }
      if (!reactor.turn()) await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }

  /** @param by whose fault it is, and in which hook, if that does not say what it means */
  async #attempt(step: () => unknown, by: readonly [ResolvedPart, string] | null = null): Promise<void> {
    try {
      await step();
    } catch (cause) {
      this.#break(by === null ? cause : pluginError(...by, cause));
    }
  }

  /** The machine as a whole has failed: nothing is drained any more. */
  #break(cause: unknown): void {
    this.#note(cause);
    this.#broken = true;
  }

  /** The first failure is the one to tell. */
  #note(cause: unknown): void {
    this.parts.locate(cause, "");
    this.#first ??= { cause };
  }

  #rethrow(): void {
    if (this.#first === null || this.#isTold) return;
    this.#isTold = true;
    throw this.#first.cause;
  }
}

/** What a device has in flight, in all its threads. */
function inflightOf({ device, workers }: MachineDevice): RequestsInFlight | undefined {
  return workers?.inflight ?? device.inflight;
}

/** What a part may have; a value that is no object has nothing. */
export function membersOf(object: unknown): PartObject {
  return typeof object === "object" && object !== null ? object as PartObject : {};
}
