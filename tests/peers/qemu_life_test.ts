/**
 * Life and death of guests and back-ends: reboots, drivers that come and go, back-ends and QEMUs that are
 * killed.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { streamBytes } from "../../testing/mod.ts";
import { BackendProcess } from "./support/backend_process.ts";
import { faults, faultsIn, GuestRig, sha256 } from "./support/guest_rig.ts";
import { HOST } from "../../rigs/kernel.ts";
import { type GuestOptions, QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { hostTest } from "../../rigs/require.ts";
import { after } from "./support/tap_rig.ts";
import { Upload } from "./support/upload.ts";

const MEBIBYTE = 1 << 20;
/** A single segment, whatever the MTU. */
const BYTES_HELD = 30;

for (const layout of ["split", "packed"]) {
  hostTest(
    `a guest with ${layout} rings that is stopped, reboots, or loses its driver for a while has its network again`,
    qemuGuest,
    async () => {
      using rig = new GuestRig();
      const network = { interface: "dv0", offloads: "off" };
      await using machine = await rig.machine(network, ["rsc-v4"], { packedRing: layout === "packed" });
      const device = layout === "packed" ? { device: "packed=on" } : {};
      await using guest = await QemuGuest.start(rig.image, rig.socket, device);
      const bytes = streamBytes(0, MEBIBYTE);
      const sum = await sha256(bytes);
      assertEquals(await rig.send(guest, bytes), sum);
      for (let pause = 1; pause <= 3; pause++) {
        await guest.qmp.run("stop");
        await guest.qmp.run("cont");
        assertEquals(await rig.send(guest, bytes), sum, `after pause ${pause}`);
      }
      for (let boot = 1; boot <= 2; boot++) {
        const { activations } = machine.counters("net0");
        await guest.shell.run("(usleep 100000; reboot -f) >/dev/null 2>&1 & true");
        await guest.restarted();
        assertNotEquals(machine.counters("net0").activations, activations);
        assertEquals(await rig.send(guest, bytes), sum, `after reboot ${boot}`);
      }
      const driver = "/sys/bus/virtio/drivers/virtio_net";
      const name = (await guest.shell.run(`cd ${driver} && echo virtio*`)).trim();
      for (let turn = 1; turn <= 3; turn++) {
        const { activations } = machine.counters("net0");
        await guest.shell.run(`echo ${name} >${driver}/unbind && [ ! -e /sys/class/net/eth0 ]`);
        await guest.shell.run(`echo ${name} >${driver}/bind && setup-eth0`);
        assertEquals(machine.counters("net0").activations, activations + 1);
        assertEquals(await rig.send(guest, bytes), sum, `after turn ${turn}`);
      }
      assertEquals(faults(machine), {});
      assert(machine.counters("net0.rsc-v4").packets_coalesced > 0);
    },
  );
}

/** The configuration of a back-end whose interface outlives it. */
function configuration(socket: string, mode: "server" | "client", intervalUs: number): unknown {
  return {
    devices: [{
      use: "net",
      driver: { use: "vhost-user", socket, mode, reconnectMs: 20 },
      network: { use: "tap", interface: "dv0", persistent: true, offloads: "off" },
      offloads: [{ use: "rsc-v4", intervalUs, flushOnIdle: false }],
    }],
  };
}

/** Who makes the socket, and how QEMU is told of it. */
const ROLES: readonly (readonly [who: string, mode: "server" | "client", options: GuestOptions])[] = [
  ["it makes the socket", "server", { chardev: "reconnect=1" }],
  ["QEMU makes the socket", "client", { chardev: "server=on,wait=off" }],
];

for (const [who, mode, options] of ROLES) {
  hostTest(
    `a transfer survives three deaths of the back-end, and its stop delivers what it holds, where ${who}`,
    qemuGuest,
    async () => {
      using rig = new GuestRig();
      const start = (intervalUs: number) =>
        BackendProcess.start(
          rig.namespace,
          `${rig.image.folder}/config.json`,
          configuration(rig.socket, mode, intervalUs),
        );
      let backend = await start(300);
      try {
        rig.namespace.address("dv0", `${HOST}/24`);
        await using guest = await QemuGuest.start(rig.image, rig.socket, options);
        using upload = await Upload.start(rig.namespace, guest.shell, 5001);
        const sending = upload.send(32 * MEBIBYTE);
        // The failure reaches what waits for it: what failed before is to be told first.
        sending.catch(() => {});
        const sent = (mebibytes: number) =>
          until(`${mebibytes} MiB are sent`, () => upload.sentBytes >= mebibytes * MEBIBYTE);
        for (let death = 1; death <= 3; death++) {
          await sent(8 * death);
          await backend.kill();
          assert(upload.sentBytes < 32 * MEBIBYTE, `the transfer was over before death ${death}`);
          backend = await start(300);
        }
        await sent(32);
        await sending;
        const sums = await upload.finish(guest.shell);
        assertEquals(sums.arrived, sums.sent);
        const counters = await backend.counters();
        assert(counters["net0.rsc-v4"].packets_coalesced > 0);
        assertEquals(faultsIn(counters), {});

        // A kernel that does not send anything again soon, and a back-end that holds segments for longer than
        // this test takes.
        rig.namespace.command("sh", "-c", "echo 0 >/proc/sys/net/ipv4/tcp_early_retrans");
        rig.namespace.ip("route", "change", "10.9.0.0/24", "dev", "dv0", "rto_min", "60s");
        using short = await Upload.start(rig.namespace, guest.shell, 5002);
        await short.send(BYTES_HELD);
        await until("they have arrived", async () => await short.arrivedBytes(guest.shell) === BYTES_HELD);
        await backend.kill();
        backend = await start(10_000_000);
        await backend.until("the guest is back", (counters) => counters.net0.activations > 0);
        await short.send(BYTES_HELD);
        await backend.until("the segment is held", (counters) => counters["net0.rsc-v4"].held > 0);
        assertEquals(await short.arrivedBytes(guest.shell), BYTES_HELD);
        const end = await backend.stop();
        assertEquals({ code: end.code, complaints: end.complaints }, { code: 0, complaints: "" });
        assertEquals(end.counters.net0.discarded_at_reset, 0);
        assertEquals(faultsIn(end.counters), {});
        await until(
          "all has arrived",
          async () => await short.arrivedBytes(guest.shell) === 2 * BYTES_HELD,
        );
      } finally {
        await backend.kill();
      }
    },
  );
}

hostTest(
  "a back-end serves QEMU after QEMU that is killed, and keeps nothing of them",
  qemuGuest,
  async () => {
    using rig = new GuestRig();
    const config = configuration(rig.socket, "server", 300);
    await using backend = await BackendProcess.start(
      rig.namespace,
      `${rig.image.folder}/config.json`,
      config,
    );
    rig.namespace.address("dv0", `${HOST}/24`);
    const bytes = streamBytes(0, 8 * MEBIBYTE);
    const sum = await sha256(bytes);
    // Once it has been asked for its counters the runtime has all that it ever opens.
    await backend.counters();
    const { descriptors } = backend;
    const left: { mappings: number; anonymousBytes: number }[] = [];
    for (let life = 1; life <= 4; life++) {
      const guest = await QemuGuest.start(rig.image, rig.socket);
      try {
        assertEquals(await rig.send(guest, bytes), sum, `in life ${life}`);
        assert(backend.guestMappings > 0);
        assert(backend.descriptors.length > descriptors.length);
      } finally {
        await guest[Symbol.asyncDispose]();
      }
      await backend.until("QEMU is gone", (counters) => counters["net0.driver"].disconnections === life);
      assertEquals(backend.guestMappings, 0, `after life ${life}`);
      // Sockets are closed by a thread of their own, which may end after the disconnection is counted.
      for (let tries = 0; tries < 200 && backend.descriptors.join() !== descriptors.join(); tries++) {
        await after(10);
      }
      assertEquals(backend.descriptors, descriptors, `after life ${life}`);
      left.push({ mappings: backend.mappings, anonymousBytes: backend.anonymousBytes });
    }
    // What the runtime itself maps comes and goes a little; a guest's memory alone would be 256 MiB.
    assert(left[3].mappings < left[0].mappings + 40, JSON.stringify(left));
    assert(left[3].anonymousBytes < left[0].anonymousBytes + 48 * MEBIBYTE, JSON.stringify(left));
    assertEquals(faultsIn(await backend.counters()), {});
  },
);

/** Waits until something is so, for twenty seconds at most; a back-end's return may take TCP some of them. */
async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = Date.now() + 20_000;
  while (!await isSo()) {
    if (Date.now() > endMs) throw new Error(`It did not come to this within twenty seconds: ${what}`);
    await after(2);
  }
}
