import { assert, assertEquals, assertRejects } from "@std/assert";
import { FeatureSet } from "../../../core/features.ts";
import { BufferList } from "../../../guest/driver_ring.ts";
import { FrameBatch } from "../../../pipeline/frame.ts";
import { framePool } from "../../../pipeline/kinds.ts";
import { ethernet, parseTcp, tcp, TcpStream } from "../../../testing/mod.ts";
import * as net from "../../../wire/net_features.ts";
import { MACS, numbered, numberOf, range, Rig, RINGS, type Side } from "./support/rig.ts";

const TSO = ["CTRL_VQ", "CTRL_GUEST_OFFLOADS", "GUEST_CSUM", "GUEST_TSO4"];
const RSC = [{ use: "rsc-v4", intervalUs: 1000 }];
const MS = 1_000_000;
const FAR = 1e15;

/** Segments of one flow for the guest. */
function stream(sourcePort = 1111): TcpStream {
  return new TcpStream({ destinationMac: MACS[0], sourcePort });
}

/** Injects segments of 100 bytes. */
function feed(side: Side, flow: TcpStream, count: number): void {
  for (let i = 0; i < count; i++) assert(side.port.inject(flow.next(100)));
}

for (const { name, guest } of RINGS) {
  Deno.test(`NetDevice echoes everything that a guest returns, through both lines (${name})`, async () => {
    await using rig = await Rig.start([{
      guest: { ...guest, queueSize: 256, behaviour: "echo", accept: [] },
    }]);
    const { one } = rig;
    const frames = range(1, 200).map((number) => numbered(number, 60 + 7 * number));
    for (const [i, frame] of frames.entries()) {
      assert(one.port.inject(frame));
      if (i % 16 === 15) rig.settle();
    }
    rig.settle();
    assertEquals(one.sent.length, 200);
    one.sent.forEach((frame, i) => {
      assertEquals(frame.subarray(0, 6), frames[i].subarray(6, 12));
      assertEquals(frame.subarray(6, 12), frames[i].subarray(0, 6));
      assertEquals(frame.subarray(12), frames[i].subarray(12));
    });
    assertEquals([one.guest.counters.echoed, one.guest.errors], [200, []]);
  });

  Deno.test(`two devices on a cable exchange a thousand frames each way, in bursts and in order (${name})`, async () => {
    const own = { ...guest, queueSize: 256, accept: [] };
    await using rig = await Rig.start([
      { guest: own, network: { queueFrames: 32 } },
      { guest: own, network: { queueFrames: 32 } },
    ]);
    const { one, two } = rig;
    let [out, back] = [1, 1];
    while (out <= 1000 || back <= 1000) {
      for (let i = 0; i < 90 && out <= 1000; i++, out++) {
        if (!one.guest.enqueue(numbered(out, 60 + out % 1400, MACS[1]))) break;
      }
      for (let i = 0; i < 50 && back <= 1000; i++, back++) {
        if (!two.guest.enqueue(numbered(back, 60 + back % 900, MACS[0]))) break;
      }
      one.guest.flush();
      two.guest.flush();
      rig.settle();
    }
    assertEquals(two.numbers, range(1, 1000));
    assertEquals(one.numbers, range(1, 1000));
    two.packets.forEach(({ bytes }, i) => assertEquals(bytes, numbered(i + 1, 60 + (i + 1) % 1400, MACS[1])));
    assertEquals([one.guest.errors, two.guest.errors], [[], []]);
  });

  Deno.test(`NetDevice is reset in the middle, discards and counts, and serves the next driver (${name})`, async () => {
    const own = { ...guest, queueSize: 64, receiveBuffers: 0, accept: TSO };
    await using rig = await Rig.start([{ guest: own, offloads: RSC, network: { queueFrames: 64 } }]);
    const { one } = rig;
    using _peer = rig.plug(1);
    feed(one, stream(1), 3);
    feed(one, stream(2), 2);
    one.port.inject(numbered(1));
    one.port.inject(numbered(2));
    for (const number of [1, 2, 3]) one.guest.enqueue(numbered(number, 60, MACS[1]));
    one.guest.flush();
    rig.settle();
    // Held: two packets of several segments; waiting: two frames each way, as the peer took one.
    assertEquals([rig.inUse, one.device.waitingFrames], [7, { toGuest: 2, fromGuest: 2 }]);
    one.guest.session.writeStatus(0);
    assertEquals(rig.inUse, 1, "what the peer has is the peer's");
    const { discarded_at_reset, resets, activations } = one.counters();
    assertEquals([discarded_at_reset, resets, activations], [2 + 2 + 2, 1, 1]);
    assertEquals([one.packets.length, one.device.deadlineNs()], [0, Infinity]);
    one.guest.attach(one.device);
    one.guest.postReceiveBuffers(16);
    one.port.inject(numbered(9));
    rig.settle();
    assertEquals([one.numbers, one.counters().activations], [[9], 2]);
    assertEquals([rig.inUse, one.guest.errors], [1, []]);
  });
}

Deno.test("NetDevice of two guests that answer each other keeps a frame going for ever, and can be stopped", async () => {
  const echo = { guest: { behaviour: "echo", accept: [] } };
  await using rig = await Rig.start([echo, echo]);
  const { one, two } = rig;
  const start = ethernet({ destinationMac: MACS[1], sourceMac: MACS[0], payload: new Uint8Array(46) });
  one.guest.send(start);
  for (let round = 0; round < 500; round++) assertEquals(rig.machine.parts.reactor.turn(), true);
  const { length } = two.packets;
  assert(length > 50, `${length} round trips`);
  assert(Math.abs(one.packets.length - length) <= 1);
  assertEquals(rig.inUse <= 1, true);
  await rig.machine.close();
  assertEquals(rig.inUse, 0);
});

Deno.test("NetDevice pushes back on a sender whose receiver has no buffers, and everything arrives later", async () => {
  for (const ring of ["split", "packed"]) {
    await using rig = await Rig.start([
      { guest: { ring, queueSize: 256, accept: [] } },
      { guest: { ring, queueSize: 256, receiveBuffers: 0, accept: [] }, network: { queueFrames: 20 } },
    ]);
    const { one, two } = rig;
    let next = 1;
    for (let round = 0; round < 40; round++) {
      while (next <= 2000 && one.guest.enqueue(numbered(next, 200, MACS[1]))) next++;
      one.guest.flush();
      rig.settle();
    }
    // The ring, a burst in each device, and the cable are full: nothing moves any more.
    assert(next - 1 < 450, `${next - 1} frames were taken`);
    assertEquals([two.packets.length, one.guest.counters.received], [0, 0]);
    assertEquals(one.guest.enqueue(numbered(next, 200, MACS[1])), false, "the sender has to wait");
    assertEquals(rig.machine.parts.reactor.turn(), false, "and everybody sleeps");
    while (two.packets.length < 2000) {
      const before = two.packets.length;
      two.guest.postReceiveBuffers(100);
      rig.settle();
      assert(two.packets.length > before, `${before} frames, and it stands still`);
      while (next <= 2000 && one.guest.enqueue(numbered(next, 200, MACS[1]))) next++;
      one.guest.flush();
    }
    assertEquals(two.numbers, range(1, 2000));
    assertEquals([one.guest.errors, two.guest.errors], [[], []]);
  }
});

Deno.test("NetDevice lets held packets go early when its own guest finds no frame, and loses nothing", async () => {
  await using rig = await Rig.start([{
    guest: { queueSize: 256, accept: TSO },
    offloads: [{ use: "rsc-v4", intervalUs: 10_000_000 }],
    network: { queueFrames: 4096 },
  }], { frameMemoryMiB: 1 });
  const { one } = rig;
  let fed = 0;
  // Every segment is held, so that in the end everything that the pool has is held.
  while (one.port.inject(stream(1 + fed).next(1000))) {
    fed++;
    if (fed % 8 === 0) rig.settle();
    assert(fed < 5000);
  }
  assertEquals([one.counters().flushed_for_memory, one.packets.length], [0, 0]);
  const { refusals } = framePool(rig.machine.parts.scope);
  rig.settle();
  assertEquals([refusals, one.counters().flushed_for_memory], [1, 1]);
  assertEquals([one.packets.length, rig.inUse], [fed, 0]);
  assertEquals(one.packets.map(({ bytes }) => parseTcp(bytes).sourcePort), range(1, fed));
});

Deno.test("NetDevice lets held packets go early when another part finds no frame", async () => {
  for (const holderFirst of [true, false]) {
    const holder = {
      guest: { queueSize: 256, accept: TSO },
      offloads: [{ use: "rsc-v4", intervalUs: 10_000_000 }],
      network: { queueFrames: 4096 },
    };
    const sender = { guest: { queueSize: 256, accept: [] }, network: { queueFrames: 4096 } };
    await using rig = await Rig.start(holderFirst ? [holder, sender] : [sender, holder], {
      frameMemoryMiB: 1,
    });
    const [to, from] = holderFirst ? [rig.one, rig.two] : [rig.two, rig.one];
    const macs = { destinationMac: MACS[holderFirst ? 0 : 1], sourceMac: MACS[holderFirst ? 1 : 0] };
    let sent = 0;
    for (let round = 0; round < 40; round++) {
      while (sent < 1500 && from.guest.enqueue(tcp({ ...macs, sourcePort: 1 + sent, payload: 1000 }))) sent++;
      from.guest.flush();
      // Not even the clock moves: a device that was refused a frame is not left waiting for ten seconds.
      rig.advanceTo(0);
    }
    assertEquals([sent, from.guest.counters.transmitted], [1500, 1500]);
    assert(to.counters().flushed_for_memory > 0);
    rig.machine.drain();
    assertEquals(to.packets.map(({ bytes }) => parseTcp(bytes).sourcePort), range(1, 1500));
  }
});

Deno.test("NetDevice takes a large frame from its guest although small ones have used the whole pool before", async () => {
  await using rig = await Rig.start([{
    guest: { queueSize: 256, accept: [], transmitBufferBytes: 65_536 },
    network: { queueFrames: 4096 },
  }], { frameMemoryMiB: 1 });
  const { one } = rig;
  let number = 1;
  while (one.port.inject(numbered(number))) number++;
  rig.settle();
  assertEquals(one.numbers, range(1, number - 1));
  one.guest.send(numbered(1, 65_000, MACS[1]));
  rig.settle();
  assertEquals(one.sent.map((frame) => frame.length), [65_000]);
});

Deno.test("NetDevice sleeps while packets are held, and its deadline is theirs", async () => {
  await using rig = await Rig.start([{ guest: { accept: TSO }, offloads: RSC }]);
  const { one } = rig;
  rig.advanceTo(5 * MS);
  feed(one, stream(), 4);
  rig.settle();
  assertEquals([one.packets.length, one.device.deadlineNs()], [0, 6 * MS]);
  assertEquals(rig.machine.parts.reactor.turn(), false);
  rig.advanceTo(6 * MS - 1);
  assertEquals(one.packets.length, 0);
  rig.advanceTo(6 * MS);
  assertEquals([one.packets.length, one.device.deadlineNs()], [1, Infinity]);
  assertEquals(parseTcp(one.packets[0].bytes).payload.length, 400);
});

Deno.test("NetDevice lets held packets go under the old terms when its guest takes the offload back", async () => {
  for (const ring of ["split", "packed"]) {
    await using rig = await Rig.start([{ guest: { ring, accept: TSO }, offloads: RSC }]);
    const { one } = rig;
    const flow = stream();
    feed(one, flow, 4);
    rig.settle();
    const off = one.guest.setGuestOffloads(FeatureSet.of(net.VIRTIO_NET_F_GUEST_CSUM));
    rig.settle();
    assertEquals([off.ack, one.packets.length, one.packets[0].gsoType], [0, 1, 1]);
    feed(one, flow, 2);
    rig.settle();
    assertEquals(one.packets.slice(1).map(({ gsoType, bytes }) => [gsoType, bytes.length]), [[0, 154], [
      0,
      154,
    ]]);
    const on = one.guest.setGuestOffloads(
      FeatureSet.of(net.VIRTIO_NET_F_GUEST_CSUM, net.VIRTIO_NET_F_GUEST_TSO4),
    );
    feed(one, flow, 3);
    rig.advanceTo(MS);
    assertEquals([on.ack, one.packets.length, one.packets[3].gsoType], [0, 4, 1]);
    assertEquals([one.counters("toGuest").dropped_large, one.guest.errors], [0, []]);
  }
});

Deno.test("NetDevice still delivers what waits for buffers when its guest takes the offload back", async () => {
  await using rig = await Rig.start([{ guest: { accept: TSO, receiveBuffers: 0 }, offloads: RSC }]);
  const { one } = rig;
  const flow = stream();
  feed(one, flow, 4);
  rig.advanceTo(MS);
  assertEquals(one.device.waitingFrames.toGuest, 1);
  one.guest.setGuestOffloads(FeatureSet.of(net.VIRTIO_NET_F_GUEST_CSUM));
  feed(one, flow, 2);
  one.guest.postReceiveBuffers(10);
  rig.settle();
  const lengths = one.packets.map(({ bytes, gsoType }) => [parseTcp(bytes).payload.length, gsoType]);
  assertEquals(lengths, [[400, 1], [100, 0], [100, 0]]);
  assertEquals([one.counters("toGuest").dropped_large, rig.inUse], [0, 0]);
});

Deno.test("NetDevice drops frames either way while the link is down, and lets go what it held before", async () => {
  await using rig = await Rig.start([{ guest: { accept: [...TSO, "STATUS"] }, offloads: RSC }]);
  const { one } = rig;
  feed(one, stream(), 3);
  rig.settle();
  assertEquals(one.guest.status, 1);
  one.device.setLink(false, 0);
  rig.settle();
  assertEquals([one.guest.status, one.guest.counters.configChanges], [0, 1]);
  assertEquals(one.packets.map(({ gsoType }) => gsoType), [1], "what was held has left");
  one.port.inject(numbered(1));
  one.guest.send(numbered(2, 60, MACS[1]));
  rig.settle();
  assertEquals([one.packets.length, one.sent.length, rig.inUse], [1, 0, 0]);
  assertEquals(one.guest.counters.transmitted, 1, "the guest gets its buffer back all the same");
  assertEquals(one.counters("toGuest").dropped_link_down, 1);
  assertEquals(one.counters("fromGuest").dropped_link_down, 1);
  one.device.setLink(false, 0);
  assertEquals(one.guest.counters.configChanges, 1, "no news is not told");
  one.device.setLink(true, 0);
  one.port.inject(numbered(3));
  one.guest.send(numbered(4, 60, MACS[1]));
  rig.settle();
  assertEquals([one.guest.status, one.guest.counters.configChanges], [1, 2]);
  assertEquals([numberOf(one.packets[1].bytes), numberOf(one.sent[0])], [3, 4]);
});

Deno.test("NetDevice with the link down is no reason for its sender to stand still", async () => {
  const quiet = { guest: { queueSize: 64, accept: ["STATUS"] }, network: { queueFrames: 4 } };
  await using rig = await Rig.start([quiet, quiet]);
  rig.two.device.setLink(false, 0);
  for (let number = 1; number <= 50; number++) rig.one.guest.enqueue(numbered(number, 60, MACS[1]));
  rig.one.guest.flush();
  rig.settle();
  assertEquals([rig.one.guest.counters.transmitted, rig.two.packets.length], [50, 0]);
  assertEquals(rig.two.counters("toGuest").dropped_link_down, 50);
});

Deno.test("NetDevice asks its driver to announce itself until that is acknowledged", async () => {
  await using rig = await Rig.start([{}]);
  const { guest, device } = rig.one;
  const { configGeneration } = guest.session;
  device.announce();
  assertEquals([guest.status, guest.counters.configChanges], [3, 1]);
  assertEquals(guest.session.configGeneration, configGeneration + 1);
  const ack = guest.announceAck();
  rig.settle();
  assertEquals([ack.ack, guest.status], [0, 1]);
  await using deaf = await Rig.start([{ guest: { accept: ["CTRL_VQ", "STATUS"] } }]);
  deaf.one.device.announce();
  assertEquals([deaf.one.guest.status, deaf.one.guest.counters.configChanges], [1, 0]);
});

Deno.test("NetDevice filters frames before a stage may hold them", async () => {
  await using rig = await Rig.start([{ guest: { accept: [...TSO, "CTRL_RX"] }, offloads: RSC }]);
  const { one } = rig;
  one.guest.setReceiveMode("promisc", false);
  rig.settle();
  const other = new TcpStream({ destinationMac: "52:54:00:00:00:77" });
  for (let i = 0; i < 3; i++) one.port.inject(other.next(100));
  rig.settle();
  assertEquals([rig.inUse, one.counters("rsc-v4").received, one.counters("filter").unicast_unknown], [
    0,
    0,
    3,
  ]);
  feed(one, stream(), 3);
  rig.settle();
  assertEquals([rig.inUse, one.counters("rsc-v4").received], [1, 3]);
  rig.advanceTo(MS);
  assertEquals(one.packets.length, 1);
});

Deno.test("NetDevice obeys MAC tables, receive modes, VLANs and another MAC address", async () => {
  await using rig = await Rig.start([{}]);
  const { one } = rig;
  const { guest } = one;
  const at = (destinationMac: string, vlans: { id: number }[] = []) =>
    ethernet({ destinationMac, vlans, payload: new Uint8Array(46) });
  const frames = {
    own: at(MACS[0]),
    foreign: at("52:54:00:aa:aa:aa"),
    listed: at("52:54:00:bb:bb:bb"),
    group: at("01:00:5e:00:00:01"),
    otherGroup: at("01:00:5e:00:00:02"),
    broadcast: at("ff:ff:ff:ff:ff:ff"),
    vlan5: at(MACS[0], [{ id: 5 }]),
    vlan6: at(MACS[0], [{ id: 6 }]),
  };
  const seen = (): string[] => {
    one.packets.length = 0;
    for (const frame of Object.values(frames)) one.port.inject(frame);
    rig.settle();
    return one.packets.map(({ bytes }) =>
      Object.entries(frames).find(([, frame]) => frame.every((byte, i) => byte === bytes[i]))![0]
    );
  };
  const everything = Object.keys(frames);
  assertEquals(seen(), everything, "after a reset a device is promiscuous");
  guest.setReceiveMode("promisc", false);
  assertEquals(seen(), ["own", "broadcast"]);
  const bytes = (text: string) => Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
  guest.setMacTable([bytes("52:54:00:bb:bb:bb")], [bytes("01:00:5e:00:00:01")]);
  guest.setVlan(5, true);
  assertEquals(seen(), ["own", "listed", "group", "broadcast", "vlan5"]);
  guest.setReceiveMode("allmulti", true);
  guest.setVlan(5, false);
  guest.setVlan(6, true);
  assertEquals(seen(), ["own", "listed", "group", "otherGroup", "broadcast", "vlan6"]);
  guest.setReceiveMode("nomulti", true);
  guest.setReceiveMode("nobcast", true);
  guest.setMac(bytes("52:54:00:aa:aa:aa"));
  assertEquals(seen(), ["foreign", "listed"]);
  assertEquals(guest.mac, bytes("52:54:00:aa:aa:aa"));
  guest.attach(one.device);
  assertEquals(seen(), everything, "a reset forgets all of it");
  assertEquals(guest.mac, bytes(MACS[0]));
});

Deno.test("NetDevice returns a flow to the queue pair on which its guest sends, once it may use several", async () => {
  const guest = { queuePairs: 4, queueSize: 64 };
  await using rig = await Rig.start([{ device: { queuePairs: 4 }, guest }]);
  const { one } = rig;
  for (let pair = 0; pair < 4; pair++) {
    const port = 5000 + pair;
    one.guest.send(
      tcp({ sourceMac: MACS[0], destinationMac: MACS[1], sourcePort: 80, destinationPort: port, payload: 5 }),
      {},
      pair,
    );
  }
  rig.settle();
  assertEquals(one.sent.length, 4);
  for (let pair = 0; pair < 4; pair++) {
    one.packets.length = 0;
    const back = { source: "10.0.0.2", destination: "10.0.0.1" };
    one.port.inject(tcp({ ...back, destinationMac: MACS[0], sourcePort: 5000 + pair, destinationPort: 80 }));
    rig.settle();
    assertEquals(one.packets.map(({ queuePair }) => queuePair), [pair]);
  }
  assertEquals(one.guest.errors, []);
});

Deno.test("NetDevice spreads unknown flows over all pairs in use, and never uses another", async () => {
  for (const ring of ["split", "packed"]) {
    await using rig = await Rig.start([{
      device: { queuePairs: 8 },
      guest: { ring, queuePairs: 4, queueSize: 256, accept: [...TSO, "MQ"] },
      offloads: RSC,
    }]);
    const { one } = rig;
    const spread = (): Set<number> => {
      one.packets.length = 0;
      for (let port = 1; port <= 200; port++) {
        one.port.inject(tcp({ destinationMac: MACS[0], sourcePort: port, payload: 10 }));
      }
      rig.advanceTo(rig.machine.parts.reactor.clock.nowNs() + MS);
      assertEquals(one.packets.length, 200);
      return new Set(one.packets.map(({ queuePair }) => queuePair));
    };
    assertEquals(spread(), new Set([0, 1, 2, 3]));
    assertEquals(one.guest.setQueuePairs(2).ack, null);
    rig.settle();
    assertEquals(spread(), new Set([0, 1]));
    const refused = one.guest.setQueuePairs(5);
    rig.settle();
    assertEquals(
      [refused.ack, one.counters("control").queue_not_ready],
      [1, 1],
      "the driver has set up four",
    );
    assertEquals(spread(), new Set([0, 1]));
    one.guest.setQueuePairs(4);
    rig.settle();
    assertEquals(spread(), new Set([0, 1, 2, 3]));
    assertEquals(one.guest.errors, []);
  }
});

Deno.test("NetDevice lets go what is held for a pair before its guest takes that out of use", async () => {
  await using rig = await Rig.start([{
    device: { queuePairs: 4 },
    guest: { queuePairs: 4, queueSize: 256, accept: [...TSO, "MQ"] },
    offloads: RSC,
  }]);
  const { one } = rig;
  for (let port = 1; port <= 40; port++) feed(one, stream(port), 2);
  rig.settle();
  assertEquals([one.packets.length, rig.inUse], [0, 40]);
  const command = one.guest.setQueuePairs(1);
  // The answer is told last: what goes to other pairs is there before it.
  const order: (number | "ack")[] = [];
  one.driver.hooks.onPacket = ({ queuePair }) => void order.push(queuePair);
  one.driver.hooks.onControl = () => void order.push("ack");
  rig.settle();
  assertEquals([command.ack, order.length, order.at(-1), rig.inUse], [0, 41, "ack", 0]);
  assertEquals(new Set(order.slice(0, -1)), new Set([0, 1, 2, 3]));
});

Deno.test("NetDevice delivers to a pair in use what waits for one that its guest takes out of use", async () => {
  await using rig = await Rig.start([{
    device: { queuePairs: 4 },
    guest: { queuePairs: 4, queueSize: 256, receiveBuffers: 0, accept: ["CTRL_VQ", "MQ"] },
  }]);
  const { one } = rig;
  for (let port = 1; port <= 40; port++) one.port.inject(tcp({ destinationMac: MACS[0], sourcePort: port }));
  rig.settle();
  assertEquals(one.device.waitingFrames.toGuest, 40);
  one.guest.setQueuePairs(1);
  rig.settle();
  for (const pair of [1, 2, 3]) one.guest.postReceiveBuffers(50, pair);
  rig.settle();
  assertEquals(one.packets.length, 0);
  one.guest.postReceiveBuffers(50, 0);
  rig.settle();
  assertEquals([one.packets.length, new Set(one.packets.map(({ queuePair }) => queuePair))], [
    40,
    new Set([0]),
  ]);
});

Deno.test("NetDevice steers by the indirection table of its driver", async () => {
  await using rig = await Rig.start([{
    device: { queuePairs: 4, rss: true },
    guest: { queuePairs: 4, queueSize: 64 },
  }]);
  const { one } = rig;
  const key = Uint8Array.from({ length: 40 }, (_, i) => i * 37 + 1);
  const settings = (table: number[], unclassified: number): Uint8Array => {
    const data = new Uint8Array(4 + 2 + 2 + 2 * table.length + 2 + 1 + key.length);
    const view = new DataView(data.buffer);
    view.setUint32(0, 1 << 1, true); // TCP over IPv4
    view.setUint16(4, table.length - 1, true);
    view.setUint16(6, unclassified, true);
    table.forEach((pair, i) => view.setUint16(8 + 2 * i, pair, true));
    const at = 8 + 2 * table.length;
    view.setUint16(at, 4, true);
    data[at + 2] = key.length;
    data.set(key, at + 3);
    return data;
  };
  const queuesFor = (table: number[]): Set<number> => {
    const command = one.guest.control(4, 1, settings(table, 3));
    rig.settle();
    assertEquals(command.ack, 0);
    one.packets.length = 0;
    for (let port = 1; port <= 60; port++) {
      one.port.inject(tcp({ destinationMac: MACS[0], sourcePort: port }));
    }
    rig.settle();
    return new Set(one.packets.map(({ queuePair }) => queuePair));
  };
  assertEquals(queuesFor([2, 2, 2, 2]), new Set([2]));
  assertEquals(queuesFor([0, 1, 0, 1]), new Set([0, 1]));
  one.packets.length = 0;
  one.port.inject(numbered(1));
  rig.settle();
  assertEquals(
    one.packets.map(({ queuePair }) => queuePair),
    [3],
    "what cannot be hashed goes to the unclassified queue",
  );
  assertEquals(one.guest.errors, []);
});

Deno.test("NetDevice completes partial checksums for a guest that cannot, if it has the stage", async () => {
  const partial = { destinationMac: MACS[1], sourceMac: MACS[0], payload: 333, checksum: "partial" } as const;
  const header = { flags: 1, csumStart: 34, csumOffset: 16 };
  for (const offloads of [[], ["checksum"]]) {
    await using rig = await Rig.start([
      { guest: { accept: ["CSUM"] }, network: { largeFrames: true } },
      { guest: { accept: [] }, network: { largeFrames: true }, offloads },
    ]);
    rig.one.guest.send(tcp(partial), header);
    rig.settle();
    if (offloads.length === 0) {
      assertEquals([rig.two.packets.length, rig.two.counters("toGuest").dropped_partial_checksum], [0, 1]);
    } else {
      assertEquals(rig.two.packets[0].bytes, tcp({ ...partial, checksum: "right" }));
      assertEquals([rig.two.packets[0].flags, rig.two.counters("checksum.toGuest").completed], [0, 1]);
    }
  }
});

Deno.test("NetDevice completes partial checksums of its guest for a network that cannot", async () => {
  const partial = { destinationMac: MACS[1], sourceMac: MACS[0], payload: 333, checksum: "partial" } as const;
  await using rig = await Rig.start([{ guest: { accept: ["CSUM"] }, offloads: ["checksum"] }]);
  rig.one.guest.send(tcp(partial), { flags: 1, csumStart: 34, csumOffset: 16 });
  rig.settle();
  assertEquals(rig.one.sent, [tcp({ ...partial, checksum: "right" })]);
});

Deno.test("NetDevice carries large frames to another device on a cable for large frames", async () => {
  for (const { name, guest } of RINGS) {
    const side = { guest: { ...guest, queueSize: 256 }, network: { largeFrames: true } };
    await using rig = await Rig.start([side, side]);
    const { one, two } = rig;
    const header = { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize: 1448, hdrLen: 54 };
    const frames = [1, 1449, 20_000, 64_000, 65_495].map((payload) =>
      tcp({ destinationMac: MACS[1], sourceMac: MACS[0], payload, checksum: "partial" })
    );
    for (const frame of frames) one.guest.send(frame, header);
    rig.settle();
    assertEquals(two.packets.map(({ bytes }) => bytes.length), frames.map((frame) => frame.length), name);
    two.packets.forEach((packet, i) => {
      assertEquals(packet.bytes, frames[i]);
      const { flags, csumStart, csumOffset, gsoType, gsoSize, hdrLen } = packet;
      assertEquals({ flags, csumStart, csumOffset, gsoType, gsoSize, hdrLen }, header);
    });
    assertEquals([one.guest.errors, two.guest.errors], [[], []]);
  }
});

for (const ring of ["split", "packed"]) {
  const break_ = (side: Side, queue: number, fill: (list: BufferList, address: number) => void): void => {
    const list = new BufferList(4);
    fill(list, side.guest.memory.regions[0].guestAddress);
    side.guest.rings[queue]!.add(list, 9);
    side.guest.rings[queue]!.publish();
  };
  const FAULTS = [
    ["descriptor-zero-length", 0, (list: BufferList, at: number) => list.addWritable(at, 0)],
    ["buffers-wrong-direction", 0, (list: BufferList, at: number) => list.addReadable(at, 100)],
    ["buffer-too-small", 0, (list: BufferList, at: number) => list.addWritable(at, 11)],
    ["address-out-of-range", 0, (list: BufferList) => list.addWritable(2 ** 50, 100)],
    ["descriptor-zero-length", 1, (list: BufferList, at: number) => list.addReadable(at, 0)],
    ["buffers-wrong-direction", 1, (list: BufferList, at: number) => list.addWritable(at, 100)],
    ["buffer-too-small", 2, (list: BufferList, at: number) => list.addReadable(at, 9)],
  ] as const;
  for (const [fault, queue, fill] of FAULTS) {
    Deno.test(`NetDevice survives ${fault} in queue ${queue}, and serves a new driver (${ring})`, async () => {
      await using rig = await Rig.start([{
        guest: { ring, queueSize: 16, receiveBuffers: 3, accept: TSO, indirect: false },
        offloads: RSC,
      }]);
      const { one } = rig;
      feed(one, stream(), 2);
      rig.settle();
      for (let number = 1; number <= 6; number++) one.port.inject(numbered(number));
      break_(one, queue, fill);
      rig.settle();
      assertEquals([one.faults(fault), one.guest.counters.needsReset], [1, 1]);
      assertEquals([one.guest.session.status & 64, one.counters().resets], [64, 1]);
      assertEquals(one.guest.counters.configChanges, 1, "the driver is told");
      // Held were two segments, which are one packet; of the six frames the cable has dropped what was not
      // received.
      const accounted = one.counters().discarded_at_reset + one.counters("toGuest").packets;
      assertEquals(accounted, 1 + 6 - one.port.counters.noGuest);
      assertEquals([rig.inUse, one.port.waiting], [0, 0], "nothing is left for the next driver");
      assertEquals([rig.machine.parts.reactor.turn(), one.device.deadlineNs()], [false, Infinity]);

      one.packets.length = 0;
      one.guest.attach(one.device);
      one.guest.postReceiveBuffers(10);
      one.port.inject(numbered(100));
      one.guest.send(numbered(200, 60, MACS[1]));
      rig.settle();
      assertEquals([one.numbers.at(-1), one.sent.map(numberOf)], [100, [200]]);
      assertEquals(one.faults(fault), 0, "a new session has no faults");
    });
  }
}

Deno.test("NetDevice survives a ring that breaks while a burst is being delivered", async () => {
  for (const mergeable of [true, false]) {
    await using rig = await Rig.start([{
      guest: { queueSize: 64, receiveBuffers: 4, mergeable, accept: [] },
    }]);
    const { one } = rig;
    const list = new BufferList(1);
    list.addWritable(one.guest.memory.regions[0].guestAddress, 0);
    one.guest.rings[0]!.add(list, 40);
    one.guest.rings[0]!.publish();
    for (let number = 1; number <= 30; number++) one.port.inject(numbered(number));
    rig.settle();
    assertEquals([one.faults("descriptor-zero-length"), rig.inUse], [1, 0]);
    const { packets } = one.counters("toGuest");
    assertEquals([packets, one.counters().discarded_at_reset], [4, 26], "every frame is accounted for");
    one.guest.attach(one.device);
    one.port.inject(numbered(99));
    rig.settle();
    assertEquals(one.numbers, [99], "and none comes twice");
  }
});

Deno.test("NetDevice meets a broken ring in setLink(), drain() and close() without failing", async () => {
  const broken = async (): Promise<Rig> => {
    const rig = await Rig.start([{
      guest: { accept: [...TSO, "STATUS"], receiveBuffers: 0 },
      offloads: RSC,
    }]);
    feed(rig.one, stream(), 2);
    rig.settle();
    const list = new BufferList(1);
    list.addWritable(rig.one.guest.memory.regions[0].guestAddress, 0);
    rig.one.guest.rings[0]!.add(list, 0);
    rig.one.guest.rings[0]!.publish();
    return rig;
  };
  await using down = await broken();
  down.one.device.setLink(false, 0);
  assertEquals(down.one.faults("descriptor-zero-length"), 0);
  down.settle();
  assertEquals([down.one.faults("descriptor-zero-length"), down.inUse], [1, 0]);
  await using drained = await broken();
  drained.machine.drain();
  assertEquals([drained.one.faults("descriptor-zero-length"), drained.inUse], [1, 0]);
  await using closed = await broken();
  await closed.machine.close();
  assertEquals(closed.inUse, 0);
});

Deno.test("NetDevice delivers what it holds when its machine is drained", async () => {
  await using rig = await Rig.start([{ guest: { accept: TSO }, offloads: RSC }]);
  feed(rig.one, stream(), 5);
  rig.settle();
  assertEquals(rig.one.packets.length, 0);
  rig.machine.drain();
  assertEquals(rig.one.packets.map(({ bytes }) => bytes.length), [554]);
});

Deno.test("NetDevice gives up what its network does not take when it is reset", async () => {
  await using rig = await Rig.start([{ guest: { accept: [] } }]);
  const { one } = rig;
  using peer = rig.plug(2);
  for (let number = 1; number <= 5; number++) one.guest.enqueue(numbered(number, 60, MACS[1]));
  one.guest.flush();
  rig.settle();
  const batch = new FrameBatch();
  peer.receive(batch, 1, 0, 0);
  batch.releaseAll();
  one.guest.detach();
  // One more found room on the cable, the last two did not.
  assertEquals([one.counters().discarded_at_reset, peer.waiting, rig.inUse], [2, 2, 2]);
});

Deno.test("NetDevice forgets what was negotiated: a driver that accepts less gets less", async () => {
  await using rig = await Rig.start([{ guest: { accept: TSO }, offloads: RSC }]);
  const { one } = rig;
  feed(one, stream(), 2);
  rig.advanceTo(MS);
  assertEquals(one.packets[0].gsoType, 1);
  one.guest.detach();
  const { NetGuest } = await import("../../../devices/net/driver/mod.ts");
  const lengths: number[] = [];
  const plain = new NetGuest({ accept: [] }, {
    onPacket: ({ bytes }) => void lengths.push(bytes.length),
  });
  const session = plain.attach(one.device);
  feed(one, stream(), 2);
  for (let round = 0; round < 5; round++) {
    session.poll(2 * MS);
    plain.poll(2 * MS);
  }
  assertEquals(lengths, [154, 154]);
  plain.detach();
});

Deno.test("NetDevice runs to the end of what its guests send, by a virtual clock", async () => {
  const rig = await Rig.start([
    { guest: { behaviour: { send: { count: 30, intervalUs: 100, destination: MACS[1] } }, accept: [] } },
    { guest: { accept: [] } },
  ]);
  await rig.machine.run(new AbortController().signal);
  assertEquals(rig.two.numbers, range(1, 30));
  assertEquals(rig.machine.parts.reactor.clock.nowNs(), 29 * 100_000);
  assert(rig.machine.parts.reactor.clock.nowNs() < FAR);
  await rig[Symbol.asyncDispose]();
});

Deno.test("NetDevice refuses what it cannot be made of", async () => {
  const start = (device: object) => Rig.start([{ device: device as Record<string, unknown> }]);
  await assertRejects(() => start({ mac: "00:00:00:00:00:00" }), Error, "not all of them 0");
  await assertRejects(() => start({ mac: "01:00:5e:00:00:01" }), Error, "the first one even");
});

Deno.test("NetDevice lets a finished flow go when the network has no more, if it is told to by a virtual clock", async () => {
  for (const flushOnIdle of [undefined, false, true]) {
    await using rig = await Rig.start([{ guest: { accept: TSO }, offloads: [{ ...RSC[0], flushOnIdle }] }]);
    const { one } = rig;
    feed(one, stream(1), 2);
    for (const seq of [1000, 1100, 1200]) {
      const flags = seq === 1200 ? ["ACK", "PSH"] as const : ["ACK"] as const;
      one.port.inject(tcp({ destinationMac: MACS[0], sourcePort: 2, seq, payload: 100, flags }));
    }
    rig.settle();
    const ports = () => one.packets.map(({ bytes }) => parseTcp(bytes).sourcePort);
    assertEquals(ports(), flushOnIdle === true ? [2] : []);
    // The interval is the upper bound for the rest, and all there is for both without the option.
    assertEquals(one.device.deadlineNs(), MS);
    rig.advanceTo(MS);
    assertEquals(ports(), flushOnIdle === true ? [2, 1] : [1, 2]);
    const counters = rig.machine.counters["net0.rsc-v4"];
    assertEquals(
      [counters.drained_by_idle, counters.drained_by_timer],
      flushOnIdle === true ? [1, 1] : [0, 2],
    );
    assertEquals([one.device.deadlineNs(), rig.inUse, one.guest.errors], [Infinity, 0, []]);
  }
});

Deno.test("NetDevice asks for nothing on idle while the guest has no buffers, and does not spin", async () => {
  await using rig = await Rig.start([{
    guest: { receiveBuffers: 0, accept: TSO },
    offloads: [{ ...RSC[0], flushOnIdle: true }],
  }]);
  const { one } = rig;
  one.port.inject(numbered(1));
  const pushed = { destinationMac: MACS[0], payload: 100, flags: ["ACK", "PSH"] as const };
  one.port.inject(tcp(pushed));
  rig.settle();
  assertEquals([one.packets.length, one.device.waitingFrames.toGuest], [0, 1]);
  assertEquals(one.device.deadlineNs(), MS, "held until its interval is over");
  one.guest.postReceiveBuffers(8);
  rig.settle();
  assertEquals([one.packets.length, one.device.deadlineNs()], [2, Infinity]);
});
