import { assert, assertEquals } from "@std/assert";
import { pseudoHeaderSum } from "../../testing/mod.ts";
import { ipBytes } from "../../testing/packets.ts";
import { faults, GuestRig, sha256 } from "./support/guest_rig.ts";
import {
  counted,
  HOST_6,
  losses,
  OUR_ADDRESSES,
  OURS_6,
  queueStatistics,
  randomBytes,
} from "./support/guest_traffic.ts";
import { OURS } from "../../rigs/kernel.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7 } from "../../rigs/qemu_program.ts";
import { hostTest, program } from "../../rigs/require.ts";
import type { TapMachine } from "./support/tap_rig.ts";

/**
 * Receive segment coalescing as a real guest sees it: fewer packets, the same stream, and checksums that its
 * kernel accepts because they are right, not because they are not looked at.
 */

const MEBIBYTE = 1 << 20;
/** Data in a segment of an Ethernet frame of 1500 bytes, beside headers with timestamps. */
const SEGMENT_BYTES = { v4: 1448, v6: 1428 };
const NEEDS = [...qemuGuest, program("ethtool", "ethtool"), program("tcpdump", "tcpdump")];
/** Without offloads the kernel of the host hands over frames as a network card does: none above the MTU. */
const NETWORK = { interface: "dv0", offloads: "off" };

/** What has gone to the guest, as all who look at it have counted. */
interface Passed {
  /** Frames that the host's kernel gave to the TAP. */
  readonly onWire: number;
  /** Packets that the device delivered. */
  readonly delivered: number;
  /** Packets that the guest's interface received. */
  readonly inGuest: number;
}

for (
  const { qemu, layout, pairs, buffers } of [
    { qemu: QEMU_7, layout: "split", pairs: 1, buffers: "large" },
    { qemu: QEMU_10, layout: "packed", pairs: 2, buffers: "mergeable" },
  ] as const
) {
  const name = `a Linux guest in ${qemu.name} with ${layout} rings and ${buffers} buffers ` +
    "receives far fewer packets than the wire carries, over IPv4 and IPv6, and finds every checksum right";
  hostTest(name, qemu === QEMU_10 ? [...NEEDS, qemu10] : NEEDS, async () => {
    using rig = new GuestRig(["ethtool", "tcpdump"]);
    const device = { packedRing: layout === "packed", queuePairs: pairs };
    await using machine = await rig.machine(NETWORK, ["rsc-v4", "rsc-v6"], device);
    rig.namespace.address("dv0", `${HOST_6}/64`);
    await using guest = await QemuGuest.start(rig.image, rig.socket, {
      qemu,
      pairs,
      addresses: OUR_ADDRESSES,
      device: [
        ...(layout === "packed" ? ["packed=on"] : []),
        ...(buffers === "large" ? ["mrg_rxbuf=off"] : []),
      ]
        .join(","),
    });
    for (const [family, address] of [["v4", OURS], ["v6", OURS_6]] as const) {
      await startCapture(guest);
      const stage = machine.counters(`net0.rsc-${family}`);
      const bytes = randomBytes(8 * MEBIBYTE);
      const before = await passed(rig, machine, guest);
      assertEquals(await rig.send(guest, bytes, address), await sha256(bytes));
      const after = await passed(rig, machine, guest);
      const onWire = after.onWire - before.onWire;
      const inGuest = after.inGuest - before.inGuest;
      assert(
        onWire >= bytes.length / SEGMENT_BYTES[family],
        `${onWire} frames are too few to be of MTU size`,
      );
      assert(
        inGuest * 4 < onWire,
        `the guest received ${inGuest} packets of ${onWire} frames by rsc-${family}`,
      );
      assert(stage.packets_coalesced > 0 && stage.segments_coalesced >= 2 * stage.packets_coalesced);

      const large = await checkCapture(guest);
      assert(large >= 10, `only ${large} coalesced packets were captured`);
    }
    const { InErrs, InCsumErrors } = await counted(guest, "Tcp");
    assertEquals([InErrs, InCsumErrors], [0, 0]);
    const statistics = Object.entries(await queueStatistics(guest));
    assertEquals(statistics.filter(([name, count]) => name.endsWith("_drops") && count > 0), []);
    assertEquals([faults(machine), losses(machine)], [{}, {}]);
  });
}

hostTest(
  "a Linux guest receives as many packets as the wire carries if nothing coalesces",
  NEEDS,
  async () => {
    using rig = new GuestRig(["ethtool"]);
    await using machine = await rig.machine(NETWORK, []);
    await using guest = await QemuGuest.start(rig.image, rig.socket);
    const bytes = randomBytes(8 * MEBIBYTE);
    const before = await passed(rig, machine, guest);
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const after = await passed(rig, machine, guest);
    const onWire = after.onWire - before.onWire;
    assert(onWire >= bytes.length / SEGMENT_BYTES.v4, `${onWire} frames are too few to be of MTU size`);
    assertEquals([after.delivered - before.delivered, after.inGuest - before.inGuest], [onWire, onWire]);
    assertEquals([faults(machine), losses(machine)], [{}, {}]);
  },
);

hostTest(
  "a corrupted segment is not merged, and the guest's kernel rejects it: all others arrive as they were sent",
  NEEDS,
  async () => {
    using rig = new GuestRig();
    await using machine = await rig.machine(NETWORK, ["./corrupt_some.ts", "rsc-v4"]);
    await using guest = await QemuGuest.start(rig.image, rig.socket);
    const bytes = randomBytes(8 * MEBIBYTE);
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const { corrupted } = machine.counters("net0.corrupt-some");
    assert(corrupted >= 10, `only ${corrupted} segments were corrupted`);
    const { InErrs, InCsumErrors } = await counted(guest, "Tcp");
    const { bad_tcp_checksum, packets_coalesced } = machine.counters("net0.rsc-v4");
    assertEquals([bad_tcp_checksum, InCsumErrors, InErrs], [corrupted, corrupted, corrupted]);
    assert(packets_coalesced > 0);
    assertEquals([faults(machine), losses(machine)], [{}, {}]);
  },
);

/**
 * Counts when nothing is under way: the device has read all that is on the wire, and the guest has all that
 * was delivered.
 */
async function passed(rig: GuestRig, machine: TapMachine, guest: QemuGuest): Promise<Passed> {
  for (let tries = 0; tries < 50; tries++) {
    const inGuest = (await guest.packets()).received;
    const delivered = machine.counters("net0.toGuest").packets;
    const onWire = rig.framesOnWire();
    if (inGuest === delivered && onWire === machine.counters("net0.network").read) {
      return { onWire, delivered, inGuest };
    }
  }
  throw new Error("The counts do not agree, however long one waits");
}

/** Has the guest capture what it receives, up to 300 packets. */
async function startCapture(guest: QemuGuest): Promise<void> {
  // It looks its user up, and the guest has none until now.
  await guest.shell.run("mkdir -p /etc && echo root:x:0:0::/:/bin/sh >/etc/passwd");
  await guest.shell.run(
    "tcpdump -i eth0 -Z root -B 16384 -Q in -c 300 -nvv tcp >/tmp/capture 2>/tmp/captured & " +
      "until grep -q listening /tmp/captured; do usleep 10000; done",
  );
}

/**
 * Ends the capture, and returns how many packets were coalesced. The checksum of each of them must be the sum
 * of its pseudo header, as befits one that is still to be completed, and that of all others complete.
 */
async function checkCapture(guest: QemuGuest): Promise<number> {
  await guest.shell.run("killall -q -INT tcpdump; while pidof tcpdump >/dev/null; do usleep 10000; done");
  const text = await guest.shell.run("grep -A 1 -E '^[0-9:.]+ IP6? ' /tmp/capture");
  const packet =
    /(?:proto TCP \(6\), length (\d+)|payload length: (\d+))\) ?\s*(\S+)\.\d+ > (\S+)\.\d+: .*?cksum 0x(\w+) \((\w+)/g;
  let packets = 0;
  let large = 0;
  for (const [line, length4, length6, source, target, sum, verdict] of text.matchAll(packet)) {
    packets++;
    const tcpBytes = length4 === undefined ? Number(length6) : Number(length4) - 20;
    if (tcpBytes <= 1480) {
      assertEquals(verdict, "correct", line);
      continue;
    }
    large++;
    const pseudo = pseudoHeaderSum(ipBytes(source), ipBytes(target), 6, tcpBytes);
    assertEquals(parseInt(sum, 16), pseudo, line);
  }
  assert(packets >= 50, `only ${packets} packets were captured: ${text.slice(0, 1000)}`);
  return large;
}
