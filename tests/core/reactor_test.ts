import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ManualClock, SystemClock } from "../../core/clock.ts";
import { type LookedFor, type Pollable, PollTime, Reactor, type Waiter } from "../../core/reactor.ts";
import type { Clock } from "../../core/clock.ts";

/** Is due at the times it was given, and notes when it was served. */
class Alarm implements Pollable {
  readonly servedNs: number[] = [];
  readonly #dueNs: number[];

  constructor(...dueNs: number[]) {
    this.#dueNs = dueNs;
  }

  poll(nowNs: number): boolean {
    if (this.#dueNs.length === 0 || this.#dueNs[0] > nowNs) return false;
    this.#dueNs.shift();
    this.servedNs.push(nowNs);
    return true;
  }

  deadlineNs(): number {
    return this.#dueNs[0] ?? Infinity;
  }
}

/** Has `work` rounds to do, and never a deadline. */
class Worker implements Pollable {
  polls = 0;
  work: number;
  onPoll: () => void = () => {};

  constructor(work: number) {
    this.work = work;
  }

  poll(): boolean {
    this.polls++;
    this.onPoll();
    if (this.work === 0) return false;
    this.work--;
    return true;
  }

  deadlineNs(): number {
    return Infinity;
  }
}

const ENDLESS: Pollable = { poll: () => true, deadlineNs: () => Infinity };
const ALWAYS_DUE: Pollable = { poll: () => false, deadlineNs: () => 10 };

function manual(...members: Pollable[]): Reactor {
  const reactor = new Reactor(new ManualClock());
  for (const member of members) reactor.add(member);
  return reactor;
}

function real(...members: Pollable[]): Reactor {
  const reactor = new Reactor(new SystemClock());
  for (const member of members) reactor.add(member);
  return reactor;
}

Deno.test("Reactor.turn() polls every member once, in order, and says whether one did something", () => {
  const order: string[] = [];
  const member = (name: string, did: boolean): Pollable => ({
    poll: (nowNs) => {
      order.push(`${name}@${nowNs}`);
      return did;
    },
    deadlineNs: () => Infinity,
  });
  const reactor = manual(member("a", false), member("b", true), member("c", false));
  assertEquals(reactor.turn(), true);
  assertEquals(order, ["a@0", "b@0", "c@0"]);
  assertEquals(manual(member("d", false)).turn(), false);
  assertEquals(manual().turn(), false);
});

Deno.test("Reactor reads the clock once a round", () => {
  let reads = 0;
  const reactor = new Reactor({ nowNs: () => ++reads });
  const seen: number[] = [];
  for (let i = 0; i < 3; i++) {
    reactor.add({ poll: (nowNs) => seen.push(nowNs) < 0, deadlineNs: () => Infinity });
  }
  reactor.turn();
  reactor.turn();
  assertEquals([seen, reads], [[1, 1, 1, 2, 2, 2], 2]);
});

Deno.test("Reactor.settle() turns until no part does anything, and does not move the clock", () => {
  const [one, two] = [new Worker(3), new Worker(5)];
  const reactor = manual(one, two, new Alarm(100));
  reactor.settle();
  assertEquals([one.polls, two.polls, reactor.clock.nowNs()], [6, 6, 0]);
});

Deno.test("Reactor.deadlineNs() is the earliest of all members", () => {
  assertEquals(manual(new Alarm(7), new Alarm(3), new Worker(0)).deadlineNs(), 3);
  assertEquals(manual().deadlineNs(), Infinity);
});

Deno.test("Reactor.advanceTo() stops at every deadline on the way, and at its end", () => {
  const [one, two] = [new Alarm(100, 250, 251, 900), new Alarm(50, 250)];
  const reactor = manual(one, two);
  reactor.advanceTo(251);
  assertEquals([one.servedNs, two.servedNs], [[100, 250, 251], [50, 250]]);
  assertEquals(reactor.clock.nowNs(), 251);
  reactor.advanceTo(899);
  assertEquals([one.servedNs.length, reactor.clock.nowNs()], [3, 899]);
  reactor.advanceTo(900);
  assertEquals(one.servedNs, [100, 250, 251, 900]);
});

Deno.test("Reactor.advanceTo() serves what is overdue at the present moment", () => {
  const alarm = new Alarm(10, 20);
  const reactor = new Reactor(new ManualClock(500));
  reactor.add(alarm);
  reactor.advanceTo(400);
  assertEquals([alarm.servedNs, reactor.clock.nowNs()], [[500, 500], 500]);
});

Deno.test("Reactor.advanceTo() serves a deadline that arises on the way", () => {
  const late = new Alarm();
  const early = new Alarm(100);
  const reactor = manual(
    {
      poll: (nowNs) => {
        if (nowNs !== 100 || late.servedNs.length > 0 || late.deadlineNs() !== Infinity) return false;
        (late as unknown as { poll: (nowNs: number) => boolean }).poll = (now) => {
          if (now < 130 || late.servedNs.length > 0) return false;
          late.servedNs.push(now);
          return true;
        };
        late.deadlineNs = () => late.servedNs.length > 0 ? Infinity : 130;
        return true;
      },
      deadlineNs: () => Infinity,
    },
    early,
    late,
  );
  reactor.advanceTo(1000);
  assertEquals([early.servedNs, late.servedNs], [[100], [130]]);
});

Deno.test("Reactor refuses to move another clock than a manual one, or to no time", async () => {
  const reactor = real();
  assertThrows(() => reactor.advanceTo(5), TypeError, "it was not built with a manual one");
  await assertRejects(() => reactor.runToEnd(), TypeError, "it was not built with a manual one");
  for (const nowNs of [Infinity, NaN]) {
    assertThrows(() => manual().advanceTo(nowNs), RangeError, `Cannot advance to ${nowNs} ns`);
  }
});

Deno.test("Reactor reports a member that always has something to do, instead of hanging", async () => {
  const problem = "The machine does not settle: after 2000000 rounds at 0 ns";
  assertThrows(() => manual(ENDLESS).settle(), Error, problem);
  assertThrows(() => manual(ENDLESS).advanceTo(100), Error, problem);
  await assertRejects(() => manual(ENDLESS).runToEnd(), Error, problem);
});

Deno.test("Reactor reports a member that is always due and does nothing, instead of hanging", async () => {
  assertThrows(() => manual(ALWAYS_DUE).advanceTo(100), Error, "rounds at 10 ns");
  await assertRejects(() => manual(ALWAYS_DUE).runToEnd(), Error, "rounds at 10 ns");
});

Deno.test("Reactor.runToEnd() moves from deadline to deadline until none is left", async () => {
  const [one, two] = [new Alarm(100, 5_000_000_000), new Alarm(70)];
  const reactor = manual(one, two);
  await reactor.runToEnd();
  assertEquals([one.servedNs, two.servedNs], [[100, 5_000_000_000], [70]]);
  assertEquals(reactor.clock.nowNs(), 5_000_000_000);
});

Deno.test("Reactor.runToEnd() lets the event loop turn, so that it can be aborted", async () => {
  const stop = new AbortController();
  let nextNs = 0;
  const ticking: Pollable = {
    poll: (nowNs) => {
      if (nowNs < nextNs) return false;
      nextNs = nowNs + 10;
      return true;
    },
    deadlineNs: () => nextNs,
  };
  setTimeout(() => stop.abort(), 5);
  const reactor = manual(ticking);
  await reactor.runToEnd(stop.signal);
  assert(reactor.clock.nowNs() > 1000);
  const before = reactor.clock.nowNs();
  await reactor.runToEnd(stop.signal);
  assertEquals(reactor.clock.nowNs(), before, "an aborted signal stops it at once");
});

Deno.test("Reactor.runToEnd() sleeps while the clock is held, and stops then as well", async () => {
  const clock = new ManualClock();
  const reactor = new Reactor(clock);
  const alarm = new Alarm(100);
  reactor.add(alarm);
  clock.hold();
  const stop = new AbortController();
  setTimeout(() => stop.abort(), 20);
  await reactor.runToEnd(stop.signal);
  assertEquals([alarm.servedNs, clock.nowNs(), clock.isHeld], [[], 0, false]);
  setTimeout(() => {
    clock.release();
    reactor.wake();
  }, 20);
  await reactor.runToEnd();
  assertEquals([alarm.servedNs, clock.nowNs()], [[100], 100]);
});

Deno.test("Reactor.run() works while there is work and ends when it is over", async () => {
  const worker = new Worker(1000);
  let asked = 0;
  await real(worker).run(new AbortController().signal, () => {
    asked++;
    assertEquals(worker.work, 0, "it is not asked before the work is done");
    return true;
  });
  assertEquals([worker.polls, asked], [1001, 1]);
});

Deno.test("Reactor.run() does not end while something is still due", async () => {
  const alarm = new Alarm(0);
  const clock = new SystemClock();
  const dueNs = clock.nowNs() + 8_000_000;
  const reactor = new Reactor(clock);
  alarm.deadlineNs = () => alarm.servedNs.length === 0 ? dueNs : Infinity;
  alarm.poll = (nowNs) => {
    if (nowNs < dueNs || alarm.servedNs.length > 0) return false;
    alarm.servedNs.push(nowNs);
    return true;
  };
  reactor.add(alarm);
  await reactor.run(new AbortController().signal, () => true);
  assertEquals(alarm.servedNs.length, 1);
  assert(alarm.servedNs[0] >= dueNs);
});

Deno.test("Reactor.run() lets other tasks run while there is work without end", async () => {
  const stop = new AbortController();
  const worker = new Worker(Infinity);
  setTimeout(() => stop.abort(), 5);
  await real(worker).run(stop.signal);
  assert(worker.polls > 32);
});

Deno.test("Reactor.run() sleeps when nothing is due, until wake()", async () => {
  const stop = new AbortController();
  const worker = new Worker(0);
  const reactor = real(worker);
  const running = reactor.run(stop.signal);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assertEquals(worker.polls, 1, "it sleeps");
  worker.work = 2;
  reactor.wake();
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals([worker.polls, worker.work], [4, 0]);
  stop.abort();
  await running;
  assertEquals(worker.polls, 4, "an abort ends the sleep and polls no part");
});

Deno.test("Reactor.run() does not miss a wake() that comes from within a poll", async () => {
  const stop = new AbortController();
  const worker = new Worker(0);
  const reactor = real(worker);
  worker.onPoll = () => {
    if (worker.polls === 1) reactor.wake();
    else stop.abort();
  };
  await reactor.run(stop.signal);
  assertEquals(worker.polls, 2);
});

Deno.test("Reactor.run() polls no part if it is aborted already, and leaves no listener", async () => {
  const stop = new AbortController();
  stop.abort();
  const worker = new Worker(5);
  const reactor = real(worker);
  await reactor.run(stop.signal);
  assertEquals(worker.polls, 0);
  reactor.wake();
});

Deno.test("Reactor.run() rejects with what a member throws", async () => {
  const worker = new Worker(5);
  worker.onPoll = () => {
    throw new TypeError("broken");
  };
  await assertRejects(() => real(worker).run(new AbortController().signal), TypeError, "broken");
  await assertRejects(() => manual(worker).runToEnd(), TypeError, "broken");
});

Deno.test("PollTime grows while polling would have met what came, up to its limit, and no further", () => {
  const time = new PollTime(30_000);
  assertEquals(time.ns, 0);
  const found = Array.from({ length: 5 }, () => {
    time.waited(20_000);
    return time.ns;
  });
  // What came within the time of polling changes nothing: it is right.
  assertEquals(found, [4000, 8000, 16_000, 30_000, 30_000]);
  time.waited(30_000);
  time.waited(0);
  assertEquals(time.ns, 30_000);
});

Deno.test("PollTime shrinks to nothing when polling is in vain, and grows again", () => {
  const time = new PollTime(30_000);
  for (let i = 0; i < 4; i++) time.waited(25_000);
  const found = Array.from({ length: 4 }, () => {
    time.waited(30_001);
    return time.ns;
  });
  assertEquals(found, [15_000, 7500, 0, 0]);
  time.waited(30_000);
  assertEquals(time.ns, 4000);
});

Deno.test("PollTime begins anew when another program has taken the processor", () => {
  const time = new PollTime(30_000);
  for (let i = 0; i < 4; i++) time.waited(25_000);
  time.taken();
  assertEquals(time.ns, 0);
  time.waited(25_000);
  assertEquals(time.ns, 4000);
});

Deno.test("PollTime with the limit 0 never polls, and one below the first step keeps to its limit", () => {
  const none = new PollTime(0);
  for (const ns of [0, 1, 1e9]) none.waited(ns);
  assertEquals(none.ns, 0);
  const little = new PollTime(1000);
  little.waited(1000);
  assertEquals(little.ns, 1000);
  little.waited(1001);
  assertEquals(little.ns, 0);
});

/**
 * A clock and a waiter in one: eight looks take 1 us, a sleep lasts until the event; events come by a list.
 */
class PolledHost implements Clock, Waiter {
  ns = 0;
  /** When the next events come, in ns. */
  events: number[] = [];
  /** Who is told of them. */
  arrived = 0;
  looks = 0;
  readonly sleeps: [nowNs: number, untilNs: number][] = [];
  answer: LookedFor | null = null;

  nowNs(): number {
    return this.ns;
  }

  look(): LookedFor {
    this.looks++;
    if (this.answer !== null) return this.answer;
    this.ns += 125;
    return this.#take() ? "event" : "nothing";
  }

  wait(untilNs: number, nowNs: number): void {
    this.sleeps.push([nowNs, untilNs]);
    this.ns = Math.max(this.ns, Math.min(this.events[0] ?? Infinity, untilNs));
    this.#take();
  }

  #take(): boolean {
    if (!(this.events[0] <= this.ns)) return false;
    this.events.shift();
    this.arrived++;
    return true;
  }

  wake(): void {}

  [Symbol.dispose](): void {}
}

/** Serves the events of a polled host until there are no more. */
async function served(
  host: PolledHost,
  pollMaxNs: number,
  deadlineNs = () => Infinity,
): Promise<{ atNs: number[]; rounds: number[] }> {
  const reactor = new Reactor(host, pollMaxNs);
  reactor.waiter = host;
  const stop = new AbortController();
  const atNs: number[] = [];
  const rounds: number[] = [];
  const count = host.events.length;
  let seen = 0;
  reactor.add({
    poll: (nowNs) => {
      rounds.push(nowNs);
      if (seen === host.arrived && !(nowNs >= deadlineNs())) return false;
      seen = host.arrived;
      atNs.push(nowNs);
      if (atNs.length === count) stop.abort();
      return true;
    },
    deadlineNs,
  });
  await reactor.run(stop.signal);
  return { atNs, rounds };
}

Deno.test("Reactor.run() polls before it sleeps as soon as events come close enough, and then does not sleep", async () => {
  const host = new PolledHost();
  host.events = Array.from({ length: 12 }, (_, i) => 100_000 * (i + 1));
  const { atNs } = await served(host, 500_000);
  assertEquals(atNs, Array.from({ length: 12 }, (_, i) => 100_000 * (i + 1)));
  // 4, 8, 16, 32, 64, 128 us: the seventh wait is met by polling, and all that follow.
  assertEquals(host.sleeps.map(([nowNs]) => Math.round(nowNs / 1000)), [0, 104, 208, 316, 432, 564]);
});

Deno.test("Reactor.run() polls no more for now when another program takes the processor meanwhile", async () => {
  const host = new PolledHost();
  host.events = [...Array.from({ length: 10 }, (_, i) => 100_000 * (i + 1)), 2_200_000];
  const look = host.look.bind(host);
  host.look = () => {
    // Once, while polling for the tenth event.
    if (host.arrived === 9 && host.ns < 950_000) host.ns = 2_050_000;
    return look();
  };
  await served(host, 500_000);
  assertEquals(host.sleeps.length, 7);
  assert(host.sleeps[6][0] < 2_060_000, `it polled until ${host.sleeps[6][0]} ns`);
});

Deno.test("Reactor.run() turns one more round between polling in vain and its sleep", async () => {
  const host = new PolledHost();
  host.events = [100_000, 200_000, 300_000];
  const { rounds } = await served(host, 500_000);
  for (const [nowNs] of host.sleeps) {
    assertEquals(rounds.filter((ns) => ns === nowNs).length, 1, `no round at ${nowNs} ns`);
  }
});

Deno.test("Reactor.run() polls no longer than to a deadline, and without a limit not at all", async () => {
  const host = new PolledHost();
  host.events = [100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000, 1_000_000];
  let dueNs = 730_500;
  const { atNs } = await served(host, 500_000, () => host.arrived === 7 ? dueNs : Infinity);
  dueNs = Infinity;
  assertEquals(atNs.at(-1), 731_000, "the deadline was met awake");
  const sleepy = new PolledHost();
  sleepy.events = [1000, 2000, 3000];
  await served(sleepy, 0);
  assertEquals([sleepy.looks, sleepy.sleeps.length], [0, 3]);
});

Deno.test("Reactor.run() lets the event loop turn when its waiter asks for it, and so can be stopped", async () => {
  const host = new PolledHost();
  host.events = [1000, 2000, 3000, 1e12];
  const reactor = new Reactor(host, 1e12);
  reactor.waiter = host;
  const stop = new AbortController();
  let seen = 0;
  reactor.add({
    poll: () => {
      const did = seen < host.arrived;
      seen = host.arrived;
      // From now on nothing comes but what the event loop has to do.
      if (seen === 3) host.answer = "turn";
      return did;
    },
    deadlineNs: () => Infinity,
  });
  setTimeout(() => stop.abort(), 20);
  await reactor.run(stop.signal);
  assertEquals(seen, 3);
  assert(host.looks > 3);
});
