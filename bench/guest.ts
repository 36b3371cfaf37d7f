/**
 * A real guest with our device, side by side with the virtio-net device of QEMU itself: TCP both ways, ping,
 * datagrams, and what coalescing costs in latency.
 *
 * Both have the same QEMU, kernel, memory and kind of TAP. Our device runs in a process of its own behind a
 * vhost-user socket, QEMU's own in QEMU's main thread. Each guest has a network of its own with the host and
 * stands still while another one is measured.
 *
 * @module
 */
import { qemu10, QEMU_10, QEMU_7 } from "../rigs/qemu_program.ts";
import { qemuGuest } from "../rigs/qemu.ts";
import { program } from "../rigs/require.ts";
import type { Entry } from "./support/guest_rounds.ts";
import { guestTables } from "./support/guest_tables.ts";
import type { Suite, SuiteOptions, SuiteResult } from "./support/suite.ts";
import { WakeProbe } from "./support/wake_probe.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";

const NEEDS = [
  ...qemuGuest,
  program("iperf3", "iperf3"),
  program("ethtool", "ethtool"),
  program("perl", "perl"),
];

/** Who takes part always; the first one is who we are compared with. */
const MAIN: readonly Entry[] = [
  { id: "own", name: "QEMU's own", device: null },
  { id: "ours", name: "ours", device: { mode: "loop", intervalUs: 300 } },
  { id: "plain", name: "ours, no coalescing", device: { mode: "loop", intervalUs: null } },
  {
    id: "polling",
    name: "ours, no coalescing, polling",
    device: { mode: "loop", intervalUs: null, pollMaxUs: 20_000 },
  },
  {
    id: "held",
    name: "ours, held for 300 µs",
    device: { mode: "loop", intervalUs: 300, flushOnIdle: false },
    intervalOnly: true,
  },
  { id: "threads", name: "ours, threads", device: { mode: "threads", intervalUs: 300 } },
];

/** Who shows what the interval does. */
const BY_INTERVAL: readonly Entry[] = [50, 100, 1000].map((intervalUs) => ({
  id: `held${intervalUs}`,
  name: `ours, ${intervalUs} µs`,
  device: { mode: "loop", intervalUs, flushOnIdle: false },
  intervalOnly: true,
}));

/** The suite. */
export const suite: Suite = {
  name: "guest",
  summary: "A real guest in QEMU: TCP, ping and UDP, side by side with QEMU's own virtio-net.",
  needs: () => NEEDS.map((need) => need()).find((missing) => missing !== null) ?? null,
  run,
};

async function run(options: SuiteOptions): Promise<SuiteResult> {
  // Calls native functions as soon as it is loaded.
  const { measureGuests } = await import("./support/guest_rounds.ts");
  const qemu = qemu10() === null ? QEMU_10 : QEMU_7;
  const entries = options.quick ? MAIN : [...MAIN, ...BY_INTERVAL];
  const baseline = new MemcpyBaseline();
  const notes: string[] = [];
  using wakes = await WakeProbe.build().catch((cause: Error) => {
    notes.push(`NOT MEASURED what a wake costs: ${cause.message}`);
    return null;
  });
  const figures = await measureGuests(entries, qemu, options, baseline, wakes);
  return {
    tables: guestTables(entries, figures, wakes),
    notes: [
      ...notes,
      `Guests run in ${qemu.name} without help of the processor (TCG), with one processor and a queue pair each; ` +
      (qemu.takesMsix ? "interrupts by MSI-X." : "without MSI-X, which crashes this QEMU."),
      "MTU frames: the host's kernel segments and checksums, as a network card does for frames from elsewhere " +
      "(ethtool -K tx off sg off tso off gso off). Large frames: it leaves both to the guest. Coalescing holds 300 µs " +
      "unless it says otherwise, or until the network has no more and the sender has finished. " +
      "Polling is pollMaxUs 20000, which takes a processor.",
    ],
    memcpyNs: baseline.medianNs,
  };
}
