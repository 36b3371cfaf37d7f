/**
 * What commands print to and know of the terminal, and how text looks there: colours where they may be used,
 * numbers, paragraphs, columns, bars. Commands get their output as an argument, so that tests run them
 * without a process.
 * @module
 */
import { fstatSync } from "node:fs";
import { HostError } from "../../core/errors.ts";
import { LiveOutput } from "./live_output.ts";

/** The version of the project; a test compares it with deno.json. */
export const VERSION = "0.1.0";

/** Where a command prints, and what is on the other side. */
export interface Io {
  /** Writes to standard output. Throws OutputClosed if it is not read any more. */
  out(text: string): void;
  /** Writes to standard error. */
  err(text: string): void;
  /** Is standard output a terminal, on which a line may be drawn over? */
  readonly isTerminal: boolean;
  /** Characters in a line, 40 or more. */
  readonly columns: number;
  /** May colours be used? */
  readonly color: boolean;
  /** Does the other side show more than ASCII? */
  readonly unicode: boolean;
  /**
   * Does standard error go to systemd's journal, which reads a priority in front of each line? Left out: no.
   */
  readonly isJournal?: boolean;
  /**
   * From now on `out` and `err` never keep the program waiting: they write behind its back, and drop what is
   * not taken. For a command that serves a guest meanwhile. Left out: they never do.
   * @param notice what stands where so many lines are missing from standard output
   */
  goLive?(notice: (lines: number) => string): Live;
  /** Waits, for a bounded time, until everything is written. To be called before the process ends. */
  settle?(): Promise<void>;
}

/** Output behind the program's back. */
export interface Live {
  /** Does standard output take its time? What is only worth its moment is better left out then. */
  readonly isBusy: boolean;
  /** Lines that standard output has not taken. */
  readonly lostLines: number;
  /** Lines that standard error has not taken. */
  readonly lostErrorLines: number;
}

/** The output is not read any more, as behind `| head`: a reason to stop, and no failure. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

const PIPE_COLUMNS = 80;
const MIN_COLUMNS = 40;
const MAX_COLUMNS = 120;

/** How long the end of the process waits for a standard output that takes nothing, in ms. */
const PATIENCE_MS = 500;
/** From one attempt to write to a full pipe that does not block to the next, in ms. */
const RETRY_MS = 5;

/** The process's own standard output and error. */
export function systemIo(): Io {
  const isTerminal = Deno.stdout.isTerminal();
  const isJournal = stderrIsJournal();
  let out: LiveOutput | null = null;
  let err: LiveOutput | null = null;
  return {
    out: (text) => out === null ? writeAll(Deno.stdout, text, "fail") : out.write(text),
    err: (text) => {
      const shown = isJournal ? withPriorities(text) : text;
      if (err === null) writeAll(Deno.stderr, shown, "ignore");
      else err.write(shown);
    },
    isJournal,
    goLive: (notice) => {
      const lost = (lines: number) => `warning: ${lines} lines are missing here\n`;
      const errors = err = new LiveOutput(
        Deno.stderr,
        (lines) => isJournal ? `<4>${lost(lines)}` : lost(lines),
      );
      const output = out = new LiveOutput(Deno.stdout, notice, (why) => {
        const text = `warning: standard output takes no more: ${why}; what it does not take is counted\n`;
        errors.write(isJournal ? withPriorities(text) : text);
      });
      return {
        get isBusy() {
          return output.isBusy;
        },
        get lostLines() {
          return output.lostLines;
        },
        get lostErrorLines() {
          return errors.lostLines;
        },
      };
    },
    settle: async () => {
      await out?.settle(PATIENCE_MS);
      await err?.settle(PATIENCE_MS);
    },
    isTerminal,
    columns: isTerminal ? terminalColumns() : PIPE_COLUMNS,
    // Deno reads NO_COLOR itself and needs no permission for it.
    color: isTerminal && !Deno.noColor && environment("TERM") !== "dumb",
    unicode: showsUnicode(environment),
  };
}

/**
 * Does the locale show more than ASCII? True unless it says otherwise: most terminals do, and many have no
 * locale set.
 * @param variable reads an environment variable; undefined if it is not set or may not be read
 */
export function showsUnicode(variable: (name: string) => string | undefined): boolean {
  if (variable("TERM") === "dumb") return false;
  const locale = variable("LC_ALL") || variable("LC_CTYPE") || variable("LANG");
  return locale === undefined || locale === "" || /utf-?8/i.test(locale);
}

function terminalColumns(): number {
  try {
    return Math.min(Math.max(Deno.consoleSize().columns, MIN_COLUMNS), MAX_COLUMNS);
  } catch {
    return PIPE_COLUMNS;
  }
}

/** Asks for the permission first: reading without it would stop and prompt the user. */
function environment(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}

const encoder = new TextEncoder();

function writeAll(
  stream: { writeSync(bytes: Uint8Array): number },
  text: string,
  onClosed: "fail" | "ignore",
): void {
  const bytes = encoder.encode(text);
  for (let at = 0; at < bytes.length;) {
    try {
      at += stream.writeSync(bytes.subarray(at));
    } catch (cause) {
      // A pipe that others have made non-blocking, and that is full.
      if (cause instanceof Deno.errors.WouldBlock) {
        Atomics.wait(nothing, 0, 0, RETRY_MS);
        continue;
      }
      if (onClosed === "ignore") return;
      if (cause instanceof Deno.errors.BrokenPipe) {
        throw new OutputClosed("The output is not read any more", { cause });
      }
      throw new HostError(`Cannot print: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
  }
}

const nothing = new Int32Array(new SharedArrayBuffer(4));

/**
 * systemd names the file behind standard error in JOURNAL_STREAM; a redirection of it does not change that.
 */
function stderrIsJournal(): boolean {
  const named = environment("JOURNAL_STREAM");
  if (named === undefined) return false;
  try {
    const { dev, ino } = fstatSync(2, { bigint: true });
    return named === `${dev}:${ino}`;
  } catch {
    return false;
  }
}

/** Errors and warnings with the priorities that the journal reads; lines that have one keep it. */
function withPriorities(text: string): string {
  return text.replace(/^error:/gm, "<3>error:").replace(/^warning:/gm, "<4>warning:");
}

/** Text as it is to look: coloured where that may be, elsewhere as it is. */
export interface Style {
  /** For headings. */
  bold(text: string): string;
  /** For what matters less. */
  dim(text: string): string;
  /** For failures. */
  red(text: string): string;
  /** For good results. */
  green(text: string): string;
  /** For what can be typed, and bars. */
  cyan(text: string): string;
}

/** The style for an output. */
export function styleFor({ color }: Pick<Io, "color">): Style {
  const sequence = (on: number, off: number) => (text: string): string =>
    color && text !== "" ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    bold: sequence(1, 22),
    dim: sequence(2, 22),
    red: sequence(31, 39),
    green: sequence(32, 39),
    cyan: sequence(36, 39),
  };
}

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
