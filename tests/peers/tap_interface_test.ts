import { assert, assertEquals, assertThrows } from "@std/assert";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { HostError } from "../../core/errors.ts";
import { FileDescriptor, O_RDWR } from "../../host/descriptors.ts";
import { cString, libc } from "../../host/libc.ts";
import { arp } from "../../testing/mod.ts";
import { openTap } from "../../transports/tap/mod.ts";
import {
  IFF_NO_PI,
  IFF_TAP,
  IFF_VNET_HDR,
  InterfaceRequest,
  TUN_PATH,
  TUNSETIFF,
} from "../../transports/tap/open_tap.ts";
import { HOST, interfaces, link, OUR_MAC, OURS } from "../../rigs/kernel.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, network, program } from "../../rigs/require.ts";
import { BareTap, tapOptions } from "./support/tap_rig.ts";

/**
 * Opening TAP interfaces of the real kernel, and what is said if one cannot be opened.
 */

hostTest("tap makes an interface as it is told, and it goes with the transport", network, () => {
  using namespace = new Namespace();
  const tap = new BareTap(namespace, { interface: "dv0", mtu: 1400, mac: "02:00:00:00:0a:0b" });
  const facts = link(namespace, "dv0");
  assertEquals([facts.mtu, facts.address], [1400, "02:00:00:00:0a:0b"]);
  assert(facts.flags.includes("UP"));
  assertEquals(facts.linkinfo.info_data.vnet_hdr, true);
  assertEquals(facts.linkinfo.info_data.multi_queue, false);
  assertEquals(tap.transport.capabilities.csum, true);
  assertEquals(tap.transport.capabilities.tso4, true);
  assertEquals([tap.mtu, tap.transport.queuePairs], [1400, 1]);
  tap[Symbol.dispose]();
  assertEquals(interfaces(namespace), ["lo"]);
});

hostTest(
  "tap leaves an interface down and without header if it is told so, and finds a free name",
  network,
  () => {
    using namespace = new Namespace();
    using first = new BareTap(namespace, { interface: "dv%d", up: false, vnetHeader: false });
    using second = new BareTap(namespace, { interface: "dv%d", offloads: "off" });
    assertEquals([first.name, second.name], ["dv0", "dv1"]);
    const facts = link(namespace, "dv0");
    assertEquals([facts.flags.includes("UP"), facts.linkinfo.info_data.vnet_hdr], [false, false]);
    const none = OffloadCapabilities.none;
    assertEquals([first.transport.capabilities, second.transport.capabilities], [none, none]);
  },
);

hostTest("tap uses an interface that is there, and keeps it if it is to be persistent", network, () => {
  using namespace = new Namespace();
  namespace.ip("tuntap", "add", "dev", "dv0", "mode", "tap", "vnet_hdr");
  namespace.ip("link", "set", "dv0", "mtu", "2000");
  const there = new BareTap(namespace, { interface: "dv0" });
  assertEquals(there.mtu, 2000);
  there[Symbol.dispose]();
  assert(interfaces(namespace).includes("dv0"), "it was not ours to remove");
  const kept = new BareTap(namespace, { interface: "dv1", persistent: true });
  kept[Symbol.dispose]();
  assert(interfaces(namespace).includes("dv1"));
});

hostTest("tap by a passed descriptor carries frames and keeps to what it is", network, async () => {
  using namespace = new Namespace();
  const fd = attached(namespace, "dv0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  using tap = new BareTap(namespace, { fd: fd.release() });
  assertEquals(tap.name, "dv0");
  assert(!link(namespace, "dv0").flags.includes("UP"), "it was set up although it is not ours");
  namespace.address("dv0", `${HOST}/24`);
  tap.send([arp({ sourceMac: OUR_MAC, source: OURS, target: HOST })]);
  await tap.find((bytes) => bytes[12] === 8 && bytes[13] === 6);
});

hostTest("tap refuses passed descriptors that are not what is wanted, and leaves them open", network, () => {
  using namespace = new Namespace();
  const open = (input: Record<string, unknown>) => openTap(tapOptions(input), 1, "$.devices[0].network");
  using plain = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open it");
  using ip = attached(namespace, "dv1", 1 | IFF_NO_PI);
  using without = attached(namespace, "dv3", IFF_TAP | IFF_NO_PI);
  using right = attached(namespace, "dv4", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  using other = attached(namespace, "dv5", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
  const cases: [Record<string, unknown>, string][] = [
    [{ fd: plain.number }, "ENOTTY (not a device of this kind); it is none; open /dev/net/tun"],
    [{ fd: 1_000_000 }, "EBADF (not an open file descriptor); it is not open: have it passed"],
    [{ fd: ip.number }, "it carries IP packets (TUN); attach it with IFF_TAP"],
    [{ fd: without.number }, 'attach it with IFF_VNET_HDR, or write "vnetHeader": false'],
    [{ fd: right.number, vnetHeader: false }, 'leave "vnetHeader": false out'],
    [
      { fds: [right.number, other.number] },
      "it belongs to dv5 and the others to dv4; pass queues of one interface",
    ],
  ];
  for (const [input, message] of cases) {
    const error = assertThrows(() => open(input), HostError, undefined, JSON.stringify(input));
    assert(error.message.includes(message), error.message);
    assert(error.message.includes("($.devices[0].network)"), error.message);
  }
  for (const fd of [plain, ip, without, right, other]) assert(libc().fcntl(fd.number, 1, 0) >= 0);
});

function attached(namespace: Namespace, name: string, flags: number): FileDescriptor {
  const request = new InterfaceRequest(name);
  request.flags = flags;
  return namespace.run(() => {
    const fd = FileDescriptor.open(cString(TUN_PATH), O_RDWR, "open it");
    assertEquals(libc().ioctl(fd.number, TUNSETIFF, request.bytes), 0);
    return fd;
  });
}

hostTest("tap says what to do when an interface cannot be used", network, () => {
  using namespace = new Namespace();
  using _used = new BareTap(namespace, { interface: "dv0" });
  namespace.ip("tuntap", "add", "dev", "dv1", "mode", "tap", "multi_queue", "vnet_hdr");
  const open = (input: Record<string, unknown>, pairs = 1) => () =>
    namespace.run(() => openTap(tapOptions(input), pairs, "$.devices[0].network"));
  const error = assertThrows(open({ interface: "dv0" }), HostError);
  assertEquals(
    error.message,
    "Cannot use interface dv0 as a TAP ($.devices[0].network): EBUSY (in use); " +
      "another program uses it: stop that program, or use another interface",
  );
  assertThrows(open({ interface: "lo" }), HostError, "there is one of this name which is no TAP");
  assertThrows(open({ interface: "dv1" }), HostError, 'write "multiQueue": true for those');
  assertThrows(open({ interface: "dv0" }, 2), HostError, 'or write "multiQueue": false');
  assertThrows(
    open({ interface: "dv2", mac: "00:00:00:00:00:00" }),
    HostError,
    "Cannot set the MAC address of",
  );
  assert(!interfaces(namespace).includes("dv2"), "half an interface was left");
});

hostTest("tap without the right to make interfaces says how to get by", [
  ...network,
  program("setpriv", "util-linux"),
], () => {
  using namespace = new Namespace();
  const module = new URL("../../transports/tap/mod.ts", import.meta.url);
  const script = `import { openTap } from "${module}";
    try { openTap({ interface: "dv0", persistent: false, up: true, vnetHeader: true, offloads: "auto" }, 1, "here"); }
    catch (error) { console.log(error.message); }`;
  const said = namespace.command(
    "setpriv",
    "--bounding-set=-net_admin",
    "--inh-caps=-net_admin",
    Deno.execPath(),
    "run",
    "--allow-ffi",
    "--no-check",
    `--config=${new URL("../../deno.json", import.meta.url).pathname}`,
    `data:application/typescript,${encodeURIComponent(script)}`,
  );
  assertEquals(
    said.trim(),
    "Cannot use interface dv0 as a TAP (here): EPERM (operation not permitted); this needs CAP_NET_ADMIN: run as root, " +
      'or prepare the interface for this user ("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
  );
});

Deno.test("tap options that make no sense are refused by name", () => {
  const cases: [Record<string, unknown>, string][] = [
    [{}, 'is missing; write the name of the TAP, such as "tap0", or "fd" of one that is passed'],
    [{ interface: "tap0", fd: 5 }, "exclude each other"],
    [{ fd: 5, fds: [6] }, "exclude each other"],
    [{ fds: [6, 6] }, "must not name a descriptor twice"],
    [{ fds: [] }, "Too small"],
    [{ fd: 2 }, "Too small"],
    [{ interface: "a name" }, "must have no space"],
    [{ interface: "a/b" }, "must have no space, slash or colon"],
    [{ interface: ".." }, "must have no space"],
    [{ interface: "" }, "must have no space"],
    [{ interface: "sixteen-letters-" }, "must have 1 to 15 bytes"],
    [{ interface: "éééééééé" }, "must have 1 to 15 bytes"],
    [{ interface: "tap0", mac: "03:00:00:00:00:01" }, "the first one even"],
    [{ interface: "tap0", mtu: 67 }, "Too small"],
    [{ interface: "tap0", colour: "red" }, "colour"],
    [{ fd: 5, mac: "02:00:00:00:00:01" }, "needs interface"],
    [{ fd: 5, multiQueue: true }, "needs interface"],
    [{ fd: 5, persistent: true }, "needs interface"],
  ];
  for (const [input, message] of cases) assertThrows(() => tapOptions(input), Error, message);
});
