import { assert, assertEquals, assertThrows } from "@std/assert";
import { SystemClock } from "../../core/clock.ts";
import { HostError } from "../../core/errors.ts";
import { EventFd } from "../../host/event_fd.ts";
import { MemoryMapping, MemoryView, newMemoryFile } from "../../host/memory_mapping.ts";
import { BlockingWaiter } from "../../host/waiters.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { assertNothingLeft } from "./support/counts.ts";

const clock = new SystemClock();

hostTest("BlockingWaiter sleeps until its deadline, and not at all for one that has passed", [linux], () => {
  using waiter = new BlockingWaiter();
  const startNs = clock.nowNs();
  waiter.wait(startNs, startNs);
  waiter.wait(startNs - 1, startNs);
  const dueNs = startNs + 20_000_000;
  while (clock.nowNs() < dueNs) waiter.wait(dueNs, clock.nowNs());
  // A deadline that is taken back rings no more: what ends this sleep is the event.
  using event = EventFd.create();
  using _watch = waiter.watch(event.fd.number);
  waiter.wait(clock.nowNs() + 1_000_000, clock.nowNs());
  event.signal();
  waiter.wait(Infinity, clock.nowNs());
  assert(event.drain());
});

hostTest("BlockingWaiter hears what has happened before it sleeps, once", [linux], () => {
  using waiter = new BlockingWaiter();
  using event = EventFd.create();
  event.signal();
  using watch = waiter.watch(event.fd.number);
  waiter.wait(Infinity, clock.nowNs());
  watch[Symbol.dispose]();
  // What is not watched any more does not end a sleep.
  event.signal();
  const dueNs = clock.nowNs() + 5_000_000;
  waiter.wait(dueNs, clock.nowNs());
  using again = waiter.watch(event.fd.number);
  waiter.wait(Infinity, clock.nowNs());
  again[Symbol.dispose]();
  assertThrows(() => waiter.watch(999_999), HostError, "EBADF");
});

hostTest("BlockingWaiter leaves nothing behind, and watches may end after it", [linux], () => {
  assertNothingLeft(() => {
    using event = EventFd.create();
    const waiter = new BlockingWaiter();
    const watch = waiter.watch(event.fd.number);
    waiter[Symbol.dispose]();
    watch[Symbol.dispose]();
  });
});

hostTest("MemoryView sees what is mapped elsewhere, and is empty when it is taken back", [linux], () => {
  using file = newMemoryFile("seen", 8192);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 100, lengthBytes: 5000 }, "here");
  const view = new MemoryView(mapping.address, 5000);
  const bytes = new Uint8Array(view.buffer);
  new Uint8Array(mapping.buffer)[4999] = 7;
  assertEquals(bytes[4999], 7);
  bytes[0] = 9;
  assertEquals(new Uint8Array(mapping.buffer)[0], 9);
  view[Symbol.dispose]();
  view[Symbol.dispose]();
  assertEquals([bytes.length, view.buffer.byteLength, mapping.buffer.byteLength], [0, 0, 5000]);
  assertThrows(() => new MemoryView(0n, 10), RangeError, "Cannot see memory at address 0");
});
