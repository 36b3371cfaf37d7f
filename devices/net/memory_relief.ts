/**
 * Lets held units go before their time when memory for frames runs out.
 *
 * Theory of operation. The pool counts whom it has refused a frame, be it this device or anybody else with the same pool. A
 * refusal that was not seen yet calls for relief: everything that is held leaves, both ways. Whoever polls after the device
 * may be refused as well, so that a refusal also makes the device due at once (`isWanted`). If that helped nobody, because
 * as many frames are out of the pool as after the last relief, the device is not due again: those frames are not held here.
 * Once a second a stage is looked for that has most of them although it has let everything go: it keeps them for ever.
 *
 * @module
 */
import type { FramePool } from "../../core/frame_pool.ts";
import type { Pipeline } from "../../core/pipeline.ts";

/** Time between two looks at who has the frames, in ns: every frame is looked at. */
const LOOK_INTERVAL_NS = 1_000_000_000;

/** Relief for one pool by what one device holds. */
export class MemoryRelief {
  readonly #pool: FramePool;
  readonly #toGuest: Pipeline;
  readonly #fromGuest: Pipeline;
  readonly #counters: Record<"flushed_for_memory", number>;
  #refusalsSeen = 0;
  /** Frames that were out of the pool after the last relief. */
  #outWhenRelieved = -1;
  #lookedNs = -Infinity;

  /** Watches `pool`. @param toGuest and @param fromGuest are what holds units; @param counters where relief is counted */
  constructor(
    pool: FramePool,
    toGuest: Pipeline,
    fromGuest: Pipeline,
    counters: Record<"flushed_for_memory", number>,
  ) {
    this.#pool = pool;
    this.#toGuest = toGuest;
    this.#fromGuest = fromGuest;
    this.#counters = counters;
  }

  /** Does somebody want a frame? Not one who wants it in vain, and did so before. */
  get isWanted(): boolean {
    return this.#pool.refusals !== this.#refusalsSeen && this.#pool.inUse !== this.#outWhenRelieved;
  }

  /** Lets held units go, if the pool has refused somebody a frame. True if any could. Throws GuestError and PluginError. */
  relieve(nowNs: number): boolean {
    const { refusals } = this.#pool;
    if (refusals === this.#refusalsSeen) return false;
    this.#refusalsSeen = refusals;
    let did = false;
    if (this.#toGuest.deadlineNs() !== Infinity || this.#fromGuest.deadlineNs() !== Infinity) {
      this.#counters.flushed_for_memory++;
      const toGuest = this.#toGuest.drain(nowNs);
      const fromGuest = this.#fromGuest.drain(nowNs);
      this.#outWhenRelieved = this.#pool.inUse;
      did = toGuest || fromGuest;
    }
    if (nowNs - this.#lookedNs >= LOOK_INTERVAL_NS) {
      this.#lookedNs = nowNs;
      this.#toGuest.refuseHoarders();
      this.#fromGuest.refuseHoarders();
    }
    return did;
  }
}
