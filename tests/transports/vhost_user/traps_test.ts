/**
 * What front-ends have been seen to do, and back-ends to get wrong: one test each.
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { STATUS_NEEDS_RESET } from "../../../core/device.ts";
import { MAX_MEMORY_SLOTS, ProtocolError, Request } from "../../../transports/vhost_user/messages.ts";
import { offerFor, type ProfileName, PROFILES } from "../../../transports/vhost_user/front_ends.ts";
import { Bench } from "./support/bench.ts";
import { FakeEvent } from "./support/fake_host.ts";
import { frame, newNetRig, numbersOf } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE, HEADER, RING_SIZE, USER_OFFSET } from "../../../rigs/vhost_user/guest.ts";
import { concat, pair, region, table, u64, words } from "../../../rigs/vhost_user/payload.ts";

const DRIVER_OK = 15;

Deno.test("any message that asks for an answer gets one, but only once REPLY_ACK was agreed on", () => {
  using bench = new Bench();
  bench.front.asksFor = () => true;
  assertEquals(bench.front.say(Request.SET_OWNER), null);
  bench.front.asksFor = () => false;
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  bench.front.asksFor = () => true;
  assertEquals(bench.front.ask(Request.SET_OWNER), 0n);
  assertEquals(bench.front.ask(Request.SET_VRING_NUM, pair(0, 256)), 0n);
  assert(bench.front.ask(Request.SET_VRING_NUM, pair(0, 0)) !== 0n);
});

Deno.test("RESET_OWNER is tolerated and stops nothing", () => {
  using bench = new Bench();
  bench.start();
  bench.front.say(Request.RESET_OWNER);
  bench.assertWorks();
});

Deno.test("features that are set once for each queue pair do not disturb the device", () => {
  using bench = new Bench({ device: { queuePairs: 2 } });
  bench.start();
  const { activations } = bench.rig.counters[""];
  for (let i = 0; i < 3; i++) bench.front.setFeatures(usualFeatures(bench.front.features()));
  assertEquals(bench.rig.counters[""].activations, activations);
  bench.assertWorks();
});

Deno.test("rings are given by user address: a guest address is refused", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  bench.front.setError(0);
  bench.front.setNum(0);
  const { descriptors, device, driver } = bench.guest.place(0);
  bench.front.say(
    Request.SET_VRING_ADDR,
    concat(words(0, 0), u64(descriptors), u64(device), u64(driver), u64(0)),
  );
  bench.front.setKick(0);
  bench.front.enable(0, true);
  assertEquals(bench.faults.counts, { "address-out-of-range": 1 });
  assertEquals(bench.errors[0].signals, 1);
});

Deno.test("the used index is read from guest memory when a ring starts, not taken from the base", () => {
  using bench = new Bench();
  bench.guest.ring(1);
  // A driver that has been served before: 40 chains were used by a back-end that is gone.
  const { driver, device } = bench.guest.place(1);
  bench.guest.memory.writeU16(driver + 2, 41);
  bench.guest.memory.writeU16(driver + 4 + 2 * (40 % RING_SIZE), 3);
  bench.guest.memory.writeU16(device + 2, 40);
  const { descriptors } = bench.guest.place(1);
  bench.guest.memory.writeU32(descriptors + 3 * 16, GUEST_BASE + 0x70000);
  bench.guest.memory.writeU32(descriptors + 3 * 16 + 8, HEADER + 60);
  bench.guest.memory.copyIn(GUEST_BASE + 0x70000 + HEADER, frame(77), 0, 60);
  bench.front.setFeatures(usualFeatures(bench.front.features()) & ~(1n << 29n));
  bench.front.setMemoryTable();
  bench.front.describe(1, 40);
  bench.front.enable(1, true);
  bench.settle();
  assertEquals(numbersOf(bench.rig.network.sent), [77]);
  assertEquals(bench.guest.memory.readU16(device + 2), 41);
  assertEquals(bench.front.base(1), 41);
});

Deno.test("a base that the ring cannot stand at breaks that ring and no other", () => {
  using bench = new Bench();
  bench.start();
  bench.front.base(1);
  bench.front.setError(1);
  bench.front.describe(1, 1000);
  assertEquals(bench.faults.counts, { "ring-state-invalid": 1 });
  assertEquals(bench.errors[1].signals, 1);
  bench.front.setBase(1, 0);
  bench.assertWorks();
});

Deno.test("an unknown request is refused if it asks, and otherwise logged; the dialogue goes on", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  assertEquals(bench.front.succeeds(77), false);
  assertEquals(bench.front.say(99, new Uint8Array(100)), null);
  assertEquals(bench.refused, { "message-unknown": 2 });
  bench.start();
  bench.assertWorks();
});

Deno.test("descriptors of a request that is refused are closed", () => {
  using bench = new Bench();
  for (const id of [77, Request.SET_MEM_TABLE, Request.SET_VRING_NUM]) {
    bench.front.say(id, words(9, 9), [bench.memory(), bench.kick(0), bench.call(0)]);
  }
  assertEquals(bench.host.openDescriptors, 0);
});

Deno.test("a packed ring that is new starts at 0 without a wrap counter, one that was used goes on", () => {
  using bench = new Bench({ guest: { packed: true } });
  const features = usualFeatures(bench.front.features(), 34);
  bench.front.setFeatures(features);
  bench.front.setMemoryTable();
  for (const ring of [0, 1]) bench.front.describe(ring, 0);
  for (const ring of [0, 1]) bench.front.enable(ring, true);
  bench.guest.post(0, 8);
  bench.settle();
  for (let i = 0; i < 3 * RING_SIZE; i++) {
    bench.assertWorks();
    // Stopped and started where it stood, also where that is 0.
    const base = bench.front.base(1);
    bench.front.describe(1, base);
  }
});

Deno.test("a ring larger than the device's queue is refused by its size, and the largest is taken", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const most = bench.rig.device.queueSizes[0];
  for (const size of [32_768, most + 1, 0]) {
    assertEquals(bench.front.succeeds(Request.SET_VRING_NUM, words(0, size)), false, `${size}`);
  }
  assertEquals(bench.refused, { "value-invalid": 3 });
  assertEquals(bench.front.succeeds(Request.SET_VRING_NUM, words(0, most)), true);
});

Deno.test("a disabled ring starts with its first kick, and not before", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  bench.front.describe(1);
  bench.guest.send(1, frame(1));
  bench.settle();
  assertEquals(bench.guest.returned(1), 0);
  bench.kicks[1].kick();
  bench.settle();
  assertEquals(bench.guest.returned(1), 1);
  assertEquals(bench.rig.network.sent, [], "what a disabled ring sends is thrown away");
});

Deno.test("a ring without kick descriptor starts at once and is looked at again and again", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  bench.front.setNum(1);
  bench.front.setBase(1, 0);
  bench.front.setAddress(1);
  assertEquals(bench.backend.deadlineNs(), Infinity);
  bench.front.setNoKick(1);
  bench.front.enable(1, true);
  bench.settle();
  bench.guest.send(1, frame(5));
  const due = bench.backend.deadlineNs();
  assert(due > bench.nowNs && due <= bench.nowNs + 1_000_000, `polled at ${due}`);
  bench.nowNs = due;
  bench.settle();
  assertEquals(numbersOf(bench.rig.network.sent), [5]);
});

Deno.test("an enabled ring starts at once: the kick that an earlier back-end has consumed does not come again", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  bench.guest.send(1, frame(5));
  bench.front.describe(1);
  bench.front.enable(1, true);
  bench.settle();
  assertEquals(numbersOf(bench.rig.network.sent), [5]);
});

Deno.test("kicks are watched until the ring is stopped", () => {
  using bench = new Bench();
  bench.start();
  assertEquals(bench.kicks.map(({ watched }) => watched), [true, true]);
  bench.front.base(0);
  assertEquals(bench.kicks.map(({ watched }) => watched), [false, true]);
});

Deno.test("a disabled transmit ring is emptied without effect, and asks for kicks", () => {
  using bench = new Bench();
  bench.start();
  bench.front.enable(1, false);
  bench.settle();
  for (let i = 0; i < 3; i++) {
    assertEquals(bench.guest.send(1, frame(i)), true, "the device wants no kick");
    bench.kicks[1].kick();
    bench.settle();
  }
  assertEquals(bench.guest.returned(1), 3);
  assertEquals([bench.rig.network.sent, bench.backend.discardedChains], [[], 3]);
  assert(bench.calls[1].signals > 0);
  bench.front.enable(1, true);
  bench.settle();
  bench.assertWorks();
});

Deno.test("what was sent before a transmit ring is disabled is gone when the front-end hears that it is", () => {
  using bench = new Bench();
  bench.start();
  for (let i = 0; i < 3; i++) bench.guest.send(1, frame(i));
  bench.front.enable(1, false);
  assertEquals([bench.guest.returned(1), bench.backend.discardedChains], [3, 3]);
});

for (const [rounds, packed] of [[0, false], [1, false], [200, false], [0, true], [200, true]] as const) {
  const layout = packed ? "packed" : "split";
  Deno.test(`a driver that is taken away by SET_VRING_ENABLE alone, and comes back (${layout}, ${rounds} rounds)`, () => {
    using bench = new Bench({ guest: { packed } });
    const features = () => usualFeatures(bench.front.features(), ...packed ? [34] : []);
    bench.start({ features: features() });
    bench.assertWorks();
    for (let life = 1; life <= 3; life++) {
      for (const ring of [1, 0]) bench.front.enable(ring, false);
      // The rings' memory belongs to another program now.
      const { descriptors } = bench.guest.place(1);
      const garbage = Uint8Array.from({ length: 0x1000 }, (_, i) => i * 37 + life);
      const found = new Uint8Array(0x1000);
      for (const ring of [0, 1]) {
        bench.guest.memory.copyIn(bench.guest.place(ring).descriptors, garbage, 0, 0x1000);
      }
      bench.rig.network.inbox.push(frame(7));
      for (let i = 0; i < rounds; i++) assertEquals(bench.backend.poll(bench.nowNs), false, `round ${i}`);
      bench.front.features();
      bench.front.setFeatures(features());
      bench.front.setMemoryTable();
      bench.guest.memory.copyOut(descriptors, found, 0, 0x1000);
      assertEquals(found, garbage, "nothing was written there");
      for (const ring of [0, 1]) {
        bench.guest.forget(ring);
        bench.front.setCall(ring);
        bench.front.setNum(ring);
        bench.front.setBase(ring, 0);
        bench.front.setAddress(ring);
      }
      for (const ring of [0, 1]) bench.front.setKick(ring);
      for (const ring of [0, 1]) bench.front.enable(ring, true);
      bench.guest.post(0, 8);
      bench.settle();
      assertEquals(numbersOf(bench.guest.received(0)), [7], "what came meanwhile is the next driver's");
      bench.assertWorks();
      assertEquals([bench.faults.counts, bench.refused], [{}, {}]);
      assertEquals(
        bench.rig.counters[""].activations,
        1 + life,
        "the next driver meets a device that was reset",
      );
    }
  });
}

Deno.test("a disabled ring that is broken is let go, and disturbs no other", () => {
  using bench = new Bench({ device: { queuePairs: 2 } });
  bench.start();
  for (const ring of [2, 3]) bench.front.describe(ring);
  bench.kicks[3].kick();
  bench.settle();
  const { driver } = bench.guest.place(3);
  bench.guest.memory.writeU16(driver + 2, 0x5555);
  bench.kicks[3].kick();
  bench.settle();
  assertEquals([bench.faults.counts, bench.backend.status & STATUS_NEEDS_RESET], [{}, 0]);
  bench.assertWorks();
});

Deno.test("features that concern only driver and front-end may be accepted unoffered, others may not", () => {
  using bench = new Bench();
  bench.start({ features: usualFeatures(bench.front.features()) | 1n << 40n | 1n << 38n });
  bench.assertWorks();
  assertEquals([bench.refused, bench.backend.features?.has(40)], [{}, false]);
  for (const bit of [33n, 42n, 6n]) {
    bench.front.setFeatures(usualFeatures(bench.front.features()) | 1n << bit);
    assertEquals(bench.backend.features, null);
  }
  assertEquals(bench.refused, { "features-unknown": 3 });
});

Deno.test("a crypto device is served after a kick, though its front-end enables no ring and accepts only bit 30", () => {
  for (const [id, served] of [[20, 1], [1, 0]]) {
    using bench = new Bench();
    Object.assign(bench.rig.device, { type: id });
    bench.front.setProtocolFeatures(bench.front.protocolFeatures());
    bench.front.setFeatures(1n << 30n);
    bench.front.setMemoryTable();
    bench.front.describe(1);
    bench.guest.send(1, frame(5));
    bench.kicks[1].kick();
    bench.settle();
    assertEquals([bench.guest.returned(1), bench.rig.network.sent.length], [1, served]);
    assertEquals([bench.faults.counts, bench.refused], [{}, {}]);
  }
});

Deno.test("a disabled receive ring gets nothing, and the frames are there when it is enabled", () => {
  using bench = new Bench();
  bench.start();
  bench.front.enable(0, false);
  for (let i = 0; i < 3; i++) bench.rig.network.inbox.push(frame(i));
  bench.settle();
  assertEquals(bench.guest.received(0), []);
  assertEquals(bench.rig.network.inbox.length, 3);
  bench.front.enable(0, true);
  bench.settle();
  assertEquals(numbersOf(bench.guest.received(0)), [0, 1, 2]);
  assertEquals(bench.rig.counters.toGuest.dropped_no_queue, 0);
});

Deno.test("a front-end without protocol features has all rings enabled at once", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()) & ~(1n << 30n));
  bench.front.setMemoryTable();
  for (const ring of [0, 1]) bench.front.describe(ring);
  bench.guest.post(0, 8);
  bench.settle();
  bench.assertWorks();
});

Deno.test("the order of messages does not matter: memory and features may come last", () => {
  using bench = new Bench();
  for (const ring of [0, 1]) {
    bench.front.enable(ring, true);
    bench.front.setKick(ring);
    bench.front.setCall(ring);
    bench.front.setAddress(ring);
    bench.front.setNum(ring);
  }
  bench.guest.post(0, 8);
  bench.front.setMemoryTable();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.settle();
  bench.assertWorks();
  assertEquals(bench.faults.counts, {});
});

Deno.test("a stopped ring wants a new kick descriptor before it runs again", () => {
  using bench = new Bench();
  bench.start();
  assertEquals(bench.front.base(1), 0);
  bench.guest.send(1, frame(1));
  bench.settle();
  assertEquals(bench.guest.returned(1), 0);
  bench.front.setKick(1);
  bench.settle();
  assertEquals(bench.guest.returned(1), 1);
  assertEquals(numbersOf(bench.rig.network.sent), [1]);
});

Deno.test("the net header has twelve bytes with VERSION_1, also without MRG_RXBUF", () => {
  using bench = new Bench();
  bench.start({ features: 1n << 30n | 1n << 32n });
  bench.assertWorks();
});

Deno.test("GET_QUEUE_NUM tells all virtqueues, the control queue too", () => {
  for (const queuePairs of [1, 4]) {
    using bench = new Bench({ device: { queuePairs } });
    assertEquals(bench.front.ask(Request.GET_QUEUE_NUM), BigInt(2 * queuePairs + 1));
  }
});

Deno.test("what is not served is not offered", () => {
  const { device } = newNetRig();
  const unserved = [6, 7, 8, 10, 11, 12, 17, 18, 20, 21, 22];
  for (const profile of PROFILES) {
    const { protocol, features } = offerFor(device, profile);
    assertEquals(unserved.filter((bit) => protocol.has(bit)), [], profile);
    assertEquals(protocol.has(14), profile === "sim", `in-band notifications, ${profile}`);
    assert(features.has(30), profile);
    assertEquals(features.has(26), protocol.has(1), `logging, ${profile}`);
    assertEquals([...features].filter((bit) => bit > 63), [], profile);
  }
});

Deno.test("each front-end is offered what it can use, and not what misleads it", () => {
  const { device } = newNetRig({ extraFeatures: [34, 57, 60] });
  const offered = (profile: ProfileName) => offerFor(device, profile);
  assertEquals(offered("qemu").protocol.has(9), false, "QEMU warns of configuration space");
  assertEquals([...offered("virtio-user").protocol], [0, 3, 16]);
  assertEquals([...offered("cloud-hypervisor").protocol], [0, 1, 3, 9, 15, 19]);
  assertEquals([...offered("crosvm").protocol], [0, 3, 5, 9, 19]);
  assertEquals([...offered("uml").protocol], [3, 5, 9]);
  for (const profile of ["cloud-hypervisor", "crosvm"] as const) {
    assertEquals(offered(profile).features.has(34), false);
  }
  for (const profile of ["auto", "qemu", "virtio-user", "uml"] as const) {
    assert(offered(profile).features.has(34), profile);
  }
  // RSS and hash reports are set by commands that end in these front-ends.
  for (const profile of ["auto", "qemu", "virtio-user", "cloud-hypervisor"] as const) {
    assertEquals([57, 60].filter((bit) => offered(profile).features.has(bit)), [], profile);
  }
  for (const profile of ["crosvm", "uml"] as const) {
    assertEquals([57, 60].filter((bit) => offered(profile).features.has(bit)), [57, 60], profile);
  }
});

Deno.test("GET_MAX_MEM_SLOTS never shrinks", () => {
  using bench = new Bench();
  assertEquals(bench.front.ask(Request.GET_MAX_MEM_SLOTS), 509n);
  bench.front.addMemory();
  assertEquals(bench.front.ask(Request.GET_MAX_MEM_SLOTS), 509n);
});

Deno.test("509 memory slots can be used, and the next one is refused", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  for (let slot = 0; slot < MAX_MEMORY_SLOTS; slot++) {
    const place = region({ guestAddress: 0x10000 * slot, size: 0x1000 });
    bench.front.say(Request.ADD_MEM_REG, concat(u64(0), place), [bench.memory()]);
  }
  assertEquals(bench.host.mappings, MAX_MEMORY_SLOTS);
  const one = concat(u64(0), region({ guestAddress: 0x8000_0000, size: 0x1000 }));
  assertEquals(bench.front.succeeds(Request.ADD_MEM_REG, one, [bench.memory()]), false);
  assertEquals(bench.refused, { "memory-table-invalid": 1 });
});

Deno.test("SEND_RARP sends a reverse ARP request with the guest's address to the network", () => {
  using bench = new Bench();
  bench.start();
  bench.front.say(Request.SEND_RARP, Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0, 0));
  bench.settle();
  const [rarp] = bench.rig.network.sent;
  assertEquals(rarp.length, 60);
  const mac = [0x52, 0x54, 0, 0xaa, 0xbb, 0xcc];
  const expected = [
    ...Array(6).fill(0xff),
    ...mac,
    0x80,
    0x35,
    0,
    1,
    8,
    0,
    6,
    4,
    0,
    3,
    ...mac,
    0,
    0,
    0,
    0,
    ...mac,
  ];
  assertEquals([...rarp], [...expected, ...Array(60 - expected.length).fill(0)]);
  bench.front.say(Request.SEND_RARP, Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0));
  assertEquals(bench.refused, { "value-invalid": 1 });
});

Deno.test("NET_SET_MTU is accepted if network and configuration allow it", () => {
  using bench = new Bench({ device: { mtu: 1400, extraFeatures: [3] } });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const accepts = (mtu: bigint | number) => bench.front.succeeds(Request.NET_SET_MTU, u64(mtu));
  assertEquals([67, 68, 1400, 1401, 9000, 1n << 32n | 1000n].map(accepts), [
    false,
    true,
    true,
    false,
    false,
    false,
  ]);
  using plain = new Bench();
  plain.front.setProtocolFeatures(plain.front.protocolFeatures());
  assertEquals(plain.front.succeeds(Request.NET_SET_MTU, u64(1500)), true);
  assertEquals(plain.front.succeeds(Request.NET_SET_MTU, u64(1501)), false);
});

Deno.test("calls that come before the features are kept", () => {
  using bench = new Bench();
  for (const ring of [0, 1]) bench.front.setCall(ring);
  const { calls } = bench;
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.front.setMemoryTable();
  for (const ring of [0, 1]) {
    bench.front.setNum(ring);
    bench.front.setBase(ring, 0);
    bench.front.setAddress(ring);
    bench.front.setKick(ring);
    bench.front.enable(ring, true);
  }
  bench.guest.post(0, 8);
  bench.settle();
  bench.assertWorks();
  assert(calls[0].signals > 0 && calls[1].signals > 0);
});

Deno.test("a new call event is signalled: what was used meanwhile may never have been told", () => {
  using bench = new Bench();
  bench.start();
  bench.front.setCall(0);
  assertEquals(bench.calls[0].signals, 1);
  bench.front.base(0);
  bench.front.setCall(0);
  assertEquals(bench.calls[0].signals, 0);
});

Deno.test("one interrupt is sent for a burst of frames", () => {
  using bench = new Bench();
  bench.start();
  bench.calls[0].signals = 0;
  for (let i = 0; i < 6; i++) bench.rig.network.inbox.push(frame(i));
  bench.settle();
  assertEquals(bench.guest.received(0).length, 6);
  assertEquals(bench.calls[0].signals, 1);
});

Deno.test("a packed base of 32768 is the start of the ring: only the available half was given", () => {
  using bench = new Bench({ guest: { packed: true } });
  bench.start({ features: usualFeatures(bench.front.features(), 34) });
  bench.assertWorks();
  assertEquals(bench.front.base(0), 0x8001_8001);
});

Deno.test("accepting MQ without CTRL_VQ is right for a front-end that keeps the control queue to itself", () => {
  using bench = new Bench({ device: { queuePairs: 2 } });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const features = usualFeatures(bench.front.features(), 22);
  assertEquals(bench.front.succeeds(Request.SET_FEATURES, u64(features)), true);
  bench.front.setMemoryTable();
  for (const ring of [0, 1, 2, 3]) bench.front.describe(ring);
  for (const ring of [0, 1]) bench.front.enable(ring, true);
  for (const ring of [0, 2]) bench.guest.post(ring, 12);
  const spread = () => {
    for (let flow = 0; flow < 8; flow++) bench.rig.network.inbox.push(flowFrame(flow));
    bench.settle();
    return [0, 2].map((ring) => bench.guest.received(ring).length);
  };
  assertEquals(spread(), [8, 0], "only one pair is enabled");
  for (const ring of [2, 3]) bench.front.enable(ring, true);
  bench.guest.post(0, 8);
  const [first, second] = spread();
  assert(first > 0 && second > 0 && first + second === 8, `frames went ${first} : ${second}`);
  for (const ring of [2, 3]) bench.front.enable(ring, false);
  bench.guest.post(0, first);
  assertEquals(spread(), [8, 0], "the second pair is disabled again");
});

Deno.test("without MQ the ring of index 2 is the control queue and no receive queue", () => {
  using bench = new Bench({ device: { queuePairs: 2 } });
  bench.start({ features: usualFeatures(bench.front.features(), 17, 18) });
  bench.front.describe(2);
  bench.front.enable(2, true);
  bench.front.enable(0, false);
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  assertEquals(bench.rig.network.inbox.length, 1);
  assertEquals(bench.faults.counts, {});
});

Deno.test("a long chain of direct descriptors is taken from a driver that may not use indirect ones", () => {
  using bench = new Bench();
  bench.start({ features: usualFeatures(bench.front.features()) & ~(1n << 28n | 1n << 29n) });
  const { descriptors, driver } = bench.guest.place(1);
  const { memory } = bench.guest;
  const at = GUEST_BASE + 0x70000;
  memory.copyIn(at + HEADER, frame(8), 0, 60);
  // The header in one descriptor, the frame in twelve pieces of five bytes.
  for (let i = 0; i < 13; i++) {
    const entry = descriptors + 16 * i;
    memory.writeU32(entry, i === 0 ? at : at + HEADER + 5 * (i - 1));
    memory.writeU32(entry + 4, 0);
    memory.writeU32(entry + 8, i === 0 ? HEADER : 5);
    memory.writeU16(entry + 12, i < 12 ? 1 : 0);
    memory.writeU16(entry + 14, i + 1);
  }
  memory.writeU16(driver + 4, 0);
  memory.writeU16(driver + 2, 1);
  bench.settle();
  assertEquals(bench.rig.network.sent.map((bytes) => [...bytes]), [[...frame(8)]]);
});

Deno.test("features that were never offered are refused, and the device does not work by them", () => {
  using bench = new Bench();
  bench.start();
  assertEquals(bench.front.succeeds(Request.SET_FEATURES, u64(1n << 33n | 1n << 32n)), false);
  assertEquals(bench.refused, { "features-unknown": 1 });
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  assertEquals(bench.guest.received(0), []);
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.settle();
  assertEquals(numbersOf(bench.guest.received(0)), [1]);
});

Deno.test("FEATURES_OK does not stick unless features are in force", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  bench.front.setStatus(11);
  assertEquals(bench.front.status(), 3);
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  // Some front-ends set it alone, before the others.
  bench.front.setStatus(8);
  assertEquals(bench.front.status(), 8);
  bench.front.setStatus(DRIVER_OK);
  assertEquals(bench.front.status(), DRIVER_OK);
});

for (const [name, reset] of [["SET_STATUS 0", 0], ["RESET_DEVICE", 1]] as const) {
  Deno.test(`${name} resets the device and keeps the memory`, () => {
    using bench = new Bench();
    bench.start();
    bench.front.setStatus(DRIVER_OK);
    if (reset === 0) bench.front.setStatus(0);
    else bench.front.say(Request.RESET_DEVICE);
    assertEquals(bench.front.status(), 0);
    assertEquals(bench.rig.counters[""].resets, 1);
    assertEquals(bench.host.mappings, 1);
    bench.rig.network.inbox.push(frame(1));
    bench.settle();
    assertEquals(bench.rig.network.inbox.length, 1);
    for (const ring of [0, 1]) bench.guest.forget(ring);
    bench.front.setFeatures(usualFeatures(bench.front.features()));
    for (const ring of [0, 1]) bench.front.describe(ring);
    for (const ring of [0, 1]) bench.front.enable(ring, true);
    bench.guest.post(0, 8);
    bench.settle();
    assertEquals(numbersOf(bench.guest.received(0)), [1]);
    bench.assertWorks();
  });
}

Deno.test("a broken chain stops the rings, signals their error events, and the device can be set up again", () => {
  using bench = new Bench();
  bench.start();
  bench.front.setStatus(DRIVER_OK);
  for (const ring of [0, 1]) bench.front.setError(ring);
  bench.guest.send(1, frame(1));
  // The driver points the descriptor outside its memory.
  bench.guest.memory.writeU32(bench.guest.place(1).descriptors + 4, 0x7000);
  bench.settle();
  assertEquals(bench.faults.counts, { "address-out-of-range": 1 });
  assertEquals(bench.errors.map(({ signals }) => signals), [1, 1]);
  assertEquals(bench.front.status(), DRIVER_OK | STATUS_NEEDS_RESET);
  assertEquals(bench.rig.counters[""].resets, 1);
  bench.rig.network.inbox.push(frame(2));
  bench.settle();
  assertEquals(bench.guest.received(0), []);

  assertEquals([bench.front.base(0), bench.front.base(1)], [0, 0]);
  for (const ring of [0, 1]) bench.guest.forget(ring);
  for (const ring of [0, 1]) bench.front.describe(ring);
  bench.guest.post(0, 8);
  bench.settle();
  assertEquals(numbersOf(bench.guest.received(0)), [2]);
  assertEquals(bench.front.status(), DRIVER_OK);
  bench.assertWorks();
});

Deno.test("GET_VRING_BASE of a ring that does not exist ends the connection: there is no answer to it", () => {
  using bench = new Bench();
  const error = assertThrows(() => bench.front.base(9), ProtocolError);
  assertEquals([error.fault, error.fatal], ["value-invalid", true]);
  assertEquals(bench.refused, { "ring-index-invalid": 1 });
});

Deno.test("requests of protocol features that were not offered are refused", () => {
  using bench = new Bench({ profile: "virtio-user" });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const attempts: [number, Uint8Array][] = [
    [Request.SEND_RARP, u64(0)],
    [Request.NET_SET_MTU, u64(1500)],
    [Request.SET_CONFIG, words(0, 0, 0)],
    [Request.RESET_DEVICE, u64(0)],
    [Request.VRING_KICK, pair(0, 0)],
    [Request.REM_MEM_REG, concat(u64(0), region())],
  ];
  for (const [id, payload] of attempts) {
    assertEquals(bench.front.succeeds(id, payload), false, `message ${id}`);
  }
  assertEquals(bench.refused, { "not-negotiated": attempts.length });
});

Deno.test("a ring that never ran stands where it was told, or at its start", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features(), 34));
  assertEquals(bench.front.base(0), 0x8000_8000);
  bench.front.setBase(0, 0x0003_0003);
  assertEquals(bench.front.base(0), 0x0003_0003);
  using split = new Bench();
  split.front.setFeatures(usualFeatures(split.front.features()));
  assertEquals(split.front.base(0), 0);
  split.front.setBase(0, 77);
  assertEquals(split.front.base(0), 77);
});

Deno.test("a kick that comes before the ring can start is not forgotten", () => {
  using bench = new Bench();
  bench.front.setFeatures(usualFeatures(bench.front.features()));
  bench.guest.send(1, frame(1));
  bench.front.describe(1);
  bench.kicks[1].kick();
  bench.front.setAddress(1);
  bench.settle();
  bench.front.setMemoryTable();
  bench.settle();
  assertEquals(bench.guest.returned(1), 1);
});

Deno.test("messages about rings that do not exist, or with impossible values, are refused", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  const attempts: [number, Uint8Array, FakeEvent?][] = [
    [Request.SET_VRING_NUM, pair(3, 16)],
    [Request.SET_VRING_NUM, pair(0, 0)],
    [Request.SET_VRING_NUM, pair(0, 32769)],
    [Request.SET_VRING_BASE, pair(0xffff_ffff, 0)],
    [Request.SET_VRING_ENABLE, pair(0, 2)],
    [Request.SET_VRING_ENABLE, pair(3, 1)],
    [Request.SET_VRING_KICK, u64(200), new FakeEvent()],
    [Request.SET_VRING_CALL, u64(3), new FakeEvent()],
    [Request.SET_VRING_ADDR, concat(words(3, 0), new Uint8Array(32))],
  ];
  for (const [id, payload, event] of attempts) {
    const descriptors = event === undefined ? [] : [bench.host.descriptor(event)];
    assertEquals(bench.front.succeeds(id, payload, descriptors), false, `message ${id}`);
  }
  assertEquals(bench.host.openDescriptors, 0);
});

Deno.test("configuration space is read as a whole or in parts, zeros behind its end, and not written", () => {
  using bench = new Bench({ profile: "crosvm", device: { queuePairs: 2 } });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  assertEquals([...bench.front.config(0, 10)], [0x52, 0x54, 0, 0, 0, 1, 1, 0, 2, 0]);
  assertEquals([...bench.front.config(24, 4)], [0, 0, 0, 0]);
  assertEquals(bench.front.say(Request.GET_CONFIG, words(200, 100, 0))!.length, 12, "nothing but the header");
  const write = (flags: number, byte: number) =>
    bench.front.succeeds(Request.SET_CONFIG, concat(words(5, 1, flags), Uint8Array.of(byte)));
  assertEquals(write(0, 9), false, "the driver must not write");
  assertEquals(write(1, 9), false, "a migration must not bring another configuration");
  assertEquals(write(1, 1), true, "a migration may bring the same");
});

Deno.test("a second connection finds a device that remembers nothing of the first", () => {
  using bench = new Bench();
  bench.start();
  bench.rig.network.inbox.push(frame(1));
  bench.backend[Symbol.dispose]();
  assertEquals([bench.host.openDescriptors, bench.host.mappings], [0, 0]);
  bench.backend = bench.newBackend(bench.rig.device);
  for (const ring of [0, 1]) bench.guest.forget(ring);
  bench.start();
  assertEquals(numbersOf(bench.guest.received(0)), [1]);
  bench.assertWorks();
});

Deno.test("a table whose regions overlap, or do not end, or are unaligned is refused and the old one stays", () => {
  using bench = new Bench();
  bench.start();
  const bad: Uint8Array[][] = [
    [region(), region({ guestAddress: GUEST_BASE + 4096, userAddress: 1 })],
    [region({ size: 0 })],
    [region({ guestAddress: Number.MAX_SAFE_INTEGER - 15, size: 4096 })],
    [region({ mapOffset: 8 })],
    [region(), region({ guestAddress: 0x9000_0000, size: 2 ** 40 })],
  ];
  for (const regions of bad) {
    const descriptors = regions.map(() => bench.memory());
    assertEquals(bench.front.succeeds(Request.SET_MEM_TABLE, table(...regions), descriptors), false);
  }
  assertEquals(bench.host.mappings, 1);
  bench.assertWorks();
});

Deno.test("memory that is removed and added again stops the rings in between, without fault", () => {
  using bench = new Bench();
  bench.start();
  for (const ring of [0, 1]) bench.front.setError(ring);
  for (let i = 0; i < 3; i++) {
    bench.front.removeMemory();
    bench.rig.network.inbox.push(frame(i));
    bench.settle();
    assertEquals(bench.host.mappings, 0);
    assertEquals(bench.guest.received(0), []);
    bench.front.addMemory();
    bench.settle();
    assertEquals(numbersOf(bench.guest.received(0)), [i]);
    bench.guest.post(0, 1);
    bench.assertWorks();
  }
  assertEquals(bench.faults.counts, {});
  assertEquals(bench.errors.map(({ signals }) => signals), [0, 0]);
  assertEquals(bench.front.base(0), 6);
});

Deno.test("a region that is not there cannot be removed", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  bench.front.addMemory();
  const other = concat(u64(0), region({ userAddress: USER_OFFSET }));
  assertEquals(bench.front.succeeds(Request.REM_MEM_REG, other), false);
  // A descriptor that comes along is closed unused.
  assertEquals(bench.front.succeeds(Request.REM_MEM_REG, concat(u64(0), region()), [bench.memory()]), true);
  assertEquals([bench.host.mappings, bench.host.openDescriptors], [0, 0]);
});

Deno.test("a region that is added once for each queue pair stays until it has been removed as often", () => {
  using bench = new Bench();
  bench.start();
  const descriptors = bench.host.openDescriptors;
  const maps = bench.host.mappings;
  bench.front.addMemory();
  assertEquals([bench.host.openDescriptors, bench.host.mappings], [descriptors, maps]);
  bench.front.removeMemory();
  bench.assertWorks();
  bench.front.removeMemory();
  assertEquals(bench.host.mappings, 0);
  assertEquals(bench.front.succeeds(Request.REM_MEM_REG, concat(u64(0), region())), false);
});

Deno.test("other memory in the place of a region is not added", () => {
  using bench = new Bench();
  bench.start();
  for (const other of [{ mapOffset: 4096 }, { userAddress: USER_OFFSET }, { size: 4096 }]) {
    const added = bench.front.succeeds(Request.ADD_MEM_REG, concat(u64(0), region(other)), [bench.memory()]);
    assertEquals(added, false, Object.keys(other)[0]);
  }
  assertEquals(bench.host.mappings, 1);
  bench.assertWorks();
});

Deno.test("a host that cannot map says so to the front-end", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  bench.host.refuseMaps = true;
  assertEquals(bench.front.succeeds(Request.SET_MEM_TABLE, table(region()), [bench.memory()]), false);
  assertEquals(bench.refused, { "host-cannot": 1 });
});

function flowFrame(flow: number): Uint8Array {
  const bytes = frame(flow);
  bytes[11] = flow * 37;
  return bytes;
}
