/**
 * The entropy device under real guests: Linux in QEMU reads /dev/hwrng, and what it reads is what the device
 * gave out.
 * @module
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { FileMachine } from "./support/file_machine.ts";
import { GuestImage } from "../../rigs/guest_image.ts";
import { GuestRig } from "./support/guest_rig.ts";
import { HOST } from "../../rigs/kernel.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7, type QemuProgram } from "../../rigs/qemu_program.ts";
import { assertRandom, RecordedEntropy } from "./support/recorded_entropy.ts";
import { hostTest } from "../../rigs/require.ts";
import { registry, until } from "./support/tap_rig.ts";

const READ_BYTES = 65_536;
const DRIVER = { use: "vhost-user", socket: "rng0.sock", profile: "qemu" };

/**
 * Arguments for a virtio-rng at our socket. QEMU waits for it as it starts, so that the machine must be there
 * before.
 */
function rngArgs({ folder }: FileMachine, properties = ""): string[] {
  return [
    "-chardev",
    `socket,id=rng0,path=${folder}/rng0.sock`,
    "-device",
    `vhost-user-rng-pci,chardev=rng0${properties}`,
  ];
}

/** Has the guest read so many bytes, and returns them. */
async function read(guest: QemuGuest, bytes: number): Promise<Uint8Array> {
  const text = await guest.shell.run(`head -c ${bytes} /dev/hwrng | base64 -w 0`);
  const got = Uint8Array.fromBase64(text);
  assertEquals(got.length, bytes);
  return got;
}

/** The layout of the ring is QEMU's choice in 7.2, and the back-end's in 10: it takes what is offered. */
const RINGS: readonly [QemuProgram, layout: "split" | "packed", device: object, properties: string][] = [
  [QEMU_7, "split", {}, ""],
  [QEMU_7, "packed", {}, ",packed=on"],
  [QEMU_10, "split", { packedRing: false }, ",vectors=2"],
  [QEMU_10, "packed", {}, ""],
];

for (const [qemu, layout, device, properties] of RINGS) {
  const name = `a Linux guest in ${qemu.name} reads the random bytes that we give it, by a ${layout} ring`;
  hostTest(name, qemu === QEMU_10 ? [...qemuGuest, qemu10] : qemuGuest, async () => {
    using image = new GuestImage();
    const recorded = new RecordedEntropy();
    const devices = [{ use: "entropy", ...device, driver: DRIVER }];
    await using machine = await FileMachine.start(devices, recorded.registry);
    await using guest = await QemuGuest.start(image, null, { qemu, args: rngArgs(machine, properties) });
    const current = await guest.shell.run("cat /sys/class/misc/hw_random/rng_current");
    assertEquals(current.trim(), "virtio_rng.0");
    const { backend } = machine.driver(0);
    assertEquals(backend?.features?.has(VIRTIO_F_RING_PACKED), layout === "packed");

    const first = await read(guest, READ_BYTES);
    const second = await read(guest, READ_BYTES);
    for (const bytes of [first, second]) {
      assertRandom(bytes);
      recorded.assertGave(bytes);
    }
    assertNotEquals(first, second);

    // A driver that goes takes its ring along; the one that comes gets bytes that no driver has had.
    for (let i = 0; i < 3; i++) {
      for (const deed of ["unbind", "bind"]) {
        await guest.shell.run(`echo virtio0 >/sys/bus/virtio/drivers/virtio_rng/${deed}`);
      }
      recorded.assertGave(await read(guest, 4096));
    }
    const { requests, bytes, shortened, limited } = machine.counters("entropy0");
    assert(bytes >= 2 * READ_BYTES + 3 * 4096, `${bytes} bytes are fewer than the guest has read`);
    assert(requests > 0);
    assertEquals({ shortened, limited }, { shortened: 0, limited: 0 });
    assertEquals(machine.faults(), {});
  });
}

hostTest("a rate limit holds for a real guest at every moment, and it gets everything in the end", [
  ...qemuGuest,
], async () => {
  using image = new GuestImage();
  const recorded = new RecordedEntropy();
  const limit = { rateLimitBytesPerS: 4096, burstBytes: 64 };
  const devices = [{ use: "entropy", ...limit, driver: DRIVER }];
  await using machine = await FileMachine.start(devices, recorded.registry);
  const startNs = machine.nowNs();
  await using guest = await QemuGuest.start(image, null, { args: rngArgs(machine) });
  const counters = machine.counters("entropy0");
  let isOver = false;
  const reading = read(guest, 8192).finally(() => isOver = true);
  const before = counters.bytes;
  let looks = 0;
  await until("the guest has read", () => {
    // The count first: what comes between the two is to the good of the device.
    const { bytes } = counters;
    const most = limit.burstBytes + (machine.nowNs() - startNs) * limit.rateLimitBytesPerS / 1e9;
    assert(bytes <= most, `${bytes} bytes were given out when ${most} were allowed`);
    looks++;
    return isOver;
  });
  recorded.assertGave(await reading);
  assert(looks > 1);
  assert(counters.bytes - before >= 8192 - 2 * 64, `${counters.bytes - before} bytes in the meantime`);
  assert(counters.limited > 0, "nothing was held back");
  assertEquals(machine.faults(), {});
});

hostTest("one configuration file gives one guest a network and entropy, and both work at once", [
  ...qemuGuest,
  qemu10,
], async () => {
  using rig = new GuestRig();
  const devices = [
    {
      use: "net",
      mac: "52:54:00:00:00:01",
      driver: { use: "vhost-user", socket: "net0.sock", profile: "qemu" },
      network: { use: "tap", interface: "dv0" },
      offloads: ["rsc-v4", "rsc-v6"],
    },
    { use: "entropy", driver: DRIVER },
  ];
  await using machine = await FileMachine.start(devices, registry([rig.namespace]));
  rig.namespace.address("dv0", `${HOST}/24`);
  await using guest = await QemuGuest.start(rig.image, `${machine.folder}/net0.sock`, {
    qemu: QEMU_10,
    args: rngArgs(machine),
  });
  const before = machine.counters("entropy0").bytes;
  const [answers, printed] = await Promise.all([
    rig.pingGuest(5),
    guest.shell.run(`head -c ${READ_BYTES} /dev/hwrng >/tmp/random & ping -c 5 -W 5 ${HOST}; wait`),
  ]);
  assert(answers.includes("5 packets received"), answers);
  assert(printed.includes("5 packets received"), printed);
  assertRandom(Uint8Array.fromBase64(await guest.shell.run("base64 -w 0 /tmp/random")));
  assert(machine.counters("entropy0").bytes - before >= READ_BYTES - 64);
  assert(machine.counters("net0.toGuest").packets >= 10);
  assert(machine.counters("net0.fromGuest").packets >= 10);
  assertEquals([0, 1].map((index) => machine.driver(index).counters.connections), [1, 1]);
  assertEquals(machine.faults(), {});
});
