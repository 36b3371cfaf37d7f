/**
 * The coalescer alone: `deno bench bench/rsc_bench.ts`, or `deno task bench:rsc` for a table in ns per segment.
 *
 * Segments of 1448 bytes, in order, round robin over the flows, 256 of them an iteration. Making them (a copy of 1514 bytes
 * into a fresh frame, as a read from the network would do) is not timed; holding, merging, finishing and giving back is. All
 * units leave after every 64 segments a flow, or when they are full, as in the figures of the reference.
 *
 * @module
 */
import { newFramePool } from "../config/frame_memory.ts";
import { FeatureSet } from "../core/features.ts";
import { FrameBatch } from "../core/frame_batch.ts";
import type { RuleBook, Stage } from "../core/stage.ts";
import type { OffloadPlugin } from "../core/plugin.ts";
import { rscV4 } from "../offloads/rsc_v4.ts";
import { rscV6 } from "../offloads/rsc_v6.ts";
import type { RscOptions } from "../offloads/rsc_chain/options.ts";
import { tcpFrame } from "./tcp_frame.ts";

/** Segments an iteration. */
export const SEGMENTS = 64;
const PAYLOAD_BYTES = 1448;
/** Segments a flow between two purges: 64 as with the reference, 8 to keep what is held in the caches. */
const PURGES = [64, 8];

const OPTIONS: RscOptions = {
  intervalUs: 1e6,
  mostFlows: 65_536,
  mostSegments: 65_535,
  flushOnPush: false,
  timestamps: true,
};

/** Makes segments and runs them through one stage. */
class Coalescing {
  readonly #pool = newFramePool(1024 * 1024 * 1024);
  readonly #input = new FrameBatch(SEGMENTS);
  readonly #output = new FrameBatch(SEGMENTS);
  readonly #stage: Stage;
  readonly #flows: ReturnType<typeof tcpFrame>[];
  readonly #purgeAfter: number;
  #next = 0;
  #sinceFlush = 0;

  constructor(plugin: OffloadPlugin<RscOptions>, rules: RuleBook, flows: number, purge: number) {
    this.#purgeAfter = purge * flows;
    this.#stage = plugin.create({
      name: plugin.name,
      direction: "toGuest",
      pool: this.#pool,
      rules,
      queuePairs: 1,
      network: { partialChecksum: false, largeTcp: false, largeUdp: false },
      verdicts: null,
      publish: (counters) => counters,
    }, OPTIONS);
    const features = FeatureSet.of(1, 7, 8, 61);
    this.#stage.negotiated?.({ features, offloads: features }, this.#output, 0);
    const family = plugin === rscV4 ? "v4" : "v6";
    this.#flows = Array.from({ length: flows }, (_, flow) => tcpFrame(family, flow, PAYLOAD_BYTES));
  }

  /** Makes the next segments; what a network transport would do. */
  fill(): void {
    for (let i = 0; i < SEGMENTS; i++) {
      const flow = this.#flows[this.#next];
      this.#next = (this.#next + 1) % this.#flows.length;
      const frame = this.#pool.takeCopy(flow.bytes)!;
      flow.advance(PAYLOAD_BYTES);
      this.#input.push(frame);
    }
  }

  /** Coalesces them. */
  run(): void {
    this.#stage.process(this.#input, this.#output, 0);
    this.#input.clear();
    this.#sinceFlush += SEGMENTS;
    if (this.#sinceFlush >= this.#purgeAfter) {
      this.#sinceFlush = 0;
      this.#stage.flush!(this.#output, Infinity);
    }
    this.#output.releaseAll();
  }
}

for (const plugin of [rscV4, rscV6]) {
  for (const rules of ["qemu", "strict"] as const) {
    for (const purge of PURGES) {
      for (const flows of [1, 8, 64, 512, 4096]) {
        let coalescing: Coalescing | null = null;
        Deno.bench({
          name: `${plugin.name} ${rules} ${purge}, ${flows} flows`,
          group: `${plugin.name} ${rules}, purge after ${purge} a flow`,
          warmup: 200,
          n: 2000,
          fn(b) {
            coalescing ??= new Coalescing(plugin, rules, flows, purge);
            coalescing.fill();
            b.start();
            coalescing.run();
            b.end();
          },
        });
      }
    }
  }
}

const source = new Uint8Array(PAYLOAD_BYTES).fill(7);
const target = new Uint8Array(SEGMENTS * PAYLOAD_BYTES);

// What the machine is worth at this moment: compare with nothing else.
Deno.bench({
  name: "memcpy",
  group: "yardstick",
  fn() {
    for (let i = 0; i < SEGMENTS; i++) target.set(source, i * PAYLOAD_BYTES);
  },
});
