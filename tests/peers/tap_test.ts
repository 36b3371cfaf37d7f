import { assert, assertEquals, assertRejects } from "@std/assert";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { HostError } from "../../core/errors.ts";
import { FileDescriptor } from "../../host/descriptors.ts";
import { arp, ethernet, internetSum, pseudoHeaderSum, streamBytes, udp } from "../../testing/mod.ts";
import { openDescriptors } from "../host/support/counts.ts";
import {
  addressed,
  HOST,
  interfaces,
  isUdp,
  link,
  OUR_MAC,
  OURS,
  transfer,
  udpSocket,
} from "../../rigs/kernel.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, network, program } from "../../rigs/require.ts";
import { after, BareTap, Patch, until } from "./support/tap_rig.ts";

/**
 * Frames through TAP interfaces of the real kernel, each in a network of its own.
 */

const WITHOUT_CSUM = OffloadCapabilities.of("tso4", "tso6", "ecn", "uso4", "uso6");

hostTest("tap carries frames both ways: the kernel answers ARP and ping", network, async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" });
  namespace.address("dv0", `${HOST}/24`);
  assertEquals(tap.send([arp({ sourceMac: OUR_MAC, source: OURS, target: HOST })]), 1);
  const answer = await tap.find((bytes) => bytes[12] === 8 && bytes[13] === 6 && bytes[21] === 2);
  const hostMac = link(namespace, "dv0").address;
  assertEquals(
    Array.from(answer.bytes.subarray(6, 12), (b) => b.toString(16).padStart(2, "0")).join(":"),
    hostMac,
  );
  assertEquals(Array.from(answer.bytes.subarray(28, 32)), [10, 9, 0, 1]);
  const echo = new Uint8Array(8 + 1000).fill(7);
  echo.set([8, 0, 0, 0, 0x12, 0x34, 0, 1]);
  new DataView(echo.buffer).setUint16(2, 0xffff - internetSum(echo));
  // An IPv4 packet of the kit, with its transport header replaced by the echo request.
  const ping = udp({
    sourceMac: OUR_MAC,
    destinationMac: hostMac,
    source: OURS,
    destination: HOST,
    payload: 1000,
  });
  ping[23] = 1;
  ping.set([0, 0], 24);
  new DataView(ping.buffer).setUint16(24, 0xffff - internetSum(ping, 14, 34));
  ping.set(echo, 34);
  assertEquals(tap.send([ping]), 1);
  const { bytes } = await tap.find((bytes) => bytes[23] === 1 && bytes[34] === 0);
  assertEquals(bytes.subarray(38), echo.subarray(4));
});

hostTest("tap lets the kernel finish what the guest does not accept, and no more", network, async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" });
  addressed(namespace, "dv0");
  const socket = udpSocket(namespace, 100);
  const checksumIsRight = (bytes: Uint8Array) => {
    const pseudo = pseudoHeaderSum(bytes.subarray(26, 30), bytes.subarray(30, 34), 17, bytes.length - 34);
    return internetSum(bytes, 34, bytes.length, pseudo) === 0xffff;
  };
  const one = async () => {
    socket.send(OURS, 9);
    return await tap.find(isUdp);
  };
  const before = await one();
  assertEquals([before.flags, checksumIsRight(before.bytes)], [0, true]);
  tap.transport.guestCapabilities(OffloadCapabilities.all);
  const partial = await one();
  assertEquals([partial.flags, checksumIsRight(partial.bytes)], [1, false]);
  tap.transport.guestCapabilities(WITHOUT_CSUM);
  const after = await one();
  assertEquals([after.flags, checksumIsRight(after.bytes)], [0, true]);
});

for (const [family, left, right] of [["IPv4", "10.8.0.1", "10.8.0.2"], ["IPv6", "fd08::1", "fd08::2"]]) {
  for (const capabilities of [OffloadCapabilities.all, WITHOUT_CSUM]) {
    const how = capabilities.csum ? "in large frames" : "as on a wire";
    hostTest(`tap carries TCP of the kernel over ${family} ${how}`, network, async () => {
      using a = new Namespace();
      using b = new Namespace();
      await using patch = new Patch([a, { interface: "dv0" }], [b, { interface: "dv0" }]);
      const prefix = family === "IPv4" ? 24 : 64;
      a.address("dv0", `${left}/${prefix}`);
      b.address("dv0", `${right}/${prefix}`);
      for (const { transport } of patch.ends) transport.guestCapabilities(capabilities);
      const bytes = streamBytes(0, 3_000_000);
      assertEquals(await transfer(a, b, right, bytes), bytes);
      const { read, readBytes, truncated, tooLong, badHeader } = patch.ends[0].counters;
      assertEquals([truncated, tooLong, badHeader], [0, 0, 0]);
      const average = readBytes / read;
      if (capabilities.csum) assert(average > 3000, `frames of ${average} bytes only`);
      else assert(average <= 1514, `frames of ${average} bytes`);
      assertEquals(Object.keys(patch.ends[1].counters).filter((name) => name.includes("_")), []);
    });
  }
}

hostTest("tap gives back-pressure: frames that the kernel has no room for stay, and none is lost", [
  ...network,
  program("tc", "iproute2"),
], async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0", sendBufferBytes: 16_384 });
  // What we send goes out by a slow line, and is charged to us as long as it waits there.
  namespace.ip("link", "add", "slow0", "type", "veth", "peer", "name", "far0");
  namespace.ip("link", "add", "br0", "type", "bridge");
  for (const name of ["dv0", "slow0"]) namespace.ip("link", "set", name, "master", "br0");
  for (const name of ["br0", "slow0", "far0"]) {
    namespace.command("sh", "-c", `echo 1 >/proc/sys/net/ipv6/conf/${name}/disable_ipv6`);
    namespace.ip("link", "set", name, "up");
  }
  namespace.command("tc", ..."qdisc add dev slow0 root tbf rate 4mbit burst 3000 limit 10000000".split(" "));
  const before = link(namespace, "far0").stats64.rx.packets;
  const frame = ethernet({ destinationMac: "02:00:00:00:00:77", payload: new Uint8Array(1000) });
  let sent = 0;
  let refused = 0;
  for (let tries = 0; sent < 60 && tries < 2000; tries++) {
    const taken = tap.send(new Array<Uint8Array>(60 - sent).fill(frame));
    sent += taken;
    if (sent < 60) {
      refused++;
      await after(2);
    }
  }
  assertEquals(sent, 60);
  assert(refused > 0, "there was always room");
  assertEquals(tap.counters.again, refused);
  await until("all frames have come", () => link(namespace, "far0").stats64.rx.packets - before >= 60);
});

hostTest("tap with several queues reads all of them and writes to each", network, async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" }, 4);
  assertEquals(tap.transport.queuePairs, 4);
  assertEquals(link(namespace, "dv0").linkinfo.info_data.multi_queue, true);
  addressed(namespace, "dv0");
  namespace.command("bash", "-c", `for p in $(seq 2000 2063); do echo x >/dev/udp/${OURS}/$p; done`);
  await after(20);
  const ports = new Set<number>();
  const used: number[] = [];
  for (let queue = 0; queue < 4; queue++) {
    const frames = tap.receive(queue).filter(({ bytes }) => isUdp(bytes));
    if (frames.length > 0) used.push(queue);
    for (const { bytes } of frames) ports.add(bytes[36] * 256 + bytes[37]);
  }
  assertEquals(ports.size, 64);
  assert(used.length > 1, `all flows came by queue ${used}`);
  const before = link(namespace, "dv0").stats64.rx.packets;
  for (let queue = 0; queue < 4; queue++) assertEquals(tap.send([ethernet({})], queue), 1);
  assertEquals(link(namespace, "dv0").stats64.rx.packets - before, 4);
  assertEquals(interfaces(namespace), ["lo", "dv0"]);
});

hostTest("tap drops what is sent while the interface is down, and goes on when it is up", network, () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" });
  namespace.ip("link", "set", "dv0", "down");
  assertEquals(tap.send([ethernet({}), ethernet({})]), 2);
  assertEquals([tap.counters.write_EIO, tap.counters.written], [2, 0]);
  namespace.ip("link", "set", "dv0", "up");
  assertEquals(tap.send([ethernet({})]), 1);
  assertEquals([tap.counters.write_EIO, tap.counters.written], [2, 1]);
});

hostTest("tap whose interface is deleted is finished, and says so when it is closed", network, async () => {
  using namespace = new Namespace();
  using tap = new BareTap(namespace, { interface: "dv0" });
  assertEquals(tap.transport.finished, false);
  namespace.ip("link", "del", "dv0");
  assertEquals(tap.receive(), []);
  assertEquals(tap.transport.finished, true);
  assertEquals(tap.send([ethernet({})]), 1);
  assertEquals(tap.counters.noInterface, 1);
  await assertRejects(
    () => tap.transport.close(),
    HostError,
    "Cannot go on with interface dv0: it was deleted",
  );
});

hostTest("tap leaves no descriptor and no frame behind after 200 times", network, () => {
  using namespace = new Namespace();
  const cycle = () => {
    using tap = new BareTap(namespace, { interface: "dv0" }, 2);
    tap.send([ethernet({})]);
    tap.receive();
  };
  cycle();
  const before = openDescriptors();
  const live = FileDescriptor.live;
  for (let i = 0; i < 200; i++) cycle();
  assertEquals(openDescriptors(), before);
  assertEquals(FileDescriptor.live, live);
  assertEquals(interfaces(namespace), ["lo"]);
});
