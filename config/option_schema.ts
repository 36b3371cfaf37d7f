/**
 * What a plugin's schema says of its options besides yes and no: which keys there are, what they mean, what
 * is allowed. Found through JSON Schema, which zod makes, and which any library can make that follows
 * Standard JSON Schema. Nothing here is needed to validate; without it messages have no suggestions and no
 * descriptions.
 * @module
 */
import { z } from "zod";
import type { OptionsSchema } from "../plugins/plugin.ts";
import { isPlainObject } from "./plain.ts";

/** A JSON Schema, or a part of one. */
export interface JsonSchema {
  /** Keywords of JSON Schema. */
  [keyword: string]: unknown;
}

// Asked for each validation and each message, and making it is the expensive part.
const known = new WeakMap<object, JsonSchema | null>();

/**
 * The JSON Schema of what may be written, for any schema that can tell.
 * @param schema a schema of any Standard Schema library
 * @returns draft 2020-12, without `$schema`; null if the library cannot tell
 */
export function jsonSchemaOf(schema: OptionsSchema<unknown>): JsonSchema | null {
  let found = known.get(schema);
  if (found === undefined) known.set(schema, found = convert(schema));
  return found;
}

function convert(schema: OptionsSchema<unknown>): JsonSchema | null {
  let converted: unknown = null;
  try {
    if ("_zod" in schema) {
      // Asked directly, zod leaves out what JSON Schema cannot say, such as a transform, instead of giving
      // up.
      const options = { io: "input", unrepresentable: "any", override: dropFlaggedPatterns } as const;
      converted = z.toJSONSchema(schema as unknown as z.ZodType, options);
    } else {
      const standard = schema["~standard"] as { jsonSchema?: { input?: (options: object) => unknown } };
      converted = standard.jsonSchema?.input?.({ target: "draft-2020-12" });
    }
  } catch {
    // A library may refuse what JSON Schema cannot say; the options are still validated by the schema itself.
    return null;
  }
  if (!isPlainObject(converted)) return null;
  const { $schema: _dialect, "~standard": _marker, ...rest } = converted;
  return rest;
}

/** JSON Schema knows no flags: a pattern without its `i` would refuse what the schema accepts. */
function dropFlaggedPatterns({ zodSchema, jsonSchema }: { zodSchema: unknown; jsonSchema: object }): void {
  const found = jsonSchema as JsonSchema;
  for (const pattern of patternsOf(zodSchema)) {
    if (!/[ims]/.test(pattern.flags)) continue;
    if (found.pattern === pattern.source) delete found.pattern;
    if (!Array.isArray(found.allOf)) continue;
    found.allOf = found.allOf.filter((one: JsonSchema) => one.pattern !== pattern.source);
  }
}

/** The regular expressions of a zod schema: its own (of a format) and those of its checks. */
function patternsOf(zodSchema: unknown): RegExp[] {
  type Inside = { _zod?: { def?: { pattern?: unknown; checks?: readonly Inside[] } } };
  const def = (zodSchema as Inside)._zod?.def;
  const patterns = [def?.pattern, ...def?.checks?.map((check) => check._zod?.def?.pattern) ?? []];
  return patterns.filter((pattern) => pattern instanceof RegExp);
}

/** The schema itself and, where it is a choice, everything that can be chosen; references are followed. */
function* alternatives(schema: unknown, root: JsonSchema, depth = 0): Generator<JsonSchema> {
  if (!isPlainObject(schema) || depth > 8) return;
  yield schema;
  if (typeof schema.$ref === "string") yield* alternatives(follow(schema.$ref, root), root, depth + 1);
  for (const keyword of ["anyOf", "oneOf", "allOf"]) {
    const branches = schema[keyword];
    if (!Array.isArray(branches)) continue;
    for (const branch of branches) yield* alternatives(branch, root, depth + 1);
  }
}

function follow(reference: string, root: JsonSchema): unknown {
  if (reference === "#") return root;
  const name = /^#\/(\$defs|definitions)\/([^/]+)$/.exec(reference);
  const definitions = name === null ? undefined : root[name[1]!];
  return isPlainObject(definitions) ? definitions[name![2]!] : undefined;
}

/**
 * The part of a schema that speaks of one place.
 * @param schema the whole
 * @param keys the way to the place
 * @returns every alternative for that place, so that keys and descriptions can be gathered from all; may be
 * empty
 */
export function schemasAt(schema: JsonSchema, keys: readonly PropertyKey[]): JsonSchema[] {
  let here = [...alternatives(schema, schema)];
  for (const key of keys) {
    const next: JsonSchema[] = [];
    for (const one of here) {
      const properties = one.properties;
      let member: unknown;
      if (isPlainObject(properties) && typeof key === "string" && Object.hasOwn(properties, key)) {
        member = properties[key];
      } else {
        member = typeof key === "number" ? one.items : one.additionalProperties;
      }
      next.push(...alternatives(member, schema));
    }
    here = next;
  }
  return here;
}

/**
 * The keys that an object at this place may have.
 * @returns the keys; null if the schema cannot tell
 */
export function knownKeys(schema: JsonSchema | null, keys: readonly PropertyKey[]): string[] | null {
  if (schema === null) return null;
  const found = new Set<string>();
  let told = false;
  for (const one of schemasAt(schema, keys)) {
    if (one.type !== "object" && one.properties === undefined) continue;
    told = true;
    if (isPlainObject(one.properties)) { for (const key of Object.keys(one.properties)) found.add(key); }
  }
  return told ? [...found] : null;
}

/**
 * May the object at the top have keys that the schema does not name? True also where the schema cannot tell,
 * and where it is a choice or a combination: then only the library knows what belongs together.
 */
export function takesAnyKey(schema: JsonSchema | null): boolean {
  if (schema === null || !isPlainObject(schema.properties)) return true;
  return ["additionalProperties", "patternProperties", "propertyNames", "anyOf", "oneOf", "allOf", "$ref"]
    .some((keyword) => schema[keyword] !== undefined && schema[keyword] !== false);
}

/** What the schema's author wrote about a place, in one line; null if nothing. */
export function descriptionAt(schema: JsonSchema | null, keys: readonly PropertyKey[]): string | null {
  if (schema === null) return null;
  for (const one of schemasAt(schema, keys)) {
    if (typeof one.description === "string") {
      return one.description.replace(/\s+/g, " ").trim().replace(/\.$/, "");
    }
  }
  return null;
}
