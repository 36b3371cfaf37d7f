/**
 * Descriptors are open files that the front-end shares: what it does to them later must neither make this
 * program wait nor keep a connection open that the front-end has left.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { FileDescriptor, O_NONBLOCK, O_RDWR } from "../../../host/descriptors.ts";
import { Epoll, TimerFd } from "../../../host/epoll.ts";
import { cString, libc } from "../../../host/libc.ts";
import { UnixStream } from "../../../host/unix_socket.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { hostTest, linux } from "../../../rigs/require.ts";
import { frame, numbersOf } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { OddDescriptors } from "./support/odd_descriptors.ts";
import { concat, message, pair, u64 } from "../../../rigs/vhost_user/payload.ts";
import type { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";
import { Target } from "./support/target.ts";

const F_SETFL = 4;
const AF_INET = 2;
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const FULL = 0xffff_ffff_ffff_fffen;
/** A call that waits holds everything up, also what would say so: the kernel ends this process then. */
const PATIENCE_S = 60;

const { alarm, mkfifo, inotify_init1, setsockopt, signalfd } = Deno.dlopen("libc.so.6", {
  alarm: { parameters: ["u32"], result: "u32" },
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" },
  inotify_init1: { parameters: ["i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  signalfd: { parameters: ["i32", "buffer", "i32"], result: "i32" },
}).symbols;

function watchedTest(name: string, fn: () => Promise<void>): void {
  hostTest(name, [linux], async () => {
    alarm(PATIENCE_S);
    try {
      await fn();
    } finally {
      alarm(0);
    }
  });
}

function pipe(): [FileDescriptor, FileDescriptor] {
  const ends = new Int32Array(2);
  assertEquals(libc().pipe2(new Uint8Array(ends.buffer), 0), 0);
  return [new FileDescriptor(ends[0]), new FileDescriptor(ends[1])];
}

/** Sets or takes off O_NONBLOCK, behind the back of a process that has the same open file. */
function setFlags(number: number, flags = 0): void {
  assertEquals(libc().fcntl(number, F_SETFL, flags), 0);
}

/** Takes O_NONBLOCK off every event, and fills each. */
function spoil({ kicks, calls, errors }: SocketFrontEnd): void {
  for (const { fd } of [...kicks, ...calls, ...errors]) {
    setFlags(fd.number, O_NONBLOCK);
    libc().eventfd_write(fd.number, FULL);
    setFlags(fd.number);
  }
}

watchedTest("events that are full and would wait hold nothing up, whichever way they are used", async () => {
  await using target = await Target.start();
  const port = target.machine.machine.devices[0].parts.network as CablePort;
  {
    using front = target.connect();
    front.start();
    spoil(front);
    // A call; then a new one, which is signalled at once.
    assert(port.inject(frame(7)));
    target.turn();
    assertEquals(numbersOf(front.guest.received(0)), [7]);
    front.front.setCall(0);
    spoil(front);
    // An error: a broken chain.
    front.guest.send(1, frame(9));
    front.guest.memory.writeU32(front.guest.place(1).descriptors + 4, 0x7000);
    target.turn();
    assert(target.machine.faults()["net0.driver.fault_address-out-of-range"] > 0);
  }
  await target.alone();
  {
    // A kick that is looked at: the ring is disabled, and was not kicked yet.
    using front = target.connect();
    front.front.setProtocolFeatures(front.front.protocolFeatures());
    front.front.setFeatures(usualFeatures(front.front.features()));
    front.front.addMemory();
    front.front.describe(1);
    setFlags(front.kicks[1].fd.number);
    target.turn();
    assertEquals(target.machine.driver(0).backend!.features !== null, true);
    front.guest.send(1, frame(9));
    front.kicks[1].signal();
    target.turn();
    assertEquals([front.guest.returned(1), target.machine.driver(0).counters.connections], [1, 2]);
  }
  await target.alone();
  await target.assertServes();
});

watchedTest("the event of a dirty log that is full holds nothing up", async () => {
  await using target = await Target.start();
  const port = target.machine.machine.devices[0].parts.network as CablePort;
  {
    using front = target.connect();
    front.start();
    using event = new FileDescriptor(libc().eventfd(0, 0));
    libc().eventfd_write(event.number, FULL);
    using odd = new OddDescriptors();
    front.front.say(Request.SET_LOG_FD, undefined, [event.number]);
    front.front.say(Request.SET_LOG_BASE, concat(u64(4096), u64(0)), [odd.number("memory")]);
    front.front.setFeatures(
      front.front.features() & ~(1n << 34n) & (1n << 26n | 1n << 30n | 1n << 32n | 1n << 15n),
    );
    assert(port.inject(frame(7)));
    target.turn();
  }
  await target.alone();
  await target.assertServes();
});

watchedTest(
  "what is no eventfd is refused as kick, call, error and log event, and neither read nor written",
  async () => {
    await using target = await Target.start();
    const folder = target.machine.folder;
    using stack = new DisposableStack();
    const own = (number: number) => stack.use(new FileDescriptor(number)).number;
    const open = (path: string, flags = O_RDWR) =>
      stack.use(FileDescriptor.open(cString(path), flags, "open it")).number;
    const [from, to] = pipe().map((end) => stack.use(end).number);
    assertEquals(mkfifo(cString(`${folder}/fifo`), 0o600), 0);
    Deno.writeTextFileSync(`${folder}/file`, "as it was");
    const kinds: Record<string, number> = {
      "an empty pipe": from,
      "the other end of it": to,
      "a FIFO": open(`${folder}/fifo`),
      "a terminal": open("/dev/ptmx"),
      "a timer": stack.use(new TimerFd()).fd.number,
      "an inotify queue": own(inotify_init1(0)),
      "signals": own(signalfd(-1, new Uint8Array(8), 0)),
      "an epoll set": stack.use(new Epoll()).fd.number,
      "a file": open(`${folder}/file`),
      "a folder": open(folder, 0),
      "/dev/zero": open("/dev/zero"),
    };
    for (const [name, number] of Object.entries(kinds)) {
      setFlags(number);
      using front = target.connect();
      front.start();
      for (const id of [Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR]) {
        assertEquals(front.front.succeeds(id, u64(1), [number]), false, `${name}, ${id}`);
      }
      assertEquals(front.front.succeeds(Request.SET_LOG_FD, undefined, [number]), false, name);
      assertEquals(front.front.succeeds(Request.SET_BACKEND_REQ_FD, undefined, [number]), false, name);
    }
    await target.alone();
    await target.assertServes();
    assertEquals(Deno.readTextFileSync(`${folder}/file`), "as it was");
  },
);

watchedTest(
  "a state goes through a pipe of the front-end's that would wait, and through nothing else",
  async () => {
    await using target = await Target.start();
    using front = target.connect();
    front.start();
    for (const ring of [0, 1]) front.front.base(ring);
    const [from, to] = pipe();
    using _from = from;
    const transfer = (direction: number, number: number) =>
      front.front.ask(Request.SET_DEVICE_STATE_FD, pair(direction, 0), [number]);
    const check = () => front.front.ask(Request.CHECK_DEVICE_STATE);
    // Saved into a pipe that has room, and into one that has none.
    assertEquals([transfer(0, to.number), check()], [0x100n, 0n]);
    to[Symbol.dispose]();
    const state = new Uint8Array(65_536);
    const bytes = libc().read(
      from.number,
      BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(state))),
      65_536n,
    );
    assertEquals(JSON.parse(new TextDecoder().decode(state.subarray(0, bytes))).kind, "virtio-device-state");
    {
      const [fullFrom, fullTo] = pipe();
      using _fullFrom = fullFrom;
      using _fullTo = fullTo;
      const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(state)));
      assertEquals(libc().write(fullTo.number, address, 65_536n), 65_536);
      assertEquals([transfer(0, fullTo.number), check()], [0x100n, 0x101n]);
    }
    // It is not read.
    {
      const [lostFrom, lostTo] = pipe();
      lostFrom[Symbol.dispose]();
      using _lostTo = lostTo;
      assertEquals([transfer(0, lostTo.number), check()], [0x100n, 0x101n]);
    }
    // Loaded from a pipe into which nothing is written, and then all of it.
    {
      const [loadFrom, loadTo] = pipe();
      using _loadFrom = loadFrom;
      using _loadTo = loadTo;
      assertEquals([transfer(1, loadFrom.number), check()], [0x100n, 0x101n]);
      assertEquals(transfer(1, loadFrom.number), 0x100n);
      const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(state)));
      assertEquals(libc().write(loadTo.number, address, BigInt(bytes)), bytes);
      loadTo[Symbol.dispose]();
      assertEquals(check(), 0n);
    }
    using odd = new OddDescriptors();
    for (const name of OddDescriptors.names) {
      for (const direction of [0, 1]) assertEquals(transfer(direction, odd.number(name)), 0x101n, name);
    }
  },
);

/** Has the front-end's own end, or what holds it, sent by each of the messages that take descriptors. */
function messagesWith(number: number): [Uint8Array<ArrayBuffer>, number[]][] {
  return [
    [message(Request.SET_VRING_KICK, u64(0)), [number]],
    [message(Request.SET_VRING_CALL, u64(1)), [number]],
    [message(Request.SET_VRING_ERR, u64(0)), [number]],
    [message(Request.SET_LOG_FD), [number]],
    [message(Request.SET_BACKEND_REQ_FD), [number]],
    [message(Request.SET_DEVICE_STATE_FD, pair(1, 0)), [number]],
    [message(Request.GET_FEATURES), [number, number, number]],
  ];
}

watchedTest("a front-end that has sent us its own end of the connection is seen to leave", async () => {
  await using target = await Target.start();
  const sends: ((front: SocketFrontEnd) => void)[] = [];
  for (let which = 0; which < 7; which++) {
    // As it is.
    sends.push(({ stream }) => {
      const [bytes, numbers] = messagesWith(stream.fd.number)[which];
      stream.send(bytes, 0, bytes.length, numbers);
    });
    // In the queue of a socket, and in that of a socket that is in such a queue.
    for (const depth of [1, 3]) {
      sends.push(({ stream }) => {
        using stack = new DisposableStack();
        let number = stream.fd.number;
        for (let i = 0; i < depth; i++) {
          const [holder, other] = UnixStream.pair().map((end) => stack.use(end));
          assertEquals(other.send(new Uint8Array(1), 0, 1, [number]), 1);
          number = holder.fd.number;
        }
        const [bytes, numbers] = messagesWith(number)[which];
        stream.send(bytes, 0, bytes.length, numbers);
      });
    }
  }
  // Through a back channel that is in use already.
  sends.push((front) => {
    const [here, there] = UnixStream.pair();
    using _here = here;
    using _there = there;
    front.front.say(Request.SET_BACKEND_REQ_FD, undefined, [there.fd.number]);
    for (let i = 0; i < 50; i++) here.send(new Uint8Array(4096), 0, 4096, [front.stream.fd.number]);
  });
  // A second connection to the same socket, behind this one.
  sends.push((front) => {
    using second = UnixStream.connect(`${target.machine.folder}/net0.sock`);
    const bytes = message(Request.SET_BACKEND_REQ_FD);
    front.stream.send(bytes, 0, bytes.length, [second.fd.number]);
    second.send(message(Request.SET_BACKEND_REQ_FD), 0, 12, [front.stream.fd.number]);
  });
  for (const starts of [false, true]) {
    for (const send of sends) {
      {
        using front = target.connect();
        if (starts) front.start();
        target.turn();
        send(front);
        target.turn();
      }
      await target.alone();
    }
  }
  await target.assertServes();
});

watchedTest("two devices whose front-end gives each the other's connection see it leave", async () => {
  await using target = await Target.start({ name: "a" });
  await using other = await Target.start({ name: "b" });
  {
    using left = target.connect();
    using right = other.connect();
    for (const each of [left, right]) each.start();
    assertEquals(left.front.succeeds(Request.SET_BACKEND_REQ_FD, undefined, [right.stream.fd.number]), false);
    assertEquals(right.front.succeeds(Request.SET_BACKEND_REQ_FD, undefined, [left.stream.fd.number]), false);
  }
  await target.alone();
  await other.alone();
});

watchedTest(
  "a front-end that waits for its turn gets it with what it has said, unless it sends descriptors or too much",
  async () => {
    await using target = await Target.start();
    const driver = target.machine.driver(0);
    using first = target.connect();
    first.start();
    const ask = (front: SocketFrontEnd) => front.stream.send(message(Request.GET_QUEUE_NUM), 0, 12);
    const answer = new Uint8Array(64);
    const heard = ({ stream }: SocketFrontEnd) => stream.receive(answer, 0, answer.length, []);
    using patient = target.connect();
    ask(patient);
    using grabbing = target.connect();
    const [kick] = messagesWith(first.stream.fd.number);
    grabbing.stream.send(kick[0], 0, kick[0].length, kick[1]);
    using talking = target.connect();
    talking.stream.send(new Uint8Array(8192), 0, 8192);
    using left = target.connect();
    ask(left);
    left.stream[Symbol.dispose]();
    target.turn();
    assertEquals([heard(patient), heard(grabbing), heard(talking)], [0, -1, -1]);
    // More than may wait.
    const crowd = Array.from({ length: 20 }, () => {
      const front = first.own(target.connect());
      target.turn();
      return front;
    });
    const refused = crowd.filter((front) => heard(front) === -1).length;
    assertEquals(refused, 5);
    for (const front of crowd) front.stream[Symbol.dispose]();
    ask(patient);
    first.stream[Symbol.dispose]();
    target.turn();
    assertEquals(heard(patient), 40, "both questions are answered");
    assertEquals([driver.counters.connections, driver.connected], [2, true]);
  },
);

/** A socket that takes an hour to be closed: there is something to be sent, which is not taken. */
async function lingering(stack: DisposableStack): Promise<FileDescriptor> {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const c = libc();
  const fd = new FileDescriptor(c.socket(AF_INET, 1, 0));
  const address = new Uint8Array(16);
  address.set([AF_INET, 0, port >> 8, port & 0xff, 127, 0, 0, 1]);
  const accepted = listener.accept();
  assertEquals(c.connect(fd.number, address, address.length), 0);
  const peer = await accepted;
  stack.defer(() => peer.close());
  listener.close();
  setFlags(fd.number, O_NONBLOCK);
  const bytes = new Uint8Array(65_536);
  const at = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
  while (c.write(fd.number, at, 65_536n) > 0);
  const linger = new Uint8Array(Uint32Array.of(1, 3600).buffer);
  assertEquals(setsockopt(fd.number, SOL_SOCKET, SO_LINGER, linger, linger.length), 0);
  return fd;
}

watchedTest(
  "sockets that take an hour to be closed keep nothing waiting, wherever they lie when they are let go",
  async () => {
    await using target = await Target.start();
    using stack = new DisposableStack();
    const send = (stream: UnixStream, bytes: Uint8Array<ArrayBuffer>, fd: FileDescriptor) => {
      assertEquals(stream.send(bytes, 0, bytes.length, [fd.number]), bytes.length);
      // The only one that is left is on its way.
      fd[Symbol.dispose]();
    };
    {
      // In messages that are refused.
      using front = target.connect();
      front.start();
      for (const [bytes] of messagesWith(-1)) send(front.stream, bytes, await lingering(stack));
      target.turn();
    }
    await target.alone();
    {
      // In a message that does not come to its end.
      using front = target.connect();
      send(front.stream, message(Request.SET_VRING_KICK, u64(0)).slice(0, 10), await lingering(stack));
      target.turn();
    }
    await target.alone();
    {
      // In the queue of a back channel, before it is used and afterwards, and of one that is refused.
      using front = target.connect();
      front.start();
      const [here, there] = UnixStream.pair();
      using _here = here;
      send(here, new Uint8Array(1), await lingering(stack));
      front.front.say(Request.SET_BACKEND_REQ_FD, undefined, [there.fd.number]);
      there[Symbol.dispose]();
      send(here, new Uint8Array(1), await lingering(stack));
      target.turn();
      const [left, right] = UnixStream.pair();
      send(left, new Uint8Array(1), await lingering(stack));
      left[Symbol.dispose]();
      front.front.say(Request.SET_VRING_CALL, u64(0), [right.fd.number]);
      right[Symbol.dispose]();
    }
    await target.alone();
    {
      // In a connection that is not read any more, and in one that waits.
      using front = target.connect();
      front.start();
      using waiting = target.connect();
      const [first, second] = [await lingering(stack), await lingering(stack)];
      front.stream.send(new Uint8Array(12), 0, 12);
      send(front.stream, message(Request.GET_FEATURES), first);
      send(waiting.stream, message(Request.GET_FEATURES), second);
      target.turn();
    }
    await target.alone();
    await target.assertServes();
  },
);
