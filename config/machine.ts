/**
 * A machine: everything that one configuration describes, built and ready to run.
 * @module
 */
import type { FileClaims } from "./file_claims.ts";
import type { ManualClock } from "../core/clock.ts";
import type { CounterGroups, Device } from "../core/device.ts";
import { GuestError } from "../core/errors.ts";
import type { FramePool } from "../core/frame_pool.ts";
import type { Reactor } from "../core/reactor.ts";
import type { DeviceThreads } from "../core/threads.ts";
import { type DriverTransport, type FrameTransport, isPollable } from "../core/transport.ts";

/** A device of a machine, with its two ends. */
export interface MachineDevice {
  /** What it is called. */
  readonly name: string;
  /** The device. */
  readonly device: Device;
  /** Its way to the guest. */
  readonly driver: DriverTransport;
  /** Its way to the network, if it has one. */
  readonly network: FrameTransport | null;
  /** The threads that work its queue pairs, if it has any. */
  readonly threads?: DeviceThreads | null;
}

/** What a machine is made of. */
export interface MachineParts {
  /** What it is called. */
  readonly name: string;
  /** The devices. */
  readonly devices: readonly MachineDevice[];
  /** What turns them. */
  readonly reactor: Reactor;
  /** Where their frames come from. */
  readonly pool: FramePool;
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
}

/**
 * A machine that runs. Start it, let it run, stop it. Every step of it is a function of the configuration and of what its
 * transports deliver.
 *
 * What a transport or a plugin fails with ends the machine: `run` rejects with it, or else `close` does. Nothing is drained
 * then, but everything is still closed. What a guest does wrong ends nothing.
 */
export class Machine implements AsyncDisposable {
  /** What it is made of. */
  readonly parts: MachineParts;
  readonly #stop = new AbortController();
  readonly #serving: Promise<void>[] = [];
  /** Those whose guest has gone for good. */
  readonly #abandoned = new Set<DriverTransport>();
  #started = false;
  #broken = false;
  #failure: { cause: unknown } | null = null;
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
    for (const { threads } of this.parts.devices) threads?.pullCounters();
    return this.parts.counters;
  }

  /**
   * Starts serving every device. A guest in memory is attached when this returns, files to be written are emptied before.
   * Throws Error the second time, HostError if a file cannot be emptied.
   */
  start(): void {
    if (this.#started) throw new Error("Cannot start a machine twice: build another one");
    this.#started = true;
    for (const start of this.parts.starts) start();
    for (const { device, driver, network, threads } of this.parts.devices) {
      device.wake = () => this.parts.reactor.wake();
      if (threads) {
        threads.start();
        this.parts.reactor.add(threads);
      }
      if (isPollable(driver)) this.parts.reactor.add(driver);
      if (network !== null && isPollable(network)) this.parts.reactor.add(network);
      const served = driver.serve(device, this.#stop.signal).then(() => {
        this.#abandoned.add(driver);
      }, (cause: unknown) => {
        this.#fail(cause);
        this.#stop.abort();
      }).finally(() => this.parts.reactor.wake());
      this.#serving.push(served);
    }
  }

  /** Has every device come to its end: a network that has delivered all it ever will, or a guest that has gone for good? */
  get isOver(): boolean {
    return this.parts.devices.every(({ network, driver }) =>
      network?.finished === true || this.#abandoned.has(driver)
    );
  }

  /**
   * Runs until `signal` aborts, or until every network is at its end and nothing is held. By a manual clock, time is moved
   * from event to event; otherwise it passes. Rejects with what a transport or a plugin failed with.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { reactor, manualClock } = this.parts;
    const either = AbortSignal.any([signal, this.#stop.signal]);
    try {
      if (manualClock === null) await reactor.run(either, () => this.isOver);
      else await reactor.runToEnd(either);
    } catch (cause) {
      this.#fail(cause);
    }
    this.#rethrow();
  }

  /** Lets go everything that is held and what can still be delivered of it. Throws PluginError. */
  drain(): void {
    const { reactor, devices } = this.parts;
    for (const { device, threads } of devices) {
      threads?.drain();
      try {
        device.drain(reactor.clock.nowNs());
      } catch (error) {
        // A broken ring: the rounds that follow meet it again, where the session deals with it.
        if (!(error instanceof GuestError)) throw error;
      }
    }
    // A guest that answers what it gets would keep this going for ever: a bounded number of rounds empties the queues.
    for (let rounds = 0; rounds < 64 && reactor.turn(); rounds++);
  }

  /**
   * Drains, detaches every guest, closes every network. Everything is tried before it rejects with what failed first. May
   * be called twice: the second call only waits.
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

  async #closeAll(): Promise<void> {
    if (!this.#broken) this.#attempt(() => this.drain());
    this.#stop.abort();
    await Promise.all(this.#serving);
    for (const { driver, network, threads } of this.parts.devices) {
      try {
        await threads?.close();
      } catch (cause) {
        this.#fail(cause);
      }
      try {
        await network?.close?.();
      } catch (cause) {
        this.#fail(cause);
      }
      this.#attempt(() => network?.[Symbol.dispose]());
      this.#attempt(() => driver[Symbol.dispose]());
    }
  }

  #attempt(step: () => void): void {
    try {
      step();
    } catch (cause) {
      this.#fail(cause);
    }
  }

  /** The first failure is the one to tell. */
  #fail(cause: unknown): void {
    if (!this.#broken) this.#failure = { cause };
    this.#broken = true;
  }

  #rethrow(): void {
    if (this.#failure === null) return;
    const { cause } = this.#failure;
    this.#failure = null;
    throw cause;
  }
}
