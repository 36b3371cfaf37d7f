/**
 * Says when the runtime has something to do, to a test that runs it: in a program of its own, for only the main thread knows.
 * @module
 */
import { eventLoopTurn } from "../../../../core/waiter.ts";
import { Epoll, EPOLLIN } from "../../../../transports/host/epoll.ts";
import { runtimePoll } from "../../../../transports/host/runtime_poll.ts";

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
    sameAgain: runtimePoll() === poll,
  };
  console.log(JSON.stringify(results));
  Deno.exit();
}
