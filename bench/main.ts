/**
 * All benchmarks, or the named ones:
 *
 *     deno task bench [suite…] [--json] [--quick]
 *
 * Every file beside this one that exports `suite` is a suite (see `bench/support/suite.ts`). Tables go to
 * standard output as they come, or with `--json` everything in the end; what is going on goes to standard
 * error. A suite that cannot run here is skipped, and one that fails does not stop the others; the exit code
 * is then 1. Figures of `--quick` count for nothing.
 *
 * @module
 */
import { describeMachine, renderSuite, type Report, type SuiteReport } from "./support/render.ts";
import type { Suite, SuiteOptions } from "./support/suite.ts";
import { machineFacts, measureMemcpyNs } from "./support/memcpy_baseline.ts";

const RUNS = 7;
const QUICK_RUNS = 2;

/** The names of all suites. */
function suiteNames(): string[] {
  const folder = new URL("./", import.meta.url);
  const files = Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) =>
    name.endsWith(".ts")
  );
  // What is no suite is not to be run by looking at it.
  const isSuite = (file: string): boolean =>
    /^export const suite\b/m.test(Deno.readTextFileSync(new URL(file, folder)));
  return files.filter(isSuite).map((file) => file.slice(0, -".ts".length)).sort();
}

async function load(name: string): Promise<Suite> {
  const { suite } = await import(new URL(`${name}.ts`, import.meta.url).href) as { suite: Suite };
  return suite;
}

async function runSuite(suite: Suite, options: SuiteOptions): Promise<SuiteReport> {
  const { name, summary } = suite;
  const lack = suite.needs?.() ?? null;
  if (lack !== null) return { name, summary, status: "skipped", reason: lack };
  try {
    const before = measureMemcpyNs();
    const result = await suite.run(options);
    const around = (before + measureMemcpyNs()) / 2;
    return { name, summary, status: "measured", memcpyNs: result.memcpyNs ?? around, result };
  } catch (error) {
    const reason = error instanceof Error ? error.stack ?? error.message : String(error);
    return { name, summary, status: "failed", reason };
  }
}

/** Runs a suite in a program of its own: what the engine has seen of others does not slow it down. */
async function runApart(name: string, quick: boolean): Promise<SuiteReport> {
  const args = ["run", "--allow-all", new URL(import.meta.url).pathname, name, "--json"];
  if (quick) args.push("--quick");
  const { stdout, code } = await new Deno.Command(Deno.execPath(), { args, stderr: "inherit" }).output();
  try {
    return (JSON.parse(new TextDecoder().decode(stdout)) as Report).suites[0];
  } catch {
    const reason = `Its program ended with code ${code} and no report`;
    return { name, summary: "", status: "failed", reason };
  }
}

async function main(args: string[]): Promise<number> {
  const names = args.filter((arg) => !arg.startsWith("-"));
  const [json, quick, help] = ["--json", "--quick", "--help"].map((flag) => args.includes(flag));
  const unknown = args.filter((arg) => arg.startsWith("-") && !["--json", "--quick", "--help"].includes(arg));
  const suites = suiteNames();
  for (const name of [...unknown, ...names.filter((name) => !suites.includes(name))]) {
    console.error(`Cannot run "${name}": there are ${suites.join(", ")}, --json and --quick`);
    return 2;
  }
  if (help) {
    console.log("deno task bench [suite…] [--json] [--quick]\n");
    for (const name of suites) console.log(`  ${name.padEnd(12)}${(await load(name)).summary}`);
    return 0;
  }
  const machine = machineFacts();
  const runs = quick ? QUICK_RUNS : RUNS;
  if (!json) console.log(`${describeMachine(machine)}\nMedians of ${runs} runs\n`);
  const reports: SuiteReport[] = [];
  const chosen = names.length > 0 ? names : suites;
  for (const name of chosen) {
    const progress = (line: string): void => console.error(`[${name}] ${line}`);
    const report = chosen.length > 1
      ? await runApart(name, quick)
      : await runSuite(await load(name), { quick, runs, progress });
    reports.push(report);
    if (report.status !== "measured" && chosen.length === 1) {
      console.error(`${report.status.toUpperCase()} ${name}: ${report.reason}`);
    }
    if (!json) console.log(renderSuite(report));
  }
  if (json) {
    const report: Report = { machine, quick, runs, suites: reports };
    console.log(JSON.stringify(report, null, 2));
  } else if (quick) {
    console.log("These figures only show that everything works: leave --quick away for ones that count.");
  }
  return reports.some(({ status }) => status === "failed") ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
