/**
 * All kinds of traffic between a real guest and the kernel of the host, for each layout of rings, number of
 * queue pairs and form of receive buffers.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { VhostUserTransport } from "../../transports/vhost_user/mod.ts";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU } from "../../wire/net_features.ts";
import { faults, GuestRig } from "./support/guest_rig.ts";
import {
  askHost,
  counted,
  datagramsBothWays,
  HOST_6,
  losses,
  OUR_ADDRESSES,
  OURS_6,
  pingBothWays,
  queueStatistics,
  transferBothWays,
} from "./support/guest_traffic.ts";
import { HOST, OURS } from "../../rigs/kernel.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7, type QemuProgram } from "../../rigs/qemu_program.ts";
import { hostTest, program } from "../../rigs/require.ts";

const MEBIBYTE = 1 << 20;
const JUMBO = 9000;

/** A guest and the device that it has. */
interface Configuration {
  readonly qemu: QemuProgram;
  readonly layout: "split" | "packed";
  readonly pairs: 1 | 2;
  readonly mergeable: boolean;
  /**
   * Where an MTU of 9000 comes from, if it is not 1500: from the device, or from the program that runs the
   * guest.
   */
  readonly jumbo?: "by the device" | "by itself";
  /** Size of the file that goes there and back. */
  readonly fileMebibytes: number;
}

/** All combinations, each under one of the QEMUs, and each pair of traits under both. */
const CONFIGURATIONS: readonly Configuration[] = [
  { qemu: QEMU_7, layout: "split", pairs: 1, mergeable: true, fileMebibytes: 64 },
  { qemu: QEMU_7, layout: "packed", pairs: 2, mergeable: true, jumbo: "by itself", fileMebibytes: 8 },
  { qemu: QEMU_7, layout: "packed", pairs: 1, mergeable: false, fileMebibytes: 8 },
  { qemu: QEMU_7, layout: "split", pairs: 2, mergeable: false, jumbo: "by the device", fileMebibytes: 8 },
  { qemu: QEMU_10, layout: "packed", pairs: 1, mergeable: true, fileMebibytes: 64 },
  { qemu: QEMU_10, layout: "split", pairs: 2, mergeable: true, jumbo: "by the device", fileMebibytes: 8 },
  { qemu: QEMU_10, layout: "split", pairs: 1, mergeable: false, jumbo: "by itself", fileMebibytes: 8 },
  { qemu: QEMU_10, layout: "packed", pairs: 2, mergeable: false, fileMebibytes: 8 },
];

for (const configuration of CONFIGURATIONS) {
  const { qemu, layout, pairs, mergeable, jumbo, fileMebibytes } = configuration;
  const traits = [
    `${layout} rings`,
    pairs === 1 ? "a queue pair" : "two queue pairs",
    `${mergeable ? "mergeable" : "large"} buffers`,
    ...(jumbo === undefined ? [] : [`an MTU of ${JUMBO} ${jumbo}`]),
  ];
  const name = `a Linux guest in ${qemu.name} with ${
    traits.join(", ")
  } carries all kinds of traffic both ways`;
  const needs = [...qemuGuest, program("perl", "perl-base"), program("ethtool", "ethtool")];
  hostTest(name, qemu === QEMU_10 ? [...needs, qemu10] : needs, async () => {
    using rig = new GuestRig(["ethtool", "perl"]);
    await using machine = await rig.machine(
      { interface: "dv0", ...(jumbo === undefined ? {} : { mtu: JUMBO }) },
      [],
      {
        packedRing: layout === "packed",
        queuePairs: pairs,
        ...(jumbo === "by the device" ? { mtu: JUMBO } : {}),
      },
    );
    rig.namespace.address("dv0", `${HOST_6}/64`);
    await using guest = await QemuGuest.start(rig.image, rig.socket, optionsFor(configuration));
    const { features } = (machine.machine.devices[0].driver as VhostUserTransport).backend!;
    assertEquals(features?.has(VIRTIO_F_RING_PACKED), layout === "packed");
    assertEquals(features?.has(VIRTIO_NET_F_MRG_RXBUF), mergeable);
    assertEquals(features?.has(VIRTIO_NET_F_MTU), jumbo === "by the device");

    await pingBothWays(rig, guest);
    await pingBothWays(rig, guest, [OURS_6, HOST_6]);
    await largestPings(rig, guest, jumbo === undefined ? 1500 : JUMBO);
    await datagramsBothWays(rig, guest);
    await transferBothWays(rig, guest, fileMebibytes * MEBIBYTE);
    await transferBothWays(rig, guest, 4 * MEBIBYTE, [OURS_6, HOST_6]);
    if (pairs === 2) await useBothPairs(rig, guest);

    const { InErrs, InCsumErrors } = await counted(guest, "Tcp");
    const { InErrors } = await counted(guest, "Udp");
    assertEquals([InErrs, InCsumErrors, InErrors], [0, 0, 0]);
    assertEquals([faults(machine), losses(machine)], [{}, {}]);
  });
}

function optionsFor(
  { qemu, layout, pairs, mergeable, jumbo }: Configuration,
): Parameters<typeof QemuGuest.start>[2] {
  const device = [
    ...(layout === "packed" ? ["packed=on"] : []),
    ...(mergeable ? [] : ["mrg_rxbuf=off"]),
    ...(jumbo === "by the device" ? [`host_mtu=${JUMBO}`] : []),
  ];
  return {
    qemu,
    pairs,
    addresses: OUR_ADDRESSES,
    ...(device.length > 0 ? { device: device.join(",") } : {}),
    ...(jumbo === "by itself" ? { mtu: JUMBO } : {}),
    // A processor for each pair: the driver chooses the queue to send on by the processor.
    ...(pairs === 2 ? { args: ["-smp", "2"] } : {}),
  };
}

/** Packets that fill the MTU go in one piece, and the next larger ones do not. */
async function largestPings(rig: GuestRig, guest: QemuGuest, mtu: number): Promise<void> {
  const headerBytes = 28;
  const pieces = async () => {
    const { ReasmReqds, FragCreates } = await counted(guest, "Ip");
    return [ReasmReqds, FragCreates];
  };
  await pingBothWays(rig, guest, [OURS, HOST], mtu - headerBytes);
  assertEquals(await pieces(), [0, 0]);
  await pingBothWays(rig, guest, [OURS, HOST], mtu - headerBytes + 1);
  // Ten packets came to the guest and ten left it, each in two pieces.
  assertEquals(await pieces(), [20, 20]);
}

/**
 * Flows from several ports, sent on one processor and on the other: both pairs carry them, there and back.
 */
async function useBothPairs(rig: GuestRig, guest: QemuGuest): Promise<void> {
  const before = await queueStatistics(guest);
  await askHost(rig, guest, 4, (question, time) => `taskset ${1 + time % 2} ${question}`);
  const after = await queueStatistics(guest);
  for (const queue of ["rx_queue_0", "tx_queue_0", "rx_queue_1", "tx_queue_1"]) {
    const packets = after[`${queue}_packets`] - before[`${queue}_packets`];
    // Two times three datagrams.
    assert(packets >= 6, `${packets} packets on ${queue}`);
  }
}
