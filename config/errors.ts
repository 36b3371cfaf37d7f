/**
 * The error of everything in this folder: a configuration that cannot be used, with all that is wrong with it.
 * @module
 */
import { printable, showValue } from "./paths.ts";

/** How many problems a message shows; the list holds them all. */
const SHOWN_ISSUES = 100;

/** One thing that is wrong with a configuration. */
export interface ConfigIssue {
  /** Where: `$` is the whole, `$.devices[0].mac` a member; for a file that cannot be read, its name. */
  readonly path: string;
  /** What is wrong. If `value` is given, the predicate of a sentence about it: `is no MAC address`. */
  readonly problem: string;
  /** The value that is wrong, if showing it helps. */
  readonly value?: unknown;
  /** What to write or do instead. */
  readonly remedy?: string;
  /** Lines of the text, with a mark under the place; shown below the issue. */
  readonly excerpt?: string;
  /** The file in which that stands, as its reader named it. */
  readonly file?: string;
  /** The line of that text, from 1. */
  readonly line?: number;
  /** The column in that line, in characters of JavaScript, from 1. */
  readonly column?: number;
}

/**
 * Writes an issue as a line (and its excerpt below it).
 * @param issue what is wrong
 * @returns such as `$.devices[0].mac: "52:54:00" is no MAC address; write six bytes such as "52:54:00:00:00:01"`, behind
 * `net.jsonc:8:5: ` where the place in a file is known
 */
export function describeIssue(issue: ConfigIssue): string {
  const value = "value" in issue ? `${showValue(issue.value)} ` : "";
  const remedy = issue.remedy === undefined ? "" : `; ${issue.remedy}`;
  const excerpt = issue.excerpt === undefined ? "" : `\n${issue.excerpt}`;
  return printable(`${placeOf(issue)}: ${value}${issue.problem}${remedy}`) + excerpt;
}

/** Where an issue is, in the form that editors and terminals make a link of. What is no JSON has no path yet. */
function placeOf({ path, file, line, column, excerpt }: ConfigIssue): string {
  if (line === undefined) return path;
  const place = file === undefined ? `line ${line}, column ${column}` : `${file}:${line}:${column}`;
  return excerpt !== undefined ? place : `${place}: ${path}`;
}

/**
 * A configuration cannot be used. The message has a line for each problem (for the first hundred, if there are more).
 *
 * @example
 * ```ts
 * import { ConfigError } from "./errors.ts";
 * const error = new ConfigError([{ path: "$.clock", value: "sundial", problem: "is no clock" }]);
 * if (error.message !== '$.clock: "sundial" is no clock') throw new Error("unreachable");
 * ```
 */
export class ConfigError extends Error {
  /** Tells this error from others across copies of this module. */
  override readonly name = "ConfigError";
  /** Everything that is wrong, in the order of the configuration as far as possible. */
  readonly issues: readonly ConfigIssue[];

  /**
   * Makes the error of these issues.
   * @param issues everything that is wrong, at least one thing
   * @param options the error that caused this one, if there was one
   */
  constructor(issues: readonly ConfigIssue[], options?: ErrorOptions) {
    const lines = issues.slice(0, SHOWN_ISSUES).map(describeIssue);
    if (issues.length > SHOWN_ISSUES) lines.push(`and ${issues.length - SHOWN_ISSUES} more problems`);
    super(lines.join("\n"), options);
    this.issues = issues;
  }
}

/**
 * What was thrown, in one line: for problems that quote another error.
 * @param thrown anything
 */
export function messageOf(thrown: unknown): string {
  let text: string;
  try {
    text = String(thrown instanceof Error ? thrown.message || thrown.name : thrown);
  } catch {
    // An object without a usable toString(), as a foreign module may throw.
    text = "something that cannot be shown";
  }
  return text.replace(/\s+/g, " ").trim().replace(/\.$/, "");
}
