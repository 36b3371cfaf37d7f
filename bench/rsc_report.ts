/**
 * Runs the coalescer's benchmark several times and prints medians in ns per segment: `deno task bench:rsc [--json]`.
 * @module
 */
import { SEGMENTS } from "./rsc_bench.ts";

const RUNS = 5;
const FLOWS = [1, 8, 64, 512, 4096];

interface BenchOutput {
  readonly cpu: string;
  readonly benches: {
    readonly name: string;
    readonly results: { readonly ok?: { readonly avg: number } }[];
  }[];
}

const figures = new Map<string, number[]>();
let cpu = "";
for (let run = 0; run < RUNS; run++) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--json", "--no-check", new URL("./rsc_bench.ts", import.meta.url).pathname],
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  const output = JSON.parse(new TextDecoder().decode(stdout)) as BenchOutput;
  cpu = output.cpu;
  for (const { name, results } of output.benches) {
    const list = figures.get(name) ?? [];
    list.push(results[0].ok!.avg / SEGMENTS);
    figures.set(name, list);
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[values.length >> 1];
const memcpyNs = median(figures.get("memcpy")!);
const names = ["rsc-v4 qemu", "rsc-v4 strict", "rsc-v6 qemu", "rsc-v6 strict"];
const rows = names.flatMap((name) =>
  [64, 8].map((purge) => ({
    name: `${name} ${purge}`,
    nsPerSegment: Object.fromEntries(
      FLOWS.map((flows) => [flows, median(figures.get(`${name} ${purge}, ${flows} flows`)!)]),
    ),
  }))
);
if (Deno.args.includes("--json")) {
  console.log(JSON.stringify({ cpu, deno: Deno.version.deno, runs: RUNS, memcpyNs, rows }, null, 2));
} else {
  console.log(`ns per segment of 1448 bytes, median of ${RUNS} runs, Deno ${Deno.version.deno}, ${cpu}`);
  console.log(`A copy of 1448 bytes costs ${memcpyNs.toFixed(0)} ns on this machine now.`);
  console.log("The number behind the rule book: segments a flow before everything held leaves.\n");
  console.log(["flows".padEnd(18), ...FLOWS.map((flows) => String(flows).padStart(7))].join(""));
  for (const { name, nsPerSegment } of rows) {
    console.log(
      [name.padEnd(18), ...FLOWS.map((flows) => nsPerSegment[flows].toFixed(0).padStart(7))].join(""),
    );
  }
}
