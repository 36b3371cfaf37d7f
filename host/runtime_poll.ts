/**
 * Where the runtime itself waits.
 * @module
 */
import { ENOENT } from "./errno.ts";
import { EventFd } from "./event_fd.ts";
import { errno, libc } from "./libc.ts";

/** Descriptors that are looked at: the runtime makes its set before anything else. */
const LAST = 31;
const EPOLL_CTL_DEL = 2;

/** By thread, for every thread has a module of its own. */
let found: number | null | undefined;

/**
 * The descriptor of the epoll set in which the runtime's main thread waits for its sockets, signals, threads and promises; null
 * in other threads, whose sets cannot be told from each other, and where there is none. It becomes readable when the event loop has something to do, timers excepted: whoever keeps the main thread from
 * its event loop watches it, to know when to let go. It is the runtime's: only to be watched.
 */
export function runtimePoll(): number | null {
  if (found === undefined) found = find();
  return found;
}

function find(): number | null {
  const c = libc();
  if (c.gettid?.() !== Deno.pid) return null;
  using event = EventFd.create();
  for (let number = 3; number <= LAST; number++) {
    // A set says that there is no such descriptor in it. Whatever is no set says that it is none.
    if (c.epoll_ctl(number, EPOLL_CTL_DEL, event.fd.number, null) < 0 && errno() === ENOENT) return number;
  }
  return null;
}
