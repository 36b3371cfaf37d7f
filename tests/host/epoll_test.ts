import { assert, assertEquals, assertThrows } from "@std/assert";
import { HostError } from "../../core/errors.ts";
import { FileDescriptor, O_NONBLOCK, O_RDWR } from "../../host/descriptors.ts";
import { Epoll, EPOLLET, EPOLLIN, EPOLLOUT, TimerFd } from "../../host/epoll.ts";
import { EventFd, ReceivedEvent } from "../../host/event_fd.ts";
import { cString, libc } from "../../host/libc.ts";
import { newMemoryFile } from "../../host/memory_mapping.ts";
import { UnixStream } from "../../host/unix_socket.ts";

const F_GETFL = 3;
const EFD_SEMAPHORE = 1;

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

/** An eventfd of which the other side has taken O_NONBLOCK off. */
function received(start = 0, flags = 0): ReceivedEvent {
  return new ReceivedEvent(new FileDescriptor(libc().eventfd(start, flags)));
}

/** Its count, by the kernel's own account. */
function countOf({ fd }: ReceivedEvent): string {
  const facts = Deno.readTextFileSync(`/proc/self/fdinfo/${fd.number}`);
  return /eventfd-count: *([0-9a-f]+)/.exec(facts)![1];
}

Deno.test("ReceivedEvent neither waits for a signal nor for room, however its other side has set it", () => {
  using event = received();
  assertEquals(event.take(), false);
  assertEquals([event.signal(), event.signal(), countOf(event)], [true, true, "2"]);
  assertEquals([event.take(), event.take()], [true, false]);
  libc().eventfd_write(event.fd.number, 0xffff_ffff_ffff_fffen);
  assertEquals([event.signal(), event.signal()], [true, true]);
  assertEquals([event.take(), event.take()], [true, false]);
  assertEquals(libc().fcntl(event.fd.number, F_GETFL, 0) & O_NONBLOCK, 0, "the flags are the other side's");
  using counter = received(2, EFD_SEMAPHORE);
  assertEquals([counter.take(), counter.take(), counter.take()], [true, true, false]);
  event[Symbol.dispose]();
  assertEquals([event.signal(), event.take()], [false, false]);
});

Deno.test("ReceivedEvent signals as often as it is told, also by thousands", () => {
  using event = received();
  for (let i = 0; i < 10_000; i++) assertEquals(event.signal(), true);
  assertEquals(countOf(event), (10_000).toString(16));
});

Deno.test("ReceivedEvent refuses everything but an eventfd, by name, and leaves it to its owner", () => {
  using stack = new DisposableStack();
  const [left, right] = UnixStream.pair();
  stack.use(left);
  stack.use(right);
  const ends = new Int32Array(2);
  assertEquals(libc().pipe2(new Uint8Array(ends.buffer), 0), 0);
  const path = Deno.makeTempFileSync();
  stack.defer(() => Deno.removeSync(path));
  const kinds: Record<string, number> = {
    "pipe:": ends[0],
    "/dev/ptmx": FileDescriptor.open(cString("/dev/ptmx"), O_RDWR, "open a terminal").release(),
    "anon_inode:[timerfd]": new TimerFd().fd.release(),
    "anon_inode:[eventpoll]": new Epoll().fd.release(),
    [path]: FileDescriptor.open(cString(path), O_RDWR, "open it").release(),
    "/memfd:kick": newMemoryFile("kick", 8).release(),
    "socket:": left.fd.number,
  };
  for (const [name, number] of Object.entries(kinds)) {
    const fd = new FileDescriptor(number);
    const error = assertThrows(() => new ReceivedEvent(fd), HostError);
    assert(error.message.startsWith(`Cannot use ${name}`), error.message);
    assert(error.message.endsWith(" as an event: pass an eventfd"));
    assert(fd.isOpen);
    if (name !== "socket:") fd[Symbol.dispose]();
    else fd.release();
  }
  libc().close(ends[1]);
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
  assertEquals(epoll.ready(), 1, "a second signal was lost, although the first was not drained");
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
  // Far enough away for a busy host, which may stop this thread here for a while.
  timer.arm(60_000 * MS);
  assertEquals(epoll.ready(), 0);
  timer.arm(5 * MS);
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
