/**
 * Plain data: what JSON can say. Copying it in, comparing it, freezing it.
 * @module
 */
import { childPath, type ConfigIssue } from "./errors.ts";

/** How deep objects and lists may be nested; every walk over a configuration recurses at most so far. */
export const DEEPEST = 64;

/** What JSON can say. */
export type Plain = null | boolean | number | string | readonly Plain[] | { readonly [key: string]: Plain };

/** An object that JSON can say. */
export type PlainObject = { readonly [key: string]: Plain };

/**
 * Is this an object made by braces: not a list, not an instance of a class?
 * @param value anything
 */
export function isPlainObject(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === null || prototype === Object.prototype;
}

/**
 * Copies plain data, so that no other code can change it under us, and refuses everything else.
 * @param value what was given
 * @param path where it stands
 * @param issues takes what is wrong: values that JSON cannot say, nesting deeper than 64 (and so cycles), the
 * key `__proto__`
 * @returns the copy; where something is wrong, null
 */
export function copyPlain(value: unknown, path: string, issues: ConfigIssue[]): Plain {
  return copy(value, path, issues, 0);
}

function copy(value: unknown, path: string, issues: ConfigIssue[], depth: number): Plain {
  if (value === null || typeof value === "boolean" || typeof value === "string") return value;
  if (typeof value === "number") {
    if (Number.isFinite(value)) return value;
    issues.push({ path, value, problem: "is no finite number" });
    return null;
  }
  const isList = Array.isArray(value);
  if (!isList && !isPlainObject(value)) {
    issues.push({
      path,
      value,
      problem: "cannot stand in a configuration",
      remedy: "write what JSON can say",
    });
    return null;
  }
  if (depth === DEEPEST) {
    issues.push({ path, problem: `nested deeper than ${DEEPEST} levels` });
    return null;
  }
  if (isList) return value.map((item, i) => copy(item, childPath(path, i), issues, depth + 1));
  const result: Record<string, Plain> = {};
  for (const [key, member] of Object.entries(value)) {
    const memberPath = childPath(path, key);
    // Assigning this key would exchange the prototype instead of making a member.
    if (key === "__proto__") issues.push({ path: memberPath, problem: "this key cannot be used" });
    // As in JSON, a member that is undefined is not there.
    else if (member !== undefined) result[key] = copy(member, memberPath, issues, depth + 1);
  }
  return result;
}

/**
 * Plain data as text that is the same for the same content, whatever the order of keys.
 * @param value plain data; whatever else is in it stands for itself badly, so compare only what was copied
 */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  if (!isPlainObject(value)) return JSON.stringify(value) ?? "undefined";
  const members = Object.keys(value).sort().filter((key) => value[key] !== undefined);
  return `{${members.map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`).join()}}`;
}

/**
 * Freezes plain objects and lists, all the way down. Instances of classes (a byte array, a Map, a URL) are
 * left alone.
 * @param value anything
 * @returns the same value
 */
export function freezePlain<T>(value: T): T {
  const isList = Array.isArray(value);
  // What is frozen already was frozen here, or belongs to other code that knew; either way a cycle ends.
  if ((!isList && !isPlainObject(value)) || Object.isFrozen(value)) return value;
  Object.freeze(value);
  for (const member of isList ? value : Object.values(value)) freezePlain(member);
  return value;
}
