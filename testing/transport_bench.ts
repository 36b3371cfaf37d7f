/**
 * A bench for networks: one network transport, without a device or a guest, by a manual clock.
 *
 * Theory of operation. `send` offers frames as a device does and says how many were taken: the network keeps
 * or releases those, the bench releases the rest. `receive` takes what has arrived. `advanceTo` stops at
 * every deadline on the way. What a network must not do with frames is an error at once (PluginError). At its
 * end, or by `close`, the bench disposes of the network and asserts that every frame is back in the pool.
 *
 * @module
 */
import { ManualClock } from "../core/clock.ts";
import { isPollable, Reactor } from "../core/reactor.ts";
import { FrameBatch } from "../pipeline/frame.ts";
import { FramePool } from "../pipeline/frame_pool.ts";
import type { FrameTransport } from "../pipeline/frame_transport.ts";
import { checkNetwork, guardNetwork } from "../pipeline/kinds.ts";
import type { OffloadCapabilities } from "../pipeline/offload_capabilities.ts";
import type { NetworkPlugin } from "../pipeline/plugin.ts";
import { benchContext, completeOptions, delivered, newFrame } from "./bench_parts.ts";
import { assertPoolWhole, type Delivered, type FrameFacts, type FrameSource } from "./matchers.ts";
import { GUEST_MAC, macBytes } from "./packets.ts";

/** How a transport bench is set up. */
export interface TransportBenchSettings {
  /** The plugin. */
  // deno-lint-ignore no-explicit-any -- plugins of any options
  readonly plugin: NetworkPlugin<any>;
  /** Its options as written; default `{}`. What it wraps stands there as `{ plugin, options }`. */
  readonly options?: unknown;
  /** The MAC address of the guest, six bytes; default {@linkcode GUEST_MAC}. */
  readonly guestMac?: Uint8Array;
  /** Queue pairs of the device; default 1. */
  readonly queuePairs?: number;
  /** Where frames come from; default a pool of the bench's own. */
  readonly pool?: FramePool;
  /**
   * What networks of one machine share, by key: give several benches the same map to put their networks on
   * one cable. Default a map of the bench's own.
   */
  readonly shared?: Map<string, unknown>;
}

const MAX_BATCH_FRAMES = 64;

/**
 * Moves frames through a network.
 *
 * @example
 * ```ts
 * import { loopback } from "../mod.ts";
 * import { tcp } from "./packets.ts";
 * import { TransportBench } from "./transport_bench.ts";
 *
 * await using bench = new TransportBench({ plugin: loopback });
 * if (bench.send(tcp()) !== 1 || bench.receive().length !== 0) throw new Error("unreachable");
 * ```
 */
export class TransportBench implements AsyncDisposable {
  /** The network itself; frames should pass through `send` and `receive` of the bench, which look at them. */
  readonly transport: FrameTransport;
  /** Where frames come from. */
  readonly pool: FramePool;
  /** Counters by group, live: the network's own have the name of its plugin. */
  readonly counters: Record<string, Record<string, number>> = {};
  readonly #reactor = new Reactor(new ManualClock());
  readonly #guarded: FrameTransport;
  readonly #batch = new FrameBatch();
  #numbers = 0;
  #isClosed = false;

  /**
   * Opens the network, with a guest that takes nothing unfinished. Throws TypeError for wrong options and a
   * wrong shape, and what `create` throws.
   */
  constructor({ plugin, options = {}, guestMac, queuePairs, pool, shared }: TransportBenchSettings) {
    this.pool = pool ?? new FramePool();
    const starts: (() => void)[] = [];
    const context = benchContext(
      {
        clock: this.#reactor.clock as ManualClock,
        pool: this.pool,
        counters: this.counters,
        guestMac: guestMac ?? macBytes(GUEST_MAC),
        queuePairs: queuePairs ?? 1,
        shared: shared ?? new Map(),
        wake: () => this.#reactor.wake(),
      },
      plugin,
      starts,
    );
    const complete = completeOptions(plugin, options);
    this.transport = plugin.create(context, complete);
    checkNetwork(this.transport);
    this.#guarded = guardNetwork(
      this.transport,
      { plugin, options: complete, path: context.path, inner: [] },
      this.pool,
    );
    if (isPollable(this.transport)) this.#reactor.add(this.transport);
    for (const start of starts) start();
    this.guest(true);
    this.settle();
  }

  /** The present time, in ns. */
  get nowNs(): number {
    return this.#reactor.clock.nowNs();
  }

  /** A guest has come, or has gone. */
  guest(present: boolean): void {
    this.transport.hasGuest?.(present);
  }

  /** The guest takes this unfinished from now on. */
  accept(capabilities: OffloadCapabilities): void {
    this.transport.guestCapabilities?.(capabilities);
  }

  /**
   * Offers frames in order, all under this header, and returns how many were taken; the rest are released.
   * @throws {RangeError} for more frames than a device offers at once (64), or than the pool has
   * @throws {PluginError} if the network breaks its contract
   */
  send(
    sources: FrameSource | readonly FrameSource[],
    facts: Pick<FrameFacts, "header" | "queuePair"> = {},
  ): number {
    const { queuePair = 0 } = facts;
    const all = (Array.isArray(sources) ? sources : [sources]) as readonly FrameSource[];
    if (all.length > MAX_BATCH_FRAMES) {
      throw new RangeError(
        `Cannot offer ${all.length} frames at once: a device offers ${MAX_BATCH_FRAMES} at most`,
      );
    }
    try {
      for (const source of all) {
        this.#batch.push(newFrame(this.pool, source, { ...facts, number: ++this.#numbers }));
      }
    } catch (cause) {
      this.#batch.releaseAll();
      throw cause;
    }
    const taken = this.#guarded.send(this.#batch, queuePair, this.nowNs);
    this.#batch.dropFirst(taken);
    this.#batch.releaseAll();
    this.settle();
    return taken;
  }

  /**
   * Takes up to `limit` frames that have arrived, by default all, and releases them. PluginError as for
   * `send`.
   */
  receive(limit = Infinity, queuePair = 0): Delivered[] {
    const out: Delivered[] = [];
    this.settle();
    while (out.length < limit) {
      const atNs = this.nowNs;
      const count = this.#guarded.receive(
        this.#batch,
        Math.min(limit - out.length, MAX_BATCH_FRAMES),
        queuePair,
        atNs,
      );
      for (let i = 0; i < this.#batch.length; i++) out.push(delivered(this.#batch.at(i), atNs));
      this.#batch.releaseAll();
      if (count === 0) break;
    }
    return out;
  }

  /** Has the network do what it has to do by itself, without moving the time. */
  settle(): void {
    this.#reactor.settle();
  }

  /** Moves the time on; what is due at `nowNs` has happened when this returns. */
  advanceTo(nowNs: number): void {
    this.#reactor.advanceTo(nowNs);
  }

  /**
   * Completes what the network was writing, disposes of it, and asserts that every frame is back. May be
   * called twice.
   */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.guest(false);
    await this.transport.close?.();
    this.transport[Symbol.dispose]();
    assertPoolWhole(this.pool);
  }

  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
