import { assert, assertEquals, assertThrows } from "@std/assert";
import { ManualClock, SystemClock } from "../../core/clock.ts";

Deno.test("ManualClock stands still until it is moved", () => {
  const clock = new ManualClock(5);
  assertEquals([clock.nowNs(), clock.nowNs()], [5, 5]);
  clock.advanceTo(5);
  clock.advanceTo(300_000);
  assertEquals(clock.nowNs(), 300_000);
});

Deno.test("ManualClock.advanceTo() refuses the past and what is no time, and stays", () => {
  const clock = new ManualClock(100);
  for (const nowNs of [99, -1, NaN, Infinity, -Infinity]) {
    assertThrows(() => clock.advanceTo(nowNs), RangeError, `Cannot set the clock from 100 ns to ${nowNs} ns`);
  }
  assertEquals(clock.nowNs(), 100);
});

Deno.test("SystemClock counts whole nanoseconds and never goes back", async () => {
  const clock = new SystemClock();
  const start = performance.now();
  const before = clock.nowNs();
  await new Promise((resolve) => setTimeout(resolve, 20));
  const passedMs = (clock.nowNs() - before) / 1e6;
  const maxMs = performance.now() - start + 0.01;
  assert(Number.isInteger(before));
  assert(passedMs >= 19 && passedMs <= maxMs, `${passedMs} ms of at least 20 and at most ${maxMs}`);
  let last = clock.nowNs();
  for (let i = 0; i < 1000; i++) {
    const now = clock.nowNs();
    assert(now >= last);
    last = now;
  }
});
