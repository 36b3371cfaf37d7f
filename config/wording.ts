/**
 * From the issues of a schema library to ours: one for each mistake, with path, value and what is allowed.
 *
 * Every Standard Schema library gives a message and a path. Zod's issues also say what was expected in a form that can
 * be put into words; that is read here defensively, because another version or library may mean something else by it.
 * @module
 */
import type { ConfigIssue } from "./errors.ts";
import { descriptionAt, knownKeys } from "./option_schema.ts";
import { childPath } from "./paths.ts";
import {
  expectation,
  explain,
  isPredicate,
  type LooseIssue,
  messageIn,
  type WordingContext,
} from "./phrases.ts";
import { unknownKey } from "./suggest.ts";

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
    return unknownKeys(
      issue.keys.map(String),
      path,
      knownKeys(context.schema, keys),
      alsoKnownAt(keys, context),
    );
  }
  // How valibot says it.
  if (issue.expected === "never" && keys.length > 0) {
    const inside = keys.slice(0, -1);
    const known = knownKeys(context.schema, inside);
    return [{ path, ...unknownKey(String(keys.at(-1)), known, alsoKnownAt(inside, context)) }];
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

function alsoKnownAt(keys: readonly PropertyKey[], context: WordingContext): readonly string[] {
  return keys.length === 0 ? context.alsoKnown : [];
}

/**
 * One issue for each unknown key.
 * @param keys the unknown keys
 * @param path the object in which they stand
 * @param known the keys that it may have, if that is known
 * @param alsoKnown keys that may stand there besides
 */
export function unknownKeys(
  keys: readonly string[],
  path: string,
  known: readonly string[] | null,
  alsoKnown: readonly string[],
): ConfigIssue[] {
  const issues: ConfigIssue[] = keys.slice(0, SHOWN_KEYS)
    .map((key) => ({ path: childPath(path, key), ...unknownKey(key, known, alsoKnown) }));
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
