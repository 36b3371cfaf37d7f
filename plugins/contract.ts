/**
 * What plugins promise of their objects and hooks, and what looks after it.
 *
 * Plugins are modules that are not type-checked when they are loaded. Everything that they return is looked
 * at.
 * @module
 */
import { HostError } from "../core/errors.ts";
import type { ResolvedPart } from "./plugin.ts";

/** Throws TypeError if a hook returned a promise; its rejection is handled here. */
export function refusePromise(result: unknown): void {
  if ((typeof result !== "object" && typeof result !== "function") || result === null) return;
  if (typeof (result as { then?: unknown }).then !== "function") return;
  Promise.resolve(result).catch(() => {});
  throw new TypeError("it returned a promise; it must be done when it returns, so leave async out");
}

/** Throws TypeError if a hook returned what cannot be copied to another thread. */
export function refuseUncloneable(result: unknown): void {
  refusePromise(result);
  try {
    structuredClone(result);
  } catch (cause) {
    throw new TypeError(
      `it returned what cannot be copied to a thread (${textOf(cause)}); return plain data, no functions`,
      { cause },
    );
  }
}

/** Throws TypeError if a hook returned what cannot be written as JSON. */
export function refuseUnwritable(result: unknown): void {
  refusePromise(result);
  try {
    JSON.stringify(result);
  } catch (cause) {
    throw new TypeError(`it returned what is not JSON (${textOf(cause)}); return plain data`, { cause });
  }
}

/**
 * What keeps a value from being an object with these methods, as the rest of a sentence about what made it;
 * null for nothing.
 * @param what what it should be; @param needed methods; @param optional methods that may be left out
 */
export function shapeFault(
  value: unknown,
  what: string,
  needed: readonly PropertyKey[],
  optional: readonly PropertyKey[],
): string | null {
  if (typeof value !== "object" || value === null) return `it returned ${kindOf(value)}, not ${what}`;
  const members = value as Record<PropertyKey, unknown>;
  if (typeof members.then === "function") {
    Promise.resolve(value).catch(() => {});
    return `it returned a promise, not ${what}; leave async out`;
  }
  for (const name of needed) {
    if (typeof members[name] !== "function") return `it returned ${what} without ${methodName(name)}`;
  }
  for (const name of optional) {
    if (members[name] !== undefined && typeof members[name] !== "function") {
      return `it returned ${what} whose ${String(name)} is ${kindOf(members[name])}, not a function`;
    }
  }
  return null;
}

/** What a value is, in two words, for messages. */
export function kindOf(value: unknown): string {
  if (value === undefined || value === null) return String(value);
  if (typeof value === "object") return Array.isArray(value) ? "a list" : "an object";
  if (typeof value === "string") return value.length > 40 ? "a text" : JSON.stringify(value);
  return typeof value === "function" || typeof value === "symbol" ? `a ${typeof value}` : String(value);
}

function methodName(name: PropertyKey): string {
  return typeof name === "symbol" ? `[${name.description}]()` : `${name}()`;
}

/** Times in a row that something is due and there is nothing to do, after which it never will be. */
export const MAX_VAIN_ROUNDS = 100_000;

/** What keeps an object from being pollable. @param alone may it have a deadline and nothing to poll? */
export function pollableFault(value: object, alone: boolean): string | null {
  const { poll, deadlineNs } = value as { poll?: unknown; deadlineNs?: unknown };
  for (const [name, hook] of [["poll", poll], ["deadlineNs", deadlineNs]] as const) {
    if (hook !== undefined && typeof hook !== "function") {
      return `it returned an object whose ${name} is ${kindOf(hook)}, not a function`;
    }
  }
  if (poll !== undefined && deadlineNs === undefined) {
    return "it returned an object with poll(), but no deadlineNs()";
  }
  const isHalf = poll === undefined && deadlineNs !== undefined && !alone;
  return isHalf ? "it returned an object with deadlineNs(), but no poll()" : null;
}

/** Throws TypeError for a fault. */
export function refuse(fault: string | null): void {
  if (fault !== null) throw new TypeError(fault);
}

/** A time from a plugin. Throws TypeError for what is none. */
export function checkedDeadline(deadlineNs: unknown): number {
  if (typeof deadlineNs === "number" && !Number.isNaN(deadlineNs)) return deadlineNs;
  refusePromise(deadlineNs);
  throw new TypeError(`it returned ${kindOf(deadlineNs)}; a time in ns is needed, or Infinity`);
}

/** An answer of `poll`. Throws TypeError for a promise. */
export function checkedWork(did: unknown): boolean {
  if (did === true || did === false) return did;
  refusePromise(did);
  return Boolean(did);
}

/** The error of a failed plugin, with its name, hook and place; errors that have them stay as they are. */
export function pluginError(
  { plugin, path }: Pick<ResolvedPart, "plugin" | "path">,
  hook: string,
  cause: unknown,
): Error {
  return cause instanceof PluginError || cause instanceof HostError
    ? cause
    : new PluginError(plugin.name, hook, cause, path);
}

/** A plugin threw, or broke its contract: which one, where in the configuration, in which hook, and why. */
export class PluginError extends Error {
  /** `PluginError`. */
  override readonly name = "PluginError";
  /** The plugin's name. */
  readonly plugin: string;
  /** The hook in which it failed, such as `process` or `create`. */
  readonly hook: string;
  /** Where it stands in the configuration, such as `$.devices[0].offloads[1]`; empty if that is not known. */
  readonly path: string;

  /**
   * Says which plugin failed.
   * @param plugin the plugin's name; @param hook where it failed; @param cause what it threw, or what is
   * wrong
   * @param path where it stands in the configuration, if that is known
   */
  constructor(plugin: string, hook: string, cause: unknown, path = "") {
    super(`${path === "" ? "" : `${path}: `}plugin "${plugin}" failed in ${hook}: ${textOf(cause)}`, {
      cause,
    });
    this.plugin = plugin;
    this.hook = hook;
    this.path = path;
  }
}

function textOf(thrown: unknown): string {
  try {
    return thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  } catch {
    // An object without a usable toString(), as a plugin may throw.
    return "something that cannot be shown";
  }
}
