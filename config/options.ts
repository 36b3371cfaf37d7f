/**
 * Validates an object of the configuration by a Standard Schema, of whatever library.
 * @module
 */
import type { OptionsSchema, SchemaResult } from "../core/plugin.ts";
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

/**
 * Validates by a schema which may take its time.
 * @param schema the schema
 * @param written what was written
 * @param path where it stands, for messages
 * @param alsoKnown keys that may stand beside the options and belong to somebody else, for suggestions
 * @returns the validated and completed value, or all issues; never rejects
 */
export async function checkOptions(
  schema: OptionsSchema<unknown>,
  written: unknown,
  path: string,
  alsoKnown: readonly string[] = [],
): Promise<OptionsResult> {
  try {
    return judge(schema, await schema["~standard"].validate(written), { input: written, path, alsoKnown });
  } catch (thrown) {
    return thrownBy(thrown, path);
  }
}

/**
 * Validates by a schema which answers at once.
 * @param schema the schema; if it turns out to be asynchronous, that is an issue
 * @param written what was written
 * @param path where it stands, for messages
 * @returns the validated and completed value, or all issues; never throws
 */
export function checkOptionsNow(
  schema: OptionsSchema<unknown>,
  written: unknown,
  path: string,
): OptionsResult {
  try {
    const result = schema["~standard"].validate(written);
    if (result !== null && typeof result === "object" && "then" in result) {
      // Nobody will wait for it, and a rejection that nobody handles ends the program.
      Promise.resolve(result).catch(() => {});
      const problem = "these options can only be validated asynchronously, and not at this time";
      return { ok: false, issues: [{ path, problem, remedy: 'put them under the key "inner"' }] };
    }
    return judge(schema, result, { input: written, path, alsoKnown: [] });
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
  asked: Omit<WordingContext, "schema">,
): OptionsResult {
  const described = jsonSchemaOf(schema);
  const { input, path, alsoKnown } = asked;
  const issues: ConfigIssue[] = [];
  // Many libraries drop unknown keys in silence unless told otherwise. A key that does nothing is a mistake.
  if (isPlainObject(input) && !takesAnyKey(described) && described!.additionalProperties !== false) {
    const known = knownKeys(described, []) ?? [];
    issues.push(
      ...unknownKeys(Object.keys(input).filter((key) => !known.includes(key)), path, known, alsoKnown),
    );
  }
  if (result.issues) {
    const context = { ...asked, schema: described };
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
