/**
 * What a schema library's issue says, in words: what is wrong with the value, and what would be right.
 * @module
 */
import { type JsonSchema, schemasAt } from "./option_schema.ts";
import { printable, quotedList, showValue } from "./paths.ts";
import { suggest } from "./suggest.ts";

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
  /** Keys that may stand at its top and belong to somebody else. */
  readonly alsoKnown: readonly string[];
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
  /** What to write instead; empty if nobody knows. */
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
