/**
 * A real guest whose queue pairs are worked by threads, each with a queue of a TAP.
 */
import { assert, assertEquals } from "@std/assert";
import { streamBytes } from "../../testing/mod.ts";
import { faults, GuestRig, sha256 } from "./support/guest_rig.ts";
import { until } from "./support/tap_rig.ts";
import { pingBothWays, transferBothWays } from "./support/guest_traffic.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { hostTest, program } from "../../rigs/require.ts";

const MEBIBYTE = 1 << 20;

for (const pairs of [1, 2]) {
  const name = `a guest with ${pairs === 1 ? "one pair" : "two pairs"} in threads pings, is pinged, ` +
    "moves the same bytes both ways, and receives few packets by rsc-v4";
  hostTest(name, [...qemuGuest, program("ethtool", "ethtool")], async () => {
    using rig = new GuestRig(["ethtool"]);
    // Without offloads the kernel of the host hands over frames as a network card does: none above the MTU.
    const device = { mode: "threads", queuePairs: pairs };
    await using machine = await rig.machine({ interface: "dv0", offloads: "off" }, ["rsc-v4"], device);
    await using guest = await QemuGuest.start(rig.image, rig.socket, { pairs });
    await pingBothWays(rig, guest);
    await transferBothWays(rig, guest, 4 * MEBIBYTE);
    const bytes = streamBytes(0, 4 * MEBIBYTE);
    const before = { guest: await guest.packets(), wire: rig.framesOnWire() };
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const inGuest = (await guest.packets()).received - before.guest.received;
    const onWire = rig.framesOnWire() - before.wire;
    assert(onWire >= bytes.length / 1448, `${onWire} frames are too few to be of MTU size`);
    assert(inGuest * 4 < onWire, `the guest received ${inGuest} packets of ${onWire} frames`);
    if (pairs === 2) {
      await attached(rig, 2);
      await guest.shell.run("ethtool -L eth0 combined 1");
      await attached(rig, 1);
      await pingBothWays(rig, guest);
      await guest.shell.run("ethtool -L eth0 combined 2");
      await attached(rig, 2);
      await transferBothWays(rig, guest, MEBIBYTE);
    }
    assertEquals(faults(machine), {});
    assertEquals(machine.counters("net0.network").queue_EINVAL ?? 0, 0);
  });
}

/** Queues of the interface as the kernel counts them. */
/**
 * Waits until so many of two queues of the interface are attached: QEMU answers its guest before the back-end
 * has heard of it.
 */
async function attached(rig: GuestRig, count: number): Promise<void> {
  await until(`${count} queues are attached`, () => queues(rig).attached === count);
  assertEquals(queues(rig), { attached: count, detached: 2 - count });
}

function queues(rig: GuestRig): { attached: number; detached: number } {
  const [{ linkinfo: { info_data } }] = JSON.parse(rig.namespace.ip("-j", "-d", "link", "show", "dv0"));
  return { attached: info_data.numqueues, detached: info_data.numdisabled };
}
