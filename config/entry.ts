/**
 * Takes an entry of the configuration apart: `{ "use": … }`, or a bare name.
 * @module
 */
import type { ConfigIssue } from "./errors.ts";
import { childPath, quotedList } from "./paths.ts";
import { isPlainObject, type Plain } from "./plain.ts";
import { KIND_NAMES, type PluginKind } from "./plugin_shape.ts";
import type { PluginRegistry } from "./registry.ts";

/** An entry, taken apart. */
export interface Entry {
  /** The name of a built-in plugin, or a module specifier. */
  readonly use: string;
  /** Where that stands; for a bare name the entry itself. */
  readonly usePath: string;
  /** The keys that belong to the framework. */
  readonly own: Readonly<Record<string, Plain>>;
  /** All other keys: the options of the plugin, as written. */
  readonly options: Readonly<Record<string, Plain>>;
}

/** What an entry is to be, and where it stands. */
export interface EntryContext {
  /** The kind of plugin. */
  readonly kind: PluginKind;
  /** Where the entry stands. */
  readonly path: string;
  /** The keys that belong to the framework. */
  readonly ownKeys: readonly string[];
  /** Knows what could be written. */
  readonly registry: PluginRegistry;
}

/**
 * Takes an entry apart.
 * @param written the entry; undefined if it is missing
 * @param context what it is to be
 * @returns its parts, or what is wrong with it
 */
export function readEntry(written: Plain | undefined, context: EntryContext): Entry | ConfigIssue {
  const { path, ownKeys } = context;
  if (typeof written === "string") return { use: written, usePath: path, own: {}, options: {} };
  if (!isPlainObject(written)) return notUsable(written, path, context);
  const { use, ...rest } = written as Record<string, Plain>;
  const usePath = childPath(path, "use");
  if (typeof use !== "string") return notUsable(use, usePath, context);
  const own: Record<string, Plain> = {};
  const options: Record<string, Plain> = {};
  for (const [key, value] of Object.entries(rest)) (ownKeys.includes(key) ? own : options)[key] = value;
  return { use, usePath, own, options };
}

function notUsable(value: Plain | undefined, path: string, { kind, registry }: EntryContext): ConfigIssue {
  const names = registry.builtIns(kind).map((plugin) => plugin.name);
  const choice = names.length === 0 ? "" : `one of ${quotedList(names)} or `;
  const remedy = `write ${choice}a module such as "./name.ts"`;
  if (value === undefined) return { path, problem: "missing", remedy };
  return { path, value, problem: `is not ${KIND_NAMES[kind]}`, remedy };
}
