/**
 * Puts figures into docs/performance.md and docs/plots, so that none is typed by hand:
 *
 *     deno task bench --json > figures.json
 *     deno task bench:report figures.json      (or - for standard input)
 *
 * For each suite in the file, what lies between `<!-- figures: name -->` and `<!-- end -->` is replaced; the
 * others stay, and what is plotted becomes a picture as well.
 *
 * @module
 */
import { plot } from "./plot.ts";
import { describeMachine, formatFigure, type Report, type SuiteReport, tableToMarkdown } from "./render.ts";

const DOCUMENT = new URL("../../docs/performance.md", import.meta.url);
const PLOTS = new URL("../../docs/plots/", import.meta.url);
const END = "<!-- end -->";
/** In front of this, suites that the document does not know yet get a place. */
const MORE = "<!-- more suites -->";

/**
 * The document with the figures of this report in it; a suite without a place gets one. Throws if it cannot
 * have one.
 */
export function fillIn(document: string, report: Report): string {
  let filled = document;
  for (const suite of report.suites) {
    const begin = `<!-- figures: ${suite.name} -->`;
    if (!filled.includes(begin)) {
      if (!filled.includes(MORE)) {
        throw new Error(`docs/performance.md has no place for more: write "${MORE}"`);
      }
      const place = `## \`${suite.name}\`: ${suite.summary}\n\n${begin}\n${END}\n\n${MORE}`;
      filled = filled.replace(MORE, () => place);
    }
    const from = filled.indexOf(begin) + begin.length;
    const to = filled.indexOf(END, from);
    if (to < 0) throw new Error(`docs/performance.md lacks "${END}" behind "${begin}"`);
    filled = `${filled.slice(0, from)}\n\n${section(suite, report)}\n\n${filled.slice(to)}`;
  }
  return filled;
}

function section(suite: SuiteReport, report: Report): string {
  if (suite.status !== "measured") return `${suite.status} here: ${suite.reason?.split("\n")[0]}`;
  const { tables = [], notes = [] } = suite.result ?? {};
  const copy = formatFigure(suite.memcpyNs ?? null, "ns");
  const parts = [
    `${
      describeMachine(report.machine)
    }; medians of ${report.runs} runs; a copy of 1448 bytes cost ${copy} ns meanwhile.`,
    ...tables.flatMap((table) => [`**${table.title}** (${table.unit})`, tableToMarkdown(table)]),
    ...notes.map((note) => `- ${note}`),
  ];
  const text = parts.join("\n\n");
  return tables.every(({ isPlotted }) => isPlotted)
    ? `<details><summary>The figures</summary>\n\n${text}\n\n</details>`
    : text;
}

/** File names and contents of the plots of this report. */
export function plots(report: Report): [string, string][] {
  return report.suites
    .flatMap(({ result }) => result?.tables ?? [])
    .filter(({ isPlotted }) => isPlotted)
    .map((table): [string, string] => [`${table.id}.svg`, plot(table)]);
}

async function main([file]: readonly string[]): Promise<number> {
  if (file === undefined) {
    console.error("Name a file that `deno task bench --json` has written, or - for standard input");
    return 2;
  }
  const text = file === "-" ? await new Response(Deno.stdin.readable).text() : await Deno.readTextFile(file);
  const report = JSON.parse(text) as Report;
  if (report.quick) {
    console.error("Cannot use figures of --quick: measure without it");
    return 1;
  }
  const written = [DOCUMENT];
  await Deno.writeTextFile(DOCUMENT, fillIn(await Deno.readTextFile(DOCUMENT), report));
  await Deno.mkdir(PLOTS, { recursive: true });
  for (const [name, content] of plots(report)) {
    const path = new URL(name, PLOTS);
    await Deno.writeTextFile(path, content);
    written.push(path);
  }
  const args = ["fmt", "--quiet", ...written.map(({ pathname }) => pathname)];
  const { success } = await new Deno.Command(Deno.execPath(), { args }).output();
  console.error(written.map(({ pathname }) => pathname).join("\n"));
  return success ? 0 : 1;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
