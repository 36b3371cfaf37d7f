/**
 * What management programs expect of any vhost-user back-end ("Backend program conventions" of the vhost-user
 * specification): `--socket-path`, `--fd`, `--print-capabilities`.
 * @module
 */
import { resolve } from "node:path";
import { newRegistry } from "../../config/builtins.ts";
import { loadConfig } from "../../config/load.ts";
import type { ResolvedConfig, ResolvedDevice } from "../../config/types.ts";
import { entropy } from "../../devices/entropy/mod.ts";
import { capabilities, isListening, type VhostUserOptions } from "../../transports/vhost_user/mod.ts";
import { vhostUserEnds } from "../check/ends.ts";
import type { ParsedArgs } from "../console/usage.ts";

/**
 * The same configuration, with the socket that the command line names for its only vhost-user device. Throws UsageError if
 * there is none or several, HostError if the descriptor is no socket.
 */
export function withSocket(config: ResolvedConfig, parsed: ParsedArgs): ResolvedConfig {
  const path = parsed.value("socket-path");
  const fd = parsed.value("fd");
  if (path === undefined && fd === undefined) return config;
  if (path !== undefined && fd !== undefined) {
    throw parsed.usageError("--socket-path and --fd exclude each other; leave one out");
  }
  const option = path === undefined ? "--fd" : "--socket-path";
  const ends = vhostUserEnds(config);
  if (ends.length !== 1) {
    const there = ends.length === 0
      ? "has none"
      : `has ${ends.length}: ${namesOf(ends.map((end) => end.device))}`;
    throw parsed.usageError(
      `${option} is for the only vhost-user device, and the configuration ${there}; ` +
        "write the sockets into the configuration",
    );
  }
  const [{ index, options }] = ends;
  const socket = path === undefined ? passed(Number(number(parsed, fd!)), options) : named(path, options);
  const devices = config.devices.map((device, i) =>
    i === index ? { ...device, driver: { ...device.driver, options: socket } } : device
  );
  return { ...config, devices };
}

/**
 * The line for `--print-capabilities`: the type of the configuration's vhost-user devices; `net` without a configuration.
 * Throws UsageError if they are of several types, ConfigError for a wrong configuration.
 */
export async function capabilitiesOf(parsed: ParsedArgs): Promise<string> {
  const [file] = parsed.operands;
  if (file === undefined) return capabilities("net");
  const devices = vhostUserEnds(await loadConfig(file, newRegistry())).map(({ device }) => device);
  const types = new Set(devices.map(({ plugin }) => plugin === entropy ? "rng" as const : "net" as const));
  if (types.size > 1) {
    throw parsed.usageError(
      `--print-capabilities tells one type, and the vhost-user devices ${namesOf(devices)} are of several; ` +
        "give each type a configuration of its own",
    );
  }
  const [type = "net" as const] = types;
  return capabilities(type);
}

function named(path: string, options: VhostUserOptions): VhostUserOptions {
  return { ...options, socket: resolve(path), fd: null };
}

/** Some programs pass a socket that listens, others one that is connected: it says itself which. */
function passed(fd: number, options: VhostUserOptions): VhostUserOptions {
  const mode = isListening(fd) ? "server" as const : "client" as const;
  return { ...options, socket: null, fd, mode, socketMode: null, socketUser: null, socketGroup: null };
}

function number(parsed: ParsedArgs, fd: string): string {
  if (/^\d{1,6}$/.test(fd) && Number(fd) >= 3) return fd;
  throw parsed.usageError(`--fd is "${fd}"; write the number of a descriptor, 3 or more`);
}

function namesOf(devices: readonly ResolvedDevice[]): string {
  return devices.map(({ name }) => name).join(", ");
}
