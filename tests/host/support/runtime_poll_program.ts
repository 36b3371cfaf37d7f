/**
 * Says when the runtime has something to do, to a test that runs it: in a program of its own, for only the
 * main thread knows.
 * @module
 */
import { SystemClock } from "../../../core/clock.ts";
import { eventLoopTurn } from "../../../core/reactor.ts";
import { Epoll, EPOLLIN } from "../../../host/epoll.ts";
import { EventFd } from "../../../host/event_fd.ts";
import { EpollWaiter, runtimePoll } from "../../../host/waiters.ts";

const PATIENCE_MS = 20_000;

/** Waits in this thread until the runtime wants its event loop. Is it ever? */
async function isHeard(epoll: Epoll, begin: () => Promise<unknown>): Promise<boolean> {
  const end = begin();
  // Beginning has made work of its own.
  for (let quiet = 0; quiet < 20; quiet++) {
    await eventLoopTurn();
    if (epoll.ready() > 0) quiet = 0;
  }
  // A signal breaks the wait off.
  const startMs = performance.now();
  const heard = epoll.ready(PATIENCE_MS) > 0 || performance.now() < startMs + PATIENCE_MS / 2;
  await end;
  return heard;
}

function later(what: string): Promise<Deno.CommandStatus> {
  return new Deno.Command("sh", { args: ["-c", `sleep 0.5; ${what}`] }).spawn().status;
}

/**
 * Waits as a reactor does, after one event or with one before every wait. Do promises and timers of others go
 * on?
 */
async function othersGoOn(endlessly: boolean): Promise<boolean> {
  using waiter = new EpollWaiter();
  using event = EventFd.create();
  using _watch = waiter.watch(event.fd.number);
  const clock = new SystemClock();
  const endNs = clock.nowNs() + PATIENCE_MS * 1e6;
  let left = 2;
  const done = () => {
    left--;
    waiter.wake();
  };
  later("true").then(done);
  setTimeout(done, 50);
  event.signal();
  while (left > 0 && clock.nowNs() < endNs) {
    if (endlessly) event.signal();
    await waiter.wait(endNs, clock.nowNs());
  }
  return left === 0;
}

if (import.meta.main) {
  const poll = runtimePoll();
  if (poll === null) throw new Error("The runtime has no epoll set");
  using epoll = new Epoll();
  epoll.add(poll, EPOLLIN);
  const { promise: signalled, resolve } = Promise.withResolvers<void>();
  Deno.addSignalListener("SIGUSR2", resolve);
  const results = {
    childProcess: await isHeard(epoll, () => later("true")),
    signal: await isHeard(epoll, () => Promise.all([later(`kill -USR2 ${Deno.pid}; sleep 0.5`), signalled])),
    nothing: epoll.ready(200) > 0,
    othersInNaps: await othersGoOn(false),
    othersBetweenEvents: await othersGoOn(true),
    sameAgain: runtimePoll() === poll,
  };
  console.log(JSON.stringify(results));
  Deno.exit();
}
