/**
 * What a plugin's schema says of its options, in words.
 * @module
 */
import { type JsonSchema, jsonSchemaOf } from "../../config/option_schema.ts";
import { isPlainObject } from "../../config/plain.ts";
import type { Plugin } from "../../core/plugin.ts";

/** An option of a plugin. */
export interface OptionDescription {
  /** Its key in the configuration. */
  readonly name: string;
  /** What may be written, in words. */
  readonly type: string;
  /** Must it be given? */
  readonly required: boolean;
  /** What it is if it is not given, if that is known. */
  readonly default?: unknown;
  /** What it means, without a full stop. */
  readonly description: string;
}

/** The options of a plugin; none if its schema does not tell. */
export function describeOptions(plugin: Plugin): OptionDescription[] {
  const schema = jsonSchemaOf(plugin.options);
  const properties = schema?.properties;
  if (!isPlainObject(properties)) return [];
  const required = Array.isArray(schema?.required) ? schema.required : [];
  return Object.entries(properties).map(([name, option]) => {
    const known: JsonSchema = isPlainObject(option) ? option : {};
    return {
      name,
      type: typeInWords(known),
      // Where the input may be left out, zod says so by the default.
      required: required.includes(name) && known.default === undefined,
      ...(known.default !== undefined && { default: known.default }),
      description: typeof known.description === "string" ? known.description.replace(/\.$/, "") : "",
    };
  });
}

/** What a schema takes: `integer 1 to 256`, `"split" or "packed"`. */
export function typeInWords(schema: JsonSchema): string {
  if (Array.isArray(schema.enum)) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const forms = schema.anyOf ?? schema.oneOf;
  if (Array.isArray(forms)) {
    return forms.map((form) => isPlainObject(form) ? typeInWords(form) : "anything").join(" or ");
  }
  switch (schema.type) {
    case "integer":
    case "number":
      return `${schema.type}${rangeInWords(schema)}`;
    case "boolean":
      return "true or false";
    case "string":
      return "text";
    case "array":
      return `list of ${isPlainObject(schema.items) ? typeInWords(schema.items) : "anything"}`;
    case "object":
      return isPlainObject(schema.properties) ? `{ ${Object.keys(schema.properties).join(", ")} }` : "object";
    default:
      return "anything";
  }
}

/** Limits that a person chose; those of the number format say nothing. */
function rangeInWords({ minimum, maximum }: JsonSchema): string {
  const least = typeof minimum === "number" && minimum > Number.MIN_SAFE_INTEGER ? minimum : undefined;
  const most = typeof maximum === "number" && maximum < Number.MAX_SAFE_INTEGER ? maximum : undefined;
  if (least === undefined) return most === undefined ? "" : ` up to ${most}`;
  return most === undefined ? ` from ${least}` : ` ${least} to ${most}`;
}
