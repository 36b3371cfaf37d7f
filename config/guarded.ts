/**
 * Calls into plugins while a machine is built.
 * @module
 */
import { HostError, PluginError } from "../core/errors.ts";
import type { Plugin } from "../core/plugin.ts";
import { ConfigError } from "./errors.ts";

/** Calls `build`. Errors that say what they mean pass; anything else is told to be the plugin's, as a PluginError. */
export function guarded<T>(plugin: Plugin, hook: string, build: () => T): T {
  try {
    return build();
  } catch (cause) {
    const clear = cause instanceof ConfigError || cause instanceof HostError || cause instanceof PluginError;
    throw clear ? cause : new PluginError(plugin.name, hook, cause);
  }
}
