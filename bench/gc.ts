/**
 * The steady state allocates nothing: ten million frames each way after the warm-up, and no collection by the
 * engine: `deno task bench gc`. It fails if there is one.
 *
 * Each way is a program of its own under `--trace-gc`. The machine is whole: configuration, vhost-user over a
 * socket, guest memory that is mapped, event descriptors, pipeline, rings of 64 buffers; a TAP's frames are
 * read and written by the transport alone. Both are turned by hand. The only garbage left is the time, one
 * number a round. In `loop` mode each turn of the event loop makes some objects as well, in `threads` mode it
 * makes none.
 *
 * @module
 */
import { linux, network } from "../rigs/require.ts";
import { GARBAGE_CASES, type GarbageCase, MARKS } from "./support/garbage_cases.ts";
import type { Row, Suite, SuiteOptions, SuiteResult } from "./support/suite.ts";

const FRAMES = 10_000_000;
const QUICK_FRAMES = 1_000_000;
/**
 * By then everything is compiled, also for counters of bytes that have passed 2^31, and all memory is there
 * that is kept.
 */
const WARM_UP_FRAMES = 2_000_000;
const FLAGS = "--v8-flags=--trace-gc,--expose-gc";
const PROGRAM = new URL("./support/garbage_program.ts", import.meta.url).pathname;

/** The suite. */
export const suite: Suite = { name: "gc", summary: "no garbage in ten million frames", needs: linux, run };

async function run(options: SuiteOptions): Promise<SuiteResult> {
  const frames = options.quick ? QUICK_FRAMES : FRAMES;
  const missing = network.map((need) => need()).find((lack) => lack !== null);
  const cases = GARBAGE_CASES.filter(({ setup }) => setup !== "tap" || missing === undefined);
  const outcomes: Outcome[] = [];
  for (const which of cases) {
    options.progress(which.name);
    outcomes.push(await measure(which, frames));
  }
  const found = cases.flatMap(({ name }, i) => outcomes[i].collections.map((line) => `${name}: ${line}`));
  if (found.length > 0) {
    throw new Error(`There were ${found.length} collections in ${frames} frames:\n${found.join("\n")}`);
  }
  const rowsOf = (value: (outcome: Outcome) => number): Row[] =>
    cases.map(({ name }, i) => ({ name, values: [value(outcomes[i])] }));
  const table = { across: "frames", columns: [String(frames)] };
  return {
    tables: [
      {
        ...table,
        id: "collections",
        title: "Collections after the warm-up",
        unit: "collections",
        rows: rowsOf(({ collections }) => collections.length),
      },
      {
        ...table,
        id: "garbage",
        title: "Objects made meanwhile",
        unit: "bytes per frame",
        rows: rowsOf(({ garbageBytes }) => garbageBytes / frames),
      },
    ],
    notes: missing === undefined ? [] : [`NOT MEASURED without a TAP: ${missing}`],
  };
}

/** What became of one way. */
interface Outcome {
  /** What the collector said of its work while the frames were moved. */
  readonly collections: readonly string[];
  /** By how much the heap has grown meanwhile: all of it, as long as nothing is collected. */
  readonly garbageBytes: number;
}

/** Throws if the program failed, or the collector's output is not of the form that is known here. */
async function measure({ name }: GarbageCase, frames: number): Promise<Outcome> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--allow-all", FLAGS, PROGRAM, name, String(WARM_UP_FRAMES), String(frames)],
  }).output();
  if (!success) throw new Error(`${name}: ${new TextDecoder().decode(stderr)}`);
  const lines = new TextDecoder().decode(stdout).split("\n");
  const [start, end] = MARKS.map((mark) => lines.indexOf(mark));
  const isCollection = (line: string) => /\bms: .*\b(Scavenge|Mark-Compact|Minor)\b/.test(line);
  // The start of a program is never without.
  if (start < 0 || end < start || !lines.slice(0, start).some(isCollection)) {
    throw new Error(`${name}: the collector's output cannot be understood:\n${lines.join("\n")}`);
  }
  return { collections: lines.slice(start, end).filter(isCollection), garbageBytes: Number(lines[end + 1]) };
}
