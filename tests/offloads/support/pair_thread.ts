/**
 * A thread with a strict chain, as that of a queue pair. The network is a shared number: segment `i` is for
 * the thread that `plan` says, which takes it when the number is `i`, and then the next one arrives. What
 * leaves is written into a shared log.
 * @module
 */
import { newFramePool } from "../../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { FlowClaims } from "../../../pipeline/flow_claims.ts";
import { rscV4 } from "../../../offloads/rsc_v4.ts";
import { StageBench, tcp } from "../../../testing/mod.ts";

/** What a thread begins with. */
export interface PairStart {
  readonly pair: number;
  /** The claims of all threads; null: each holds for itself. */
  readonly memory: SharedArrayBuffer | null;
  readonly shared: SharedArrayBuffer;
  readonly plan: readonly PlannedSegment[];
}

/** One segment of a plan. */
export interface PlannedSegment {
  readonly flow: number;
  readonly pair: number;
  readonly seq: number;
  readonly fin: boolean;
}

/**
 * In the shared memory: which segment is next, how many are logged; then the log: flow and sequence number.
 */
export const NEXT = 0;
export const LOGGED = 1;
export const LOG = 2;

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<PairStart>) => void;
  postMessage(message: null): void;
};

const nothing = new Int32Array(new SharedArrayBuffer(4));

scope.onmessage = ({ data: { pair, memory, shared, plan } }) => {
  const words = new Int32Array(shared);
  const claims = memory === null ? undefined : new FlowClaims(memory, pair, 60_000);
  const options = { intervalUs: 300, maxFlows: 64, maxSegments: 8, flushOnPush: false, timestamps: true };
  // In an arena, so that the kernel takes part.
  const pool = newFramePool(2 ** 23);
  using bench = new StageBench({
    name: "rsc-v4",
    stage: rscV4.create({
      name: "rsc-v4",
      direction: "toGuest",
      pool,
      queuePairs: 2,
      network: OffloadCapabilities.none,
      claims,
      verdicts: null,
      publish: (counters) => counters,
    }, options),
  }, { explain: false, pool });
  const publish = () => {
    for (const { bytes } of bench.out.splice(0)) {
      const at = Atomics.add(words, LOGGED, 1);
      words[LOG + 2 * at] = portOf(bytes);
      words[LOG + 2 * at + 1] = sequenceOf(bytes);
    }
    claims?.settle();
  };
  const from = performance.now();
  for (let next = Atomics.load(words, NEXT); next < plan.length; next = Atomics.load(words, NEXT)) {
    bench.advanceTo(Math.round((performance.now() - from) * 1e6));
    if (claims?.takeWanted() === true) bench.pipeline.drain(bench.clock.nowNs());
    const { flow, seq, fin, pair: whose } = plan[next];
    if (whose === pair) {
      bench.feed(tcp({ sourcePort: 1 + flow, seq, payload: 100, flags: fin ? ["ACK", "FIN"] : ["ACK"] }));
      // What passes alone belongs to no claim. That the threads of two queues show such frames in the order
      // of their arrival, no device promises; here it would be taken for an overtaking.
      const own = bench.out.filter(({ bytes }) => portOf(bytes) === 1 + flow);
      if (own.length === 1 && sequenceOf(own[0].bytes) === seq) publish();
      Atomics.store(words, NEXT, next + 1);
      Atomics.notify(words, NEXT);
      // As if preempted before what has left the stage is shown.
      if (next % 8 === 0) Atomics.wait(nothing, 0, 0, 1);
    } else Atomics.wait(words, NEXT, next, 0.1);
    publish();
  }
  while (bench.pipeline.deadlineNs() !== Infinity) {
    bench.pipeline.drain(bench.clock.nowNs());
    publish();
  }
  scope.postMessage(null);
};

function portOf(frame: Uint8Array<ArrayBuffer>): number {
  return new DataView(frame.buffer).getUint16(34);
}

function sequenceOf(frame: Uint8Array<ArrayBuffer>): number {
  return new DataView(frame.buffer).getInt32(38);
}
