/**
 * A report as programs and people read it.
 * @module
 */
import type { SuiteResult, Table } from "./suite.ts";
import type { MachineFacts } from "./memcpy_baseline.ts";

/** What `deno task bench --json` writes. */
export interface Report {
  /** Where it was measured. */
  readonly machine: MachineFacts;
  /** Only shows that it works: no figure counts. */
  readonly quick: boolean;
  /** Runs that medians are of. */
  readonly runs: number;
  /** Suites in the order in which they ran. */
  readonly suites: readonly SuiteReport[];
}

/** One suite's part of a report. */
export interface SuiteReport {
  /** The suite's name. */
  readonly name: string;
  /** What it measures. */
  readonly summary: string;
  /** What became of it. */
  readonly status: "measured" | "skipped" | "failed";
  /** Why it was skipped or has failed. */
  readonly reason?: string;
  /** The copy of 1448 bytes in ns, measured between its runs or around it. */
  readonly memcpyNs?: number;
  /** What it found. */
  readonly result?: SuiteResult;
}

/** A figure with as many digits as mean something; `–` if there is none. */
export function formatFigure(value: number | null, unit: string): string {
  // JSON knows no NaN: what could not be measured comes back as null.
  if (value === null || !Number.isFinite(value)) return "–";
  if (unit === "x") return `${value.toFixed(2)}x`;
  const size = Math.abs(value);
  return value.toFixed(size >= 20 || size === 0 ? 0 : size >= 2 ? 1 : 2);
}

/** One line about the machine. */
export function describeMachine(machine: MachineFacts): string {
  const { cpu, cores, kernel, deno, v8 } = machine;
  return `${cpu}, ${cores} cores, ${kernel}, Deno ${deno} (V8 ${v8})`;
}

/** One suite for the terminal. */
export function renderSuite(suite: SuiteReport): string {
  const lines = [`== ${suite.name}: ${suite.summary}`];
  if (suite.status !== "measured") {
    lines.push(`${suite.status.toUpperCase()} ${suite.name}: ${suite.reason}`);
    return `${lines.join("\n")}\n`;
  }
  lines.push(`A copy of 1448 bytes cost ${formatFigure(suite.memcpyNs ?? null, "ns")} ns meanwhile.`);
  const { tables = [], notes = [] } = suite.result ?? {};
  for (const table of tables) lines.push("", ...renderTable(table));
  if (notes.length > 0) lines.push("", ...notes);
  return `${lines.join("\n")}\n`;
}

function renderTable(table: Table): string[] {
  const [head, ...rows] = cells(table);
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column].length)));
  const lines = [head, ...rows].map((row) =>
    row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i] + 2)).join("").trimEnd()
  );
  return [`${table.title} [${table.unit}]`, ...lines];
}

/** One table in Markdown. */
export function tableToMarkdown(table: Table): string {
  const [head, ...rows] = cells(table).map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const rule = head.map((_, i) => i === 0 ? "---" : "---:");
  return [head, rule, ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

/** All cells as text, the headings first. */
function cells(table: Table): string[][] {
  const rows = table.rows.map((row) => {
    const foreign = row.unit !== undefined && row.unit !== "x" && row.unit !== table.unit;
    const name = foreign ? `${row.name} [${row.unit}]` : row.name;
    const unit = row.unit ?? table.unit;
    return [name, ...table.columns.map((_, i) => formatFigure(row.values[i] ?? null, unit))];
  });
  return [[table.across, ...table.columns], ...rows];
}
