/**
 * How late held units leave: the time from a deadline to the round that serves it, by the reactor's ways to sleep, and the
 * time from an event of the host to the round that it causes.
 *
 *     deno run --allow-ffi bench/timer_bench.ts [SAMPLES]
 *
 * Prints microseconds, median and 99th percentile. Nothing else should run meanwhile.
 */
import { SystemClock } from "../core/clock.ts";
import { Reactor } from "../core/reactor.ts";
import { BlockingWaiter } from "../transports/host/blocking_waiter.ts";
import { EventFd } from "../transports/host/event_fd.ts";
import { HostWatcher } from "../transports/host/host_watcher.ts";

const clock = new SystemClock();

function percentile(sorted: readonly number[], of: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * of))] / 1000).toFixed(0).padStart(6);
}

function print(what: string, latenessNs: number[]): void {
  latenessNs.sort((a, b) => a - b);
  console.log(`${what.padEnd(60)} p50 ${percentile(latenessNs, 0.5)}  p99 ${percentile(latenessNs, 0.99)}`);
}

/** What the reactor sleeps by, and what that is called. */
const WAYS = {
  awaited: "epoll and timerfd, awaited",
  blocking: "epoll and timerfd, with the whole thread",
  timers: "timers of the runtime",
};

/** Serves one deadline after the other, `intervalNs` apart, and returns how late each was. */
async function deadlines(intervalNs: number, samples: number, way: keyof typeof WAYS): Promise<number[]> {
  const reactor = new Reactor(clock);
  using stack = new DisposableStack();
  if (way === "awaited") {
    stack.use(new HostWatcher(reactor).watch(stack.use(EventFd.create()).fd.number));
  } else if (way === "blocking") {
    reactor.waiter = stack.use(new BlockingWaiter());
  }
  const late: number[] = [];
  const stop = new AbortController();
  let dueNs = clock.nowNs() + intervalNs;
  reactor.add({
    poll: (nowNs) => {
      if (nowNs < dueNs) return false;
      late.push(nowNs - dueNs);
      if (late.length === samples) stop.abort();
      dueNs = clock.nowNs() + intervalNs;
      return true;
    },
    deadlineNs: () => dueNs,
  });
  await reactor.run(stop.signal);
  return late;
}

/** Signals an event from the event loop while the reactor sleeps, and returns how long each took to be seen. */
async function events(samples: number): Promise<number[]> {
  const reactor = new Reactor(clock);
  using event = EventFd.create();
  using _watch = new HostWatcher(reactor).watch(event.fd.number);
  const took: number[] = [];
  const stop = new AbortController();
  let signalledNs = 0;
  const signal = () => {
    signalledNs = clock.nowNs();
    event.signal();
  };
  reactor.add({
    poll: (nowNs) => {
      if (signalledNs === 0 || !event.drain()) return false;
      took.push(nowNs - signalledNs);
      signalledNs = 0;
      if (took.length === samples) stop.abort();
      else setTimeout(signal, 2);
      return true;
    },
    deadlineNs: () => Infinity,
  });
  setTimeout(signal, 2);
  await reactor.run(stop.signal);
  return took;
}

if (import.meta.main) {
  const samples = Number(Deno.args[0] ?? 1000);
  for (const intervalUs of [50, 100, 300, 5000]) {
    const count = Math.ceil(samples / (intervalUs > 1000 ? 5 : 1));
    for (const way of ["awaited", "blocking", "timers"] as const) {
      const late = await deadlines(intervalUs * 1000, count, way);
      print(`deadline in ${intervalUs} us, ${WAYS[way]}`, late);
    }
  }
  print("event, epoll", await events(Math.ceil(samples / 2)));
}
