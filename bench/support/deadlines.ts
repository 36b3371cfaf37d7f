/**
 * How late the reactor serves a deadline, by its ways to sleep.
 * @module
 */
import { SystemClock } from "../../core/clock.ts";
import { Reactor } from "../../core/reactor.ts";
import { EventFd } from "../../host/event_fd.ts";
import { BlockingWaiter, HostWatcher } from "../../host/waiters.ts";

/**
 * What the reactor sleeps by: the way of mode `loop`, that of mode `threads`, and the runtime's timers, as
 * without a host.
 */
export type SleepWay = "loop" | "threads" | "timers";

/**
 * Serves `samples` deadlines, one after the other, `intervalNs` apart, and returns how late each was in ns.
 */
export async function measureDeadlines(
  way: SleepWay,
  intervalNs: number,
  samples: number,
): Promise<number[]> {
  const clock = new SystemClock();
  const reactor = new Reactor(clock);
  using stack = new DisposableStack();
  if (way === "loop") {
    stack.use(new HostWatcher(reactor).watch(stack.use(EventFd.create()).fd.number));
  } else if (way === "threads") {
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
