import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess } from "@std/assert";
import { FlowClaims, newClaimMemory } from "../../pipeline/flow_claims.ts";

/** So long that a busy host does not take as long for nothing. */
const LIMIT_MS = 300;
const KEY = Int32Array.of(1, 2, 3);
const OTHER = Int32Array.of(1, 2, 4);

function timed(action: () => void): number {
  const from = performance.now();
  action();
  return performance.now() - from;
}

Deno.test("FlowClaims: what is claimed is free again when it was released and settled, and not before", () => {
  const memory = newClaimMemory();
  const [a, b] = [0, 1].map((pair) => new FlowClaims(memory, pair, LIMIT_MS));
  const slot = a.claim(KEY, 3, 0);
  assertGreaterOrEqual(slot, 0);
  assertEquals(timed(() => b.pass(OTHER, 3, 0)) < LIMIT_MS, true, "another flow is not waited for");
  a.release(slot);
  // Twice by one pair: a packet of the flow leaves, and the next one is opened in the same round.
  assertEquals(a.claim(KEY, 3, 0), slot);
  a.settle();
  assertGreaterOrEqual(timed(() => b.pass(KEY, 3, 0)), LIMIT_MS);
  assertGreaterOrEqual(a.claim(KEY, 3, 7), 0, "the salt makes other flows");
});

Deno.test("FlowClaims: a claim that is not released is waited for once, and then taken away", () => {
  const memory = newClaimMemory();
  const [a, b, c] = [0, 1, 2].map((pair) => new FlowClaims(memory, pair, LIMIT_MS));
  const slot = a.claim(KEY, 3, 0);
  assertEquals(a.takeWanted(), false);
  assertGreaterOrEqual(timed(() => assertEquals(b.claim(KEY, 3, 0), slot)), LIMIT_MS);
  assertEquals([a.takeWanted(), a.takeWanted(), b.takeWanted()], [true, false, false]);
  assertLess(timed(() => b.claim(KEY, 3, 0)), LIMIT_MS);
  a.release(slot);
  a.settle();
  assertGreaterOrEqual(
    timed(() => c.pass(KEY, 3, 0)),
    5,
    "the late release of the first owner frees nothing",
  );
  assertLess(timed(() => c.pass(KEY, 3, 0)), LIMIT_MS);
});

Deno.test("FlowClaims: two flows of one word are never claimed together, and do not wait for each other", () => {
  const memory = newClaimMemory();
  const [a, b] = [0, 1].map((pair) => new FlowClaims(memory, pair, 1000));
  const slots = new Map<number, number>();
  let refused = 0;
  for (let flow = 0; flow < 3000; flow++) {
    const [claims, words] = [flow % 2 === 0 ? a : b, Int32Array.of(flow, 7, 9)];
    const slot = claims.claim(words, 3, 0);
    if (slot < 0) refused++;
    else assertEquals(slots.has(slot), false);
    if (slot >= 0) slots.set(slot, flow);
  }
  assertGreater(refused, 5);
  assertLess(refused, 300);
});

Deno.test("FlowClaims: a thread waits until the other one has shown what it holds", async () => {
  const memory = newClaimMemory();
  const steps = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL("../core/support/claim_holder.ts", import.meta.url).href, {
    type: "module",
  });
  const ended = new Promise((done) => worker.onmessage = done);
  worker.postMessage({ memory, steps: steps.buffer, key: KEY });
  assertEquals(Atomics.wait(steps, 0, 0, 60_000) === "timed-out", false, "the thread begins");
  const claims = new FlowClaims(memory, 0, 60_000);
  assertGreaterOrEqual(claims.claim(KEY, 3, 0), 0);
  assertEquals(Atomics.load(steps, 1), 1, "it was shown before the claim was free");
  await ended;
  worker.terminate();
  assert(claims.takeWanted() === false);
});

Deno.test("FlowClaims: a frame that was passed on is waited for until it is shown to the guest", () => {
  const memory = newClaimMemory();
  const [a, b] = [0, 1].map((pair) => new FlowClaims(memory, pair, LIMIT_MS));
  a.pass(KEY, 3, 0);
  assertGreaterOrEqual(timed(() => b.pass(KEY, 3, 0)), LIMIT_MS);
  b.settle();
  a.pass(KEY, 3, 0);
  a.settle();
  assertLess(timed(() => b.claim(KEY, 3, 0)), LIMIT_MS);
});
