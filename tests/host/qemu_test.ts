/**
 * Machines with a real guest: Linux in QEMU at our vhost-user socket, the kernel of the host at our TAP.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { streamBytes } from "../../testing/mod.ts";
import type { VhostUserTransport } from "../../transports/vhost_user/mod.ts";
import { faults, GuestRig, sha256 } from "./support/guest_rig.ts";
import { HOST } from "./support/kernel.ts";
import { QemuGuest, qemuGuest } from "./support/qemu.ts";
import { hostTest } from "./support/require.ts";

const MEBIBYTE = 1 << 20;

for (const layout of ["split", "packed"]) {
  const name =
    `a Linux guest with ${layout} rings in QEMU pings, is pinged, and moves the same bytes both ways`;
  hostTest(name, qemuGuest, async () => {
    using rig = new GuestRig();
    await using machine = await rig.machine({ interface: "dv0" }, [], { packedRing: layout === "packed" });
    await using guest = await QemuGuest.start(
      rig.image,
      rig.socket,
      layout === "packed" ? { device: "packed=on" } : {},
    );
    const { backend } = machine.machine.devices[0].driver as VhostUserTransport;
    assertEquals(backend?.features?.has(VIRTIO_F_RING_PACKED), layout === "packed");
    const pings = await guest.shell.run(`ping -c 5 -W 5 ${HOST}`);
    assert(pings.includes("5 packets received"), pings);
    const answers = await rig.pingGuest(5);
    assert(answers.includes("5 packets received"), answers);

    const bytes = streamBytes(0, 4 * MEBIBYTE);
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const [received, sum] = await rig.receive(guest, 4 * MEBIBYTE);
    assertEquals([received.length, await sha256(received)], [4 * MEBIBYTE, sum]);
    assertEquals(faults(machine), {});
  });
}

hostTest(
  "a Linux guest in QEMU receives far fewer packets than the wire carries, by rsc-v4",
  qemuGuest,
  async () => {
    using rig = new GuestRig();
    // Without offloads the kernel of the host hands over frames as a network card does: none above the MTU.
    await using machine = await rig.machine({ interface: "dv0", offloads: "off" }, ["rsc-v4"]);
    await using guest = await QemuGuest.start(rig.image, rig.socket);
    const bytes = streamBytes(0, 4 * MEBIBYTE);
    const before = { guest: await guest.packets(), wire: rig.framesOnWire() };
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const inGuest = (await guest.packets()).received - before.guest.received;
    const onWire = rig.framesOnWire() - before.wire;
    assert(onWire >= bytes.length / 1448, `${onWire} frames are too few to be of MTU size`);
    assert(inGuest * 4 < onWire, `the guest received ${inGuest} packets of ${onWire} frames`);
    assertEquals(faults(machine), {});
  },
);
