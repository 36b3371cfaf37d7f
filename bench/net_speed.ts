/**
 * TCP into and out of a guest of User-mode Linux: our device beside the TAP driver of User-mode Linux itself.
 *
 * Both have the same kernel and the same kind of TAP, and take turns: a guest is booted for each turn, in a
 * network of its own with the host. It runs natively, so that what the device costs becomes visible, which a
 * guest of QEMU without help of the processor hides.
 *
 * @module
 */
import { HOST, OUR_MAC, OURS } from "../rigs/kernel.ts";
import { network, program } from "../rigs/require.ts";
import { umlKernel, UmlRig } from "../rigs/uml.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";
import { median } from "./support/statistics.ts";
import { ratioRow, type Row, type Suite, type SuiteOptions, type SuiteResult } from "./support/suite.ts";

const NEEDS = [...network, umlKernel, program("iperf3", "iperf3"), program("ethtool", "ethtool")];
const TAP = "dv0";
/** Frames as they leave the sender, and their way as the guest sees it. */
interface Kind {
  readonly title: string;
  readonly wire: "large" | "mtu";
  readonly way: "into" | "out";
}

/** What is measured, in this order, with each guest. */
const KINDS: readonly Kind[] = [
  { title: "large, into", wire: "large", way: "into" },
  { title: "large, out", wire: "large", way: "out" },
  { title: "MTU, into", wire: "mtu", way: "into" },
  { title: "MTU, out", wire: "mtu", way: "out" },
];
const LARGE_OUT_AT = 1;

/** A device behind a guest. */
interface Peer {
  readonly name: string;
  /** What is measured with it. */
  readonly kinds: readonly Kind[];
  /** What stands between our device and the TAP; null for a driver of User-mode Linux itself. */
  readonly ours: { readonly network: object; readonly offloads: readonly string[] } | null;
}

/** The first is the one that ours is compared with. */
const PEERS: readonly Peer[] = [
  { name: "UML's own TAP driver", kinds: KINDS, ours: null },
  { name: "ours", kinds: KINDS, ours: { network: {}, offloads: ["checksum", "rsc-v4", "rsc-v6"] } },
  {
    name: "ours, cut by segment",
    kinds: [KINDS[LARGE_OUT_AT]],
    ours: { network: { offloads: "off" }, offloads: ["segment"] },
  },
];
const [OWN_AT, OURS_AT, CUT_AT] = [0, 1, 2];
const WARM_S = 1;
/** Time for a command beside what it measures, on a host that is busy. */
const PATIENCE_MS = 60_000;

/** The suite. */
export const suite: Suite = {
  name: "net_speed",
  summary: "TCP of a guest of User-mode Linux, beside its own TAP driver.",
  needs: () => NEEDS.map((need) => need()).find((missing) => missing !== null) ?? null,
  run,
};

async function run(options: SuiteOptions): Promise<SuiteResult> {
  const { quick, runs, progress } = options;
  const baseline = new MemcpyBaseline();
  const samples = PEERS.map(({ kinds }) => kinds.map((): number[] => []));
  for (let round = 0; round < runs; round++) {
    for (let turn = 0; turn < PEERS.length; turn++) {
      // The other one begins in each round.
      const at = (turn + round) % PEERS.length;
      const { name, kinds } = PEERS[at];
      baseline.sample();
      const figures = await measure(PEERS[at], quick ? 1 : 3);
      figures.forEach((figure, kind) => samples[at][kind].push(figure));
      const words = kinds.map(({ title }, kind) => `${title} ${figures[kind].toFixed(0)}`);
      progress(`round ${round + 1} of ${runs}, ${name}: ${words.join("; ")} Mb/s`);
    }
  }
  const rows = PEERS.map(({ name }, at): Row => ({ name, values: samples[at].map((list) => median(list)) }));
  const ours = rows[OURS_AT];
  const uncut = ours.values[LARGE_OUT_AT];
  const cut = rows[CUT_AT].values[0];
  return {
    tables: [{
      id: "tcp",
      title: "TCP of a guest of User-mode Linux",
      unit: "Mb/s",
      across: "frames, way",
      columns: KINDS.map(({ title }) => title),
      rows: [rows[OWN_AT], ours, ratioRow("ours / UML's own", ours, rows[OWN_AT])],
    }, {
      id: "segment",
      title: "Out of that guest in large frames, which the stage segment cuts",
      unit: "Mb/s",
      across: "frames on the TAP",
      columns: ["large", "MTU"],
      rows: [
        { name: "ours", values: [uncut, cut] },
        { name: "of large", values: [1, uncut === null || cut === null ? null : cut / uncut], unit: "x" },
      ],
    }],
    notes: [
      "Large frames: segments and checksums are left to the other side. MTU frames: who sends cuts and checksums " +
      "them (ethtool -K tx off sg off tso off gso off), as a network card does for frames from elsewhere, and our " +
      "device coalesces those into the guest. Behind segment the TAP takes nothing unfinished: MTU frames with " +
      "checksums are written, as to a wire.",
    ],
    memcpyNs: baseline.medianNs,
  };
}

/** Boots a guest, measures all kinds with it in Mb/s, and ends it. */
async function measure({ ours, kinds }: Peer, seconds: number): Promise<number[]> {
  // These call native functions as soon as they are loaded.
  const { Namespace } = await import("../rigs/namespace.ts");
  const { startGuestBackend } = await import("./support/guest_backend.ts");
  await using owned = new AsyncDisposableStack();
  const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-bench-" });
  owned.defer(() => Deno.remove(folder, { recursive: true }));
  const namespace = owned.use(new Namespace());
  const socket = `${folder}/net0.sock`;
  const backend = ours === null
    ? null
    : owned.use(await startGuestBackend(namespace, `${folder}/config.json`, config(socket, ours)));
  if (ours === null) namespace.ip("tuntap", "add", "dev", TAP, "mode", "tap", "vnet_hdr");
  namespace.address(TAP, `${HOST}/24`);
  const own = [`vec0:transport=tap,ifname=${TAP},depth=128,gro=1`];
  const booting = namespace.run(() =>
    UmlRig.start(folder, ours === null ? [] : [{ socket, type: 1 }], {
      memoryMiB: 256,
      more: ours === null ? own : [],
    })
  );
  const guest = owned.use(await booting);
  const inGuest = (command: string) => guest.shell.run(command, PATIENCE_MS);
  // The host's programs, as they are.
  await inGuest("mkdir /host; mount -t hostfs -o / none /host");
  const nic = (await inGuest("ls /sys/class/net | grep -v '^lo$' | head -n 1")).trim();
  await inGuest(`ip addr add ${OURS}/24 dev ${nic}; ip link set ${nic} up`);
  await inGuest(
    `(chroot /host ${
      pathOf("iperf3")
    } -s >/dev/null 2>&1 &); until netstat -ltn | grep -q :5201; do usleep 20000; done`,
  );
  const figures: number[] = [];
  for (const { wire, way } of kinds) {
    const on = wire === "large" ? "on" : "off";
    const offloads = `tx ${on} sg ${on} tso ${on} gso ${on}`;
    if (way === "into") namespace.command("ethtool", "-K", TAP, ...offloads.split(" "));
    // Its own driver leaves some of them as they are, and says so.
    else await inGuest(`chroot /host ${pathOf("ethtool")} -K ${nic} ${offloads} 2>/dev/null; true`);
    const args = ["-J", "-c", OURS, "-t", `${seconds}`, "-O", `${WARM_S}`, ...way === "out" ? ["-R"] : []];
    const signal = AbortSignal.timeout(PATIENCE_MS + seconds * 1000);
    const child = namespace.run(() =>
      new Deno.Command("iperf3", { args, signal, stdin: "null", stdout: "piped", stderr: "piped" }).spawn()
    );
    const text = new TextDecoder().decode((await child.output()).stdout);
    const bits = JSON.parse(text).end?.sum_received?.bits_per_second;
    if (typeof bits !== "number") throw new Error(`iperf3 ${args.join(" ")}: ${text.slice(-500)}`);
    figures.push(bits / 1e6);
    // It takes the next one when it has done with this one.
    await inGuest("while netstat -tn | grep -q ':5201.*ESTABLISHED'; do usleep 20000; done; usleep 300000");
  }
  await guest[Symbol.asyncDispose]();
  const counters = await backend?.stop() ?? {};
  const faults = Object.values(counters).flatMap((group) => Object.entries(group))
    .filter(([name, value]) => /^(fault_|refused$)/.test(name) && value > 0);
  if (faults.length > 0) throw new Error(`Our device has counted faults: ${JSON.stringify(faults)}`);
  return figures;
}

function config(socket: string, { network, offloads }: NonNullable<Peer["ours"]>): unknown {
  return {
    devices: [{
      use: "net",
      mac: OUR_MAC,
      driver: { use: "vhost-user", socket, profile: "uml" },
      network: { use: "tap", interface: TAP, ...network },
      offloads,
    }],
  };
}

function pathOf(name: string): string {
  const { stdout } = new Deno.Command("sh", { args: ["-c", `command -v ${name}`] }).outputSync();
  return new TextDecoder().decode(stdout).trim();
}
