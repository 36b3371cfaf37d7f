/**
 * What is wrong across parts of a configuration, each of which is right by itself.
 * @module
 */
import type { Device } from "../core/device.ts";
import { featureName } from "../wire/net_features.ts";
import type { ConfigIssue } from "../config/errors.ts";
import type { ResolvedConfig, ResolvedDevice } from "../config/types.ts";

/** What the configuration alone shows: an offload that stands twice at one device. */
export function contradictions(config: ResolvedConfig): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  for (const device of config.devices) {
    const seen = new Map<string, string>();
    for (const { plugin, path } of device.offloads) {
      const first = seen.get(plugin.name);
      if (first === undefined) seen.set(plugin.name, path);
      // One that makes no features possible, as one that only counts, may well stand in two places.
      else if (plugin.offers !== undefined) {
        issues.push({
          path,
          problem: `"${plugin.name}" stands at ${first} already`,
          remedy: "leave one of the two out",
        });
      }
    }
  }
  return issues;
}

/** What the device, once it is there, shows: an offload is no use if the device withholds what it needs. */
export function missingNeeds(resolved: ResolvedDevice, device: Device): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  for (const { plugin, path } of resolved.offloads) {
    const missing = (plugin.needs ?? []).filter((bit) => !device.features.has(bit));
    if (missing.length === 0) continue;
    const names = missing.map(featureName).join(", ");
    issues.push({
      path,
      problem: `"${plugin.name}" needs ${names}, which ${resolved.name} does not offer`,
      remedy: `take ${names} out of "withhold", or leave the offload out`,
    });
  }
  return issues;
}
