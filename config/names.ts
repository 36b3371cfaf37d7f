/**
 * What devices are called: the names that were given, and numbers for the others.
 * @module
 */
import type { ConfigIssue } from "./errors.ts";
import { childPath } from "./paths.ts";
import type { ResolvedDevice } from "./types.ts";

/** A device that is complete but for its name, which may have been given. */
export type NamelessDevice = Omit<ResolvedDevice, "name"> & {
  /** The name that was given, if one was. */
  readonly name: string | undefined;
};

/**
 * Gives every device a name of its own: type and number, such as `net0`, where none was given. Names that were given
 * come first, so that a device without a name never takes one away.
 * @param devices the devices, in order
 * @param issues takes names that were given twice
 * @returns the devices with their names, in the same order, frozen
 */
export function nameDevices(devices: readonly NamelessDevice[], issues: ConfigIssue[]): ResolvedDevice[] {
  const taken = new Map<string, string>();
  for (const { name, path } of devices) {
    if (name === undefined) continue;
    const owner = taken.get(name);
    if (owner === undefined) taken.set(name, path);
    else {issues.push({
        path: childPath(path, "name"),
        value: name,
        problem: `is the name of ${owner} already`,
      });}
  }
  return devices.map((device) => {
    let name = device.name;
    for (let i = 0; name === undefined; i++) {
      const free = `${device.plugin.name}${i}`;
      if (!taken.has(free)) taken.set(name = free, device.path);
    }
    return Object.freeze({ ...device, name });
  });
}
