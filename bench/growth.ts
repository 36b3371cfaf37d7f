/**
 * How the cost of a segment or a frame grows: `deno task bench growth`, or `deno task bench:plots` for
 * pictures.
 * @module
 */
import { DeviceRig } from "./support/device_rig.ts";
import { Peer } from "./support/peer.ts";
import { StageLine } from "./support/stage_line.ts";
import { median } from "./support/statistics.ts";
import type { Suite, SuiteOptions, SuiteResult, Table } from "./support/suite.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";

/** One line of a plot: for each value of x, something that runs and returns ns. */
interface Line {
  readonly name: string;
  at(x: number): { run(amount: number): number | Promise<number> };
}

/** One plot. */
interface Growth {
  readonly id: string;
  readonly title: string;
  readonly unit: string;
  readonly across: string;
  readonly xs: readonly number[];
  /** Work in each run. */
  readonly amount: number;
  readonly lines: readonly Line[];
}

const RULES = ["qemu", "strict"] as const;

function powersOfTwo(from: number, to: number): number[] {
  const powers: number[] = [];
  for (let x = from; x <= to; x *= 2) powers.push(x);
  return powers;
}

/** The coalescer under each rule book, with `held` 8 and as `vary` says for each x. */
function coalescers(
  peers: Readonly<Record<typeof RULES[number], Peer>>,
  vary: (x: number) => { readonly flows: number; readonly payloadBytes: number },
): Line[] {
  return RULES.map((rules) => ({
    name: rules,
    at: (x) => ({
      run: (segments) => peers[rules].measure({ family: 4, held: 8, copy: false, segments, ...vary(x) }),
    }),
  }));
}

/** What is plotted. */
function growths(peers: Readonly<Record<typeof RULES[number], Peer>>): Growth[] {
  return [
    {
      id: "flows",
      title: "The coalescer: flows, 8 segments of 1448 bytes held of each",
      unit: "ns per segment",
      across: "flows",
      xs: powersOfTwo(1, 8192),
      amount: 65_536,
      lines: coalescers(peers, (flows) => ({ flows, payloadBytes: 1448 })),
    },
    {
      id: "segment-size",
      title: "The coalescer: payload of a segment, 8 flows",
      unit: "ns per segment",
      across: "bytes of payload",
      xs: [64, 128, 256, 512, 1024, 1448, 2048, 4096, 8948],
      amount: 65_536,
      lines: coalescers(peers, (payloadBytes) => ({ flows: 8, payloadBytes })),
    },
    {
      id: "stages",
      title: "A line of stages that read and write one byte of each frame",
      unit: "ns per frame",
      across: "stages",
      xs: [0, 1, 2, 4, 8, 12, 16],
      amount: 1000,
      lines: [
        { name: "all of one class", at: (stages) => new StageLine(stages, false) },
        { name: "each of its own class", at: (stages) => new StageLine(stages, true) },
      ],
    },
    {
      id: "queues",
      title: "The whole device in memory: queue pairs, 1502-byte frames",
      unit: "ns per frame",
      across: "queue pairs",
      xs: powersOfTwo(1, 16),
      amount: 1000,
      lines: [true, false].map((toGuest) => ({
        name: toGuest ? "to guest" : "from guest",
        at: (queuePairs) => new DeviceRig({ layout: "split", frameBytes: 1502, toGuest, queuePairs }),
      })),
    },
    {
      id: "regions",
      title:
        "The whole device in memory: regions of guest memory, buffers anywhere in them, 1502-byte frames",
      unit: "ns per frame",
      across: "regions",
      xs: [1, 2, 4, 8, 16, 32, 64, 128, 256, 509],
      amount: 1000,
      lines: [true, false].map((toGuest) => ({
        name: toGuest ? "to guest" : "from guest",
        at: (regions) =>
          new DeviceRig({ layout: "split", frameBytes: 1502, toGuest, regions, scattered: true }),
      })),
    },
  ];
}

/** Measures one plot, point by point in turns. */
async function measure(growth: Growth, baseline: MemcpyBaseline, options: SuiteOptions): Promise<Table> {
  const { lines, xs } = growth;
  const amount = options.quick ? Math.ceil(growth.amount / 10) : growth.amount;
  const rigs = lines.map((line) => xs.map((x) => line.at(x)));
  const samples = lines.map(() => xs.map((): number[] => []));
  for (let run = 0; run <= options.runs; run++) {
    for (const x of xs.keys()) {
      for (const line of lines.keys()) {
        const ns = await rigs[line][x].run(amount);
        if (run > 0) samples[line][x].push(ns);
      }
      baseline.sample();
    }
  }
  return {
    id: growth.id,
    title: growth.title,
    unit: growth.unit,
    across: growth.across,
    columns: xs.map(String),
    isPlotted: true,
    rows: lines.map(({ name }, line) => ({ name, values: samples[line].map((list) => median(list)) })),
  };
}

/** The suite. */
export const suite: Suite = {
  name: "growth",
  summary: "what a segment costs against flows, size, stages, queues and regions of memory",
  async run(options: SuiteOptions): Promise<SuiteResult> {
    await using qemu = Peer.ours("qemu");
    await using strict = Peer.ours("strict");
    const baseline = new MemcpyBaseline();
    const tables: Table[] = [];
    for (const growth of growths({ qemu, strict })) {
      options.progress(growth.id);
      tables.push(await measure(growth, baseline, options));
    }
    return { tables, memcpyNs: baseline.medianNs };
  },
};
