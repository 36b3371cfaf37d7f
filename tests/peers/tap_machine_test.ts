import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ConfigError } from "../../config/errors.ts";
import { parseConfig } from "../../config/load.ts";
import { HostError } from "../../core/errors.ts";
import { addressOf, libc } from "../../host/libc.ts";
import { buildMachine } from "../../machine/build.ts";
import { internetSum, pseudoHeaderSum, streamBytes, tcp, udp } from "../../testing/mod.ts";
import type { ReceivedPacket } from "../../devices/net/driver/mod.ts";
import type { NetHeaderFields } from "../../wire/virtio_net_header.ts";
import { openDescriptors } from "../host/support/counts.ts";
import {
  addressed,
  HOST,
  interfaces,
  isUdp,
  link,
  OUR_MAC,
  OURS,
  quietestSecond,
  transfer,
  udpReceiver,
  udpSocket,
} from "../../rigs/kernel.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, network } from "../../rigs/require.ts";
import { after, BareTap, registry, TapMachine, until } from "./support/tap_rig.ts";

/**
 * Whole machines between software guests and the real kernel.
 */

hostTest("a machine by a virtual clock refuses a TAP, and says why", network, async () => {
  using namespace = new Namespace();
  const written = {
    clock: "virtual",
    devices: [{ use: "net", driver: "loopback", network: { use: "tap", interface: "dv0" } }],
  };
  const config = await parseConfig(JSON.stringify(written), import.meta.url, registry([namespace]));
  const error = assertThrows(() => buildMachine(config), HostError);
  assertEquals(
    error.message,
    'tap_machine_test.ts:1:64: $.devices[0].network: events of this host cannot be waited for by a virtual clock; write "clock": "system", or leave it out',
  );
  assertEquals(interfaces(namespace), ["lo"]);
  const wrong = { devices: [{ use: "net", driver: "loopback", network: { use: "tap", interfaces: "dv0" } }] };
  await assertRejects(
    () => parseConfig(JSON.stringify(wrong), import.meta.url, registry([namespace])),
    ConfigError,
    'did you mean "interface"',
  );
});

hostTest("a guest behind a TAP receives from the kernel and sends to it", network, async () => {
  using namespace = new Namespace();
  const before = openDescriptors();
  {
    await using machine = await TapMachine.start([namespace, { network: { interface: "dv0" } }]);
    addressed(namespace, "dv0");
    const got: ReceivedPacket[] = [];
    machine.hooks(0).onPacket = (packet) => void (isUdp(packet.bytes) && got.push(packet));
    udpSocket(namespace, 300).send(OURS, 9, 20);
    await until("20 datagrams have come", () => got.length >= 20);
    // The guest accepts partial checksums, so the kernel need not compute them.
    assertEquals([got.length, got[0].flags, got[0].bytes.length], [20, 1, 342]);
    using receiver = udpReceiver(namespace, 4000);
    const hostMac = link(namespace, "dv0").address;
    const datagram = udp({
      sourceMac: OUR_MAC,
      destinationMac: hostMac,
      source: OURS,
      destination: HOST,
      destinationPort: 4000,
      payload: 700,
      checksum: "partial",
    });
    machine.guest(0).send(datagram, { flags: 1, csumStart: 34, csumOffset: 6 });
    const received = new Uint8Array(2000);
    const read = () => libc().read(receiver.number, addressOf(received), 2000n);
    let count = -1;
    await until("the datagram has come", () => (count = read()) >= 0);
    assertEquals(received.subarray(0, count), datagram.subarray(42));
    assertEquals(machine.guest(0).errors, []);
  }
  assertEquals(openDescriptors(), before);
});

hostTest(
  "a guest without receive buffers keeps the machine from reading, but not from sleeping",
  network,
  async () => {
    using namespace = new Namespace();
    await using machine = await TapMachine.start([namespace, {
      network: { interface: "dv0" },
      guest: { receiveBuffers: 4 },
    }]);
    addressed(namespace, "dv0");
    let received = 0;
    machine.hooks(0).onPacket = ({ bytes }) => void (isUdp(bytes) && received++);
    udpSocket(namespace, 10).send(OURS, 9, 300);
    await after(50);
    const { read } = machine.counters("net0.network");
    assert(read < 200, `${read} frames were read for a guest that takes 4`);
    const burnt = await quietestSecond();
    assert(burnt <= 2, `${burnt} ticks of 10 ms in a second`);
    machine.guest(0).postReceiveBuffers(200);
    machine.machine.parts.reactor.wake();
    await until("what waited has come", () => received >= 150);
  },
);

hostTest("a machine whose only interface is deleted ends, and says why", network, async () => {
  using namespace = new Namespace();
  const machine = await TapMachine.start([namespace, { network: { interface: "dv0" } }]);
  await after(20);
  namespace.ip("link", "del", "dv0");
  await machine.ended;
  await assertRejects(
    () => machine.machine.close(),
    HostError,
    "Cannot go on with interface dv0: it was deleted",
  );
});

hostTest(
  "a packet that RSC holds leaves at its deadline although no further frame comes",
  network,
  async () => {
    using namespace = new Namespace();
    await using machine = await TapMachine.start([namespace, {
      network: { interface: "dv0" },
      offloads: [{ use: "rsc-v4", intervalUs: 2000 }],
    }]);
    using peer = new BareTap(namespace, { interface: "dv1" });
    namespace.ip("link", "add", "br0", "type", "bridge");
    for (const name of ["dv0", "dv1"]) namespace.ip("link", "set", name, "master", "br0");
    for (const name of ["br0", "dv0", "dv1"]) {
      namespace.command("sh", "-c", `echo 1 >/proc/sys/net/ipv6/conf/${name}/disable_ipv6`);
    }
    namespace.ip("link", "set", "br0", "up");
    const arrivals: { atMs: number; bytes: number; flags: number }[] = [];
    machine.hooks(0).onPacket = ({ bytes, flags }) => {
      if (bytes[23] === 6) arrivals.push({ atMs: performance.now(), bytes: bytes.length, flags });
    };
    const lateness: number[] = [];
    for (let i = 0; i < 5; i++) {
      arrivals.length = 0;
      const fields = { destinationMac: OUR_MAC, sourcePort: 1000 + i };
      const sentMs = performance.now();
      peer.send([tcp({ ...fields, payload: 100 }), tcp({ ...fields, seq: 1100, payload: 100 })]);
      await until("the packet has come", () => arrivals.length > 0);
      assertEquals([arrivals.length, arrivals[0].bytes], [1, 254]);
      assertEquals(arrivals[0].flags & 4, 4, "it was not coalesced");
      lateness.push(arrivals[0].atMs - sentMs - 2);
    }
    assert(Math.min(...lateness) > -0.5, `it left ${-Math.min(...lateness)} ms before its deadline`);
    // A busy host delays some; what waits for another frame, or for a coarse timer, is late every time.
    assert(Math.min(...lateness) < 50, `it left ${Math.min(...lateness)} ms after its deadline, at best`);
  },
);

hostTest(
  "TCP of the kernel through two devices, coalesced on the way, arrives as it was sent",
  network,
  async () => {
    using a = new Namespace();
    using b = new Namespace();
    await using machine = await TapMachine.start(
      [a, { network: { interface: "dv0", offloads: "off" }, offloads: ["rsc-v4"] }],
      [b, { network: { interface: "dv0" }, guest: { transmitBufferBytes: 65_562 } }],
    );
    a.address("dv0", "10.8.0.1/24");
    b.address("dv0", "10.8.0.2/24");
    // The guests are a bridge: they take frames for everybody, and each hands on to the other what it
    // receives.
    for (const i of [0, 1]) machine.guest(i).setReceiveMode("promisc", true);
    let coalesced = 0;
    for (const i of [0, 1]) {
      machine.hooks(i).onPacket = (packet) => {
        if ((packet.flags & 4) !== 0) coalesced++;
        if (i === 0) machine.guest(1).send(packet.bytes, toBeSegmented(packet));
        else machine.guest(0).send(finished(packet));
      };
    }
    const bytes = streamBytes(0, 2_000_000);
    assertEquals(await transfer(a, b, "10.8.0.2", bytes), bytes);
    assert(coalesced > 20, `only ${coalesced} packets`);
  },
);

hostTest(
  "TCP of the kernel there and back waits for no interval where the network has no more, and keeps its order",
  network,
  async () => {
    using a = new Namespace();
    using b = new Namespace();
    // Ten seconds: what waited for its interval would not be through in time.
    const coalesced = { intervalUs: 10_000_000 };
    const offloads = [{ use: "rsc-v4", ...coalesced }, { use: "rsc-v6", ...coalesced }];
    await using machine = await TapMachine.start(
      [a, { network: { interface: "dv0", offloads: "off" }, offloads }],
      [b, { network: { interface: "dv0", offloads: "off" }, offloads }],
    );
    a.address("dv0", "10.8.0.1/24");
    b.address("dv0", "10.8.0.2/24");
    for (const i of [0, 1]) {
      machine.guest(i).setReceiveMode("promisc", true);
      machine.hooks(i).onPacket = (packet) =>
        void machine.guest(1 - i).send(finished(packet), toBeSegmented(packet));
    }
    const listener = b.run(() => Deno.listen({ hostname: "10.8.0.2", port: 5001 }));
    const connecting = a.run(() => Deno.connect({ hostname: "10.8.0.2", port: 5001 }));
    const [client, server] = await Promise.all([connecting, listener.accept()]);
    listener.close();
    const got: number[] = [];
    const byte = new Uint8Array(1);
    for (let i = 0; i < 100; i++) {
      await client.write(new Uint8Array([i]));
      await server.read(byte);
      await server.write(byte);
      byte[0] = 255;
      await client.read(byte);
      got.push(byte[0]);
    }
    client.close();
    server.close();
    assertEquals(got, Array.from({ length: 100 }, (_, i) => i));
    for (const name of ["net0.rsc-v4", "net1.rsc-v4"]) {
      const { drained_by_idle, drained_by_timer } = machine.counters(name);
      assert(drained_by_idle >= 100, `${name}: ${drained_by_idle} of 100 messages`);
      assertEquals(drained_by_timer, 0, name);
    }
  },
);

/**
 * The facts with which a received packet is sent on: a coalesced one is to be segmented and checksummed
 * again.
 */
function toBeSegmented({ bytes, flags, gsoType, gsoSize }: ReceivedPacket): Partial<NetHeaderFields> {
  if ((flags & 4) === 0) return {};
  const ipBytes = (bytes[14] & 15) * 4;
  const csumStart = 14 + ipBytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const pseudo = pseudoHeaderSum(
    bytes.subarray(26, 30),
    bytes.subarray(30, 34),
    6,
    view.getUint16(16) - ipBytes,
  );
  view.setUint16(csumStart + 16, pseudo);
  return {
    flags: 1,
    gsoType,
    gsoSize,
    hdrLen: csumStart + (bytes[csumStart + 12] >> 4) * 4,
    csumStart,
    csumOffset: 16,
  };
}

/** The bytes of a received packet, with its checksum completed. */
function finished({ bytes, flags, csumStart, csumOffset }: ReceivedPacket): Uint8Array {
  if ((flags & 1) !== 0) {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    view.setUint16(csumStart + csumOffset, 0xffff - internetSum(bytes, csumStart));
  }
  return bytes;
}
