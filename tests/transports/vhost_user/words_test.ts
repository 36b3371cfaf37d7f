/**
 * What people read and write: options, traces, help for the other end.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  capabilities,
  type FrontEndFacts,
  libvirtXml,
  qemuOptions,
  umlArguments,
} from "../../../transports/vhost_user/front_ends.ts";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { vhostUserOptions } from "../../../transports/vhost_user/options.ts";
import { jsonTrace, textTrace } from "../../../transports/vhost_user/protocol_trace.ts";
import { entropyFrontEnd } from "../../../devices/entropy/front_end.ts";
import { netFrontEnd } from "../../../devices/net/front_end.ts";
import { FeatureSet, VIRTIO_F_RING_PACKED } from "../../../core/features.ts";
import { parseMac } from "../../../wire/ethernet.ts";
import {
  NET_FEATURE_NAMES,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../../../wire/net_features.ts";
import { Bench } from "./support/bench.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";

async function options(written: unknown): Promise<unknown> {
  const result = await vhostUserOptions["~standard"].validate(written);
  return result.issues?.map(({ path = [], message }) =>
    `${path.map((key) => typeof key === "object" ? key.key : key).join(".")}: ${message}`
  ) ?? ("value" in result ? result.value : null);
}

Deno.test("options are complete after validation", async () => {
  assertEquals(await options({ socket: "net0.sock" }), {
    socket: "net0.sock",
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
  const full = { socket: "/run/a.sock", profile: "qemu", socketMode: "0660", socketOwner: "64055:108" };
  const read = await options(full) as Record<string, unknown>;
  assertEquals([read.socketMode, read.socketUser, read.socketGroup], [0o660, 64055, 108]);
  const user = await options({ ...full, socketOwner: "7" }) as Record<string, unknown>;
  assertEquals([user.socketUser, user.socketGroup], [7, null]);
});

Deno.test("options that contradict each other are refused with a remedy", async () => {
  assertEquals(await options({}), [': Write either "socket", such as "net0.sock", or "fd"']);
  assertEquals(await options({ socket: "a", fd: 3 }), [
    ': Write either "socket", such as "net0.sock", or "fd"',
  ]);
  assertEquals(await options({ socket: "a", mode: "client", socketMode: "660" }), [
    "socketMode: Leave it out: only a server with a path makes a socket",
  ]);
  assertEquals(await options({ fd: 3, socketOwner: "1:1" }), [
    "socketOwner: Leave it out: only a server with a path makes a socket",
  ]);
  assertEquals(await options({ socket: "a", socketMode: "999" }), [
    'socketMode: Write three octal digits, such as "660"',
  ]);
  for (
    const bad of [{ fd: 2 }, { socket: "" }, { socket: "a", profile: "bochs" }, {
      socket: "a",
      reconnectMs: 0,
    }]
  ) {
    assert(Array.isArray(await options(bad)), JSON.stringify(bad));
  }
});

Deno.test("a trace tells the dialogue in words", () => {
  const lines: string[] = [];
  using bench = new Bench({ trace: textTrace((line) => lines.push(line), NET_FEATURE_NAMES) });
  bench.front.setProtocolFeatures(bench.front.protocolFeatures() & 0x9n);
  bench.front.setFeatures(1n << 32n | 1n << 30n | 1n << 26n | 1n << 15n);
  bench.front.setMemoryTable();
  bench.front.setNum(0);
  bench.front.setKick(0);
  bench.front.say(77);
  assertEquals(
    lines,
    [
      "> GET_PROTOCOL_FEATURES",
      "< GET_PROTOCOL_FEATURES value=0x9a23f names=[MQ,LOG_SHMFD,RARP,REPLY_ACK,MTU,BACKEND_REQ,CONFIG," +
      "RESET_DEVICE,CONFIGURE_MEM_SLOTS,STATUS,DEVICE_STATE]",
      "> SET_PROTOCOL_FEATURES value=0x9 names=[MQ,REPLY_ACK]",
      "> SET_FEATURES value=0x144008000 names=[MRG_RXBUF,LOG_ALL,PROTOCOL_FEATURES,VERSION_1]",
      "> SET_MEM_TABLE regions=[{guestAddress=0x100000 size=0x80000 userAddress=0x7f0000100000 mapOffset=0}] " +
      "fds=1",
      "> SET_VRING_NUM index=0 num=16",
      "> SET_VRING_KICK index=0 hasDescriptor=true fds=1",
      "! message 77 refused: message-unknown: Request 77 (message 77) is not one that this device serves",
    ],
  );
});

Deno.test("a trace tells the dialogue in lines of JSON, of every message there is", () => {
  const lines: string[] = [];
  using bench = new Bench({
    profile: "crosvm",
    trace: jsonTrace((line) => lines.push(line), undefined, NET_FEATURE_NAMES),
  });
  bench.start({ features: usualFeatures(bench.front.features()) });
  bench.front.config(0, 6);
  bench.front.base(0);
  const events = lines.map((line) => JSON.parse(line));
  const named = (name: string) => events.find((event) => event.event === "request" && event.name === name);
  assertEquals(named("SET_VRING_ADDR"), {
    event: "request",
    id: Request.SET_VRING_ADDR,
    name: "SET_VRING_ADDR",
    needReply: false,
    fds: 0,
    descriptors: 0x7f0000100000,
    index: 0,
    flags: 0,
    used: 0x7f0000100800,
    available: 0x7f0000100400,
    log: null,
  });
  assertEquals(named("GET_CONFIG").bytes, "000000000000");
  const base = events.find((event) => event.event === "reply" && event.name === "GET_VRING_BASE");
  assertEquals(base, { event: "reply", id: 11, name: "GET_VRING_BASE", index: 0, num: 0 });
  const config = events.find((event) => event.event === "reply" && event.name === "GET_CONFIG");
  assertEquals([config.value, config.payload.length], [undefined, 2 * (12 + 6)]);
  const offered = events.find((event) => event.event === "reply" && event.name === "GET_FEATURES");
  assert(offered.names.includes("PROTOCOL_FEATURES") && offered.names.includes("MRG_RXBUF"));
  assertEquals(BigInt(offered.value), bench.front.features());
});

const MAC = parseMac("52:54:00:00:00:01");
const NET: FrontEndFacts = {
  words: netFrontEnd,
  socket: "/run/my vm/net,0.sock",
  mode: "server",
  options: { mac: MAC, queuePairs: 2, queueSize: 512, mtu: 9000 },
  features: FeatureSet.of(VIRTIO_F_RING_PACKED, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_RSC_EXT),
};
const PLAIN: FrontEndFacts = {
  ...NET,
  socket: "/b",
  mode: "client",
  options: { mac: MAC, queuePairs: 1, queueSize: 32768 },
  features: FeatureSet.none,
};
const RNG: FrontEndFacts = {
  words: entropyFrontEnd,
  socket: "/run/rng.sock",
  mode: "server",
  options: {},
  features: FeatureSet.of(VIRTIO_F_RING_PACKED),
};

Deno.test("qemuOptions() writes what QEMU needs to meet all devices", () => {
  const waiting = qemuOptions([{ ...RNG, mode: "client" }], { memoryMiB: 1, machine: "virt" });
  assertEquals(waiting[3], ["-chardev", "socket,id=vhost0,path=/run/rng.sock,server=on"]);
  assertEquals(qemuOptions([NET, PLAIN, RNG], { memoryMiB: 512, machine: "q35" }), [
    ["-m", "512M"],
    ["-object", "memory-backend-memfd,id=mem0,size=512M,share=on"],
    ["-machine", "q35,memory-backend=mem0"],
    ["-chardev", "socket,id=vhost0,path=/run/my vm/net,,0.sock"],
    ["-netdev", "vhost-user,id=net0,chardev=vhost0,queues=2"],
    [
      "-device",
      "virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,mq=on,vectors=6,rx_queue_size=512,tx_queue_size=512," +
      "mrg_rxbuf=on,guest_rsc_ext=on,host_mtu=9000,packed=on",
    ],
    ["-chardev", "socket,id=vhost1,path=/b,server=on,wait=off"],
    ["-netdev", "vhost-user,id=net1,chardev=vhost1"],
    [
      "-device",
      "virtio-net-pci,netdev=net1,mac=52:54:00:00:00:01,rx_queue_size=1024,tx_queue_size=1024,mrg_rxbuf=off",
    ],
    ["-chardev", "socket,id=vhost2,path=/run/rng.sock"],
    ["-device", "vhost-user-rng-pci,chardev=vhost2,packed=on"],
  ]);
});

Deno.test("umlArguments() writes what the kernel of User-mode Linux can read", () => {
  const devices = [{ socket: "/run/net0.sock", type: 1 }, { socket: "/run/a:b.sock", type: 1 }, {
    socket: "/run/my vm/x",
    type: 2,
  }, { socket: "/b", type: 26 }];
  assertEquals(umlArguments(devices), ["virtio_uml.device=/run/net0.sock:1", "virtio_uml.device=/b:26"]);
});

Deno.test("libvirtXml() writes what libvirt needs, escaped", () => {
  assertEquals(
    libvirtXml([{ ...NET, socket: "/run/a&b's<.sock" }, PLAIN, RNG]),
    `<memoryBacking>
  <source type='memfd'/>
  <access mode='shared'/>
</memoryBacking>
<devices>
  <interface type='vhostuser'>
    <mac address='52:54:00:00:00:01'/>
    <source type='unix' path='/run/a&amp;b&apos;s&lt;.sock' mode='client'>
      <reconnect enabled='yes' timeout='1'/>
    </source>
    <model type='virtio'/>
    <driver queues='2' rx_queue_size='512' tx_queue_size='512' packed='on'/>
    <mtu size='9000'/>
    <alias name='ua-net0'/>
  </interface>
  <interface type='vhostuser'>
    <mac address='52:54:00:00:00:01'/>
    <source type='unix' path='/b' mode='server'/>
    <model type='virtio'/>
    <driver rx_queue_size='1024' tx_queue_size='1024'>
      <host mrg_rxbuf='off'/>
    </driver>
  </interface>
</devices>
<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <qemu:arg value='-chardev'/>
  <qemu:arg value='socket,id=vhost2,path=/run/rng.sock'/>
  <qemu:arg value='-device'/>
  <qemu:arg value='vhost-user-rng-pci,chardev=vhost2,packed=on'/>
</qemu:commandline>
<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <qemu:device alias='ua-net0'>
    <qemu:frontend>
      <qemu:property name='guest_rsc_ext' type='bool' value='true'/>
    </qemu:frontend>
  </qemu:device>
</qemu:override>`,
  );
});

Deno.test("capabilities() is one line of JSON with the type", () => {
  assertEquals([capabilities("net"), capabilities("rng")], ['{"type":"net"}', '{"type":"rng"}']);
});

Deno.test("jsonTrace() writes facts of the caller into every line", () => {
  let line = "";
  let timeNs = 0;
  const trace = jsonTrace((text) => line = text, () => ({ timeNs: ++timeNs, device: "net0" }));
  trace.note({ event: "connected" });
  trace.note({ event: "disconnected", reason: "it went" });
  assertEquals(line, '{"timeNs":2,"device":"net0","event":"disconnected","reason":"it went"}');
});
