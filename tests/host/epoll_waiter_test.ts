import { assert, assertEquals, assertThrows } from "@std/assert";
import { SystemClock } from "../../core/clock.ts";
import { HostError } from "../../core/errors.ts";
import { CoarseWaiter, Reactor } from "../../core/reactor.ts";
import { EventFd } from "../../host/event_fd.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { BlockingWaiter, EpollWaiter, HostWatcher } from "../../host/waiters.ts";
import { openDescriptors } from "./support/counts.ts";

const MS = 1_000_000;
const ONE = Uint8Array.of(1);

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Has this promise been fulfilled within so many ms? */
function within(ms: number, promise: Promise<unknown> | void): Promise<boolean> {
  return Promise.race([Promise.resolve(promise).then(() => true), after(ms).then(() => false)]);
}

/** Turns rounds until there is nothing to hear of any more, as the reactor does. */
async function quiet(waiter: EpollWaiter, untilNs: number, nowNs: number): Promise<void> {
  for (;;) {
    const sleep = waiter.wait(untilNs, nowNs);
    if (sleep !== undefined) return await sleep;
  }
}

function ticks(): number {
  const fields = Deno.readTextFileSync("/proc/self/stat").replace(/^.*\) /, "").split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

Deno.test("EpollWaiter.wait() sleeps until its deadline, not before it and not much after", async () => {
  using waiter = new EpollWaiter();
  const clock = new SystemClock();
  const lateNs: number[] = [];
  for (let i = 0; i < 20; i++) {
    const untilNs = clock.nowNs() + 3 * MS;
    while (clock.nowNs() < untilNs) await waiter.wait(untilNs, clock.nowNs());
    lateNs.push(clock.nowNs() - untilNs);
  }
  // A busy host delays some; a waiter that sleeps too long is late every time.
  assert(Math.min(...lateNs) < 5 * MS, `${Math.min(...lateNs) / MS} ms late at best`);
});

Deno.test("EpollWaiter.wait() forgets a deadline that no longer holds", async () => {
  using waiter = new EpollWaiter();
  const first = waiter.wait(10 * MS, 0);
  waiter.wake();
  await first;
  await quiet(waiter, 1, 1); // the event that woke it
  const sleep = waiter.wait(Infinity, 0);
  assertEquals(await within(60, sleep), false);
  waiter.wake();
  await sleep;
});

Deno.test("EpollWaiter.wait() turns the event loop when the deadline has passed", async () => {
  using waiter = new EpollWaiter();
  let turned = false;
  setTimeout(() => turned = true, 0);
  for (let i = 0; i < 1000 && !turned; i++) await waiter.wait(5, 10);
  assert(turned);
});

Deno.test("EpollWaiter.wake() ends a sleep, also one that begins right after another", async () => {
  using waiter = new EpollWaiter();
  for (let i = 0; i < 50; i++) {
    const sleep = waiter.wait(Infinity, 0);
    waiter.wake();
    waiter.wake();
    assert(await within(1000, sleep), `sleep ${i} did not end`);
  }
  await quiet(waiter, 1, 1);
});

Deno.test("EpollWaiter tells of what happens to a watched descriptor, in sleep and before it", async () => {
  using waiter = new EpollWaiter();
  const [left, right] = UnixStream.pair();
  using _left = left;
  using _right = right;
  using _watch = waiter.watch(right.fd.number);
  await quiet(waiter, 1, 1); // there is room to write
  const sleep = waiter.wait(Infinity, 0);
  assertEquals(await within(30, sleep), false);
  left.send(ONE, 0, 1);
  assert(await within(1000, sleep), "it slept on");
  // It was not read, and still nothing is told twice: a device that cannot take it does not spin.
  await quiet(waiter, 1, 1);
  const again = waiter.wait(Infinity, 0);
  assertEquals(await within(30, again), false);
  left.send(ONE, 0, 1);
  assert(await within(1000, again), "a further byte was not told of");
  left[Symbol.dispose]();
  assertEquals(waiter.wait(Infinity, 0), undefined, "the end of the other side was not told of");
});

Deno.test("EpollWaiter hears of every event in the set of another waiter, which nothing is ever read of", async () => {
  using inner = new BlockingWaiter();
  using event = EventFd.create();
  using _event = inner.watch(event.fd.number);
  using waiter = new EpollWaiter();
  using _inner = waiter.watch(inner.number);
  await quiet(waiter, 1, 1);
  for (let i = 0; i < 40; i++) {
    const sleep = waiter.wait(Infinity, 0);
    assert(sleep !== undefined, "the same event was told twice");
    // Some find it turning the event loop, some asleep.
    for (let turns = i % 4; turns > 0; turns--) await after(turns % 2);
    event.signal();
    assert(await within(1000, sleep), `event ${i} was missed`);
    await quiet(waiter, 1, 1);
  }
  // A ring that comes may have been kicked before.
  using kicked = EventFd.create();
  kicked.signal();
  const sleep = waiter.wait(Infinity, 0);
  using _kicked = inner.watch(kicked.fd.number);
  assert(await within(1000, sleep), "what had happened before was missed");
});

Deno.test("EpollWaiter.watch() ends with its disposal, and not that of another under the same number", async () => {
  using waiter = new EpollWaiter();
  const first = EventFd.create();
  const { number } = first.fd;
  const old = waiter.watch(number);
  assertThrows(() => waiter.watch(number), HostError, "it is waited for already");
  assertEquals(waiter.watches, 1);
  old[Symbol.dispose]();
  assertEquals(waiter.watches, 0);
  first[Symbol.dispose]();
  using second = EventFd.create();
  assertEquals(second.fd.number, number);
  using _watch = waiter.watch(number);
  old[Symbol.dispose]();
  assertEquals(waiter.watches, 1);
  await quiet(waiter, 1, 1);
  second.signal();
  assertEquals(waiter.wait(Infinity, 0), undefined);
});

Deno.test("EpollWaiter closes everything, also when it is disposed of in its sleep", async () => {
  const before = openDescriptors();
  const waiter = new EpollWaiter();
  const sleep = waiter.wait(Infinity, 0);
  waiter[Symbol.dispose]();
  waiter[Symbol.dispose]();
  assert(await within(1000, sleep), "it slept on");
  assertEquals(openDescriptors(), before);
  assertEquals(waiter.wait(Infinity, 0), undefined);
  for (let i = 0; i < 200; i++) new EpollWaiter()[Symbol.dispose]();
  assertEquals(openDescriptors(), before);
});

Deno.test("HostWatcher gives a reactor an epoll set as long as there is something to watch", () => {
  const before = openDescriptors();
  const reactor = new Reactor(new SystemClock());
  const watcher = new HostWatcher(reactor);
  assert(reactor.waiter instanceof CoarseWaiter);
  using left = EventFd.create();
  using right = EventFd.create();
  const watches = [left, right].map(({ fd }) => watcher.watch(fd.number));
  const { waiter } = reactor;
  assert(waiter instanceof EpollWaiter);
  assertEquals(waiter.watches, 2);
  watches[0][Symbol.dispose]();
  watches[0][Symbol.dispose]();
  assert(reactor.waiter === waiter);
  watches[1][Symbol.dispose]();
  assert(reactor.waiter instanceof CoarseWaiter);
  using again = watcher.watch(left.fd.number);
  assert(reactor.waiter instanceof EpollWaiter);
  again[Symbol.dispose]();
  assertThrows(() => watcher.watch(1_000_000), HostError);
  assert(reactor.waiter instanceof CoarseWaiter);
  left[Symbol.dispose]();
  right[Symbol.dispose]();
  assertEquals(openDescriptors(), before);
});

Deno.test("a reactor that sleeps by the host wakes for events, deadlines and wake(), and stops at once", async () => {
  const clock = new SystemClock();
  const reactor = new Reactor(clock);
  using event = EventFd.create();
  using _watch = new HostWatcher(reactor).watch(event.fd.number);
  let dueNs = Infinity;
  const seen: string[] = [];
  reactor.add({
    poll: (nowNs) => {
      if (event.drain()) seen.push("event");
      else if (nowNs >= dueNs) {
        seen.push("deadline");
        dueNs = Infinity;
      } else return false;
      return true;
    },
    deadlineNs: () => dueNs,
  });
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  await after(20);
  event.signal();
  for (let i = 0; i < 500 && seen.length < 1; i++) await after(10);
  dueNs = clock.nowNs() + 5 * MS;
  reactor.wake();
  for (let i = 0; i < 500 && seen.length < 2; i++) await after(10);
  assertEquals(seen, ["event", "deadline"]);
  stop.abort();
  assert(await within(1000, running));
});

Deno.test("an idle reactor burns no time of the processor", async () => {
  const reactor = new Reactor(new SystemClock());
  using event = EventFd.create();
  using _watch = new HostWatcher(reactor).watch(event.fd.number);
  let polls = 0;
  reactor.add({
    poll: () => {
      polls++;
      return false;
    },
    deadlineNs: () => Infinity,
  });
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  event.signal(); // and it is not drained
  await after(250);
  const pollsBefore = polls;
  // The time is the process's: what earlier tests left to the collector may burn some, but not in every
  // window.
  let leastBurnt = Infinity;
  for (let tries = 0; tries < 4 && leastBurnt > 1; tries++) {
    const ticksBefore = ticks();
    await after(2000);
    leastBurnt = Math.min(leastBurnt, ticks() - ticksBefore);
  }
  assertEquals(polls - pollsBefore, 0, "it turned rounds");
  assert(leastBurnt <= 1, `${leastBurnt} ticks of 10 ms`);
  stop.abort();
  await running;
});

Deno.test("EpollWaiter.look() tells of an event once, and of nothing otherwise, without sleeping", async () => {
  using waiter = new EpollWaiter();
  using event = EventFd.create();
  using _watch = waiter.watch(event.fd.number);
  await quiet(waiter, 1, 1);
  const found: string[] = [];
  // The test's own timers and files may want a turn in between.
  const looked = () => {
    for (;;) {
      const one = waiter.look();
      if (one !== "turn") return one;
    }
  };
  found.push(looked());
  event.signal();
  found.push(looked(), looked());
  assertEquals(found, ["nothing", "event", "nothing"]);
});

Deno.test("a reactor that polls lets timers of the runtime through, and is stopped by one", async () => {
  const reactor = new Reactor(new SystemClock(), 1000 * MS);
  using event = EventFd.create();
  using _watch = new HostWatcher(reactor).watch(event.fd.number);
  let events = 0;
  reactor.add({
    poll: () => {
      if (!event.drain()) return false;
      events++;
      return true;
    },
    deadlineNs: () => Infinity,
  });
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  // Each event is made by a timer: if polling kept timers waiting, there would be one a second.
  const startMs = performance.now();
  const timer = setInterval(() => {
    event.signal();
    if (events >= 60) stop.abort();
  }, 2);
  await running;
  clearInterval(timer);
  const tookMs = performance.now() - startMs;
  assert(tookMs < 20_000, `${events} events took ${tookMs} ms`);
});
