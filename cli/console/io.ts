/**
 * What commands print to and know of the terminal. Commands get it as an argument, so that tests run them without a process.
 * @module
 */

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
}

/** Nobody reads the output any more, as behind `| head`: a reason to stop, and no failure. */
export class OutputClosed extends Error {
  override readonly name = "OutputClosed";
}

const PIPE_COLUMNS = 80;
const LEAST_COLUMNS = 40;
const MOST_COLUMNS = 120;

/** The process's own standard output and error. */
export function systemIo(): Io {
  const isTerminal = Deno.stdout.isTerminal();
  return {
    out: (text) => writeAll(Deno.stdout, text, "fail"),
    err: (text) => writeAll(Deno.stderr, text, "ignore"),
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
  try {
    for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
  } catch (cause) {
    if (!(cause instanceof Deno.errors.BrokenPipe)) throw cause;
    if (onClosed === "fail") throw new OutputClosed("Nobody reads the output any more", { cause });
  }
}
