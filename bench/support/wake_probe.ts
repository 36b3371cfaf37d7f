/**
 * What one wake of a sleeping process costs on this machine, by `bench/peers/wake.c`: a device outside of
 * QEMU's own process needs one more of them than QEMU's own.
 * @module
 */
import { BuiltPeer } from "./compile.ts";
import { median } from "./statistics.ts";

const WAKES = 100;

/** Measures what it takes to wake a process on another processor. Its program goes with this object. */
export class WakeProbe implements Disposable {
  readonly #peer: BuiltPeer;
  readonly #mediansUs: number[] = [];
  readonly #p99Us: number[] = [];

  private constructor(peer: BuiltPeer) {
    this.#peer = peer;
  }

  /** Throws Error with what is missing: a compiler, or a second processor. */
  static async build(): Promise<WakeProbe> {
    if (navigator.hardwareConcurrency < 2) throw new Error("it takes two processors");
    return new WakeProbe(await BuiltPeer.build({ name: "wake" }));
  }

  /**
   * Wakes a hundred times, every `gapMs`, from the first processor to the second. Throws Error if that fails.
   */
  async sample(gapMs: number): Promise<void> {
    const [medianUs, p99Us] = await this.#peer.run(0, 1, gapMs * 1000, WAKES);
    this.#mediansUs.push(medianUs);
    this.#p99Us.push(p99Us);
  }

  /** The median of a wake and what 99 of 100 do not exceed, in µs: medians of all samples. */
  get wakeUs(): readonly [number, number] {
    return [median(this.#mediansUs), median(this.#p99Us)];
  }

  /** Takes away what was built. */
  [Symbol.dispose](): void {
    this.#peer[Symbol.dispose]();
  }
}
