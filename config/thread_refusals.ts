/**
 * What keeps a device from being worked by threads, as far as the configuration shows it.
 * @module
 */
import { childPath, type ConfigIssue } from "./errors.ts";
import type { ResolvedDevice } from "./types.ts";

/** Why a device cannot be worked in threads if that is what it asks for; empty if it can. @param clock the machine's clock */
export function threadIssues(device: ResolvedDevice, clock: string | undefined): ConfigIssue[] {
  const { mode, plugin, driver, network, path } = device;
  if (mode !== "threads") return [];
  const issues: ConfigIssue[] = [];
  const refuse = (where: string, problem: string, remedy: string) =>
    issues.push({ path: where, problem, remedy: `${remedy}, or leave "mode": "threads" out` });
  if (clock === "virtual") {
    refuse(childPath(path, "mode"), "threads cannot go by a virtual clock", 'write "clock": "system"');
  }
  if (plugin.worksInThreads !== true) {
    refuse(childPath(path, "use"), `"${plugin.name}" cannot be worked by several threads`, 'use "net"');
  }
  if (driver.plugin.supportsWorkers !== true) {
    refuse(
      driver.path,
      `"${driver.plugin.name}" cannot have its rings served by threads`,
      'use "vhost-user"',
    );
  }
  if (network !== null && network.plugin.createInWorker === undefined) {
    refuse(network.path, `"${network.plugin.name}" cannot give its queues to threads`, 'use "tap"');
  }
  return issues;
}
