/**
 * What in a configuration cannot work on any host, although every part of it is right by itself.
 * @module
 */
import { ConfigError, type ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import { net } from "../../devices/net/mod.ts";
import { type TapEnd, tapEnds, type VhostUserEnd, vhostUserEnds } from "./ends.ts";

/** Most bytes of a socket's path (sun_path, less the zero byte). */
const LONGEST_SOCKET_PATH = 107;

/** Throws ConfigError with everything that two parts of the configuration make impossible together. */
export function refuseContradictions(config: ResolvedConfig): void {
  const sockets = vhostUserEnds(config);
  const taps = tapEnds(config);
  const issues = [
    ...clockIssues(config, sockets, taps),
    ...socketIssues(sockets),
    ...descriptorIssues(sockets, taps),
    ...interfaceIssues(taps),
    ...taps.flatMap(mtuIssues),
  ];
  if (issues.length > 0) throw new ConfigError(issues);
}

function clockIssues(
  config: ResolvedConfig,
  sockets: readonly VhostUserEnd[],
  taps: readonly TapEnd[],
): ConfigIssue[] {
  if (config.clock === "system") return [];
  const ends = [...sockets.map(({ device }) => device.driver.path), ...taps.map(({ path }) => path)];
  return ends.slice(0, 1).map((path) => ({
    path: "$.clock",
    problem: `a virtual clock cannot wait for the host, and ${path} has to`,
    remedy: 'write "clock": "system", or leave it out',
  }));
}

function socketIssues(ends: readonly VhostUserEnd[]): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  const places = new Places("the socket", "give each device a socket of its own");
  for (const { device, socket } of ends) {
    if (socket === null) continue;
    const path = `${device.driver.path}.socket`;
    const { length } = new TextEncoder().encode(socket);
    if (length > LONGEST_SOCKET_PATH) {
      issues.push({
        path,
        problem:
          `the path of the socket is ${socket}, ${length} bytes, and must have at most ${LONGEST_SOCKET_PATH}`,
        remedy: "use a shorter folder, such as /run",
      });
    }
    places.claim(socket, path, issues);
  }
  return issues;
}

function descriptorIssues(sockets: readonly VhostUserEnd[], taps: readonly TapEnd[]): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  const places = new Places("descriptor", "pass a descriptor for each");
  for (const { device, options: { fd } } of sockets) {
    if (fd !== null) places.claim(fd, `${device.driver.path}.fd`, issues);
  }
  for (const { options: { fd, fds }, path } of taps) {
    if (fd !== undefined) places.claim(fd, `${path}.fd`, issues);
    fds?.forEach((number, i) => places.claim(number, `${path}.fds[${i}]`, issues));
  }
  return issues;
}

function interfaceIssues(taps: readonly TapEnd[]): ConfigIssue[] {
  const issues: ConfigIssue[] = [];
  const places = new Places("the interface", "give each device an interface of its own");
  for (const { options, path } of taps) {
    // With %d the kernel chooses a free number.
    if (options.interface === undefined || options.interface.includes("%d")) continue;
    places.claim(options.interface, `${path}.interface`, issues);
  }
  return issues;
}

function mtuIssues({ device, options, path }: TapEnd): ConfigIssue[] {
  if (device.plugin !== net || options.mtu === undefined) return [];
  const { mtu } = device.options as NetOptions;
  if (mtu === undefined || mtu <= options.mtu) return [];
  return [{
    path: `${device.path}.mtu`,
    problem: `the guest is told that packets may have ${mtu} bytes, and ${path} carries ${options.mtu}`,
    remedy: "make both equal",
  }];
}

/** Who has what of which there is only one. */
class Places {
  readonly #what: string;
  readonly #remedy: string;
  readonly #first = new Map<string | number, string>();

  constructor(what: string, remedy: string) {
    this.#what = what;
    this.#remedy = remedy;
  }

  claim(thing: string | number, path: string, issues: ConfigIssue[]): void {
    const first = this.#first.get(thing);
    if (first === undefined) this.#first.set(thing, path);
    else {issues.push({
        path,
        problem: `${this.#what} ${thing} is that of ${first} already`,
        remedy: this.#remedy,
      });}
  }
}
