/**
 * What commands print to and know of the terminal. Commands get it as an argument, so that tests run them without a process.
 * @module
 */
import { fstatSync } from "node:fs";
import { HostError } from "../../core/errors.ts";
import { LiveOutput } from "./live_output.ts";

/** Where a command prints, and what is on the other side. */
export interface Io {
  /** Writes to standard output. Throws OutputClosed if nobody reads it any more. */
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
  /** Does standard error go to systemd's journal, which reads a priority in front of each line? Left out: no. */
  readonly isJournal?: boolean;
  /**
   * From now on `out` and `err` never keep the program waiting: they write behind its back, and drop what is not taken. For a
   * command that serves a guest meanwhile. Left out: they never do.
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

/** Nobody reads the output any more, as behind `| head`: a reason to stop, and no failure. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

const PIPE_COLUMNS = 80;
const LEAST_COLUMNS = 40;
const MOST_COLUMNS = 120;

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
 * Does the locale show more than ASCII? True unless it says otherwise: most terminals do, and many have no locale set.
 * @param variable reads an environment variable; undefined if it is not set or may not be read
 */
export function showsUnicode(variable: (name: string) => string | undefined): boolean {
  if (variable("TERM") === "dumb") return false;
  const locale = variable("LC_ALL") || variable("LC_CTYPE") || variable("LANG");
  return locale === undefined || locale === "" || /utf-?8/i.test(locale);
}

function terminalColumns(): number {
  try {
    return Math.min(Math.max(Deno.consoleSize().columns, LEAST_COLUMNS), MOST_COLUMNS);
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
        throw new OutputClosed("Nobody reads the output any more", { cause });
      }
      throw new HostError(`Cannot print: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
  }
}

const nothing = new Int32Array(new SharedArrayBuffer(4));

/** systemd names the file behind standard error in JOURNAL_STREAM; a redirection of it does not change that. */
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
