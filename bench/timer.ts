/**
 * How late held packets leave: `deno task bench timer`.
 *
 * First the reactor alone: from a deadline to the round that serves it, by its ways to sleep. Then the whole
 * path: a segment is sent into a TAP, held by a machine in a process of its own, and delivered to a guest
 * whose interrupt rings; the interval is taken off. What a segment takes that is not held is in the first
 * column: waking, reading, delivering. The same is measured of machines that poll before they sleep
 * (`pollMaxUs`), which need a processor for that.
 *
 * @module
 */
import { linux, network } from "../rigs/require.ts";
import { median, percentile } from "./support/statistics.ts";
import type { Row, Suite, SuiteOptions, SuiteResult, Table } from "./support/suite.ts";

const INTERVALS_US = [50, 100, 300, 1000];
const PERCENTS = [50, 99];
/** Longer than from one segment to the next. */
const POLL_MAX_US = 20_000;
const SLEEPS = {
  loop: "loop",
  threads: "threads",
  timers: "without a host, by the runtime's timers",
} as const;

/** The suite. */
export const suite: Suite = {
  name: "timer",
  summary: "how late deadlines are served, and held packets leave",
  needs: linux,
  run,
};

async function run(options: SuiteOptions): Promise<SuiteResult> {
  const samples = options.quick ? 100 : 500;
  const tables = [await deadlines(samples, options)];
  const missing = network.map((need) => need()).find((lack) => lack !== null);
  if (missing === undefined) tables.push(await heldUnits(samples, options));
  return {
    tables,
    notes: [
      "To be reached, p99, with nothing else running: 100 µs by loop, 30 µs by threads; from a TAP to a guest's " +
      "interrupt 50 µs (p50) and 200 µs (p99) where it polls (pollMaxUs 20000), which takes a processor.",
      ...missing === undefined ? [] : [`NOT MEASURED without a TAP: the whole path. ${missing}`],
    ],
  };
}

async function deadlines(samples: number, { runs, progress }: SuiteOptions): Promise<Table> {
  const { measureDeadlines } = await import("./support/deadlines.ts");
  const ways = ["loop", "threads", "timers"] as const;
  const found = ways.map(() => INTERVALS_US.map((): number[][] => []));
  for (let run = 0; run <= runs; run++) {
    progress(`deadlines, run ${run} of ${runs}`);
    for (const [i, way] of ways.entries()) {
      for (const [j, intervalUs] of INTERVALS_US.entries()) {
        const lateNs = await measureDeadlines(way, intervalUs * 1000, samples);
        if (run > 0) found[i][j].push(lateNs.map((ns) => ns / 1000));
      }
    }
  }
  return {
    id: "deadlines",
    title: "From a deadline to the round that serves it",
    unit: "µs",
    across: "interval in µs",
    columns: INTERVALS_US.map(String),
    rows: ways.flatMap((way, i) => rowsOf(SLEEPS[way], found[i])),
  };
}

async function heldUnits(samples: number, { runs, progress }: SuiteOptions): Promise<Table> {
  const { HeldSegments } = await import("./support/held_segment.ts");
  const modes = ["loop", "threads"] as const;
  const ways = modes.flatMap((mode) => [
    { mode, pollMaxUs: 0, name: mode as string },
    { mode, pollMaxUs: POLL_MAX_US, name: `${mode}, polling` },
  ]);
  const rows: Row[] = [];
  for (const { mode, pollMaxUs, name } of ways) {
    const found: number[][][] = [];
    for (const intervalUs of [null, ...INTERVALS_US]) {
      progress(`${name}, ${intervalUs === null ? "not held" : `held for ${intervalUs} µs`}`);
      await using segments = await HeldSegments.start({ mode, intervalUs, pollMaxUs });
      found.push(Array.from(
        { length: runs },
        () => segments.measure(samples).map((ns) => ns / 1000 - (intervalUs ?? 0)),
      ));
    }
    rows.push(...rowsOf(name, found));
  }
  return {
    id: "held",
    title: "From a TAP to a guest's interrupt, less the interval",
    unit: "µs",
    across: "interval in µs",
    columns: ["not held", ...INTERVALS_US.map(String)],
    rows,
  };
}

/** A row for each percentile: of every column the median of its runs. */
function rowsOf(name: string, found: readonly (readonly (readonly number[])[])[]): Row[] {
  return PERCENTS.map((percent) => ({
    name: `${name}, p${percent}`,
    values: found.map((runs) => median(runs.map((samples) => percentile(samples, percent)))),
  }));
}
