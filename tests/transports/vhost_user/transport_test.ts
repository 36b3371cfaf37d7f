/**
 * The transport over real sockets, with real shared memory and events, both ends in one process.
 * @module
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { SystemClock } from "../../../core/clock.ts";
import type { DeviceEvent } from "../../../core/device.ts";
import { HostError } from "../../../core/errors.ts";
import { Reactor } from "../../../core/reactor.ts";
import { FileDescriptor, O_RDWR } from "../../../host/descriptors.ts";
import { cString } from "../../../host/libc.ts";
import { MemoryMapping } from "../../../host/memory_mapping.ts";
import { UnixListener, UnixStream } from "../../../host/unix_socket.ts";
import { EpollWaiter } from "../../../host/waiters.ts";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { vhostUserOptions } from "../../../transports/vhost_user/options.ts";
import { type VhostUserCounters, VhostUserTransport } from "../../../transports/vhost_user/transport.ts";
import { hostTest, linux } from "../../../rigs/require.ts";
import { openDescriptors } from "../../host/support/counts.ts";
import { frame, type NetRig, newNetRig, numbersOf } from "./support/fake_network.ts";
import { GUEST_BYTES, type GuestLayout } from "../../../rigs/vhost_user/guest.ts";
import { concat, message, region, u64 } from "../../../rigs/vhost_user/payload.ts";
import { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";

/** A transport that is served, in a folder of its own, turned by hand. */
class Served implements AsyncDisposable {
  readonly rig: NetRig = newNetRig();
  readonly folder = Deno.makeTempDirSync({ prefix: "vhost-user-" });
  readonly path = `${this.folder}/net0.sock`;
  readonly waiter = new EpollWaiter();
  transport!: VhostUserTransport;
  nowNs = 0;
  /** What the transport has told. */
  readonly events: DeviceEvent[] = [];
  readonly #stop = new AbortController();
  #serving: Promise<void> = Promise.resolve();

  static async start(written: Record<string, unknown> = {}): Promise<Served> {
    const served = new Served();
    const socket = "fd" in written ? {} : { socket: served.path };
    const result = await vhostUserOptions["~standard"].validate({ ...socket, ...written });
    assert(!result.issues, JSON.stringify(result.issues));
    served.transport = new VhostUserTransport({
      arena: null,
      resolvePath: (path) => path,
      watch: (descriptor) => served.waiter.watch(descriptor),
      wake: () => served.waiter.wake(),
      publish: (counters) => counters,
      report: (event) => void served.events.push(event),
    }, result.value);
    served.#serving = served.transport.serve(served.rig.device, served.#stop.signal);
    served.rig.device.wake = () => served.waiter.wake();
    await Promise.race([served.#serving, Promise.resolve()]);
    return served;
  }

  get counters(): VhostUserCounters {
    return this.transport.counters;
  }

  /** Rounds until nothing moves. */
  turn(): void {
    for (let rounds = 0; this.transport.poll(this.nowNs); rounds++) {
      if (rounds > 10_000) throw new Error("the transport does not come to rest");
    }
  }

  connect(layout: GuestLayout = {}): SocketFrontEnd {
    return new SocketFrontEnd(UnixStream.connect(this.path), layout, () => this.turn());
  }

  assertWorks(front: SocketFrontEnd): void {
    this.rig.network.inbox.push(frame(7));
    this.turn();
    assertEquals(numbersOf(front.guest.received(0)), [7]);
    front.guest.post(0, 1);
    front.guest.send(1, frame(9));
    this.turn();
    assertEquals(numbersOf(this.rig.network.sent.splice(0)), [9]);
    assertEquals(front.guest.returned(1), 1);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#serving;
    this.waiter[Symbol.dispose]();
    await Deno.remove(this.folder, { recursive: true });
    assertEquals(this.rig.pool.inUse, 0);
  }
}

/** Passes when it is so, at the latest within two seconds: sockets are closed by threads of their own. */
function soon(what: () => string, is: () => boolean): void {
  const nothing = new Int32Array(new SharedArrayBuffer(4));
  for (let tries = 0; !is(); tries++) {
    if (tries === 400) throw new Error(`not within two seconds: ${what()}`);
    Atomics.wait(nothing, 0, 0, 5);
  }
}

/** What is held now. Call the result to assert that no more is held then. */
function holdings(): () => void {
  const owned = () => ({ mappings: MemoryMapping.live, descriptors: FileDescriptor.live });
  const [files, before] = [openDescriptors(), owned()];
  return () => {
    assertEquals(owned(), before);
    // By name, not by count: a socket that was still to be closed `before` must not hide one that is left
    // behind.
    const added = () => openDescriptors().filter((file) => !files.includes(file));
    soon(() => `${added()}, left behind, is closed`, () => added().length === 0);
  };
}

for (const packed of [false, true]) {
  for (const eventIndex of [false, true]) {
    const name = `${packed ? "packed" : "split"} rings, ${eventIndex ? "event index" : "flags"}`;
    hostTest(`VhostUserTransport serves a front-end over a real socket: ${name}`, [linux], async () => {
      await using served = await Served.start();
      using front = served.connect({ packed, eventIndex });
      front.start();
      for (let i = 0; i < 40; i++) served.assertWorks(front);
      assert(front.calls[0].drain() && front.calls[1].drain(), "both rings were interrupted");
      assertEquals(served.counters.refused, 0);
      assertEquals([served.counters.connections, served.transport.connected], [1, true]);
      const bases = [front.front.base(0), front.front.base(1)];
      assertEquals(bases, packed ? [0x8008_8008, 0x8008_8008] : [40, 40]);
    });
  }
}

hostTest(
  "VhostUserTransport serves 200 front-ends, one after the other, and leaves nothing behind",
  [linux],
  async () => {
    await using served = await Served.start();
    const cycle = () => {
      using front = served.connect();
      front.start();
      served.assertWorks(front);
      front.stream[Symbol.dispose]();
      served.turn();
      assertEquals(served.transport.connected, false);
    };
    for (let i = 0; i < 20; i++) cycle();
    const assertNothingAdded = holdings();
    const heap = Deno.memoryUsage().heapUsed;
    for (let i = 0; i < 180; i++) cycle();
    assertNothingAdded();
    // A megabyte of shared memory, rings and a device were in use each time: kept, they would show.
    const grown = Deno.memoryUsage().heapUsed - heap;
    assert(grown < 16 * 2 ** 20, `the heap has grown by ${grown} bytes`);
    assertEquals([served.counters.connections, served.counters.disconnections], [200, 200]);
    assertEquals(served.counters.refused, 0);
    assertEquals(served.rig.counters[""].resets, 200);
  },
);

hostTest("VhostUserTransport replaces the memory table 50 times under running rings", [linux], async () => {
  await using served = await Served.start();
  using front = served.connect();
  front.start();
  const assertNothingAdded = holdings();
  for (let i = 0; i < 50; i++) {
    if (i % 2 === 0) front.front.setMemoryTable();
    else {
      front.front.removeMemory();
      front.front.addMemory();
    }
    served.assertWorks(front);
  }
  assertNothingAdded();
  assertEquals(served.rig.counters[""].activations, 1);
});

hostTest("a second front-end waits until the first one has gone", [linux], async () => {
  await using served = await Served.start();
  using first = served.connect();
  first.start();
  using second = served.connect();
  const question = message(Request.GET_QUEUE_NUM);
  second.stream.send(question, 0, question.length);
  served.turn();
  const answer = new Uint8Array(20);
  assertEquals(second.stream.receive(answer, 0, 20, []), 0);
  served.assertWorks(first);
  first.stream[Symbol.dispose]();
  served.turn();
  assertEquals(second.stream.receive(answer, 0, 20, []), 20);
  second.start();
  served.assertWorks(second);
});

hostTest("a front-end that talks nonsense is cut off, and the next one is served", [linux], async () => {
  await using served = await Served.start();
  using rude = served.connect();
  rude.stream.send(new Uint8Array(100).fill(0xff), 0, 100);
  served.turn();
  assertEquals(served.counters.disconnections, 1);
  using front = served.connect();
  front.start();
  served.assertWorks(front);
});

hostTest(
  "memory that is shorter than it is said to be is refused, and the program lives",
  [linux],
  async () => {
    await using served = await Served.start();
    using front = served.connect();
    front.front.setProtocolFeatures(front.front.protocolFeatures());
    const { region, table } = await import("../../../rigs/vhost_user/payload.ts");
    for (const place of [{ size: 2 ** 40 }, { mapOffset: 4096 }, { size: 2 ** 52, mapOffset: 2 ** 51 }]) {
      assertEquals(
        front.front.succeeds(Request.SET_MEM_TABLE, table(region(place)), [front.memory()]),
        false,
      );
    }
    assertEquals(served.counters["fault_host-cannot"], 3);
  },
);

hostTest("VhostUserTransport as a client goes to a front-end that comes late, and again when it has gone", [
  linux,
], async () => {
  await using served = await Served.start({ mode: "client", reconnectMs: 10 });
  served.turn();
  assertEquals([served.transport.connected, served.transport.deadlineNs()], [false, 10e6]);
  using listener = UnixListener.listen(served.path);
  for (let round = 1; round <= 3; round++) {
    served.nowNs = served.transport.deadlineNs();
    served.turn();
    const stream = listener.accept();
    assert(stream !== null, "it has not connected");
    using front = new SocketFrontEnd(stream, {}, () => served.turn());
    front.start();
    served.assertWorks(front);
    stream[Symbol.dispose]();
    served.turn();
    assertEquals(served.counters.disconnections, round);
  }
});

hostTest("VhostUserTransport as a client is idle, however short its time and whatever the front-end does", [
  linux,
], async () => {
  await using served = await Served.start({ mode: "client", reconnectMs: 1 });
  const attempt = () => {
    served.nowNs = Math.max(served.nowNs, served.transport.deadlineNs());
    served.turn();
  };
  served.turn();
  for (let i = 0; i < 60; i++) attempt();
  assert(served.nowNs > 45e9, `60 attempts in ${served.nowNs / 1e9} s, and no front-end is there`);
  using listener = UnixListener.listen(served.path);
  const fromNs = served.nowNs;
  for (let i = 0; i < 60; i++) {
    attempt();
    assert(served.transport.connected);
    listener.accept()![Symbol.dispose]();
    served.turn();
    assertEquals(served.transport.connected, false);
  }
  const seconds = (served.nowNs - fromNs) / 1e9;
  assert(seconds > 45, `60 connections that were closed at once in ${seconds} s`);
  // One that lasted is worth a quick return.
  attempt();
  served.nowNs += 5e9;
  listener.accept()![Symbol.dispose]();
  served.turn();
  assertEquals(served.transport.connected, true);
  listener.accept()![Symbol.dispose]();
  served.turn();
  assertEquals(served.transport.deadlineNs() - served.nowNs, 1e6);
});

hostTest("one end of a pair of sockets serves as a call, as User-mode Linux has it, and as nothing else", [
  linux,
], async () => {
  await using served = await Served.start();
  using front = served.connect();
  front.start();
  const [ours, theirs] = UnixStream.pair();
  using _ours = ours;
  using _theirs = theirs;
  for (const id of [Request.SET_VRING_KICK, Request.SET_VRING_ERR]) {
    assertEquals(front.front.succeeds(id, u64(0), [theirs.fd.number]), false);
  }
  // What lies unread in it would stay open, and nothing may be sent into it any more.
  const byte = new Uint8Array(1);
  const [alive, end] = UnixStream.pair();
  using _alive = alive;
  ours.send(byte, 0, 1, [end.fd.number]);
  end[Symbol.dispose]();
  assertEquals(front.front.succeeds(Request.SET_VRING_CALL, u64(0), [theirs.fd.number]), true);
  soon(() => "the descriptor that lay there is closed", () => alive.receive(byte, 0, 1, []) === -1);
  assertEquals(ours.send(byte, 0, 1), -1);
  const told = new Uint8Array(64);
  ours.receive(told, 0, 64, []);
  served.rig.network.inbox.push(frame(7));
  served.turn();
  assertEquals(ours.receive(told, 0, 64, []), 8, "one interrupt");
  // It is not read: that holds nothing up.
  for (let i = 0; i < 3000; i++) {
    served.rig.network.inbox.push(frame(i % 256));
    served.turn();
    front.guest.received(0);
    front.guest.post(0, 1);
  }
  assertEquals(served.transport.connected, true);
});

hostTest("VhostUserTransport takes a connected socket that was passed on, once", [linux], async () => {
  const [ours, theirs] = UnixStream.pair();
  await using served = await Served.start({ mode: "client", fd: ours.fd.release() });
  served.turn();
  using front = new SocketFrontEnd(theirs, {}, () => served.turn());
  front.start();
  served.assertWorks(front);
  theirs[Symbol.dispose]();
  served.turn();
  assertEquals([served.transport.connected, served.transport.deadlineNs()], [false, Infinity]);
});

hostTest(
  "the socket gets the permissions that were asked for, and goes with the transport",
  [linux],
  async () => {
    let path = "";
    {
      await using served = await Served.start({ socketMode: "600" });
      path = served.path;
      assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
    }
    await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
  },
);

hostTest("a path at which a program listens is refused", [linux], async () => {
  await using served = await Served.start();
  const second = new VhostUserTransport({
    arena: null,
    resolvePath: () => served.path,
    watch: (descriptor) => served.waiter.watch(descriptor),
    wake: () => {},
    publish: (counters) => counters,
  }, {
    socket: served.path,
    fd: null,
    mode: "server",
    profile: "auto",
    socketMode: null,
    socketUser: null,
    socketGroup: null,
    memory: "local",
    populate: false,
    reconnectMs: 200,
  });
  await assertRejects(() => second.serve(served.rig.device, new AbortController().signal), HostError);
  using front = served.connect();
  front.start();
  served.assertWorks(front);
});

hostTest("kicks, messages and connections wake a reactor that sleeps", [linux], async () => {
  await using served = await Served.start();
  const { transport, waiter } = served;
  const reactor = new Reactor(new SystemClock());
  reactor.waiter = waiter;
  reactor.add(transport);
  const stop = new AbortController();
  const running = reactor.run(stop.signal);
  const until = async (what: string, is: () => boolean) => {
    for (let i = 0; !is(); i++) {
      assert(i < 400, `${what} has not happened within two seconds`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  await new Promise((resolve) => setTimeout(resolve, 20));
  // Messages are carried out by the reactor alone: nothing here turns the transport.
  const stream = UnixStream.connect(served.path);
  using front = new SocketFrontEnd(stream, { eventIndex: true }, () => {});
  await until("the connection", () => transport.connected);
  const { front: says } = front;
  says.setFeatures(0x1_7000_0000n & ~(1n << 30n));
  says.setMemoryTable();
  for (const ring of [0, 1]) says.describe(ring);
  await until(
    "the ring's start",
    () => served.counters.messages >= 12 && transport.backend?.features !== null,
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  for (let i = 0; i < 5; i++) {
    assertEquals(front.guest.send(1, frame(i)), true, "the device sleeps and wants a kick");
    front.kicks[1].signal();
    await until(`frame ${i}`, () => served.rig.network.sent.length === i + 1);
    assertEquals(front.guest.returned(1), 1);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assertEquals(numbersOf(served.rig.network.sent), [0, 1, 2, 3, 4]);
  stop.abort();
  await running;
});

for (const memory of ["sealed", "local"]) {
  hostTest(
    `memory that can be cut is ${memory === "sealed" ? "refused" : "told of, once"}`,
    [linux],
    async () => {
      await using served = await Served.start({ memory });
      using front = served.connect();
      front.start();
      const path = Deno.makeTempFileSync({ dir: "/dev/shm" });
      try {
        Deno.truncateSync(path, GUEST_BYTES);
        using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
        const succeeded = [2 ** 32, 2 ** 33].map((guestAddress) => {
          const more = region({ guestAddress, size: GUEST_BYTES, userAddress: 2 ** 40 + guestAddress });
          return front.front.succeeds(Request.ADD_MEM_REG, concat(u64(0), more), [file.number]);
        });
        const taken = memory === "local";
        assertEquals(succeeded, [taken, taken]);
        const messages = served.events.flatMap((event) =>
          event.event === "memory-at-risk" || event.event === "refused" ? [event.message] : []
        );
        if (taken) {
          assertEquals(messages, [
            `memory ${path} can end this program (SIGBUS): it is not sealed, and a program that shares it can cut it; ` +
            `${GUEST_BYTES} bytes of it need room in a file system that may be full`,
          ]);
        } else {
          assertEquals(messages.length, 2);
          assert(messages[0].startsWith(`Cannot map memory of the front-end, ${path}: it can be cut`));
        }
        served.assertWorks(front);
      } finally {
        Deno.removeSync(path);
      }
    },
  );
}
