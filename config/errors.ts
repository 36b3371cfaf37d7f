/**
 * The error of everything in this folder: a configuration that cannot be used, with all that is wrong with
 * it.
 * @module
 */
import type { PartIssue } from "../plugins/plugin.ts";

/** How many problems a message shows; the list holds them all. */
const SHOWN_ISSUES = 100;

/**
 * One thing that is wrong with a configuration. `$` as its path is the whole; of a file that cannot be read
 * it is the name.
 */
export interface ConfigIssue extends PartIssue {
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
 * @returns such as `$.devices[0].mac: "52:54:00" is no MAC address; write six bytes such as
 * "52:54:00:00:00:01"`, behind `net.jsonc:8:5: ` where the place in a file is known
 */
export function describeIssue(issue: ConfigIssue): string {
  const value = "value" in issue ? `${showValue(issue.value)} ` : "";
  const remedy = issue.remedy === undefined ? "" : `; ${issue.remedy}`;
  const excerpt = issue.excerpt === undefined ? "" : `\n${issue.excerpt}`;
  return printable(`${placeOf(issue)}: ${value}${issue.problem}${remedy}`) + excerpt;
}

/**
 * Where an issue is, in the form that editors and terminals make a link of. What is not JSON has no path yet.
 */
function placeOf({ path, file, line, column, excerpt }: ConfigIssue): string {
  if (line === undefined) return path;
  const place = file === undefined ? `line ${line}, column ${column}` : `${file}:${line}:${column}`;
  return excerpt !== undefined ? place : `${place}: ${path}`;
}

/**
 * A configuration cannot be used. The message has a line for each problem (for the first hundred, if there
 * are more).
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

// How places and values of a configuration are written in messages.

const PLAIN_KEY = /^[A-Za-z_$][A-Za-z0-9_$]*$/;
const SHOWN_CHARACTERS = 60;

// Spaces that are no plain space look like one; control, direction and lone surrogate characters: a
// configuration from elsewhere must not steer the terminal.
const INVISIBLE =
  // deno-lint-ignore no-control-regex
  /[\x00-\x1f\x7f-\xa0\xad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2069\u3000\ufeff\ud800-\udfff]/gu;

/**
 * Makes text safe to print on one line: what cannot be seen, or told from a plain space, is written as an
 * escape.
 * @param text any text
 * @returns the text with control, direction, lone surrogate characters and such spaces as `\u….`
 */
export function printable(text: string): string {
  return text.replace(
    INVISIBLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function shortened(text: string, characters: number): string {
  if (text.length <= characters) return text;
  let end = characters - 1;
  // Half a surrogate pair would be shown as an escape of something that was not written.
  if (/[\ud800-\udbff]/.test(text[end - 1]!)) end--;
  return `${text.slice(0, end)}…`;
}

/**
 * A name in double quotes, fit for a message.
 * @param text the name
 * @returns the name, quoted, escaped and cut after 60 characters
 */
export function quoted(text: string): string {
  return printable(JSON.stringify(shortened(text, SHOWN_CHARACTERS)));
}

/**
 * A value as it stood in the configuration, fit for a message: one line of at most about 60 characters.
 * @param value anything
 * @returns the value in JSON where it has such a form, otherwise its type in words
 */
export function showValue(value: unknown): string {
  if (typeof value === "string") return quoted(value);
  if (value === null || typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value === "bigint") return shortened(`${value}n`, SHOWN_CHARACTERS);
  if (value === undefined) return "nothing";
  if (typeof value === "function" || typeof value === "symbol") return `a ${typeof value}`;
  try {
    return printable(shortened(JSON.stringify(value) ?? "an object", SHOWN_CHARACTERS));
  } catch {
    // Cycles and toJSON() that throws; no text from a file can get here.
    return "an object";
  }
}

/**
 * The path of a member: `$.devices` and `0` make `$.devices[0]`.
 * @param path the path of the whole
 * @param key the member's key: a number for an item of a list
 * @returns the path of the member; keys that are no plain words are quoted, as in `$["two words"]`
 */
export function childPath(path: string, key: PropertyKey): string {
  if (typeof key === "number") return `${path}[${key}]`;
  const name = typeof key === "symbol" ? key.description ?? "" : key;
  return PLAIN_KEY.test(name) && name.length <= SHOWN_CHARACTERS
    ? `${path}.${name}`
    : `${path}[${quoted(name)}]`;
}

/**
 * Several names in a sentence: `"a", "b"`.
 * @param names the names, in the order in which they are to appear
 * @param most how many to show; the others are counted
 */
export function quotedList(names: readonly string[], most = 12): string {
  const shown = names.slice(0, most).map(quoted).join(", ");
  return names.length > most ? `${shown} and ${names.length - most} more` : shown;
}
