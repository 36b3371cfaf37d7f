/**
 * A bench for devices of any type: one device with its parts, driven by hand through real rings, by a manual
 * clock.
 *
 * Theory of operation. `request` posts a buffer, kicks, and turns device and guest until nothing moves;
 * `post` and `kick` do the same in steps. `advanceTo` stops at every deadline on the way. Requests that a
 * device keeps are waited for by `idle`. At its end, or by `close`, the bench drains the device and resets
 * it, and then asserts that nothing is in flight, that the guest has found nothing wrong with rings and used
 * lengths, that no byte was written outside of writable buffers, then or after the reset, and that every
 * frame is back in the pool.
 *
 * @module
 */
import { AssertionError } from "@std/assert";
import { ManualClock } from "../core/clock.ts";
import type { Device } from "../core/device.ts";
import type { DeviceContext, DevicePlugin } from "../plugins/plugin.ts";
import { HostError } from "../core/errors.ts";
import type { FeatureSet } from "../core/features.ts";
import { eventLoopTurn, isPollable, Reactor } from "../core/reactor.ts";
import type { DriverSession } from "../core/session.ts";
import {
  completeGuestOptions,
  guestOptionsSchema,
  type SoftwareGuestOptionsInput,
} from "../guest/options.ts";
import { DEFAULT_HEAP_BYTES, type GuestRequest, RequestGuest } from "../guest/request_guest.ts";
import { checkDevice } from "../machine/plugin_guards.ts";
import { FramePool } from "../pipeline/frame_pool.ts";
import { benchContext, type BenchPart, type BenchSurroundings, completeOptions } from "./bench_parts.ts";
import { assertPoolWhole } from "./matchers.ts";
import { GUEST_MAC, macBytes } from "./packets.ts";

/** How a device bench is set up. */
export interface DeviceBenchSettings {
  /** The plugin. */
  // deno-lint-ignore no-explicit-any -- plugins of any options
  readonly plugin: DevicePlugin<any>;
  /** Its options as written; default `{}`. */
  readonly options?: unknown;
  /**
   * What stands in its slots: parts that are there, or a plugin with its options, of which the part is built.
   * Default none.
   */
  readonly parts?: Readonly<Record<string, unknown>>;
  /** Rings and features of the guest; default: split rings, all features accepted. */
  readonly guest?: SoftwareGuestOptionsInput;
  /** Guest memory for buffers, in bytes; default 2 MiB. */
  readonly heapBytes?: number;
}

/** How long `idle` waits in real time. */
const IDLE_LIMIT_MS = 5000;

/**
 * Drives a device by hand.
 *
 * @example
 * ```ts
 * import { entropy } from "../mod.ts";
 * import { DeviceBench } from "./device_bench.ts";
 *
 * using bench = new DeviceBench({ plugin: entropy, guest: { ring: "packed" } });
 * const { written } = bench.request(0, [], 32);
 * if (written.length !== 32 || bench.counters.device.bytes !== 32) throw new Error("unreachable");
 * ```
 */
export class DeviceBench implements Disposable, AsyncDisposable {
  /** The device. */
  readonly device: Device;
  /** Drives it. */
  readonly guest: RequestGuest;
  /** What stands in its slots, built. */
  readonly parts: Readonly<Record<string, unknown>>;
  /**
   * Counters by group, live: the device's own are `device`, those of its parts have the names of their slots.
   */
  readonly counters: Record<string, Record<string, number>> = {};
  /** Frames come from here, for devices that move any. */
  readonly pool: FramePool = new FramePool();
  readonly #reactor = new Reactor(new ManualClock());
  readonly #disposables: Disposable[] = [];
  #isClosed = false;

  /**
   * Builds device and parts and attaches the guest. Throws TypeError for wrong options and objects of a wrong
   * shape, HostError if device and guest cannot agree, and what `create` throws.
   */
  constructor({ plugin, options = {}, parts = {}, guest = {}, heapBytes }: DeviceBenchSettings) {
    const starts: (() => void)[] = [];
    const complete = completeOptions(plugin, options);
    this.parts = this.#build(parts, starts, plugin.facts?.(complete));
    const context: DeviceContext & { readonly pool: FramePool; readonly verdicts: null } = {
      name: plugin.name,
      path: "$",
      parts: this.parts,
      pool: this.pool,
      verdicts: null,
      newBuffer: (bytes) => new Uint8Array(bytes),
      isTimeVirtual: true,
      publish: (counters, part) => {
        this.counters[part ?? "device"] = counters;
        return counters;
      },
    };
    this.device = plugin.create(context, complete);
    checkDevice(this.device);
    this.device.wake = () => this.#reactor.wake();
    const guestOptions = completeGuestOptions(guestOptionsSchema, guest);
    this.guest = new RequestGuest(guestOptions, {}, heapBytes ?? DEFAULT_HEAP_BYTES);
    for (const start of starts) start();
    for (const part of Object.values(this.parts).flat()) {
      if (typeof part === "object" && part !== null && isPollable(part)) this.#reactor.add(part);
    }
    this.guest.attach(this.device);
    this.#reactor.add({
      poll: (nowNs) => {
        const did = this.session.poll(nowNs);
        return this.guest.poll(nowNs) || did;
      },
      deadlineNs: () => Math.min(this.session.deadlineNs(), this.guest.deadlineNs()),
    });
    this.settle();
  }

  /** The present time, in ns. */
  get nowNs(): number {
    return this.#reactor.clock.nowNs();
  }

  /** What driver and device say to each other. */
  get session(): DriverSession {
    return this.guest.session;
  }

  /** The features that were agreed on. */
  get features(): FeatureSet {
    return this.session.features;
  }

  /** How often the device has found the driver to break each rule, by name; anew with each driver. */
  get faults(): Readonly<Record<string, number>> {
    return this.session.faults;
  }

  /** Requests that the device has taken and not given back; 0 for one that never keeps any. */
  get inFlight(): number {
    return this.device.inflight?.count ?? 0;
  }

  /**
   * Posts a request, kicks, and lets everything happen that follows at once. It `isDone` if the device has
   * answered it then.
   * @param readable what the device reads, in one piece or several
   * @param writableBytes what it may write, in one piece or several
   * @throws {RangeError} if there is no such queue, or no room in it
   */
  request(
    queue: number,
    readable: Uint8Array | readonly Uint8Array[],
    writableBytes: number | readonly number[],
  ): GuestRequest {
    const request = this.post(queue, readable, writableBytes);
    this.kick(queue);
    return request;
  }

  /** Posts a request of which the device hears by `kick`; see `request`. */
  post(
    queue: number,
    readable: Uint8Array | readonly Uint8Array[],
    writableBytes: number | readonly number[],
  ): GuestRequest {
    const request = this.guest.post(queue, readable, writableBytes);
    if (request === null) {
      throw new RangeError(`Cannot post another request: queue ${queue} or memory is full`);
    }
    return request;
  }

  /** Shows the device what was posted, kicks it if it wants that, and lets everything happen that follows. */
  kick(queue: number): void {
    this.guest.kick(queue);
    this.settle();
  }

  /** Turns device and guest until nothing moves, without moving the time. */
  settle(): void {
    this.#reactor.settle();
  }

  /** Moves the time on; what is due at `nowNs` has happened when this returns. */
  advanceTo(nowNs: number): void {
    this.#reactor.advanceTo(nowNs);
  }

  /**
   * Waits, in real time, until the device has nothing in flight. Rejects with AssertionError after five
   * seconds.
   */
  async idle(): Promise<void> {
    const limitMs = performance.now() + IDLE_LIMIT_MS;
    for (this.settle(); this.inFlight > 0; this.settle()) {
      if (performance.now() > limitMs) throw new AssertionError(`${this.inFlight} requests stay in flight`);
      await eventLoopTurn();
    }
  }

  /** Bytes of configuration space. */
  readConfig(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    this.session.readConfig(offset, bytes);
    return bytes;
  }

  /** Writes to configuration space; what the device refuses is counted in `faults`. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    this.session.writeConfig(offset, bytes);
  }

  /**
   * The driver resets the device, which waits for what is in flight; nothing may be written to its memory
   * after that.
   */
  reset(): void {
    this.guest.detach();
    this.settle();
    this.guest.checkMemory();
  }

  /**
   * The next driver comes, with memory and rings of its own. HostError if the reset before it is not done.
   */
  restart(): void {
    this.reset();
    if (this.session.status !== 0) {
      throw new HostError("Cannot restart: requests are in flight; await idle() first");
    }
    this.guest.checkMemory();
    this.guest.attach(this.device);
    this.settle();
  }

  /** Drains, resets, and asserts that all is well (see above). May be called twice. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const problems: string[] = [];
    this.settle();
    if (this.inFlight > 0) {
      problems.push(`${this.inFlight} requests are in flight; await idle(), or "await using"`);
    }
    this.session.drain(this.nowNs);
    this.settle();
    this.reset();
    // What still waits for its time must not wake up to a guest that has gone.
    const deadlineNs = this.device.deadlineNs();
    if (deadlineNs < Infinity) this.advanceTo(deadlineNs);
    this.guest.checkMemory();
    for (const part of this.#disposables.reverse()) part[Symbol.dispose]();
    const { counters, errors } = this.guest;
    if (counters.malformed > 0) problems.push(...errors);
    if (problems.length > 0) throw new AssertionError(`The device is wrong: ${problems.join("; ")}`);
    assertPoolWhole(this.pool);
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Waits until nothing is in flight, then closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isClosed) await this.idle();
    this.close();
  }

  #build(parts: Readonly<Record<string, unknown>>, starts: (() => void)[], facts: unknown) {
    const surroundings: BenchSurroundings = {
      clock: this.#reactor.clock as ManualClock,
      pool: this.pool,
      counters: this.counters,
      guestMac: macBytes(GUEST_MAC),
      queuePairs: 1,
      shared: new Map(),
      ...facts as object,
      wake: () => this.#reactor.wake(),
    };
    const build = (part: unknown, slot: string): unknown => {
      if (Array.isArray(part)) return part.map((one, i) => build(one, `${slot}.${i}`));
      const { plugin, options } = (part ?? {}) as Partial<BenchPart>;
      // Offloads are built by their device.
      if (typeof plugin?.create !== "function" || plugin.kind === "offload") return part;
      const made = plugin.create(
        benchContext(surroundings, plugin, starts, slot),
        completeOptions(plugin, options ?? {}),
      );
      if (typeof made?.[Symbol.dispose] === "function") this.#disposables.push(made);
      return made;
    };
    return Object.fromEntries(Object.entries(parts).map(([slot, part]) => [slot, build(part, slot)]));
  }
}
