/**
 * A guest that moves from one QEMU to another while it receives: the dirty log, what is held, and the
 * announcement.
 *
 * Two transfers go to the guest. One goes on all the time. The bytes of the other are left by the guest where
 * the device has written them, in receive buffers, which nothing else writes: they get to the target by the
 * dirty log or not at all. They are sent when QEMU has copied all memory once; a program in the guest, which
 * writes to its memory as fast as it can, gives time for that.
 */
import { assert, assertEquals } from "@std/assert";
import { faultsIn } from "./support/guest_rig.ts";
import { OUR_MAC } from "../../rigs/kernel.ts";
import { bridges, MigrationRig } from "./support/migration_rig.ts";
import { QemuGuest, qemuGuest } from "../../rigs/qemu.ts";
import { qemu10, QEMU_10, QEMU_7, type QemuProgram } from "../../rigs/qemu_program.ts";
import type { Qmp } from "../../rigs/qmp.ts";
import { hostTest, type Need } from "../../rigs/require.ts";
import { after, until } from "./support/tap_rig.ts";
import { Upload } from "./support/upload.ts";

const MEBIBYTE = 1 << 20;
const LIVE_PORT = 5001;
const LEFT_PORT = 5002;
/** Long enough that there is always something held of a transfer. */
const INTERVAL_US = 50_000;
/** What a guest does so that its memory changes faster than it can be copied. */
const BUSY = "while :; do dd if=/tmp/noise of=/tmp/busy bs=1M conv=notrunc; done";

const PROGRAMS: readonly (readonly [QemuProgram, readonly Need[]])[] = [
  [QEMU_7, [...qemuGuest, bridges]],
  [QEMU_10, [...qemuGuest, bridges, qemu10]],
];

for (const [qemu, needs] of PROGRAMS) {
  for (const layout of ["split", "packed"]) {
    hostTest(
      `a guest with ${layout} rings moves between two of ${qemu.name} in the midst of a transfer, and nothing is lost`,
      needs,
      async () => {
        const packed = layout === "packed";
        await using rig = await MigrationRig.start(
          [{ use: "rsc-v4", intervalUs: INTERVAL_US, flushOnIdle: false }],
          { packedRing: packed },
        );
        const { source, target } = rig;
        // A guest that is asked to announces itself: QEMU leaves it to the back-end then only if the guest
        // cannot.
        const device = packed ? "packed=on" : "guest_announce=off";
        await using guest = await QemuGuest.start(rig.image, source.socket, { name: "source", qemu, device });
        const incoming = `unix:${rig.image.folder}/migration.sock`;
        await using moved = await QemuGuest.start(rig.image, target.socket, {
          name: "target",
          qemu,
          device,
          incoming,
        });
        await guest.shell.run("echo 4096 4194304 8388608 >/proc/sys/net/ipv4/tcp_rmem");
        using live = await Upload.start(rig.namespace, guest.shell, LIVE_PORT);
        using left = await Upload.start(rig.namespace, guest.shell, LEFT_PORT);
        await left.pauseReader(guest.shell);
        assertEquals(rig.portOfGuest, "source");

        const stop = new AbortController();
        const sending = sendSlowly(live, stop.signal);
        // The failure reaches what waits for it: what failed before is to be told first.
        sending.catch(() => {});
        await guest.shell.run("dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2>&1");
        await guest.shell.run(`(${BUSY}) >/dev/null 2>&1 & echo $! >/tmp/busy.pid`);
        await begin(guest.qmp, incoming);
        await allCopiedOnce(guest.qmp);
        await left.send(MEBIBYTE);
        await inReceiveBuffers(guest, MEBIBYTE);
        await guest.shell.run("kill $(cat /tmp/busy.pid)");
        await guest.qmp.run("migrate-set-parameters", { "max-bandwidth": 1 << 30, "downtime-limit": 2000 });
        await migrated(guest.qmp, "all", ({ status }) => status === "completed");
        const sentBefore = live.sentBytes;
        await guest[Symbol.asyncDispose]();

        assertEquals(await left.arrivedBytes(moved.shell), 0);
        await left.resumeReader(moved.shell);
        const leftSums = await left.finish(moved.shell);
        assertEquals(leftSums.arrived, leftSums.sent, "what lay in receive buffers");
        await until("the other one goes on", () => live.sentBytes >= sentBefore + 2 * MEBIBYTE);
        stop.abort();
        await sending;
        const liveSums = await live.finish(moved.shell);
        assertEquals(liveSums.arrived, liveSums.sent, "what went on all the time");
        assertEquals(rig.portOfGuest, "target");

        assert(source.drainedPackets > 0);
        assertEquals(source.counters("net0").discarded_at_reset, 0);
        assertEquals(source.counters("net0.driver").unlogged_pages, 0);
        for (const { machine } of [source, target]) assertEquals(faultsIn(machine.counters), {});
        assert(source.requests.includes("SET_LOG_BASE"));
        for (const { requests } of [source, target]) {
          assertEquals(requests.includes("SET_DEVICE_STATE_FD"), qemu === QEMU_10);
        }
        assertEquals(target.requests.includes("SEND_RARP"), !packed);
        if (!packed) {
          const { bytes } = await rig.bystander.find((bytes) => bytes[12] === 0x80 && bytes[13] === 0x35);
          assertEquals(macAt(bytes, 6), OUR_MAC);
        }
      },
    );
  }
}

/** Sends a little at a time, as long as `signal` lets it. */
async function sendSlowly(upload: Upload, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await upload.send(65_536);
    await after(10);
  }
}

/** Waits until so many bytes lie at the guest's socket, which is not read. */
async function inReceiveBuffers({ shell }: QemuGuest, count: number): Promise<void> {
  const port = LEFT_PORT.toString(16).toUpperCase();
  // Of IPv6 too, as nc makes them: addresses, state (10 is that of a socket that listens), and bytes that
  // wait in both directions.
  const line = new RegExp(`^ *\\d+: \\w+:${port} \\S+ (?!0A)\\w+ \\w+:(\\w+)`, "m");
  let sockets = "";
  for (let tries = 0; tries < 50; tries++) {
    sockets = await shell.run("cat /proc/net/tcp6");
    if (parseInt(line.exec(sockets)?.[1] ?? "", 16) === count) return;
    await after(100);
  }
  throw new Error(`${count} bytes have not come to rest in the guest: ${sockets}`);
}

interface Progress {
  readonly status: string;
  readonly ram?: { readonly "dirty-sync-count": number; readonly remaining: number };
  readonly "error-desc"?: string;
}

/** Begins a migration. */
async function begin(qmp: Qmp, uri: string): Promise<void> {
  await qmp.run("migrate-set-parameters", { "max-bandwidth": 64 * MEBIBYTE, "downtime-limit": 1 });
  await qmp.run("migrate", { uri });
}

/**
 * Waits until QEMU has copied all memory once, and slows it down, so that it cannot come to an end while the
 * guest is busy.
 */
async function allCopiedOnce(qmp: Qmp): Promise<void> {
  const nearly = ({ ram }: Progress) => ram !== undefined && ram.remaining < 8 * MEBIBYTE;
  await migrated(qmp, "nearly all memory", nearly);
  await qmp.run("migrate-set-parameters", { "max-bandwidth": 8 * MEBIBYTE });
  await migrated(qmp, "all memory once", ({ ram }) => (ram?.["dirty-sync-count"] ?? 0) >= 2);
}

/** Waits until a migration has come so far. Throws Error if it fails, or if that takes half a minute. */
async function migrated(qmp: Qmp, what: string, isSo: (progress: Progress) => boolean): Promise<void> {
  let progress: Progress = { status: "none" };
  for (let tries = 0; tries < 1500; tries++) {
    progress = await qmp.run("query-migrate") as Progress;
    if (isSo(progress)) return;
    if (progress.status === "failed" || progress.status === "completed") break;
    await after(20);
  }
  throw new Error(`The migration of ${what} has not come about: ${JSON.stringify(progress)}`);
}

function macAt(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.subarray(at, at + 6), (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
