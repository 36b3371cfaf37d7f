/**
 * The command `check`: is a configuration right, and what would it be?
 * @module
 */
import { newRegistry } from "../config/builtins.ts";
import { loadConfig } from "../config/load.ts";
import { buildMachine } from "../machine/build.ts";
import { located } from "../machine/plugin_guards.ts";
import { type ConfigDescription, describeDevice } from "./check/describe.ts";
import { hostFindings } from "./check/host.ts";
import { permissionsOf } from "./check/permissions.ts";
import { checkReport } from "./check/report.ts";
import { EXIT_FAILED, EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";

/** How `check` is used. */
export const CHECK: CommandUsage = {
  name: "check",
  operands: "CONFIG [options]",
  least: 1,
  most: 1,
  summary: "Check a configuration and show what it would be; starts nothing.",
  about: [
    "Reads a configuration, loads the modules that it names, and builds everything without starting it. Then shows the " +
    "devices, their transports, their stages in order with all options, the features they offer, what is left of these " +
    "with each front-end (QEMU, DPDK's virtio-user, cloud-hypervisor, crosvm, User-mode Linux), what works differently than expected, " +
    "and the permissions that Deno needs to run it. A software guest negotiates with its device as it would. Captures " +
    "are opened to be read; nothing is written, no interface and no socket is touched.",
    "What keeps this host from running it, such as a folder that is not there or a right that is missing, is listed, and " +
    "the exit code is 1 then; rights are only seen with --allow-ffi.",
  ],
  options: [],
  examples: ["check examples/replay_capture.jsonc", "check examples/real_guest.jsonc"],
};

/** Checks a configuration. Rejects with ConfigError if it is wrong. */
export async function runCheck(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(CHECK, args, io);
  if (parsed === null) return EXIT_OK;
  const [path] = parsed.operands;
  const config = await loadConfig(path, newRegistry());
  await using machine = buildMachine(config, { preview: true });
  // The file is not read again: it may be a pipe.
  const written = JSON.parse(config.text);
  const found = located(config, () => {
    const views = machine.devices.map((device) => describeDevice(config, written, device));
    return {
      views,
      host: hostFindings(config, views.flatMap(({ needs }) => needs)),
      permissions: permissionsOf(path, written, config),
    };
  });
  const { name, clock, frameMemoryBytes, pollMaxUs } = config;
  const { views, host, permissions } = found;
  const devices = views.map(({ device }) => device);
  const description: ConfigDescription = {
    file: path,
    name,
    clock,
    frameMemoryBytes,
    polling: {
      maxUs: pollMaxUs,
      threads: machine.devices.reduce(
        (threads, { device, workers }) => threads + (workers ? device.workers!.queueSets.length : 0),
        1,
      ),
    },
    devices,
    host,
    permissions,
  };
  if (parsed.json) io.out(`${JSON.stringify(description, null, 2)}\n`);
  else io.out(checkReport(description, views, io));
  return host.problems.length === 0 ? EXIT_OK : EXIT_FAILED;
}
