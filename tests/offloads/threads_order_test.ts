/**
 * A flow that the network moves between the threads of two queue pairs keeps its order: real threads, by
 * chance.
 */
import { assertEquals, assertGreater } from "@std/assert";
import { newClaimMemory } from "../../pipeline/flow_claims.ts";
import { LOG, LOGGED, type PairStart, type PlannedSegment } from "./support/pair_thread.ts";

const SEGMENTS = 1500;

function planned(): PlannedSegment[] {
  let state = 1;
  const random = (
    below: number,
  ) => (state = Math.imul(state, 0x41c64e6d) + 0x3039 | 0, (state >>> 16) % below);
  const next = [1, 1, 1, 1];
  const pairs = [0, 1, 0, 1];
  return Array.from({ length: SEGMENTS }, () => {
    const flow = random(4);
    if (random(4) === 0) pairs[flow] ^= 1;
    const seq = next[flow];
    next[flow] += 100;
    return { flow, pair: pairs[flow], seq, fin: random(10) === 0 };
  });
}

/** How often a packet left before what came before it in its flow. */
async function overtakings(memory: SharedArrayBuffer | null): Promise<number> {
  const shared = new SharedArrayBuffer(4 * (LOG + 2 * SEGMENTS));
  const plan = planned();
  await Promise.all([0, 1].map(async (pair) => {
    const worker = new Worker(new URL("./support/pair_thread.ts", import.meta.url).href, { type: "module" });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    worker.onmessage = () => resolve();
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage({ pair, memory, shared, plan } satisfies PairStart);
    await promise;
    worker.terminate();
  }));
  const words = new Int32Array(shared);
  const latest = new Map<number, number>();
  let count = 0;
  for (let at = LOG; at < LOG + 2 * words[LOGGED]; at += 2) {
    const [port, seq] = words.subarray(at, at + 2);
    if (seq < (latest.get(port) ?? 0)) count++;
    else latest.set(port, seq);
  }
  assertGreater(words[LOGGED], SEGMENTS / 10);
  return count;
}

Deno.test("a flow that moves between the threads of queue pairs is never overtaken by itself", async () => {
  assertEquals(await overtakings(newClaimMemory()), 0);
  assertGreater(await overtakings(null), 20, "without claims it is, so that this test sees it");
});
