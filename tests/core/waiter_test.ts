import { assert, assertEquals } from "@std/assert";
import { SystemClock } from "../../core/clock.ts";
import { CoarseWaiter, Reactor, type Waiter } from "../../core/reactor.ts";
import type { Pollable } from "../../core/reactor.ts";

const MS = 1_000_000;

/** Notes what it is asked, and sleeps until it is told to stop. */
class NotedWaiter implements Waiter {
  readonly asked: number[] = [];
  wakes = 0;
  atOnce = false;
  #wakeUp: (() => void) | null = null;

  wait(untilNs: number): Promise<void> | void {
    this.asked.push(untilNs);
    if (!this.atOnce) return new Promise((resolve) => this.#wakeUp = resolve);
  }

  wake(): void {
    this.wakes++;
    this.#wakeUp?.();
    this.#wakeUp = null;
  }

  [Symbol.dispose](): void {}
}

function idle(deadlineNs = Infinity): Pollable & { polls: number } {
  return {
    polls: 0,
    poll(): boolean {
      this.polls++;
      return false;
    },
    deadlineNs: () => deadlineNs,
  };
}

function turns(count: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, count));
}

Deno.test("CoarseWaiter.wait() returns by the deadline, not before it and not much after", async () => {
  const clock = new SystemClock();
  using waiter = new CoarseWaiter();
  const untilNs = clock.nowNs() + 10 * MS;
  while (clock.nowNs() < untilNs) await waiter.wait(untilNs, clock.nowNs());
  assert(clock.nowNs() < untilNs + 50 * MS, `${(clock.nowNs() - untilNs) / MS} ms late`);
});

Deno.test("CoarseWaiter.wake() ends a sleep that would last for ever", async () => {
  using waiter = new CoarseWaiter();
  const sleep = waiter.wait(Infinity, 0);
  waiter.wake();
  await sleep;
  waiter.wake();
});

Deno.test("CoarseWaiter ends its sleep when it is disposed of", async () => {
  const waiter = new CoarseWaiter();
  const sleep = waiter.wait(Infinity, 0);
  waiter[Symbol.dispose]();
  await sleep;
});

Deno.test("Reactor.run() sleeps by its waiter until the earliest deadline", async () => {
  const reactor = new Reactor(new SystemClock());
  const waiter = new NotedWaiter();
  reactor.waiter = waiter;
  assertEquals(reactor.waiter, waiter);
  reactor.add(idle(1e15));
  reactor.add(idle(2e15));
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  await turns(1);
  assertEquals(waiter.asked, [1e15]);
  reactor.wake();
  await turns(1);
  assertEquals(waiter.asked, [1e15, 1e15]);
  stop.abort();
  await running;
  assertEquals(waiter.wakes, 2);
});

Deno.test("Reactor.run() goes on by another waiter when it is given one in its sleep", async () => {
  const reactor = new Reactor(new SystemClock());
  const [first, second] = [new NotedWaiter(), new NotedWaiter()];
  reactor.waiter = first;
  reactor.add(idle());
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  await turns(1);
  reactor.waiter = second;
  await turns(1);
  assertEquals([first.asked, second.asked], [[Infinity], [Infinity]]);
  stop.abort();
  await running;
});

Deno.test("Reactor.run() lets the event loop turn although its waiter never sleeps", async () => {
  const reactor = new Reactor(new SystemClock());
  const waiter = new NotedWaiter();
  waiter.atOnce = true;
  reactor.waiter = waiter;
  const member = idle();
  reactor.add(member);
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 5);
  await reactor.run(stop.signal);
  assert(member.polls > 32, `${member.polls} rounds`);
});

Deno.test("Reactor.run() does not sleep when it was woken in the round before", async () => {
  const reactor = new Reactor(new SystemClock());
  const waiter = new NotedWaiter();
  reactor.waiter = waiter;
  let polls = 0;
  reactor.add({
    poll: () => {
      if (++polls < 5) reactor.wake();
      return false;
    },
    deadlineNs: () => Infinity,
  });
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  await turns(1);
  assertEquals([polls, waiter.asked.length], [5, 1]);
  stop.abort();
  await running;
});
