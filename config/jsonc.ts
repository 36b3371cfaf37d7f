/**
 * JSON with comments and trailing commas.
 *
 * The grammar is that of `jsonc-parser`, the parser of the editors in which these files are written: what an editor
 * shows as right is right here. It reports the offset of an error, it is typed, and it builds nothing by itself: the
 * values are built here, so that a key given twice is an error instead of a riddle, and `__proto__` is only a key.
 * @module
 */
import { createScanner, printParseErrorCode, visit } from "npm:jsonc-parser@^3.3.1";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { childPath, printable } from "./paths.ts";
import { DEEPEST } from "./plain.ts";

/** The longest text that is read, in bytes and in characters: 1 MiB. */
export const LONGEST_TEXT = 1 << 20;

/** How much of a line is shown around an error, in characters. */
const EXCERPT = 72;

/** How many keys given twice are reported. */
const MOST_DOUBLED = 20;

const PROBLEMS: Record<string, string> = {
  InvalidSymbol: "this is no JSON; keys and text need double quotes",
  InvalidNumberFormat: "this is no number",
  PropertyNameExpected: "a key in double quotes is missing here",
  ValueExpected: "a value is missing here",
  ColonExpected: 'a ":" is missing here, between key and value',
  CommaExpected: 'a "," is missing here',
  CloseBraceExpected: 'a "}" is missing here',
  CloseBracketExpected: 'a "]" is missing here',
  EndOfFileExpected: "the configuration has ended before this; take it away",
  UnexpectedEndOfComment: "this comment is not closed",
  UnexpectedEndOfString: "this text is not closed by a double quote on its line",
  UnexpectedEndOfNumber: "this number is not complete",
  InvalidUnicode: "this is no Unicode escape; write \\u and four hexadecimal digits",
  InvalidEscapeCharacter: "there is no such escape; a backslash itself is written \\\\",
  InvalidCharacter: "this character cannot stand here; in text it needs an escape",
};

/** A place in a text, counted from 1. */
export interface TextPosition {
  /** The line. */
  readonly line: number;
  /** The column, in characters of JavaScript. */
  readonly column: number;
}

/**
 * Where an offset lies.
 * @param text the whole text
 * @param offset 0 to the length of the text
 */
export function positionAt(text: string, offset: number): TextPosition {
  const before = text.slice(0, offset).split(/\r\n|\n|\r/);
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

/** The line of an offset with a caret under it; of a long line only what is near. */
function excerptAt(text: string, offset: number, position: TextPosition): string {
  const start = offset - (position.column - 1);
  const line = text.slice(start).split(/[\r\n]/, 1)[0]!;
  const from = Math.max(0, position.column - 1 - EXCERPT / 2);
  const head = from > 0 ? "…" : "";
  const shown = line.slice(from, from + EXCERPT).replaceAll("\t", " ");
  const tail = from + EXCERPT < line.length ? "…" : "";
  const label = `${position.line} | `;
  // The caret must stand under what is printed, so what precedes it is measured after escaping.
  const width = printable(shown.slice(0, position.column - 1 - from)).length;
  return `${label}${head}${printable(shown)}${tail}\n${" ".repeat(label.length + head.length + width)}^`;
}

function syntaxError(text: string, offset: number, problem: string): ConfigError {
  const position = positionAt(text, offset);
  const path = `line ${position.line}, column ${position.column}`;
  return new ConfigError([{ path, problem, excerpt: excerptAt(text, offset, position) }]);
}

/** Refuses deep nesting before the parser, which recurses, sees it. */
function checkDepth(text: string): void {
  const scanner = createScanner(text, true);
  let depth = 0;
  for (scanner.scan(); scanner.getTokenOffset() < text.length; scanner.scan()) {
    // The first character tells these tokens apart from all others; text begins with a quote, comments are skipped.
    const first = text[scanner.getTokenOffset()];
    if (first === "{" || first === "[") depth++;
    else if (first === "}" || first === "]") depth--;
    if (depth > DEEPEST) {
      throw syntaxError(text, scanner.getTokenOffset(), `nested deeper than ${DEEPEST} levels`);
    }
  }
}

/** Puts values together as the parser meets them. */
class Builder {
  root: unknown = undefined;
  readonly issues: ConfigIssue[] = [];
  readonly #text: string;
  readonly #open: { container: unknown[] | Record<string, unknown>; path: string }[] = [];
  #key = "";

  constructor(text: string) {
    this.#text = text;
  }

  #path(): string {
    const top = this.#open.at(-1);
    if (top === undefined) return "$";
    return childPath(top.path, Array.isArray(top.container) ? top.container.length : this.#key);
  }

  begin(container: unknown[] | Record<string, unknown>): void {
    const path = this.#path();
    this.value(container);
    this.#open.push({ container, path });
  }

  end(): void {
    this.#open.pop();
  }

  key(name: string, offset: number): void {
    this.#key = name;
    if (!Object.hasOwn(this.#open.at(-1)!.container, name)) return;
    // Each issue costs a walk over the text; a file of nothing but doubled keys must not cost its square.
    if (this.issues.length === MOST_DOUBLED) return;
    const { line, column } = positionAt(this.#text, offset);
    const problem = `key given twice, again on line ${line}, column ${column}`;
    this.issues.push({ path: this.#path(), problem, remedy: "keep one" });
  }

  value(value: unknown): void {
    const container = this.#open.at(-1)?.container;
    if (container === undefined) {
      this.root = value;
    } else if (Array.isArray(container)) {
      container.push(value);
    } else {
      const member = { value, enumerable: true, writable: true, configurable: true };
      Object.defineProperty(container, this.#key, member);
    }
  }
}

/**
 * Reads JSON with comments and trailing commas.
 * @param text the text; a byte order mark at its start is ignored
 * @returns the value
 * @throws {ConfigError} with line, column and an excerpt at the first syntax error; for text over 1 MiB, for nesting
 * deeper than 64, and for keys given twice
 *
 * @example
 * ```ts
 * import { parseJsonc } from "./jsonc.ts";
 * const value = parseJsonc('{ "a": [1, 2,], } // well');
 * if (JSON.stringify(value) !== '{"a":[1,2]}') throw new Error("unreachable");
 * ```
 */
export function parseJsonc(text: string): unknown {
  if (text.length > LONGEST_TEXT) {
    throw new ConfigError([{ path: "$", problem: `longer than ${LONGEST_TEXT} characters` }]);
  }
  if (text.startsWith("\ufeff")) text = text.slice(1);
  checkDepth(text);
  const builder = new Builder(text);
  let failure: ConfigError | null = null;
  visit(text, {
    onObjectBegin: () => builder.begin({}),
    onArrayBegin: () => builder.begin([]),
    onObjectEnd: () => builder.end(),
    onArrayEnd: () => builder.end(),
    onObjectProperty: (name, offset) => builder.key(name, offset),
    onLiteralValue: (value) => builder.value(value),
    // The first error is the true one; those after it are its echo.
    onError: (code, offset) => {
      const problem = PROBLEMS[printParseErrorCode(code)] ?? "this cannot be read as JSON";
      failure ??= syntaxError(text, offset, problem);
    },
  }, { allowTrailingComma: true });
  if (failure !== null) throw failure;
  if (builder.issues.length > 0) throw new ConfigError(builder.issues);
  return builder.root;
}
