/**
 * Calls into plugins while a machine is built, and where in the configuration what fails stands.
 * @module
 */
import { HostError, PluginError } from "../core/errors.ts";
import { ConfigError } from "../config/errors.ts";
import { isModuleOfPlugin, moduleOf } from "../config/registry.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../config/types.ts";

/** Where errors that are no ConfigError come from: the path of the part that was being built. */
const PARTS = new WeakMap<Error, string>();

/**
 * Calls `build`, a hook of a part. Errors that say what they mean pass; anything else is told to be the plugin's, as a
 * PluginError. So does what `check` throws of what was made.
 */
export function guarded<T>(
  { plugin, path }: ResolvedPart,
  hook: string,
  build: () => T,
  check: (made: T) => void = () => {},
): T {
  try {
    const made = build();
    check(made);
    return made;
  } catch (cause) {
    const isClear = [ConfigError, HostError, PluginError].some((kind) => cause instanceof kind);
    const error = isClear ? cause as Error : new PluginError(plugin.name, hook, cause, path);
    const own = error instanceof PluginError ? error.path : "";
    if (!PARTS.has(error)) PARTS.set(error, own === "" ? path : own);
    throw error;
  }
}

/**
 * The part that an error comes from which no hook has thrown: a callback has, or it is the reason of a promise that is
 * rejected. It is the one whose module stands in the error's stack, or else the only one of `device` that does not come
 * with this program, or else the device as a whole.
 */
export function partBehind(cause: unknown, device: ResolvedDevice): ResolvedPart {
  const parts = foreignParts(device);
  return parts.find((part) => isFrom(cause, part)) ?? (parts.length === 1 ? parts[0] : device);
}

/** The parts of a device that do not come with this program. */
export function foreignParts(device: ResolvedDevice): ResolvedPart[] {
  const { driver, network, offloads } = device;
  const parts = [...offloads, network, driver, device];
  return parts.filter((part) => part !== null && moduleOf(part.plugin) !== undefined) as ResolvedPart[];
}

/** Does the module of a part stand in the stack of an error? */
export function isFrom(cause: unknown, { plugin }: ResolvedPart): boolean {
  const url = moduleOf(plugin);
  return url !== undefined && cause instanceof Error && String(cause.stack).includes(url);
}

/**
 * Calls `build`, which makes something of a configuration. What it throws says file, line, column and path of the part
 * that it is about, as far as the configuration was read from a text.
 */
export function located<T>({ source }: Pick<ResolvedConfig, "source">, build: () => T): T {
  try {
    return build();
  } catch (cause) {
    if (cause instanceof ConfigError) {
      throw source === undefined ? cause : new ConfigError(source.located(cause.issues), { cause });
    }
    const path = cause instanceof Error ? PARTS.get(cause) : undefined;
    if (path !== undefined) tellPlace(cause as Error, path, source);
    throw cause;
  }
}

/** Errors that say where they come from. */
const PLACED = new WeakSet<Error>();

/**
 * What a plugin has failed with says file, line, column and path of it from here on, and where in its module that was. So does
 * what the host has refused to the part at `path`.
 */
export function locateFailure(
  error: unknown,
  path: string,
  { source }: Pick<ResolvedConfig, "source">,
): void {
  if (!(error instanceof PluginError || error instanceof HostError)) return;
  const own = error instanceof PluginError ? error.path : path;
  if (own.startsWith("$")) tellPlace(error, own, source);
}

function tellPlace(error: Error, path: string, source: ResolvedConfig["source"]): void {
  if (PLACED.has(error)) return;
  PLACED.add(error);
  const named = error.message.startsWith(`${path}:`) ? error.message : `${path}: ${error.message}`;
  error.message = source === undefined ? named : `${source.placeOf(path)}: ${named}`;
  if (error instanceof PluginError) error.message += codePlaceOf(error.cause);
}

/** Where the first line of a plugin's module stands in the stack of what it has thrown; empty if none does. */
function codePlaceOf(cause: unknown): string {
  if (!(cause instanceof Error)) return "";
  for (const [, url, place] of String(cause.stack).matchAll(/((?:file|https):[^\s()]*?)(:\d+:\d+)/g)) {
    if (isModuleOfPlugin(url)) return ` (${url}${place})`;
  }
  return "";
}
