/**
 * JSON with comments and trailing commas, as editors take it under the name of "JSON with comments".
 *
 * Theory of operation. One pass over the text, which descends into objects and arrays, 64 levels at most. The
 * first thing that is not JSON ends it: what follows would be its echo. A key given twice is an error instead
 * of a riddle, but does not end it, and `__proto__` is only a key. Numbers and escapes are those of JSON, and
 * so are spaces.
 *
 * @module
 */
import { childPath, ConfigError, type ConfigIssue, printable } from "./errors.ts";
import { DEEPEST } from "./plain.ts";

/** The longest text that is read, in bytes and in characters: 1 MiB. */
export const LONGEST_TEXT = 1 << 20;

/** How many keys given twice are reported. */
const MAX_DOUBLED = 20;

const NO_JSON = "this is not JSON; keys and text need double quotes";
const NO_UNICODE = "this is no Unicode escape; write \\u and four hexadecimal digits";
const UNCLOSED_TEXT = "this text is not closed by a double quote on its line";
/** Characters that look like a space or like nothing, and are none that JSON knows. */
const NAMES: Readonly<Record<number, string>> = {
  0x00a0: "a no-break space",
  0x00ad: "a soft hyphen",
  0x200b: "a space without width",
  0x200e: "a mark of direction",
  0x200f: "a mark of direction",
  0x2028: "a line separator",
  0x2029: "a paragraph separator",
  0x202f: "a narrow no-break space",
  0x3000: "an ideographic space",
  0xfeff: "a byte order mark",
};
/**
 * Quotation marks of all languages, primes and accents that word processors and keyboards make of a plain
 * one.
 */
const QUOTATION_MARK = /[\p{Pi}\p{Pf}\u00b4\u201a\u201e\u2032-\u2037\u301d-\u301f]/u;
/**
 * Printing forms as wide as an ideograph: each stands for the character of ASCII that is 0xfee0 before it.
 */
const FULL_WIDTH = /[\uff01-\uff5e]/;

const SPACES = /[ \t\r\n]*/y;
const LINE_COMMENT = /[^\r\n]*/y;
/** Text without escapes up to what ends it; most texts have none. */
// deno-lint-ignore no-control-regex -- They are what cannot stand there.
const PLAIN_TEXT = /[^"\\\u0000-\u001f]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORD = /[^ \t\r\n{}[\]:,"/]+/y;
const HEXADECIMAL = /[0-9a-fA-F]{4}/y;
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};
const LITERALS: ReadonlyMap<string, unknown> = new Map<string, unknown>([
  ["true", true],
  ["false", false],
  ["null", null],
]);

/** Reads one text, once. */
class Reader {
  readonly issues: ConfigIssue[] = [];
  readonly #text: string;
  readonly #places: Map<string, Place | null>;
  /** Keys and indices of the containers that are open. */
  readonly #path: (string | number)[] = [];
  #at = 0;

  /**
   * @param places has the paths of which it matters where they stand, and of all that holds them; is filled
   * with that
   */
  constructor(text: string, places: Map<string, Place | null> = new Map()) {
    this.#text = text;
    this.#places = places;
  }

  /** The value that is the whole text. */
  read(): unknown {
    this.#skip();
    const value = this.#value("$", this.#at);
    this.#skip();
    if (this.#at < this.#text.length) {
      throw this.#error("the configuration has ended before this; take it away");
    }
    return value;
  }

  /**
   * @param path where the value stands; empty if that does not matter. @param key where its key, or itself,
   * stands
   */
  #value(path: string, key: number): unknown {
    const first = this.#text[this.#at];
    if (path !== "" && this.#places.get(path) === null) this.#places.set(path, { key, value: this.#at });
    switch (first) {
      case "{":
        return this.#object(path);
      case "[":
        return this.#array(path);
      case '"':
        return this.#string();
      case undefined:
      case "}":
      case "]":
      case ",":
      case ":":
        throw this.#error("a value is missing here");
    }
    return /[-\d]/.test(first) ? this.#number() : this.#literal();
  }

  #object(path: string): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    this.#open();
    for (; this.#text[this.#at] !== "}"; this.#comma("}")) {
      const start = this.#at;
      const key = this.#key();
      const isDoubled = Object.hasOwn(object, key);
      this.#skip();
      if (this.#text[this.#at] !== ":") throw this.#error('a ":" is missing here, between key and value');
      this.#at++;
      this.#skip();
      this.#path.push(key);
      if (isDoubled) this.#doubled(start);
      const value = this.#value(this.#pathOf(path, key), start);
      const member = { value, enumerable: true, writable: true, configurable: true };
      Object.defineProperty(object, key, member);
      this.#path.pop();
    }
    this.#at++;
    return object;
  }

  #array(path: string): unknown[] {
    const array: unknown[] = [];
    this.#open();
    for (; this.#text[this.#at] !== "]"; this.#comma("]")) {
      if (this.#at === this.#text.length) throw this.#error('a "]" is missing here');
      this.#path.push(array.length);
      array.push(this.#value(this.#pathOf(path, array.length), this.#at));
      this.#path.pop();
    }
    this.#at++;
    return array;
  }

  /** The path of a member, if it matters. */
  #pathOf(holder: string, key: string | number): string {
    if (holder === "" || this.#places.size === 0) return "";
    const path = childPath(holder, key);
    return this.#places.has(path) ? path : "";
  }

  #open(): void {
    if (this.#path.length >= DEEPEST) throw this.#error(`nested deeper than ${DEEPEST} levels`);
    this.#at++;
    this.#skip();
  }

  /** Goes on behind a value in a container that ends with `close`. */
  #comma(close: string): void {
    this.#skip();
    const next = this.#text[this.#at];
    if (next === close) return;
    if (next === undefined || next === "}" || next === "]") throw this.#error(`a "${close}" is missing here`);
    if (next !== ",") throw this.#error('a "," is missing here');
    this.#at++;
    this.#skip();
  }

  #key(): string {
    const first = this.#text[this.#at];
    if (first === '"') return this.#string();
    if (first === undefined) throw this.#error('a "}" is missing here');
    throw this.#error(/[{}[\]:,\d-]/.test(first) ? "a key in double quotes is missing here" : NO_JSON);
  }

  #doubled(offset: number): void {
    // Each issue costs a walk over the text; a file of nothing but doubled keys must not cost its square.
    if (this.issues.length === MAX_DOUBLED) return;
    const { line, column } = positionAt(this.#text, offset);
    const problem = `key given twice, again on line ${line}, column ${column}`;
    this.issues.push({ path: this.#path.reduce<string>(childPath, "$"), problem, remedy: "keep one" });
  }

  #string(): string {
    const start = this.#at++;
    let text = "";
    for (;;) {
      text += this.#match(PLAIN_TEXT);
      const next = this.#text[this.#at++];
      if (next === '"') return text;
      if (next === undefined || next === "\n" || next === "\r") throw this.#error(UNCLOSED_TEXT, start);
      if (next !== "\\") {
        throw this.#error("this character cannot stand here; in text it needs an escape", start);
      }
      text += this.#escape(start);
    }
  }

  #escape(start: number): string {
    const kind = this.#text[this.#at++];
    if (kind === undefined || kind === "\n" || kind === "\r") throw this.#error(UNCLOSED_TEXT, start);
    if (kind === "u") {
      const digits = this.#match(HEXADECIMAL);
      if (digits === "") throw this.#error(NO_UNICODE, start);
      return String.fromCharCode(parseInt(digits, 16));
    }
    if (Object.hasOwn(ESCAPES, kind)) return ESCAPES[kind];
    throw this.#error("there is no such escape; a backslash itself is written \\\\", start);
  }

  #number(): number {
    const start = this.#at;
    const digits = this.#match(NUMBER);
    if (digits === "") throw this.#error(NO_JSON);
    if (/[.eE]/.test(this.#text[this.#at] ?? "")) throw this.#error("this number is not complete", start);
    return Number(digits);
  }

  #literal(): unknown {
    const start = this.#at;
    const word = this.#match(WORD);
    if (!LITERALS.has(word)) throw this.#error(NO_JSON, start);
    return LITERALS.get(word);
  }

  /** Goes to where something is written. */
  #skip(): void {
    for (;;) {
      this.#match(SPACES);
      const start = this.#at;
      if (this.#text.startsWith("//", start)) this.#match(LINE_COMMENT);
      else if (this.#text.startsWith("/*", start)) {
        const end = this.#text.indexOf("*/", start + 2);
        if (end < 0) throw this.#error("this comment is not closed");
        this.#at = end + 2;
      } else return;
    }
  }

  /** What matches here, behind which it goes on; empty if nothing does. */
  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at;
    const [found = ""] = pattern.exec(this.#text) ?? [];
    this.#at += found.length;
    return found;
  }

  #error(problem: string, offset = this.#at): ConfigError {
    const position = positionAt(this.#text, offset);
    const excerpt = excerptAt(this.#text, offset, position);
    return new ConfigError([{
      path: "$",
      problem: foreign(this.#text, offset) ?? problem,
      ...position,
      excerpt,
    }]);
  }
}

/**
 * What is wrong at `offset` if a character stands there that only looks like one of JSON; null for all
 * others.
 */
function foreign(text: string, offset: number): string | null {
  const code = text.codePointAt(offset) ?? 0;
  const kind = code < 0x80 ? null : foreignKind(String.fromCodePoint(code), code);
  if (kind === null) return null;
  const [name, instead] = kind;
  const hex = code.toString(16).toUpperCase().padStart(4, "0");
  return `U+${hex}, ${name}, cannot stand here; write ${instead}, or take it away`;
}

/** What it is, and what is to be written instead. */
function foreignKind(character: string, code: number): readonly [string, string] | null {
  if (FULL_WIDTH.test(character)) {
    const plain = String.fromCharCode(code - 0xfee0);
    return [`a wide form of ${plain}`, plain === '"' ? 'a plain double quote (")' : `a plain ${plain}`];
  }
  if (QUOTATION_MARK.test(character)) return ["a typographic quotation mark", 'a plain double quote (")'];
  if (/[\p{Pd}\u2212]/u.test(character)) return ["a dash", "a hyphen"];
  if (NAMES[code] !== undefined) return [NAMES[code], "a plain space"];
  return /[\s\p{Cf}]/u.test(character)
    ? ["a character that cannot be told from a space", "a plain space"]
    : null;
}

/** Where a value stands: offsets in characters. */
interface Place {
  /** Of its key; of itself if it has none. */
  readonly key: number;
  /** Of the value. */
  readonly value: number;
}

/** The text that a configuration was read from: knows where in it something stands. */
export class ConfigSource {
  /** The file, as its reader named it. */
  readonly file: string;
  /** Everything in it. */
  readonly text: string;
  #lineStarts: number[] | null = null;

  /** Keeps both; looks for nothing yet. */
  constructor(file: string, text: string) {
    this.file = file;
    this.text = text.startsWith("\ufeff") ? text.slice(1) : text;
  }

  /**
   * The issues with file, line and column: of the value that is wrong, else of its key, else of what should
   * hold it.
   */
  located(issues: readonly ConfigIssue[]): ConfigIssue[] {
    // What is not JSON tells its own place, and could not be read a second time.
    const places = this.#places(issues.flatMap(({ line, path }) => line === undefined ? [path] : []));
    return issues.map((issue) => {
      if (issue.line !== undefined) return { file: this.file, ...issue };
      if (!issue.path.startsWith("$")) return issue;
      return { ...issue, file: this.file, ...this.#position(offsetOf(places, issue.path, "value" in issue)) };
    });
  }

  /** Where the part at `path` stands, as in `net.jsonc:8:5`. */
  placeOf(path: string): string {
    const { line, column } = this.#position(offsetOf(this.#places([path]), path, false));
    return `${this.file}:${line}:${column}`;
  }

  /**
   * Reads the text once more, for the places of these and of all that holds them: only what fails asks for
   * places.
   */
  #places(paths: readonly string[]): Map<string, Place | null> {
    const places = new Map<string, Place | null>();
    for (const path of paths) {
      for (
        let at: string | undefined = path;
        at?.startsWith("$") && !places.has(at);
        at = PARENT.exec(at)?.[1]
      ) {
        places.set(at, null);
      }
    }
    if (places.size > 0) new Reader(this.text, places).read();
    return places;
  }

  /** As `positionAt`, but the text is divided into lines once for all issues. */
  #position(offset: number): TextPosition {
    this.#lineStarts ??= [
      0,
      ...Array.from(this.text.matchAll(/\r\n|\n|\r/g), (end) => end.index + end[0].length),
    ];
    const line = this.#lineStarts.findLastIndex((start) => start <= offset);
    return { line: line + 1, column: offset - this.#lineStarts[line] + 1 };
  }
}

/** The path of what holds something, as `childPath` writes paths. */
const PARENT = /^(.+)(?:\.[\w$]+|\[\d+\]|\["(?:[^"\\]|\\.)*"\])$/s;

/** The offset of what stands at `path`, or of the nearest that holds it and is there. */
function offsetOf(places: ReadonlyMap<string, Place | null>, path: string, ofValue: boolean): number {
  for (let at: string | undefined = path; at !== undefined; at = PARENT.exec(at)?.[1]) {
    const place = places.get(at);
    if (place) return ofValue || at !== path ? place.value : place.key;
  }
  return 0;
}

/**
 * Reads JSON with comments and trailing commas.
 * @param text the text; a byte order mark at its start is ignored
 * @returns the value
 * @throws {ConfigError} with line, column and an excerpt at the first syntax error; for text over 1 MiB, for
 * nesting deeper than 64, and for keys given twice
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
  const reader = new Reader(text);
  const value = reader.read();
  if (reader.issues.length > 0) throw new ConfigError(reader.issues);
  return value;
}

// Places in a text, for messages.

/** How much of a line is shown around a place, in characters. */
const EXCERPT = 72;

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

/**
 * The line of an offset with a caret under it; of a long line only what is near.
 * @param text the whole text
 * @param offset 0 to the length of the text
 * @param position where that is
 */
export function excerptAt(text: string, offset: number, position: TextPosition): string {
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
