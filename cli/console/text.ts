/**
 * Plain text for people: numbers, paragraphs, columns, bars.
 * @module
 */
import type { Io } from "./io.ts";

/** An integer with separators: `1,234,567`. */
export function count(value: number): string {
  return String(Math.round(value)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** A number of things: `1 frame`, `1,234 frames`. */
export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** Time in a fitting unit: `0 s`, `850 us`, `12.3 ms`, `4.56 s`. */
export function duration(ns: number): string {
  if (ns === 0) return "0 s";
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e6) return `${short(ns / 1e3)} us`;
  if (ns < 1e9) return `${short(ns / 1e6)} ms`;
  return `${short(ns / 1e9)} s`;
}

/** Three significant digits, and never an exponent. */
function short(value: number): string {
  return value >= 100 ? count(value) : value.toPrecision(3);
}

/** Breaks text into lines of at most `width` characters, at spaces; a longer word has a line to itself. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    line += line === "" ? word : ` ${word}`;
  }
  if (line !== "") lines.push(line);
  return lines;
}

/** A paragraph behind a label: the label, and the text in lines of its own column. */
export function labelled(label: string, text: string, indent: number, columns: number): string {
  const head = label.padEnd(indent);
  // A label as long as its column gets a line to itself.
  const own = label.length >= indent;
  const lines = wrap(text, Math.max(columns - indent, 20));
  if (own) lines.unshift("");
  return lines.map((line, i) => `${i === 0 ? head : " ".repeat(indent)}${line}`.trimEnd() + "\n").join("");
}

/** A word as a shell takes it. */
export function shellQuoted(word: string): string {
  return /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Rows of cells in columns: the first to the left, all others to the right. */
export function numberTable(rows: readonly (readonly string[])[], indent = "  ", gap = 3): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  return rows.map((row) => {
    const cells = row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]));
    return indent + cells.join(" ".repeat(gap)).trimEnd() + "\n";
  }).join("");
}

const EIGHTHS = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/** A bar for `value` where `most` takes `width` characters. What is not 0 is never invisible. */
export function bar(value: number, most: number, width: number, { unicode }: Pick<Io, "unicode">): string {
  if (value <= 0 || most <= 0) return "";
  const length = Math.min(value / most, 1) * width;
  if (!unicode) return "#".repeat(Math.max(1, Math.round(length)));
  const eighths = Math.max(1, Math.round(length * 8));
  return "█".repeat(eighths >> 3) + EIGHTHS[eighths & 7];
}
