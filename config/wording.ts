/**
 * From the issues of a schema library to ours: one for each mistake, with path, value and what is allowed.
 *
 * Every Standard Schema library gives a message and a path. Zod's issues also say what was expected in a form
 * that can be put into words; that is read here defensively, because another version or library may mean
 * something else by it.
 * @module
 */
import { childPath, type ConfigIssue, printable, quoted, quotedList, showValue } from "./errors.ts";
import { descriptionAt, type JsonSchema, knownKeys, schemasAt } from "./option_schema.ts";

/** Of an object with very many unknown keys only so many are named. */
const SHOWN_KEYS = 20;

/**
 * Puts one issue of a schema library into our form.
 * @param issue the library's issue
 * @param context what was validated, where it stands, and what is known of its schema
 * @returns one issue, or one for each unknown key
 */
export function wordIssue(issue: object, context: WordingContext): ConfigIssue[] {
  return word(issue as LooseIssue, [], context, 0);
}

function keysOf(issue: LooseIssue): PropertyKey[] {
  if (!Array.isArray(issue.path)) return [];
  return issue.path.map((part: unknown) => {
    const key = typeof part === "object" && part !== null ? (part as { key?: unknown }).key : part;
    return typeof key === "number" || typeof key === "symbol" ? key : String(key);
  });
}

function valueAt(input: unknown, keys: readonly PropertyKey[]): unknown {
  let value = input;
  for (const key of keys) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[key];
  }
  return value;
}

function word(
  issue: LooseIssue,
  before: readonly PropertyKey[],
  context: WordingContext,
  depth: number,
): ConfigIssue[] {
  const keys = [...before, ...keysOf(issue)];
  const path = keys.reduce(childPath, context.path);
  if (issue.code === "unrecognized_keys" && Array.isArray(issue.keys)) {
    return unknownKeys(issue.keys.map(String), keys, context);
  }
  // How valibot says it.
  if (issue.expected === "never" && keys.length > 0) {
    return unknownKeys([String(keys.at(-1))], keys.slice(0, -1), context);
  }
  const value = valueAt(context.input, keys);
  if (issue.code === "invalid_union" && Array.isArray(issue.errors) && depth < 4) {
    const branch = likeliestBranch(issue.errors);
    if (branch !== null) return branch.flatMap((inner) => word(inner, keys, context, depth + 1));
  }
  const description = descriptionAt(context.schema, keys);
  if (value === undefined && keys.length > 0) {
    // Only the author of a rule across several keys knows why this one is needed.
    if (issue.code === "custom") {
      const message = messageIn(issue);
      return [{ path, problem: isPredicate(message) ? message : `missing: ${message}` }];
    }
    const expected = expectation(issue, context, keys);
    const about = description === null ? "" : expected ? ` (${description})` : description;
    const remedy = expected ? `write ${expected}${about}` : about;
    return [{ path, problem: "missing", ...(remedy && { remedy }) }];
  }
  const { problem, remedy } = explain(issue, value, context, keys);
  // A message with a semicolon has already said what to do.
  const about = description === null || problem.includes(";") ? "" : ` (${description})`;
  const found: ConfigIssue = remedy
    ? { path, problem, remedy: `${remedy}${about}` }
    : { path, problem: `${problem}${about}` };
  // The options as a whole are too much to show, and the path says which.
  return [keys.length === 0 && typeof value === "object" ? found : { ...found, value }];
}

/**
 * One issue for each unknown key. A key that had another name before names the present one.
 * @param keys the unknown keys
 * @param inside the way from the top to the object in which they stand
 */
export function unknownKeys(
  keys: readonly string[],
  inside: readonly PropertyKey[],
  context: WordingContext,
): ConfigIssue[] {
  const path = inside.reduce(childPath, context.path);
  const known = knownKeys(context.schema, inside);
  const isTop = inside.length === 0;
  const issues: ConfigIssue[] = keys.slice(0, SHOWN_KEYS).map((key) => {
    const now = isTop && Object.hasOwn(context.renamed, key) ? context.renamed[key]! : null;
    const words = now === null
      ? unknownKey(key, known, isTop ? context.alsoKnown : [])
      : { problem: "has another name now", remedy: `write ${quoted(now)}` };
    return { path: childPath(path, key), ...words };
  });
  if (keys.length > SHOWN_KEYS) {
    issues.push({ path, problem: `${keys.length - SHOWN_KEYS} more unknown keys` });
  }
  return issues;
}

/** Of the forms a value may have, the one that was meant: the only one that does not refuse it as a whole. */
function likeliestBranch(branches: readonly unknown[]): LooseIssue[] | null {
  const refusals = ["invalid_type", "invalid_value", "invalid_union"];
  const fitting = branches.filter((branch): branch is LooseIssue[] =>
    Array.isArray(branch) && branch.length > 0 &&
    branch.every((inner) => keysOf(inner).length > 0 || !refusals.includes(inner.code))
  );
  return fitting.length === 1 ? fitting[0]! : null;
}

// What a schema library's issue says, in words: what is wrong with the value, and what would be right.

const KINDS: Record<string, string> = {
  string: "text in double quotes",
  number: "a number",
  int: "an integer",
  integer: "an integer",
  boolean: "true or false",
  array: "a list in []",
  object: "an object in {}",
  record: "an object in {}",
  null: "null",
};

const PREDICATE = /^(is|has|must|needs|does|names|lies|cannot|contains)\b/;

/** Does this go on from a value, as in "is no MAC address"? */
export function isPredicate(message: string): boolean {
  return PREDICATE.test(message);
}

/** An issue of an unknown library, of which nothing is certain. */
export interface LooseIssue {
  /** What Standard Schema says there is (`message`, `path`), and whatever else the library tells. */
  readonly [detail: string]: unknown;
}

/** Everything that stays the same for the issues of one object. */
export interface WordingContext {
  /** What was validated. */
  readonly input: unknown;
  /** Where it stands in the configuration. */
  readonly path: string;
  /** What is known of its schema. */
  readonly schema: JsonSchema | null;
  /** Keys that may stand at its top and belong to another part. */
  readonly alsoKnown: readonly string[];
  /** Keys at its top that had another name before, and the present name of each. */
  readonly renamed: Readonly<Record<string, string>>;
}

/** The library's own words, without a full stop. */
export function messageIn(issue: LooseIssue): string {
  return typeof issue.message === "string"
    ? printable(issue.message).replace(/\.$/, "")
    : "no reason was given";
}

/** What should have been written, as far as issue and schema say; empty if they do not. */
export function expectation(
  issue: LooseIssue,
  context: WordingContext,
  keys: readonly PropertyKey[],
): string {
  if (Array.isArray(issue.values)) return choice(issue.values);
  if (Array.isArray(issue.options)) return choice(issue.options);
  const forms = new Set<string>();
  for (const one of context.schema === null ? [] : schemasAt(context.schema, keys)) {
    if (Array.isArray(one.enum)) forms.add(choice(one.enum));
    else if ("const" in one) forms.add(showValue(one.const));
    else if (typeof one.type === "string" && Object.hasOwn(KINDS, one.type)) forms.add(KINDS[one.type]!);
  }
  // The schema is more exact: zod calls a missing integer a missing number.
  if (forms.size > 0) return [...forms].join(" or ");
  const { expected } = issue;
  return typeof expected === "string" && Object.hasOwn(KINDS, expected) ? KINDS[expected]! : "";
}

function choice(values: readonly unknown[]): string {
  const shown = values.every((value) => typeof value === "string")
    ? quotedList(values)
    : values.map(showValue).join(", ");
  return values.length === 1 ? shown : `one of ${shown}`;
}

/** What is wrong with a value, and what to do. */
export interface Explanation {
  /** The rest of a sentence that begins with the value. */
  readonly problem: string;
  /** What to write instead; empty if that is unknown. */
  readonly remedy: string;
}

/** Puts an issue about a value that is there into words. */
export function explain(
  issue: LooseIssue,
  value: unknown,
  context: WordingContext,
  keys: readonly PropertyKey[],
): Explanation {
  const expected = expectation(issue, context, keys);
  switch (issue.code) {
    case "invalid_type":
    case "invalid_union": {
      const nearest = nearestWord(value, context, keys);
      if (expected || nearest) {
        const remedy = nearest === null ? `write ${expected}` : `did you mean ${showValue(nearest)}?`;
        return { problem: "is not what belongs here", remedy };
      }
      break;
    }
    case "invalid_value": {
      if (!Array.isArray(issue.values)) break;
      const words = issue.values.filter((one) => typeof one === "string");
      const nearest = typeof value === "string" ? suggest(value, words) : null;
      return {
        problem: `is not ${choice(issue.values)}`,
        remedy: nearest ? `did you mean ${showValue(nearest)}?` : "",
      };
    }
    case "too_small":
      return { problem: size(issue, "small"), remedy: bound(issue, "least", issue.minimum) };
    case "too_big":
      return { problem: size(issue, "large"), remedy: bound(issue, "most", issue.maximum) };
    case "not_multiple_of":
      return { problem: `is no multiple of ${showValue(issue.divisor)}`, remedy: "" };
  }
  const message = messageIn(issue);
  if (isPredicate(message)) return { problem: message, remedy: "" };
  const isWhole = keys.length === 0 && typeof value === "object";
  return { problem: isWhole ? message : `is refused: ${message}`, remedy: "" };
}

function size(issue: LooseIssue, side: "small" | "large"): string {
  if (issue.origin === "string") return `is too ${side === "small" ? "short" : "long"}`;
  if (issue.origin === "array" || issue.origin === "set") {
    return `has too ${side === "small" ? "few" : "many"} items`;
  }
  return `is too ${side}`;
}

function bound(issue: LooseIssue, side: "least" | "most", limit: unknown): string {
  const unit = issue.origin === "string" ? (limit === 1 ? " character" : " characters") : "";
  const most = side === "least" ? "more than" : "less than";
  return `${issue.inclusive === false ? most : `at ${side}`} ${showValue(limit)}${unit}`;
}

/** Of the words that may stand in a place the one that was meant. */
function nearestWord(value: unknown, context: WordingContext, keys: readonly PropertyKey[]): string | null {
  if (typeof value !== "string" || context.schema === null) return null;
  const words = schemasAt(context.schema, keys).flatMap((one) =>
    Array.isArray(one.enum) ? one.enum : [one.const]
  );
  return suggest(value, words.filter((one) => typeof one === "string"));
}

// "Did you mean": the known word nearest to one that is unknown.

/**
 * Longer words are no typing errors, and comparing them would cost time that a hostile file could multiply.
 */
const LONGEST_WORD = 48;

/**
 * How many single mistakes lie between two words: a letter too many, missing, wrong, or two neighbours
 * exchanged (the restricted Damerau-Levenshtein distance).
 * @returns 0 for equal words, at most the length of the longer one
 */
export function editDistance(a: string, b: string): number {
  // Three rows of the table are enough: an exchange looks two rows back.
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, before[j - 2]! + 1);
      }
      row.push(best);
    }
    before = previous;
    previous = row;
  }
  return previous[b.length]!;
}

/** Spelling without what people vary freely: case, hyphens, underscores. */
function folded(word: string): string {
  return word.toLowerCase().replace(/[-_ ]/g, "");
}

/**
 * The known word that was most likely meant. A third of the letters may be wrong; a word that is the
 * beginning of a known one (a forgotten unit, as in `interval` for `intervalUs`) also counts. Of equally near
 * words the first in alphabetical order is taken, so the answer does not depend on the order of `known`.
 * @param word what was written
 * @param known what could have been written
 * @returns the nearest word, or null if none is near
 */
export function suggest(word: string, known: Iterable<string>): string | null {
  const written = folded(word);
  if (written === "" || word.length > LONGEST_WORD) return null;
  let best: string | null = null;
  let least = Infinity;
  for (const candidate of [...known].sort()) {
    if (candidate.length > LONGEST_WORD || candidate === word) continue;
    const wanted = folded(candidate);
    let distance = editDistance(written, wanted);
    const longer = Math.max(written.length, wanted.length);
    const shorter = Math.min(written.length, wanted.length);
    const isBeginning = shorter >= 3 && (wanted.startsWith(written) || written.startsWith(wanted));
    const allowed = Math.max(1, Math.floor(longer / 3));
    // Where one word begins the other, the rest is one mistake at most and a little worse than a plain slip.
    if (isBeginning) distance = Math.min(distance, 1.5);
    else if (distance > allowed || distance >= shorter) continue;
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

/**
 * The problem of an unknown key: `unknown key, did you mean "nth"?`.
 * @param key the key as written
 * @param known the keys that the object may have, or null if that cannot be found out
 * @param alsoKnown keys that it may have besides
 */
export function unknownKey(
  key: string,
  known: readonly string[] | null,
  alsoKnown: readonly string[] = [],
): { problem: string; remedy?: string } {
  const all = [...known ?? [], ...alsoKnown];
  const nearest = suggest(key, all);
  if (nearest !== null) return { problem: `unknown key, did you mean ${quoted(nearest)}?` };
  if (known === null) return { problem: "unknown key" };
  return {
    problem: "unknown key",
    remedy: all.length === 0 ? "there are no options here" : `known are ${quotedList(all)}`,
  };
}
