/**
 * Validates an object of the configuration by a Standard Schema, of whatever library.
 * @module
 */
import type { OptionsSchema, SchemaResult } from "../plugins/plugin.ts";
import { type ConfigIssue, messageOf } from "./errors.ts";
import { jsonSchemaOf, knownKeys, takesAnyKey } from "./option_schema.ts";
import { isPlainObject } from "./plain.ts";
import { unknownKeys, type WordingContext, wordIssue } from "./wording.ts";

/** A hostile list can be wrong at half a million places; so many are put into words. */
const MAX_ISSUES = 200;

/** What came of it: the complete options, or everything that is wrong with the written ones. */
export type OptionsResult =
  | { readonly ok: true; readonly options: unknown }
  | { readonly ok: false; readonly issues: readonly ConfigIssue[] };

/** What helps to word the errors of one object. */
export interface KeyHints {
  /** Keys that may stand beside the options and belong to the framework, for suggestions; default none. */
  readonly alsoKnown?: readonly string[];
  /** Keys that had another name before, and the present name of each; default none. */
  readonly renamed?: Readonly<Record<string, string>> | undefined;
}

/**
 * Validates by a schema which may take its time.
 * @param schema the schema
 * @param written what was written
 * @param path where it stands, for messages
 * @param hints what else is known of its keys
 * @returns the validated and completed value, or all issues; never rejects
 */
export async function checkOptions(
  schema: OptionsSchema<unknown>,
  written: unknown,
  path: string,
  hints: KeyHints = {},
): Promise<OptionsResult> {
  try {
    return judge(schema, await schema["~standard"].validate(written), written, path, hints);
  } catch (thrown) {
    return thrownBy(thrown, path);
  }
}

/**
 * Validates by a schema which answers at once.
 * @param schema the schema; if it turns out to be asynchronous, that is an issue
 * @param written what was written
 * @param path where it stands, for messages
 * @param hints what else is known of its keys
 * @returns the validated and completed value, or all issues; never throws
 */
export function checkOptionsNow(
  schema: OptionsSchema<unknown>,
  written: unknown,
  path: string,
  hints: KeyHints = {},
): OptionsResult {
  try {
    const result = schema["~standard"].validate(written);
    if (result !== null && typeof result === "object" && "then" in result) {
      // It is not awaited, and a rejection without a handler ends the program.
      Promise.resolve(result).catch(() => {});
      const problem = "these options can only be validated asynchronously, and not at this time";
      return { ok: false, issues: [{ path, problem, remedy: 'put them under the key "inner"' }] };
    }
    return judge(schema, result, written, path, hints);
  } catch (thrown) {
    return thrownBy(thrown, path);
  }
}

function thrownBy(thrown: unknown, path: string): OptionsResult {
  const problem = `the schema of these options failed: ${messageOf(thrown)}`;
  return { ok: false, issues: [{ path, problem, remedy: "this is a fault of the plugin" }] };
}

function judge(
  schema: OptionsSchema<unknown>,
  result: SchemaResult<unknown>,
  input: unknown,
  path: string,
  { alsoKnown = [], renamed = {} }: KeyHints,
): OptionsResult {
  const described = jsonSchemaOf(schema);
  const context: WordingContext = { input, path, schema: described, alsoKnown, renamed };
  const issues: ConfigIssue[] = [];
  // Many libraries drop unknown keys in silence unless told otherwise. A key that does nothing is a mistake.
  if (isPlainObject(input) && !takesAnyKey(described) && described!.additionalProperties !== false) {
    const known = knownKeys(described, []) ?? [];
    issues.push(...unknownKeys(Object.keys(input).filter((key) => !known.includes(key)), [], context));
  }
  if (result.issues) {
    for (const issue of result.issues.slice(0, MAX_ISSUES)) issues.push(...wordIssue(issue, context));
    const more = result.issues.length - MAX_ISSUES;
    if (more > 0) issues.push({ path, problem: `${more} more problems` });
    if (issues.length === 0) throw new TypeError("it refused without saying why");
  } else if (!("value" in result)) {
    throw new TypeError('it answered with neither "value" nor "issues"');
  }
  return issues.length > 0
    ? { ok: false, issues }
    : { ok: true, options: (result as { value: unknown }).value };
}
