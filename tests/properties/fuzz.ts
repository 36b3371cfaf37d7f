/**
 * The fuzzer: scenarios by chance until time or runs are up, or one of them breaks a rule. That one is shrunk
 * and written to a vector file, which `--replay` runs again.
 *
 * ```sh
 * deno task fuzz --seconds 600
 * deno task fuzz --seed 7 --runs 5000
 * deno task fuzz --replay fuzz-7.jsonl
 * ```
 *
 * `FUZZ_SEED`, `FUZZ_RUNS` and `FUZZ_SECONDS` say the same. One run is one machine and up to eight streams.
 * @module
 */
import { parseArgs } from "node:util";
import { PROFILES } from "./support/profiles.ts";
import { recordOf, scenarioIn, search, type Tally, violationsOf } from "./support/search.ts";
import { number } from "./support/settings.ts";

const RUNS_A_ROUND = 50;
const DEFAULT_SECONDS = 60;
const LARGEST_SEED = 0x7fff_ffff;

const { values } = parseArgs({
  args: Deno.args,
  options: {
    seed: { type: "string" },
    runs: { type: "string" },
    seconds: { type: "string" },
    out: { type: "string" },
    replay: { type: "string" },
  },
});

Deno.exitCode = values.replay === undefined ? await fuzz() : await replay(values.replay);

/** The exit code: 0 if nothing was found. */
async function fuzz(): Promise<number> {
  const seed = option("seed") ?? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1;
  const runs = option("runs") ?? Infinity;
  const seconds = option("seconds") ?? (runs === Infinity ? DEFAULT_SECONDS : Infinity);
  console.log(`seed ${seed}`);
  const tally: Tally = { streams: 0, frames: 0, packets: 0 };
  const start = performance.now();
  let done = 0;
  for (let round = 0; done < runs && performance.now() - start < 1000 * seconds; round++) {
    const profile = PROFILES[round % PROFILES.length];
    const roundSeed = (seed + round) % (LARGEST_SEED + 1);
    const count = Math.min(RUNS_A_ROUND, runs - done);
    const failure = await search(profile.scenarios, roundSeed, count, tally);
    if (failure !== null) {
      const file = `${values.out ?? "."}/fuzz-${failure.seed}.jsonl`;
      await Deno.writeTextFile(file, await recordOf(failure));
      clearLine();
      for (const violation of failure.violations) console.log(violation);
      console.log(`${profile.name}, seed ${failure.seed}. To run it again: deno task fuzz --replay ${file}`);
      return 1;
    }
    done += count;
    progress(done, tally, start);
  }
  clearLine();
  console.log(`${done} runs, ${tally.streams} streams, ${tally.frames} frames: every rule was kept`);
  return 0;
}

/** The exit code: 0 if the scenario in the file keeps every rule. */
async function replay(file: string): Promise<number> {
  const violations = await violationsOf(scenarioIn(await Deno.readTextFile(file)));
  for (const violation of violations) console.log(violation);
  if (violations.length === 0) console.log("every rule was kept");
  return violations.length === 0 ? 0 : 1;
}

function option(name: "seed" | "runs" | "seconds"): number | null {
  const text = values[name];
  if (text === undefined) {
    const value = number(`FUZZ_${name.toUpperCase()}`, -1);
    return value < 0 ? null : value;
  }
  const value = Number(text);
  if (text === "" || !Number.isInteger(value) || value < 0 || value > LARGEST_SEED) {
    throw new RangeError(`Cannot use --${name} ${text}: write an integer from 0 to ${LARGEST_SEED}`);
  }
  return value;
}

function progress(runs: number, { streams, frames, packets }: Tally, start: number): void {
  if (!Deno.stdout.isTerminal()) return;
  const seconds = (performance.now() - start) / 1000;
  const line = `${
    seconds.toFixed(0)
  } s: ${runs} runs, ${streams} streams, ${frames} frames in, ${packets} packets out`;
  Deno.stdout.writeSync(new TextEncoder().encode(`\r\x1b[K${line}`));
}

function clearLine(): void {
  if (Deno.stdout.isTerminal()) Deno.stdout.writeSync(new TextEncoder().encode("\r\x1b[K"));
}
