import { assert, assertEquals, assertThrows } from "@std/assert";
import { MAX_STATE_BYTES } from "../../../transports/vhost_user/device_messages.ts";
import { BackendRequest, ProtocolError, Request } from "../../../transports/vhost_user/messages.ts";
import { Bench } from "./support/bench.ts";
import { FakePipe, FakeSocket } from "./support/fake_host.ts";
import { frame, numbersOf } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE } from "../../../rigs/vhost_user/guest.ts";
import { pair, u64 } from "../../../rigs/vhost_user/payload.ts";

function withChannel(bench: Bench): FakeSocket {
  const socket = new FakeSocket();
  bench.front.say(Request.SET_BACKEND_REQ_FD, undefined, [bench.host.descriptor(socket)]);
  return socket;
}

/** Number and first word of the payload of each message. */
function said(socket: FakeSocket): number[][] {
  return socket.received.splice(0).map((bytes) => {
    const view = new DataView(bytes.buffer);
    return [
      view.getUint32(0, true),
      view.getUint32(4, true),
      ...bytes.length > 12 ? [view.getUint32(12, true)] : [],
    ];
  });
}

Deno.test("a change of configuration is told to a front-end that reads it from here", () => {
  using bench = new Bench({ profile: "crosvm" });
  bench.start({ features: usualFeatures(bench.front.features(), 16, 17) });
  const socket = withChannel(bench);
  bench.rig.device.setLink(false, bench.nowNs);
  assertEquals(said(socket), [[BackendRequest.CONFIG_CHANGE_MSG, 1]]);
  assertEquals(bench.front.config(6, 1)[0], 0, "the link is down");
  socket.full = true;
  bench.rig.device.setLink(true, bench.nowNs);
  bench.rig.device.setLink(false, bench.nowNs);
  assertEquals(said(socket), []);
  socket.full = false;
  bench.settle();
  assertEquals(said(socket), [[BackendRequest.CONFIG_CHANGE_MSG, 1]], "sent later, and once");
  assert(socket.discards > 0, "descriptors that were not asked for would stay in the socket");
});

Deno.test("a front-end that has its own configuration is told nothing", () => {
  using bench = new Bench({ profile: "qemu" });
  bench.start({ features: usualFeatures(bench.front.features(), 16) });
  const socket = withChannel(bench);
  bench.rig.device.setLink(false, bench.nowNs);
  bench.settle();
  assertEquals(said(socket), []);
});

Deno.test("a simulator kicks by messages, and is interrupted and told of errors by messages", () => {
  using bench = new Bench({ profile: "sim" });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const socket = withChannel(bench);
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  for (const ring of [0, 1]) {
    bench.front.setNum(ring);
    bench.front.setBase(ring, 0);
    bench.front.setAddress(ring);
    bench.front.enable(ring, true);
  }
  bench.guest.send(1, frame(4));
  bench.settle();
  assertEquals(bench.rig.network.sent, []);
  assertEquals(bench.front.succeeds(Request.VRING_KICK, pair(1, 0)), true);
  bench.settle();
  assertEquals(numbersOf(bench.rig.network.sent), [4]);
  assertEquals(said(socket), [[BackendRequest.VRING_CALL, 9, 1]]);
  assertEquals(bench.backend.deadlineNs(), Infinity, "rings that are kicked need not be looked at");
  bench.settle();
  assert(socket.discards > 0);

  bench.guest.send(1, frame(5));
  bench.guest.memory.writeU32(bench.guest.place(1).descriptors + 16 + 4, 0x7000);
  bench.front.say(Request.VRING_KICK, pair(1, 0));
  bench.settle();
  assertEquals(said(socket), [[BackendRequest.VRING_ERR, 9, 1], [BackendRequest.CONFIG_CHANGE_MSG, 1]]);
});

Deno.test("kicks by message without the features that they need end the connection", () => {
  using bench = new Bench({ profile: "sim" });
  const bits = bench.front.protocolFeatures() & ~(1n << 5n);
  const error = assertThrows(() => bench.front.say(Request.SET_PROTOCOL_FEATURES, u64(bits)), ProtocolError);
  assertEquals([error.fault, error.fatal], ["not-negotiated", true]);
});

Deno.test("protocol features that were not offered are refused", () => {
  using bench = new Bench({ profile: "virtio-user" });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  assertEquals(bench.front.succeeds(Request.SET_PROTOCOL_FEATURES, u64(1n << 14n | 1n << 3n)), false);
});

const CROSVM_BITS = [2, 5, 16, 17, 18, 19, 20, 23];

/** A device whose driver has programmed everything by command. */
function programmed(): Bench {
  const bench = new Bench({ profile: "crosvm", device: { queuePairs: 2, extraFeatures: [57, 60] } });
  const features = usualFeatures(bench.front.features(), 22, 57, 60, ...CROSVM_BITS) &
    ~(1n << 29n | 1n << 57n);
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  bench.front.setFeatures(features);
  bench.front.setMemoryTable();
  for (const ring of [0, 1, 2, 3, 4]) {
    bench.front.describe(ring);
    bench.front.enable(ring, true);
  }
  const mac = [0x52, 0x54, 0, 0, 0, 0x77];
  const group = [0x33, 0x33, 0, 0, 0, 1];
  const commands: number[][] = [
    [0, 0, 0],
    [0, 1, 1],
    [1, 1, ...mac],
    [1, 0, 1, 0, 0, 0, ...mac, 1, 0, 0, 0, ...group],
    [2, 0, 7, 0],
    [5, 0, 2, 0, 0, 0, 0, 0, 0, 0],
    [4, 1, 0x3f, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 1, 0, 4, 9, 8, 7, 6],
  ];
  commands.forEach((command, i) => obey(bench, i, command));
  return bench;
}

/** Puts a command into the control queue, one chain of two descriptors, and has it answered. */
function obey(bench: Bench, number: number, bytes: readonly number[]): void {
  const { memory } = bench.guest;
  const { descriptors, driver } = bench.guest.place(4);
  const at = GUEST_BASE + 0x58000 + 128 * number;
  memory.copyIn(at, Uint8Array.from(bytes), 0, bytes.length);
  memory.writeU8(at + 127, 99);
  const first = 2 * number;
  const entries: [number, number, number, number][] = [[at, bytes.length, 1, first + 1], [at + 127, 1, 2, 0]];
  entries.forEach(([address, length, flags, next], i) => {
    const entry = descriptors + 16 * (first + i);
    memory.writeU32(entry, address);
    memory.writeU32(entry + 4, 0);
    memory.writeU32(entry + 8, length);
    memory.writeU16(entry + 12, flags);
    memory.writeU16(entry + 14, next);
  });
  memory.writeU16(driver + 4 + 2 * number, first);
  memory.writeU16(driver + 2, number + 1);
  bench.kicks[4].kick();
  bench.settle();
  assertEquals(memory.readU8(at + 127), 0, `command ${bytes} was refused`);
}

function save(bench: Bench): string {
  for (const ring of [0, 1, 2, 3, 4]) bench.front.base(ring);
  const pipe = new FakePipe();
  assertEquals(
    bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(0, 0), [bench.host.descriptor(pipe)]),
    0x100n,
  );
  assertEquals(bench.front.ask(Request.CHECK_DEVICE_STATE), 0n);
  return pipe.text;
}

function load(bench: Bench, text: string): boolean {
  const pipe = new FakePipe();
  assertEquals(
    bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(1, 0), [bench.host.descriptor(pipe)]),
    0x100n,
  );
  const bytes = new TextEncoder().encode(text);
  const middle = bytes.length >> 1;
  pipe.parts.push(bytes.slice(0, middle));
  bench.settle();
  pipe.parts.push(bytes.slice(middle));
  pipe.closed = true;
  return bench.front.ask(Request.CHECK_DEVICE_STATE) === 0n;
}

Deno.test("a device's state goes to another device, which then behaves the same", () => {
  using source = programmed();
  const text = save(source);
  const { state } = JSON.parse(text);
  assertEquals(state.mac, "52:54:00:00:00:77");
  assertEquals(state.modes, ["allmulti"]);
  assertEquals([state.unicast, state.multicast], [["52:54:00:00:00:77"], ["33:33:00:00:00:01"]]);
  assertEquals([state.vlans, state.offloads, state.pairs], [[7], "0x2", 2]);
  assertEquals([state.rss.table, state.rss.pairs, state.rss.key], [[0, 1], 2, [9, 8, 7, 6]]);

  using target = new Bench({ profile: "crosvm", device: { queuePairs: 2, extraFeatures: [57, 60] } });
  target.front.setProtocolFeatures(target.front.protocolFeatures());
  assertEquals(load(target, text), true);
  target.front.setFeatures(source.backend.features!.with(30).toBigInt());
  target.front.setMemoryTable();
  for (const ring of [0, 1, 2, 3, 4]) {
    target.front.describe(ring);
    target.front.enable(ring, true);
  }
  target.settle();
  // Not for the guest's own address any more, but for the one that its driver had set.
  for (const ring of [0, 2]) target.guest.post(ring, 4);
  target.rig.network.inbox.push(frame(1));
  const own = frame(2);
  own.set([0x52, 0x54, 0, 0, 0, 0x77]);
  target.rig.network.inbox.push(own);
  target.settle();
  assertEquals(numbersOf([...target.guest.received(0), ...target.guest.received(2)]), [2]);
  assertEquals(save(target), text, "what is saved again is the same");
});

Deno.test("a state is only transferred while every ring is stopped", () => {
  using bench = new Bench();
  bench.start();
  for (const direction of [0, 1]) {
    const pipe = bench.host.descriptor(new FakePipe());
    assertEquals(bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(direction, 0), [pipe]), 0x101n);
  }
  assertEquals(bench.refused, { "state-transfer-invalid": 2 });
  for (const payload of [pair(2, 0), pair(0, 1)]) {
    const pipe = bench.host.descriptor(new FakePipe());
    assertEquals(bench.front.ask(Request.SET_DEVICE_STATE_FD, payload, [pipe]), 0x101n);
  }
});

Deno.test("a state that does not get across whole is an error", () => {
  using bench = new Bench();
  const save = new FakePipe();
  save.capacity = 10;
  bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(0, 0), [bench.host.descriptor(save)]);
  assertEquals(bench.front.ask(Request.CHECK_DEVICE_STATE), 0x101n);
  const open = new FakePipe();
  bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(1, 0), [bench.host.descriptor(open)]);
  assertEquals(bench.front.ask(Request.CHECK_DEVICE_STATE), 0x101n, "its end has not come");
  const long = new FakePipe();
  bench.front.ask(Request.SET_DEVICE_STATE_FD, pair(1, 0), [bench.host.descriptor(long)]);
  long.parts.push(new Uint8Array(MAX_STATE_BYTES), new Uint8Array(1));
  bench.settle();
  assertEquals(bench.host.openDescriptors, 0, "too much is not kept");
  assertEquals(bench.front.ask(Request.CHECK_DEVICE_STATE), 0x101n);
});

Deno.test("a state that is broken, foreign or impossible is refused and changes nothing", () => {
  using source = programmed();
  const good = JSON.parse(save(source));
  const changes: ((state: typeof good) => unknown)[] = [
    () => 7,
    () => "{",
    (whole) => ({ ...whole, kind: "other" }),
    (whole) => ({ ...whole, version: 2 }),
    (whole) => ({ ...whole, id: 4 }),
    (whole) => ({ ...whole, state: null }),
    (whole) => ({ ...whole, state: { ...whole.state, extra: 1 } }),
    (whole) => ({ ...whole, state: { ...whole.state, mac: "01:00:00:00:00:00" } }),
    (whole) => ({ ...whole, state: { ...whole.state, vlans: [4096] } }),
    (whole) => ({ ...whole, state: { ...whole.state, modes: ["all"] } }),
    (whole) => ({ ...whole, state: { ...whole.state, pairs: 3 } }),
    (whole) => ({ ...whole, state: { ...whole.state, unicast: Array(65).fill("52:54:00:00:00:01") } }),
    (whole) => ({ ...whole, state: { ...whole.state, rss: { ...whole.state.rss, table: [2] } } }),
    (whole) => ({ ...whole, state: { ...whole.state, rss: { ...whole.state.rss, table: [0, 0, 0] } } }),
    (whole) => ({ ...whole, state: { ...whole.state, offloads: "0x1ffffffffffffffff" } }),
  ];
  using target = new Bench({ profile: "crosvm", device: { queuePairs: 2, extraFeatures: [57, 60] } });
  const before = JSON.stringify(target.rig.device.migration.save());
  for (const change of changes) {
    const changed = change(good);
    assertEquals(load(target, typeof changed === "string" ? changed : JSON.stringify(changed)), false);
    assertEquals(JSON.stringify(target.rig.device.migration.save()), before);
  }
  assertEquals(load(target, JSON.stringify(good)), true);
});
