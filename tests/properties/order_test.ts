import { assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { rscV6 } from "../../offloads/rsc_v6.ts";
import { StageBench } from "../../testing/mod.ts";
import { conserve } from "../../testing/vectors/conservation.ts";
import type { ConservedInput, ConservedOutput } from "../../testing/vectors/merged_packet.ts";
import { anyStream, NASTY } from "./support/arbitraries.ts";
import { type FrameKind, type Step, waitNs } from "./support/scenario.ts";
import { SEED, TIMES } from "./support/settings.ts";
import { Traffic } from "./support/traffic.ts";

/**
 * Strict order of a connection, in every form of its frames and over queue pairs between which it moves, in
 * streams by chance.
 *
 * Between two receive queues a guest sees no order. So this looks at the end of the stages, where all pairs
 * leave one by one: `conserve()` judges the outputs as if there were one queue. `FUZZ_SEED` runs other
 * streams, `FUZZ_TIMES` more of them.
 */

const PAIRS = 3;
const INTERVAL_NS = 300_000;

/**
 * What is wrong with a stream, and how many of its frames came on another pair than those of their flow
 * before.
 */
function run(steps: readonly Step[]): { violations: string[]; moves: number; merged: number } {
  const stages = [rscV4, rscV6];
  using bench = new StageBench(stages, { rules: "strict", queuePairs: PAIRS, explain: false });
  const traffic = new Traffic();
  const pairOf = new Map<number, number>();
  const inputs: ConservedInput[] = [];
  let moves = 0;
  for (const [kind, flow, size, time, detail] of steps) {
    const byNs = waitNs(time, INTERVAL_NS);
    if (byNs > 0) bench.advanceTo(bench.clock.nowNs() + byNs);
    let queue = pairOf.get(flow) ?? flow % PAIRS;
    if ((detail >>> 24 & 7) === 7) {
      queue = (queue + 1) % PAIRS;
      moves++;
    }
    pairOf.set(flow, queue);
    for (const { bytes, header } of traffic.frames(kind as FrameKind, flow, size, detail)) {
      inputs.push({ atNs: bench.clock.nowNs(), bytes, header, ecn: false });
      bench.feed(bytes, { header, queuePair: queue });
    }
  }
  bench.advanceTo(bench.clock.nowNs() + INTERVAL_NS);
  const outputs = bench.out.map(({ atNs, bytes, header }): ConservedOutput => {
    const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = header;
    const hdr = { flags, gso_type: gsoType, hdr_len: hdrLen, gso_size: gsoSize, num_buffers: 1 };
    return { atNs, bytes, hdr: { ...hdr, csum_start: csumStart, csum_offset: csumOffset } };
  });
  const { violations } = conserve(inputs, outputs, { intervalNs: INTERVAL_NS, rscInfo: true });
  return { violations, moves, merged: inputs.length - outputs.length };
}

Deno.test(`both chains keep the order of every connection, whatever its forms and pairs (seed ${SEED})`, () => {
  let moves = 0;
  let merged = 0;
  const stream = anyStream({ ...NASTY, vlan: 12, form: 8, ipOptions: 6, fragment: 5 });
  fc.assert(
    fc.property(stream, (steps) => {
      const report = run(steps);
      moves += report.moves;
      merged += report.merged;
      assertEquals(report.violations, []);
    }),
    { seed: SEED, numRuns: 2000 * TIMES },
  );
  assertGreater(moves, 2000);
  assertGreater(merged, 2000);
});
