/**
 * Hours in small: front-ends come and go, again and again, and the back-end holds what it held before.
 *
 * A front-end of our own does so in tests/transports/vhost_user/transport_test.ts; these are real ones.
 * @module
 */
import { assertEquals } from "@std/assert";
import { ethernet } from "../../testing/mod.ts";
import type { CablePort } from "../../transports/loopback.ts";
import { FileMachine } from "./support/file_machine.ts";
import { assertNothingKept, footprint } from "./support/footprint.ts";
import { FrozenQemu } from "./support/frozen_qemu.ts";
import { qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7 } from "../../rigs/qemu_program.ts";
import { hostTest, linux, program } from "../../rigs/require.ts";
import { until } from "./support/tap_rig.ts";
import { Testpmd } from "./support/testpmd.ts";

/** Rounds after which everything has been made that is made once. */
const WARM_UP = 4;
/** So many that what is kept each time shows among what the runtime itself keeps. */
const QEMUS = 100;
const TESTPMDS = 10;
const FRAMES = 200;

hostTest(`${QEMUS} QEMUs come and go, and leave nothing behind in us`, [...qemuGuest, qemu10], async () => {
  const socket = (name: string) => ({ use: "vhost-user", socket: `${name}.sock`, profile: "qemu" });
  await using machine = await FileMachine.start([
    { use: "net", driver: socket("net0"), network: "loopback", offloads: ["rsc-v4", "rsc-v6"] },
    { use: "entropy", driver: socket("rng0") },
  ]);
  const { folder } = machine;
  const args = Object.entries({
    "-netdev": "vhost-user,id=net0,chardev=net0",
    "-device": "virtio-net-pci,netdev=net0,romfile=",
  }).flat();
  for (const name of ["net0", "rng0"]) {
    args.unshift("-chardev", `socket,id=${name},path=${folder}/${name}.sock`);
  }
  args.push("-device", "vhost-user-rng-pci,chardev=rng0");
  const drivers = [0, 1].map((index) => machine.driver(index));
  const cycle = async (number: number) => {
    await using qemu = await FrozenQemu.start(folder, args, number % 2 === 0 ? QEMU_7 : QEMU_10);
    assertEquals(drivers.map(({ connected }) => connected), [true, true]);
    await qemu.quit();
    await until("it has gone", () => drivers.every(({ connected }) => !connected));
  };
  for (let i = 0; i < WARM_UP; i++) await cycle(i);
  const before = footprint();
  for (let i = 0; i < QEMUS; i++) await cycle(i);
  await assertNothingKept(before);
  for (const { counters } of drivers) {
    assertEquals([counters.connections, counters.disconnections], [WARM_UP + QEMUS, WARM_UP + QEMUS]);
  }
  assertEquals(machine.faults(), {});
});

hostTest(`${TESTPMDS} testpmds move frames and go, and leave nothing behind in us`, [
  linux,
  program("dpdk-testpmd", "dpdk-dev"),
  program("stdbuf", "coreutils"),
], async () => {
  const driver = { use: "vhost-user", socket: "net0.sock", profile: "virtio-user" };
  await using machine = await FileMachine.start([{ use: "net", driver, network: "loopback", offloads: [] }]);
  const { counters } = machine.driver(0);
  const cycle = async (number: number) => {
    const socket = `${machine.folder}/net0.sock`;
    const packed = number % 2 === 0;
    {
      await using testpmd = Testpmd.start({
        socket,
        packed,
        server: false,
        pairs: 1,
        mergeable: true,
        hugePages: false,
        maxFrameBytes: 1518,
      });
      await testpmd.ready();
      await takeFrames(machine, testpmd);
      await giveFrames(machine, testpmd);
    }
    await until("it has gone", () => counters.disconnections === number + 1);
  };
  for (let i = 0; i < WARM_UP; i++) await cycle(i);
  const before = footprint();
  for (let i = WARM_UP; i < WARM_UP + TESTPMDS; i++) await cycle(i);
  await assertNothingKept(before);
  assertEquals(counters.connections, WARM_UP + TESTPMDS);
  assertEquals(machine.faults(), {});
});

/** Has testpmd send frames: each of them must come. */
async function takeFrames(machine: FileMachine, testpmd: Testpmd): Promise<void> {
  const counters = machine.counters("net0.fromGuest");
  const before = counters.packets;
  await testpmd.forward("txonly");
  await until("frames come", () => counters.packets - before >= FRAMES);
  await testpmd.stopForwarding();
  const { sent } = await testpmd.stats();
  await until("all frames come", () => counters.packets - before >= sent);
  assertEquals(counters.packets - before, sent);
}

/** Sends frames to testpmd: each of them must get there. */
async function giveFrames(machine: FileMachine, testpmd: Testpmd): Promise<void> {
  const port = machine.machine.devices[0].parts.network as CablePort;
  const counters = machine.counters("net0.toGuest");
  const end = counters.packets + FRAMES;
  await testpmd.forward("rxonly");
  for (let i = 0; i < FRAMES; i++) {
    assertEquals(port.inject(ethernet({ payload: new Uint8Array(1000) })), true);
  }
  await until("all frames are delivered", () => counters.packets === end);
  let { received } = await testpmd.stats();
  for (let tries = 0; tries < 50 && received < FRAMES; tries++) ({ received } = await testpmd.stats());
  assertEquals(received, FRAMES);
  await testpmd.stopForwarding();
}
