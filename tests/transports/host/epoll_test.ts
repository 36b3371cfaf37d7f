import { assertEquals, assertThrows } from "@std/assert";
import { HostError } from "../../../core/errors.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT } from "../../../transports/host/epoll.ts";
import { EventFd } from "../../../transports/host/event_fd.ts";
import { FileDescriptor, O_RDWR } from "../../../transports/host/file_descriptor.ts";
import { cString } from "../../../transports/host/libc.ts";
import { TimerFd } from "../../../transports/host/timer_fd.ts";

const MS = 1_000_000;

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

Deno.test("EventFd counts signals and forgets them when drained", () => {
  using event = EventFd.create();
  assertEquals(event.drain(), false);
  assertEquals(event.signal(), true);
  assertEquals(event.signal(), true);
  assertEquals(event.drain(), true);
  assertEquals(event.drain(), false);
  event[Symbol.dispose]();
  assertEquals([event.signal(), event.drain()], [false, false]);
});

Deno.test("EventFd.signal() on something that is none says so", () => {
  using event = new EventFd(FileDescriptor.open(cString("/dev/full"), O_RDWR, "open it"));
  assertEquals([event.signal(), event.drain()], [false, true]);
});

Deno.test("Epoll tells once what has become ready, by number", () => {
  using epoll = new Epoll();
  using event = EventFd.create();
  epoll.add(event.fd.number, EPOLLIN | EPOLLET);
  assertEquals(epoll.ready(), 0);
  event.signal();
  assertEquals(epoll.ready(), 1);
  assertEquals(epoll.readyNumber(0), event.fd.number);
  assertEquals(epoll.ready(), 0, "it was told twice");
  event.signal();
  assertEquals(epoll.ready(), 1, "a second signal was lost, although nobody has drained the first");
  epoll.remove(event.fd.number);
  event.signal();
  assertEquals(epoll.ready(), 0);
  epoll.remove(event.fd.number);
});

Deno.test("Epoll hands out more events than it takes at once, one call after the other", () => {
  using epoll = new Epoll();
  using events = new DisposableStack();
  for (let i = 0; i < 100; i++) {
    const event = events.use(EventFd.create());
    epoll.add(event.fd.number, EPOLLIN | EPOLLOUT | EPOLLET);
  }
  assertEquals([epoll.ready(), epoll.ready(), epoll.ready()], [64, 36, 0]);
});

Deno.test("Epoll.add() says what cannot be waited for", () => {
  using epoll = new Epoll();
  using event = EventFd.create();
  const path = Deno.makeTempFileSync();
  using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
  Deno.removeSync(path);
  assertThrows(
    () => epoll.add(file.number, EPOLLIN),
    HostError,
    "EPERM (operation not permitted); a file cannot be",
  );
  epoll.add(event.fd.number, EPOLLIN);
  assertThrows(() => epoll.add(event.fd.number, EPOLLIN), HostError, "it is waited for already");
  assertThrows(
    () => epoll.add(1_000_000, EPOLLIN),
    HostError,
    "Cannot wait for file descriptor 1000000: EBADF",
  );
});

Deno.test("TimerFd rings once, at its time, and can be set anew or not at all", async () => {
  using timer = new TimerFd();
  using epoll = new Epoll();
  epoll.add(timer.fd.number, EPOLLIN | EPOLLET);
  timer.arm(5 * MS);
  assertEquals(epoll.ready(), 0);
  await after(60);
  assertEquals([epoll.ready(), epoll.ready()], [1, 0]);
  timer.arm(0);
  await after(30);
  assertEquals(epoll.ready(), 1, "an alarm for now did not ring");
  timer.arm(5 * MS);
  timer.disarm();
  timer.arm(1e30);
  await after(30);
  assertEquals(epoll.ready(), 0);
});
