/**
 * Queue pairs in threads of their own: real sockets, rings in shared memory, events.
 * @module
 */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { HostError } from "../../core/errors.ts";
import { PluginError } from "../../plugins/contract.ts";
import { newClaimMemory } from "../../pipeline/flow_claims.ts";
import { FileDescriptor } from "../../host/descriptors.ts";
import { EventFd, prepareSignals } from "../../host/event_fd.ts";
import { libc } from "../../host/libc.ts";
import { MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { UnixStream } from "../../host/unix_socket.ts";
import { QueueWorker } from "../../machine/threads/queue_workers.ts";
import { parseTcp, TcpStream } from "../../testing/mod.ts";
import { BufferList } from "../../guest/driver_ring.ts";
import { Request } from "../../transports/vhost_user/messages.ts";
import { mappingsOf, openDescriptors } from "../host/support/counts.ts";
import { usualFeatures } from "../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE } from "../../rigs/vhost_user/guest.ts";
import { concat, u64 } from "../../rigs/vhost_user/payload.ts";
import type { SocketFrontEnd } from "../../rigs/vhost_user/socket_front_end.ts";
import { delayWaits } from "./support/late_notify_offload.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { stressResets } from "./support/stress_resets.ts";
import { after, until } from "./support/tap_rig.ts";
import { assertReceives, assertSends, numbered, send, ThreadsRig, write } from "./support/threads_rig.ts";

const CTRL_VQ = 17;
const CTRL_RX = 18;
const MQ = 22;
const LOG_ALL = 1n << 26n;
const LOG_BYTES = 4096;
const F_SETFL = 4;

for (const packed of [false, true]) {
  for (const eventIndex of [false, true]) {
    const name = `${packed ? "packed" : "split"} rings, ${eventIndex ? "event index" : "flags"}`;
    hostTest(
      `a thread moves frames both ways, and is interrupted by messages: ${name}`,
      [linux],
      async () => {
        await using rig = await ThreadsRig.start({ packedRing: packed });
        using front = rig.connect({ packed, eventIndex });
        front.start();
        for (let i = 0; i < 40; i++) {
          write(rig.ends[0], i);
          await assertReceives(front, 0, [i]);
          send(front, 1, 100 + i);
          await assertSends(rig.ends[0], [100 + i]);
          assertEquals(front.guest.returned(1), 1);
          // Everything is detached for each message.
          if (i % 4 === 0) front.front.features();
        }
        assert(front.calls[0].drain() && front.calls[1].drain(), "both rings were interrupted");
        rig.assertNoFault();
        const { packets } = rig.counters("net0.toGuest");
        assertEquals([packets, rig.counters("net0.fromGuest").packets], [40, 40]);
        assertEquals(rig.counters("net0.network").read, 40);
        assertEquals([rig.counters("net0").activations, rig.counters("net0").resets], [1, 0]);
        const bases = [front.front.base(0), front.front.base(1)];
        assertEquals(bases, packed ? [0x8008_8008, 0x8008_8008] : [40, 40]);
      },
    );
  }
}

/** Starts both pairs, which the front-end enables as its driver asks for them. */
function startTwoPairs(front: SocketFrontEnd): void {
  const { front: says, guest } = front;
  says.setProtocolFeatures(says.protocolFeatures());
  says.setFeatures(usualFeatures(says.features(), MQ));
  says.addMemory();
  for (const ring of [0, 1, 2, 3]) says.describe(ring);
  for (const ring of [0, 1, 2, 3]) says.enable(ring, true);
  for (const queue of [0, 2]) if (guest.post(queue, 8)) front.kicks[queue].signal();
  says.features();
}

hostTest(
  "each of two threads works its own pair, which keeps to its queue of the network",
  [linux],
  async () => {
    await using rig = await ThreadsRig.start({ queuePairs: 2 });
    using front = rig.connect();
    startTwoPairs(front);
    for (let i = 0; i < 20; i++) {
      write(rig.ends[0], i);
      write(rig.ends[1], 200 + i);
      await assertReceives(front, 2, [200 + i]);
      await assertReceives(front, 0, [i]);
      send(front, 1, 100 + i);
      send(front, 3, 300 + i);
      await assertSends(rig.ends[1], [300 + i]);
      await assertSends(rig.ends[0], [100 + i]);
      for (const queue of [1, 3]) assertEquals(front.guest.returned(queue), 1);
    }
    rig.assertNoFault();
    assertEquals(rig.counters("net0.toGuest").packets, 40);
    assertEquals(rig.counters("net0.network").written, 40);
  },
);

hostTest(
  "a pair that is taken out of use leaves its frames to the network, and the other goes on",
  [linux],
  async () => {
    await using rig = await ThreadsRig.start({ queuePairs: 2 });
    using front = rig.connect();
    startTwoPairs(front);
    for (const ring of [2, 3]) front.front.enable(ring, false);
    front.front.features();
    write(rig.ends[1], 7);
    write(rig.ends[0], 8);
    await assertReceives(front, 0, [8]);
    assertEquals(front.guest.received(2), []);
    // What is put into a disabled transmit ring is thrown away, by the main thread.
    front.guest.send(3, numbered(9));
    front.kicks[3].signal();
    await until("it is returned", () => front.guest.returned(3) === 1);
    assertEquals(rig.ends[1].read(), null);
    for (const ring of [2, 3]) front.front.enable(ring, true);
    front.front.features();
    await assertReceives(front, 2, [7]);
    send(front, 3, 10);
    await assertSends(rig.ends[1], [10]);
    rig.assertNoFault();
  },
);

hostTest(
  "a packet that a thread holds leaves at its deadline, and at once when its ring is disabled",
  [linux],
  async () => {
    for (const [intervalUs, leaves] of [[300_000, "by itself"], [10_000_000, "by a message"]] as const) {
      await using rig = await ThreadsRig.start({ offloads: [{ use: "rsc-v4", intervalUs }] });
      using front = rig.connect();
      front.start();
      const stream = new TcpStream();
      for (let i = 0; i < 3; i++) assert(rig.ends[0].write(stream.next(100)));
      await until("they have come", () => rig.counters("net0.network").read === 3);
      const received: Uint8Array[] = [];
      if (leaves === "by a message") {
        received.push(...front.guest.received(0));
        assertEquals(received, [], "a packet was not held");
        front.front.enable(0, false);
        front.front.features();
      }
      await until("the packet has come", () => received.push(...front.guest.received(0)) > 0);
      assertEquals(received.length, 1);
      assertEquals(parseTcp(received[0]).payload.length, 300);
      assertEquals(rig.counters("net0.rsc-v4").merged, 2);
      rig.assertNoFault();
    }
  },
);

hostTest("what a guest breaks in a thread resets the device, is counted and told, and the next start works", [
  linux,
], async () => {
  await using rig = await ThreadsRig.start({ queuePairs: 2 });
  using front = rig.connect();
  startTwoPairs(front);
  for (const ring of [0, 1, 2, 3]) front.front.setError(ring);
  front.front.features();
  // Three hundred chains ahead, in a ring of sixteen.
  front.guest.memory.writeU16(front.guest.place(3).driver + 2, 300);
  front.kicks[3].signal();
  await until("it is counted", () => rig.counters("net0.driver")["fault_available-index-too-far"] === 1);
  assertEquals(rig.counters("net0").resets, 1);
  assertEquals(front.front.status() & 64, 64, "the device needs a reset");
  front.front.setStatus(0);
  front.front.setFeatures(usualFeatures(front.front.features(), MQ));
  for (const ring of [0, 1, 2, 3]) {
    front.guest.forget(ring);
    front.front.describe(ring);
    front.front.enable(ring, true);
  }
  front.guest.post(2, 8);
  front.front.features();
  write(rig.ends[1], 5);
  await assertReceives(front, 2, [5]);
  send(front, 3, 6);
  await assertSends(rig.ends[1], [6]);
  assertEquals(rig.counters("net0.driver")["fault_available-index-too-far"], 1);
});

hostTest(
  "twenty front-ends come and go, and leave no descriptor and no mapping behind",
  [linux],
  async () => {
    // What signals need stays open as long as the thread lives.
    prepareSignals();
    const life = async (cycles: number) => {
      await using rig = await ThreadsRig.start({ queuePairs: 2, offloads: ["rsc-v4"] });
      const cycle = async () => {
        using front = rig.connect();
        startTwoPairs(front);
        write(rig.ends[1], 1);
        await assertReceives(front, 2, [1]);
        send(front, 1, 2);
        await assertSends(rig.ends[0], [2]);
        front.stream[Symbol.dispose]();
        rig.machine.parts.reactor.settle();
        assertEquals(rig.driver.connected, false);
      };
      await cycle();
      const usual = [await settledDescriptors(), FileDescriptor.live];
      for (let i = 1; i < cycles; i++) await cycle();
      assertEquals([await settledDescriptors(), FileDescriptor.live], usual);
      assertEquals([MemoryMapping.live, mappingsOf("memfd:guest")], [0, 0]);
      assertEquals(rig.counters("net0.driver").disconnections, cycles);
      assertEquals(rig.counters("net0").resets, cycles);
      rig.assertNoFault();
    };
    // The first workers of a process leave the runtime descriptors of its own.
    await life(1);
    const before = await settledDescriptors();
    await life(20);
    await until("all are closed", () => openDescriptors().length <= before + 1);
  },
);

hostTest(
  "memory that is replaced fifty times under running threads is never touched again",
  [linux],
  async () => {
    await using rig = await ThreadsRig.start();
    using front = rig.connect();
    front.start();
    for (let i = 0; i < 50; i++) {
      // Traffic goes on meanwhile.
      write(rig.ends[0], i);
      front.front.setMemoryTable();
      await assertReceives(front, 0, [i]);
    }
    front.front.features();
    assertEquals([MemoryMapping.live, mappingsOf("memfd:guest")], [2, 2]);
    rig.assertNoFault();
  },
);

hostTest("a plugin that throws in a thread ends the machine with its error", [linux], async () => {
  const module = new URL("./support/throwing_offload.ts", import.meta.url).href;
  await using rig = await ThreadsRig.start({ offloads: [{ use: module }] });
  using front = rig.connect();
  front.start();
  write(rig.ends[0], 1);
  const error = await assertRejects(() => rig.running, PluginError);
  assertEquals(
    withoutPlaces(error.message),
    '$.devices[0].offloads[0]: plugin "throwing" failed in process: the step process',
  );
  assertMatch(error.message, /^\S+:1:\d+: .* \(file:\/\/.*throwing_offload\.ts:\d+:\d+\)$/);
});

/** Less file, line and column in the configuration, and the line of the plugin. */
function withoutPlaces(message: string): string {
  return message.replace(/^\S+:\d+:\d+: (?=\$)/, "").replace(/ \(file:\S+:\d+:\d+\)$/, "");
}

/**
 * What the machine ends with when the plugin fails at this step, in a thread that moves frames and is asked
 * for its counters.
 */
async function endOf(at: string, message: (front: SocketFrontEnd) => void = () => {}): Promise<Error> {
  const module = new URL("./support/throwing_offload.ts", import.meta.url).href;
  await using rig = await ThreadsRig.start({ offloads: [{ use: module, at }] });
  using front = rig.connect();
  try {
    front.start();
    // As many rounds as it takes until the thread's event loop has turned.
    for (let i = 0; i < 40; i++) {
      write(rig.ends[0], i);
      await after(1);
    }
    rig.counters("net0");
    message(front);
  } catch {
    // Where the front-end turns the machine itself, it meets the failure as well.
  }
  const began = performance.now();
  const error = await assertRejects(() => rig.running, Error);
  assert(performance.now() - began < 5000, "a time limit was waited for");
  return error;
}

hostTest(
  "wherever a plugin throws in a thread, the machine ends with its error, at once",
  [linux],
  async () => {
    for (
      const [at, message] of [
        [
          "negotiated",
          '$.devices[0].offloads[0]: plugin "throwing" failed in negotiated: the step negotiated',
        ],
        // The second error, while the thread is cleaned up after, does not hide the first.
        [
          "process and reset",
          '$.devices[0].offloads[0]: plugin "throwing" failed in process: the step process and reset',
        ],
        ["long text", `$.devices[0].offloads[0]: plugin "throwing" failed in process: ${"x".repeat(16_384)}`],
        [
          "promise",
          '$.devices[0].offloads[0]: plugin "throwing" failed in a promise: the step promise',
        ],
        [
          "callback",
          '$.devices[0].offloads[0]: plugin "throwing" failed in a callback: the step callback',
        ],
        [
          "counters",
          '$.devices[0]: plugin "net" failed in poll: the counter "frames" of net0.throwing is a bigint, not a number',
        ],
      ]
    ) {
      assertEquals(withoutPlaces((await endOf(at)).message), message);
    }
    // In the midst of a command: it is not answered, because it is not known where the rings stand.
    let answer: unknown = null;
    const error = await endOf("flush", (front) => void (answer = front.front.base(0)));
    assertEquals(
      withoutPlaces(error.message),
      '$.devices[0].offloads[0]: plugin "throwing" failed in flush: the step flush',
    );
    assertEquals(answer, null);
  },
);

/** A device whose guest sends a frame every millisecond. */
const OTHER = {
  use: "net",
  name: "other",
  driver: { use: "loopback", behaviour: { send: { count: 100_000, intervalUs: 1000, frameBytes: 60 } } },
  network: { use: "loopback", cable: "other" },
};

hostTest("a thread that fails ends its own device only, and others go on", [linux], async () => {
  const module = new URL("./support/throwing_offload.ts", import.meta.url).href;
  for (
    const at of [
      "process",
      "process and reset",
      "negotiated",
      "flush",
      "promise",
      "callback",
      "counters",
      "long text",
    ]
  ) {
    await using rig = await ThreadsRig.start({ offloads: [{ use: module, at }], beside: [OTHER] });
    let isOver = false;
    rig.running.catch(() => {}).finally(() => isOver = true);
    using front = rig.connect();
    try {
      front.start();
      for (let i = 0; i < 40 && rig.machine.failure === null; i++) {
        write(rig.ends[0], i);
        await after(1);
      }
      if (at === "flush") front.front.base(0);
      if (at === "counters") rig.counters("net0");
    } catch {
      // A front-end that is let go is not answered.
    }
    await until(`${at}: it has failed`, () => rig.machine.failure !== null);
    const { message } = rig.machine.failure as Error;
    const named = at === "counters"
      ? '$.devices[0]: plugin "net" failed in poll: the counter "frames" of net0.throwing is a bigint'
      : '$.devices[0].offloads[0]: plugin "throwing" failed in ';
    assert(withoutPlaces(message).startsWith(named), message);
    await until(`${at}: its front-end is let go`, () => !rig.driver.connected);
    assertThrows(() => UnixStream.connect(rig.socket));
    const before = rig.counters("other.fromGuest").packets;
    await until(`${at}: the other goes on`, () => rig.counters("other.fromGuest").packets > before + 50);
    assertEquals(isOver, false, `${at} ended the machine`);
    const error = await assertRejects(() => rig.machine.close(), PluginError);
    assertEquals(error.message, message);
  }
});

hostTest("a thread that fails before it works ends the machine with its error", [linux], async () => {
  const module = new URL("./support/throwing_offload.ts", import.meta.url).href;
  const error = await assertRejects(
    () => ThreadsRig.start({ offloads: [{ use: module, at: "create" }] }),
    PluginError,
  );
  assertEquals(
    withoutPlaces(error.message),
    '$.devices[0].offloads[0]: plugin "throwing" failed in create: the step create',
  );
});

hostTest("a thread that does not answer ends the machine, and may come round later", [linux], async () => {
  const module = new URL("./support/sleeping_offload.ts", import.meta.url).href;
  const mappings = () => mappingsOf("memfd:guest");
  {
    await using rig = await ThreadsRig.start({ offloads: [{ use: module }] });
    using front = rig.connect();
    front.start();
    write(rig.ends[0], 1);
    await after(50);
    rig.counters("net0");
    const error = await assertRejects(() => rig.running, HostError);
    assertEquals(
      error.message,
      "The thread of set 0 of net0 has not answered for 1 s: a plugin may not come to its end",
    );
  }
  // It will write the frame into memory of its rings: that must still be there.
  assertEquals(mappings(), 1);
  await after(3000);
});

hostTest(
  "a thread that does not begin to work has failed after a time limit, and is not waited for",
  [linux],
  async () => {
    const module = new URL("./support/sleeping_offload.ts", import.meta.url).href;
    const device = {
      use: "net",
      mode: "threads",
      driver: { use: "vhost-user", socket: "net0.sock" },
      network: { use: new URL("./support/socket_network.ts", import.meta.url).href },
      offloads: [{ use: module, at: "create" }],
    };
    const { text, baseUrl } = await parseConfig(
      JSON.stringify({ devices: [device] }),
      import.meta.url,
      newRegistry(),
    );
    using event = EventFd.create();
    const given = {
      descriptor: event.fd.number,
      name: "none",
      headerBytes: 0,
      mtu: 1500,
      largeUdp: false,
      offloads: false,
    };
    const { promise: woken, resolve } = Promise.withResolvers<void>();
    const worker = new QueueWorker({
      name: "set 0 of net0",
      start: {
        arena: null,
        text,
        baseUrl,
        device: 0,
        set: 0,
        queues: [0, 1],
        given: { "$.devices[0].network": given },
        sharedMemory: newClaimMemory(),
      },
      limitMs: 1000,
      startLimitMs: 500,
      wake: resolve,
      count: () => {},
    });
    const began = performance.now();
    await woken;
    assertEquals(
      worker.failure?.message,
      "The thread of set 0 of net0 has not begun to work for 0.5 s: a plugin may not come to its end",
    );
    assertEquals([worker.isReady, worker.isStuck], [false, true]);
    await worker.close();
    assert(performance.now() - began < 8000, "it was waited for");
  },
);

hostTest("a machine whose threads never got a front-end comes to its end", [linux], async () => {
  const idle = async () => {
    await using _rig = await ThreadsRig.start({ queuePairs: 4 });
  };
  // The first threads of a process leave something of the runtime's behind.
  await idle();
  const before = await settledDescriptors();
  await idle();
  await until("all are closed", () => openDescriptors().length <= before);
});

/** How many descriptors there are when the runtime has closed those of threads that have ended. */
async function settledDescriptors(): Promise<number> {
  let count = openDescriptors().length;
  for (let same = 0; same < 20;) {
    await after(10);
    const now = openDescriptors().length;
    same = now === count ? same + 1 : 0;
    count = now;
  }
  return count;
}

hostTest("the dirty log has what a thread has written", [linux], async () => {
  await using rig = await ThreadsRig.start();
  using front = rig.connect();
  front.start();
  using file = newMemoryFile("log", LOG_BYTES);
  using log = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: LOG_BYTES }, "log");
  front.front.ask(Request.SET_LOG_BASE, concat(u64(LOG_BYTES), u64(0)), [file.number]);
  front.front.setFeatures(usualFeatures(front.front.features()) | LOG_ALL);
  write(rig.ends[0], 1);
  await assertReceives(front, 0, [1]);
  front.front.features();
  // The buffer itself; the used ring has no address to be logged by.
  const page = (GUEST_BASE + 0x2000) / 4096;
  assertEquals(new Uint8Array(log.buffer)[page >> 3] >> (page & 7) & 1, 1);
});

/** A command of the control queue, which is carried out: class, command, data. */
async function command(front: SocketFrontEnd, ...bytes: number[]): Promise<void> {
  const { guest, kicks } = front;
  const address = guest.place(4).descriptors + 0x2000;
  guest.memory.copyIn(address, Uint8Array.from([...bytes, 0xee]), 0, bytes.length + 1);
  const list = new BufferList(2);
  list.addReadable(address, bytes.length);
  list.addWritable(address + bytes.length, 1);
  const ring = guest.ring(4);
  ring.add(list, 0);
  if (ring.publish()) kicks[4].signal();
  await until("the command is answered", () => ring.takeUsed() === 0);
  assertEquals(guest.memory.readU8(address + bytes.length), 0, `command ${bytes} was refused`);
}

hostTest("commands of the driver take effect in threads, in the midst of work", [linux], async () => {
  await using rig = await ThreadsRig.start({ queuePairs: 2 });
  using front = rig.connect();
  const { front: says, guest } = front;
  says.setProtocolFeatures(says.protocolFeatures());
  says.setFeatures(usualFeatures(says.features(), CTRL_VQ, CTRL_RX, MQ));
  says.addMemory();
  for (let ring = 0; ring < 5; ring++) says.describe(ring);
  for (let ring = 0; ring < 5; ring++) says.enable(ring, true);
  for (const queue of [0, 2]) guest.post(queue, 8);
  says.features();
  const foreign = numbered(1);
  foreign[5] = 0x99;
  await command(front, 0, 0, 0);
  for (let i = 0; i < 30; i++) {
    // What the filter lets through is what the driver has said last.
    assert(rig.ends[i & 1].write(foreign));
    await until("it is refused", () => rig.counters("net0.filter").unicast_unknown === i + 1);
    await command(front, 0, 0, 1);
    assert(rig.ends[i & 1].write(foreign));
    await assertReceives(front, 2 * (i & 1), [1]);
    await command(front, 0, 0, 0);
    await command(front, 4, 0, 1 + (i & 1), 0);
  }
  assertEquals(rig.counters("net0.control").commands, 91);
  assertEquals(rig.counters("net0.toGuest").packets, 30);
  rig.assertNoFault();
});

hostTest("what a guest breaks in its control queue stops the threads as well", [linux], async () => {
  await using rig = await ThreadsRig.start();
  using front = rig.connect();
  const { front: says, guest } = front;
  says.setProtocolFeatures(says.protocolFeatures());
  says.setFeatures(usualFeatures(says.features(), CTRL_VQ));
  says.addMemory();
  for (const ring of [0, 1, 2]) says.describe(ring);
  for (const ring of [0, 1, 2]) says.enable(ring, true);
  guest.post(0, 8);
  says.features();
  guest.memory.writeU16(guest.place(2).driver + 2, 300);
  front.kicks[2].signal();
  await until("it is counted", () => rig.counters("net0.driver")["fault_available-index-too-far"] === 1);
  write(rig.ends[0], 1);
  await after(50);
  assertEquals(guest.received(0), []);
  assertEquals(says.status() & 64, 64);
});

hostTest(
  "rings without events are looked at by the thread, and their driver is left alone",
  [linux],
  async () => {
    await using rig = await ThreadsRig.start();
    using front = rig.connect();
    const { front: says, guest } = front;
    says.setFeatures(usualFeatures(says.features()));
    says.setMemoryTable();
    for (const ring of [0, 1]) {
      says.setNum(ring);
      says.setBase(ring, 0);
      says.setAddress(ring);
      says.setNoKick(ring);
      says.enable(ring, true);
    }
    guest.post(0, 8);
    says.features();
    for (let i = 0; i < 10; i++) {
      write(rig.ends[0], i);
      let received: Uint8Array[] = [];
      await until("a frame comes", () => (received = guest.received(0)).length > 0);
      assertEquals(received.length, 1);
      guest.post(0, 1);
      guest.send(1, numbered(i));
      await assertSends(rig.ends[0], [i]);
      assertEquals(guest.returned(1), 1);
    }
    rig.assertNoFault();
  },
);

hostTest(
  "a thread that is preempted before its notify is waited for: resets and traffic in turn",
  [linux],
  async () => {
    const module = new URL("./support/late_notify_offload.ts", import.meta.url).href;
    await using rig = await ThreadsRig.start({ offloads: [{ use: module }] });
    using front = rig.connect();
    using _late = delayWaits(1);
    front.start();
    for (let i = 0; i < 40; i++) {
      write(rig.ends[0], i);
      await assertReceives(front, 0, [i]);
      // Back to back: the detach for the second message comes while the thread is about to notify of the
      // first.
      front.front.setStatus(0);
      front.guest.forget(0);
      front.guest.forget(1);
      front.front.setFeatures(usualFeatures(front.front.features()));
      for (const ring of [0, 1]) front.front.describe(ring);
      for (const ring of [0, 1]) front.front.enable(ring, true);
      front.guest.post(0, 8);
      front.front.features();
    }
    rig.assertNoFault();
    assertEquals(rig.counters("net0").resets, 40);
  },
);

hostTest("events that would wait hold no thread up: the front-end has filled them", [linux], async () => {
  await using rig = await ThreadsRig.start();
  using front = rig.connect();
  front.start();
  for (const { fd } of [...front.calls, ...front.kicks]) {
    libc().eventfd_write(fd.number, 0xffff_ffff_ffff_fffen);
    libc().fcntl(fd.number, F_SETFL, 0);
  }
  for (let i = 0; i < 4; i++) write(rig.ends[0], i);
  await assertReceives(front, 0, [0, 1, 2, 3]);
  // Everything is detached for it: a thread that waits would not answer.
  front.front.features();
  rig.assertNoFault();
});

hostTest(
  "a front-end that resets as fast as it can, with preemption planted in both threads, ends nothing",
  [linux],
  async () => {
    assert(await stressResets(Infinity, 4000) > 5);
  },
);
