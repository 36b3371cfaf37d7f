/**
 * Frames over vhost-user to and from DPDK's virtio-user, beside DPDK's own back-end: `deno task bench dpdk`.
 *
 * Back-end and front-end have a processor each, without offloads, with mergeable buffers and rings of 256.
 * Ours is the program that users run, with a network that has frames without end (`bench/support/flood.ts`);
 * DPDK's is a testpmd in `txonly` or `rxonly`. Both take turns, second by second, with a front-end of the
 * same kind each, whose counters are the measure.
 *
 * Everything depends on how soon a cache line gets from one processor to the other, and virtual machines
 * change that within minutes, as they are moved between the cores of their host. So it is measured before
 * each turn, and the figures are kept apart: those with processors near each other, and those far apart.
 *
 * On one processor two programs take turns when the kernel lets them: DPDK's never sleep, ours sleeps until
 * it is kicked. DPDK's ends can also be two ports of one program, which gives each a burst in turn; that says
 * what the work costs without the wait.
 *
 * @module
 */
import { linux, program } from "../rigs/require.ts";
import {
  dpdkInOne,
  type DpdkPeer,
  dpdkPeer,
  ourPeer,
  type Task,
  type Traffic,
} from "./support/dpdk_peers.ts";
import { allowedCores, CacheLineProbe, HugePages } from "./support/dpdk_host.ts";
import { ANY_STATE, headings, rowsOf, type Samples, STATES } from "./support/dpdk_states.ts";
import type { Row, Suite, SuiteOptions, SuiteResult, Table } from "./support/suite.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";

const SIZES = [64, 1500];
const LAYOUTS = ["split", "packed"] as const;
const WAYS = { toGuest: "to the guest", fromGuest: "from the guest", exchange: "both ways" };
const NEEDS = [
  linux,
  program("dpdk-testpmd", "dpdk-dev"),
  program("stdbuf", "coreutils"),
  program("taskset", "util-linux"),
];
/** Programs that have their packets in huge pages at a time. */
const PROGRAMS = 4;

/** The suite. */
export const suite: Suite = {
  name: "dpdk",
  summary: "vhost-user with DPDK's virtio-user in front, beside DPDK's own back-end",
  needs: () =>
    NEEDS.map((need) => need()).find((missing) => missing !== null) ??
      (allowedCores().length < 2 ? "Two processors are needed: allow this program another one" : null),
  run,
};

/** What all measurements share. */
interface Rig {
  readonly options: SuiteOptions;
  readonly probe: CacheLineProbe | null;
  readonly baseline: MemcpyBaseline;
  /**
   * A task with these properties, split rings, one queue pair and a processor for each end unless they say
   * otherwise.
   */
  task(traffic: Traffic, more: Partial<Task>): Task;
  /** Processors of the back-end beyond the first. */
  readonly moreCores: readonly number[];
}

/** One of those that take turns. */
interface Entry {
  /** What it is called. */
  readonly name: string;
  readonly make: () => Promise<DpdkPeer>;
}

async function run(options: SuiteOptions): Promise<SuiteResult> {
  using pages = new HugePages(PROGRAMS);
  // The last one is the front-end's: the first gets most interrupts, and ours has to bear them.
  const cores = allowedCores();
  const [back, front] = [cores[0], cores[cores.length - 1]];
  const moreCores = cores.slice(1, -1);
  const notes: string[] = [];
  using owned = new DisposableStack();
  let probe: CacheLineProbe | null = null;
  try {
    probe = owned.use(await CacheLineProbe.build([back, front]));
  } catch (error) {
    notes.push(`What a cache line costs is not known: ${error instanceof Error ? error.message : error}.`);
  }
  const task = (traffic: Traffic, more: Partial<Task>): Task => ({
    traffic,
    frameBytes: 64,
    packed: false,
    pairs: 1,
    frontCores: [front],
    backCores: [back],
    hugePages: pages.areThere,
    ...more,
  });
  const rig: Rig = { options, probe, baseline: new MemcpyBaseline(), task, moreCores };
  const tables: Table[] = [];
  for (const traffic of ["toGuest", "fromGuest"] as const) {
    tables.push(await sizesTable(rig, traffic, "two-cores", "a processor for each end", {}));
  }
  const together = { frontCores: [back] };
  tables.push(await sizesTable(rig, "exchange", "one-core", "each way, on one processor", together));
  tables.push(await queuesTable(rig));
  notes.push(
    `Back-ends had processor ${back}, front-ends ${front}; memory of DPDK in ${
      pages.areThere ? "huge" : "ordinary"
    } pages.`,
  );
  if (moreCores.length === 0) {
    notes.push("Threads had no free processor: both shared one. Three would be needed.");
  }
  if (probe !== null) {
    const [least, middle, most] = probe.summaryNs.map((ns) => ns.toFixed(0));
    notes.push(
      `A cache line from one processor to the other took ${middle} ns meanwhile (from ${least} to ${most}).`,
    );
  }
  return { memcpyNs: rig.baseline.medianNs, tables, notes };
}

/** Frames of all sizes through split and packed rings. */
async function sizesTable(
  rig: Rig,
  traffic: Traffic,
  id: string,
  where: string,
  more: Partial<Task>,
): Promise<Table> {
  const states = traffic === "exchange" ? ANY_STATE : STATES;
  const rows: Row[] = [];
  for (const layout of LAYOUTS) {
    const columns: Samples[] = [];
    for (const frameBytes of SIZES) {
      const task = rig.task(traffic, { frameBytes, packed: layout === "packed", ...more });
      const entries = [ours(task, "loop"), theirs(task)];
      if (traffic === "exchange") {
        entries.push({ name: "DPDK's own, in one program", make: () => dpdkInOne(task) });
      }
      columns.push(await measure(rig, `${WAYS[traffic]}, ${where}, ${layout}, ${frameBytes} bytes`, entries));
    }
    rows.push(...rowsOf(layout, columns, states));
  }
  return {
    id: `${id}-${traffic}`,
    title: `Frames ${WAYS[traffic]}, ${where}`,
    unit: "Mpps",
    across: "bytes",
    columns: headings(SIZES.map(String), states),
    rows,
  };
}

/** One queue pair and two, of one thread and of two. */
async function queuesTable(rig: Rig): Promise<Table> {
  const rows: Row[] = [];
  for (const traffic of ["toGuest", "fromGuest"] as const) {
    const one = rig.task(traffic, {});
    const two = rig.task(traffic, { pairs: 2 });
    const spread = { ...two, backCores: [...two.backCores, ...rig.moreCores.slice(0, 1)] };
    const columns = [
      await measure(rig, `${WAYS[traffic]}, one queue`, [ours(one, "loop"), theirs(one)]),
      await measure(rig, `${WAYS[traffic]}, two queues, one thread`, [ours(two, "loop"), theirs(two)]),
      await measure(rig, `${WAYS[traffic]}, two queues, two threads`, [
        ours(spread, "threads"),
        // Its threads never sleep: two of them do not share a processor.
        ...(rig.moreCores.length > 0 ? [theirs(spread)] : []),
      ]),
    ];
    rows.push(...rowsOf(WAYS[traffic], columns, STATES));
  }
  return {
    id: "queues",
    title: "Frames of 64 bytes through split rings",
    unit: "Mpps",
    across: "queue pairs",
    columns: headings(["1", "2, one thread", "2, two threads"], STATES),
    rows,
  };
}

function ours(task: Task, mode: "loop" | "threads"): Entry {
  return { name: "ours", make: () => ourPeer(task, mode) };
}

function theirs(task: Task): Entry {
  return { name: "DPDK's own", make: () => dpdkPeer(task) };
}

/** Lets all take turns. The first round is for warming up. */
async function measure(
  { options, probe, baseline }: Rig,
  what: string,
  entries: readonly Entry[],
): Promise<Samples> {
  const spanMs = options.quick ? 300 : 1200;
  await using owned = new AsyncDisposableStack();
  const peers: DpdkPeer[] = [];
  for (const { make } of entries) peers.push(owned.use(await make()));
  const samples: Samples = new Map(entries.map(({ name }) => [name, []]));
  for (let round = 0; round <= options.runs; round++) {
    for (let turn = 0; turn < entries.length; turn++) {
      const index = (turn + round) % entries.length;
      const { name } = entries[index];
      const lineNs = await probe?.sample() ?? NaN;
      baseline.sample();
      const mpps = await peers[index].measure(spanMs) / 1e6;
      if (round > 0) samples.get(name)!.push({ mpps, lineNs });
      options.progress(`${what}: ${name} ${mpps.toFixed(2)} Mpps (cache line ${lineNs.toFixed(0)} ns)`);
    }
  }
  for (const peer of peers) await peer.end();
  return samples;
}
