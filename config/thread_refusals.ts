/**
 * What keeps a device from being worked by threads, as far as the configuration shows it.
 * @module
 */
import type { DevicePlugin, DriverPlugin, Plugin } from "../plugins/plugin.ts";
import { partsOfKind } from "../plugins/plugin.ts";
import { childPath, type ConfigIssue, quotedList } from "./errors.ts";
import { partKind } from "./kinds.ts";
import type { PluginRegistry } from "./registry.ts";
import type { ResolvedDevice } from "./types.ts";

/**
 * Why a device cannot be worked in threads if that is what it asks for; empty if it can.
 * @param clock the machine's clock
 * @param registry knows which plugins could
 */
export function threadIssues(
  device: ResolvedDevice,
  clock: string | undefined,
  registry: PluginRegistry,
): ConfigIssue[] {
  const { mode, plugin, driver, path } = device;
  if (mode !== "threads") return [];
  const issues: ConfigIssue[] = [];
  const refuse = (where: string, problem: string, remedy: string) =>
    issues.push({ path: where, problem, remedy: `${remedy}, or leave "mode": "threads" out` });
  const others = (kind: string, can: (plugin: Plugin) => boolean) => {
    const names = registry.builtIns(kind).filter(can).map(({ name }) => name);
    return names.length === 0 ? "use another one" : `use ${quotedList(names)}`;
  };
  if (clock === "virtual") {
    refuse(childPath(path, "mode"), "threads cannot go by a virtual clock", 'write "clock": "system"');
  }
  if (plugin.worksInThreads !== true) {
    refuse(
      childPath(path, "use"),
      `"${plugin.name}" cannot be worked by several threads`,
      others("device", (one) => (one as DevicePlugin).worksInThreads === true),
    );
  }
  if (driver.plugin.supportsWorkers !== true) {
    refuse(
      driver.path,
      `"${driver.plugin.name}" cannot have its rings served by threads`,
      others("driver", (one) => (one as DriverPlugin).supportsWorkers === true),
    );
  }
  for (const { kind } of Object.values(plugin.slots ?? {})) {
    if (partKind(kind).isDeferred === true) continue;
    for (const part of partsOfKind(device, kind)) {
      if (part.plugin.createInWorker !== undefined) continue;
      refuse(
        part.path,
        `"${part.plugin.name}" cannot give its queues to threads`,
        others(kind, (one) => one.createInWorker !== undefined),
      );
    }
  }
  return issues;
}
