/**
 * A plugin's options, completed as a configuration would complete them.
 * @module
 */
import type { OffloadPlugin } from "../pipeline/plugin.ts";

/** The options as the plugin's own schema completes them. Throws TypeError with all that is wrong. */
// deno-lint-ignore no-explicit-any -- plugins of any options
export function completeOptions(plugin: OffloadPlugin<any>, options: unknown): unknown {
  const result = plugin.options["~standard"].validate(options);
  if (result instanceof Promise) {
    throw new TypeError(`Cannot bench "${plugin.name}": its options are validated asynchronously`);
  }
  if (result.issues === undefined) return result.value;
  const issues = result.issues.map(({ message, path = [] }) =>
    `${
      path.map((key) => typeof key === "object" ? key.key : key).map(String).join(".") || "options"
    }: ${message}`
  );
  throw new TypeError(`Cannot bench "${plugin.name}": ${issues.join("; ")}`);
}
