/**
 * How late held units leave: the time from a deadline to the round that serves it, by the reactor's two ways to sleep, and
 * the time from an event of the host to the round that it causes.
 *
 *     deno run --allow-ffi bench/timer_bench.ts [SAMPLES]
 *
 * Prints microseconds, median and 99th percentile. Nothing else should run meanwhile.
 */
import { SystemClock } from "../core/clock.ts";
import { Reactor } from "../core/reactor.ts";
import { EventFd } from "../transports/host/event_fd.ts";
import { HostWatcher } from "../transports/host/host_watcher.ts";

const clock = new SystemClock();

function percentile(sorted: readonly number[], of: number): string {
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * of))] / 1000).toFixed(0).padStart(6);
}

function print(what: string, latenessNs: number[]): void {
  latenessNs.sort((a, b) => a - b);
  console.log(`${what.padEnd(44)} p50 ${percentile(latenessNs, 0.5)}  p99 ${percentile(latenessNs, 0.99)}`);
}

/** Serves one deadline after the other, `intervalNs` apart, and returns how late each was. */
async function deadlines(intervalNs: number, samples: number, byHost: boolean): Promise<number[]> {
  const reactor = new Reactor(clock);
  using event = byHost ? EventFd.create() : null;
  using _watch = event === null ? null : new HostWatcher(reactor).watch(event.fd.number);
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
    for (const byHost of [true, false]) {
      const late = await deadlines(intervalUs * 1000, count, byHost);
      print(`deadline in ${intervalUs} us, ${byHost ? "epoll and timerfd" : "timers of the runtime"}`, late);
    }
  }
  print("event, epoll", await events(Math.ceil(samples / 2)));
}
