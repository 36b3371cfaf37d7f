/**
 * What the owner of a guest does to its network interface: the device follows, and traffic goes on.
 */
import { assert, assertEquals } from "@std/assert";
import { udp } from "../../testing/mod.ts";
import { faults, GuestRig, sha256 } from "./support/guest_rig.ts";
import { losses, onHost, pingBothWays, randomBytes, transferBothWays } from "./support/guest_traffic.ts";
import { HOST, link, OUR_MAC, OURS } from "../../rigs/kernel.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7 } from "../../rigs/qemu_program.ts";
import { hostTest, program } from "../../rigs/require.ts";
import type { TapMachine } from "./support/tap_rig.ts";

const MEBIBYTE = 1 << 20;
const NEEDS = [
  ...qemuGuest,
  program("ethtool", "ethtool"),
  program("tcpdump", "tcpdump"),
  program("perl", "perl-base"),
];
const GROUP = "239.9.9.9";
const GROUP_MAC = "01:00:5e:09:09:09";

for (const qemu of [QEMU_7, QEMU_10]) {
  const name =
    `a Linux guest in ${qemu.name} changes offloads, MTU, address, groups and modes while it is up`;
  hostTest(name, qemu === QEMU_10 ? [...NEEDS, qemu10] : NEEDS, async () => {
    using rig = new GuestRig(["ethtool", "tcpdump", "perl"]);
    await using machine = await rig.machine({ interface: "dv0" }, []);
    await using guest = await QemuGuest.start(rig.image, rig.socket);
    await switchSending(rig, machine, guest);
    await switchReceiving(rig, guest);
    await shrinkMtu(rig, machine, guest);
    await changeAddress(rig, guest);
    await joinGroup(rig, guest);
    await listenToAll(rig, guest);
    assertEquals([faults(machine), losses(machine)], [{}, {}]);
  });
}

/** With segmentation the device gets large frames from the guest, and without it none above the MTU. */
async function switchSending(rig: GuestRig, machine: TapMachine, guest: QemuGuest): Promise<void> {
  const bytes = randomBytes(4 * MEBIBYTE);
  await rig.send(guest, bytes);
  const bytesPerFrame = async () => {
    const before = { ...machine.counters("net0.network") };
    assertEquals(await rig.bringBack(guest), bytes);
    const { written, writtenBytes } = machine.counters("net0.network");
    return (writtenBytes - before.writtenBytes) / (written - before.written);
  };
  const large = await bytesPerFrame();
  await guest.shell.run("ethtool -K eth0 tso off");
  const small = await bytesPerFrame();
  // No checksums by the device either.
  await guest.shell.run("ethtool -K eth0 tx off");
  assert(await bytesPerFrame() <= 1514);
  await guest.shell.run("ethtool -K eth0 tx on tso on");
  const largeAgain = await bytesPerFrame();
  assert(small <= 1514, `${small} bytes a frame without segmentation`);
  assert(Math.min(large, largeAgain) > 1514, `${large} and ${largeAgain} bytes a frame with segmentation`);
}

/**
 * Large packets to the guest are switched by a command that QEMU carries out itself: it must agree, and
 * nothing may break.
 */
async function switchReceiving(rig: GuestRig, guest: QemuGuest): Promise<void> {
  for (const state of ["off", "on"]) {
    await guest.shell.run(`ethtool -K eth0 rx-gro-hw ${state}`);
    assert((await guest.shell.run("ethtool -k eth0")).includes(`rx-gro-hw: ${state}\n`));
    await transferBothWays(rig, guest, 4 * MEBIBYTE);
  }
}

async function shrinkMtu(rig: GuestRig, machine: TapMachine, guest: QemuGuest): Promise<void> {
  await guest.shell.run("ip link set eth0 mtu 1000 && ethtool -K eth0 tso off");
  await rig.send(guest, randomBytes(MEBIBYTE));
  const before = { ...machine.counters("net0.network") };
  await rig.bringBack(guest);
  const { written, writtenBytes } = machine.counters("net0.network");
  const bytesPerFrame = (writtenBytes - before.writtenBytes) / (written - before.written);
  assert(bytesPerFrame <= 1014, `${bytesPerFrame} bytes a frame at an MTU of 1000`);
  await guest.shell.run("ip link set eth0 mtu 1500 && ethtool -K eth0 tso on");
  await pingBothWays(rig, guest, [OURS, HOST], 1472);
}

/** The address changes in the middle of a transfer; the host hears of it by ARP. */
async function changeAddress(rig: GuestRig, guest: QemuGuest): Promise<void> {
  const bytes = randomBytes(8 * MEBIBYTE);
  assertEquals(await rig.send(guest, bytes), await sha256(bytes));
  await guest.shell.run("echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_notify");
  for (const mac of ["52:54:00:00:00:99", OUR_MAC]) {
    assertEquals(await rig.bringBack(guest, HOST, `ip link set eth0 address ${mac}`), bytes);
    await pingBothWays(rig, guest);
    assert(rig.namespace.ip("neigh", "show", OURS).includes(mac));
  }
}

/** Datagrams to a group reach a guest that is in it. */
async function joinGroup(rig: GuestRig, guest: QemuGuest): Promise<void> {
  const [membership, anyInterface] = [GROUP, OURS].map((address) => address.replaceAll(".", ","));
  const receive = 'socket S,2,2,0; bind S,pack "Snx12",2,5003 or die $!; ' +
    `setsockopt S,0,35,pack("C8",${membership},${anyInterface}) or die $!; ` +
    '$|=1; print "ready "; alarm 15; recv S,$data,2000,0; print $data';
  await guest.shell.run(
    `perl -e '${receive}' >/tmp/joined & until grep -q ready /tmp/joined; do usleep 10000; done`,
  );
  assert((await guest.shell.run("cat /proc/net/dev_mcast")).includes(GROUP_MAC.replaceAll(":", "")));
  await sendFrame(
    rig,
    udp({
      source: HOST,
      destination: GROUP,
      sourceMac: link(rig.namespace, "dv0").address,
      destinationMac: GROUP_MAC,
      destinationPort: 5003,
      payload: new TextEncoder().encode("to all of us"),
    }),
  );
  const heard = await guest.shell.run("while pidof perl >/dev/null; do usleep 10000; done; cat /tmp/joined");
  assertEquals(heard, "ready to all of us");
}

/** A guest that listens to everything sees what is for another. */
async function listenToAll(rig: GuestRig, guest: QemuGuest): Promise<void> {
  await guest.shell.run("mkdir -p /etc && echo root:x:0:0::/:/bin/sh >/etc/passwd");
  await guest.shell.run(
    "tcpdump -i eth0 -Z root -c 1 -ne ether dst 52:54:00:0a:0b:0c >/tmp/heard 2>/tmp/hearing & " +
      "until grep -q listening /tmp/hearing; do usleep 10000; done",
  );
  await sendFrame(rig, udp({ destinationMac: "52:54:00:0a:0b:0c", destinationPort: 4444, payload: 100 }));
  const heard = await guest.shell.run(
    "while pidof tcpdump >/dev/null; do usleep 10000; done; cat /tmp/heard",
  );
  assert(/> 52:54:00:0a:0b:0c, .*\.4444: UDP, length 100\n$/.test(heard), heard);
  await pingBothWays(rig, guest);
}

/** Puts a frame on the wire to the guest, by a packet socket on the host's side of the TAP. */
async function sendFrame(rig: GuestRig, frame: Uint8Array<ArrayBuffer>): Promise<void> {
  const index = JSON.parse(rig.namespace.ip("-j", "link", "show", "dv0"))[0].ifindex;
  const [AF_PACKET, SOCK_RAW] = [17, 3];
  await onHost(
    rig,
    "perl",
    "-e",
    `socket S,${AF_PACKET},${SOCK_RAW},0 or die $!; ` +
      `send S,pack("H*","${frame.toHex()}"),0,pack("Snix12",${AF_PACKET},0x0800,${index}) or die $!`,
  );
}
