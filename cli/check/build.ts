/**
 * Builds a machine to look at, without its side effects: captures are opened to be read, nothing is written, no
 * interface and no socket is touched.
 * @module
 */
import { ConfigError, type ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import { partsOfKind } from "../../core/plugin.ts";
import type { NetworkPlugin } from "../../pipeline/plugin.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import { net } from "../../devices/net/mod.ts";
import { buildMachine } from "../../machine/build.ts";
import { absolutePath } from "../../machine/paths.ts";
import type { Machine } from "../../machine/machine.ts";
import loopback from "../../transports/loopback.ts";
import { isPipe, isStandardInput } from "../../transports/pcap/byte_source.ts";
import { identityOfPath, pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
import { tap, tapCapabilities, type TapOptions } from "../../transports/tap/mod.ts";
import { vhostUser, type VhostUserOptions } from "../../transports/vhost_user/mod.ts";

/** A machine that must not be started, and networks that were left closed. */
export interface DryBuild {
  /** The machine; close it. */
  readonly machine: Machine;
  /** Paths of networks that can only be opened for real, such as `$.devices[0].network`. */
  readonly closed: readonly string[];
}

/** Builds what the configuration describes. Throws as `buildMachine` does. */
export function dryBuild(config: ResolvedConfig): DryBuild {
  const closed: string[] = [];
  const devices = config.devices.map((device) => {
    const dry = (part: ResolvedPart) =>
      part.plugin.kind === "network" ? dryNetwork(part as NetworkPart, closed) : part;
    const parts = Object.entries(device.parts).map(([slot, part]) => [
      slot,
      part === null ? null : Array.isArray(part) ? part.map(dry) : dry(part as ResolvedPart),
    ]);
    return { ...device, parts: Object.fromEntries(parts) };
  });
  const resolvePart: ResolvedConfig["resolvePart"] = (kind, written, path) => {
    const part = config.resolvePart(kind, written, path);
    return kind === "network" ? dryNetwork(part as NetworkPart, closed) : part;
  };
  return { machine: buildMachine({ ...config, devices, resolvePart }), closed };
}

type NetworkPart = ResolvedPart<NetworkPlugin>;

/** The same network, less what it would write or open. */
function dryNetwork(part: NetworkPart, closed: string[]): NetworkPart {
  if (part.plugin === loopback) return part;
  if (part.plugin === pcap) return { ...part, plugin: dryPcap(closed) };
  const { plugin, path } = part;
  let create: NetworkPlugin["create"] = () => silentNetwork(OffloadCapabilities.none, 1);
  if (part.plugin === tap) {
    const options = part.options as TapOptions;
    // Whether the kernel knows large UDP frames is not to be known without asking it.
    const capabilities = tapCapabilities(tapIsUnfinished(options), false);
    create = (context) => silentNetwork(capabilities, tapQueues(options, context.queuePairs));
  } else closed.push(path);
  const silent = { ...plugin, create };
  return { plugin: silent, options: part.options, path, inner: part.inner };
}

/**
 * What the device writes is only claimed, so that it is compared with other files. A pipe stays closed: what is read of it now would
 * be missing when the configuration runs.
 */
function dryPcap(closed: string[]): NetworkPlugin<PcapOptions> {
  return {
    ...pcap,
    create(context, { write, inner, ...options }) {
      if (write !== undefined) {
        const path = context.resolvePath(write);
        context.claimFile({ key: "write", path, use: "write", identity: identityOfPath(path) });
      }
      // A recorder passes on what the network behind it can do.
      if (inner !== undefined) return context.inner(inner, "inner");
      const { read } = options;
      if (read === undefined || !isPipe(isStandardInput(read) ? read : context.resolvePath(read))) {
        return pcap.create(context, options);
      }
      closed.push(context.path);
      return silentNetwork(OffloadCapabilities.none, 1);
    },
  };
}

/** A network on which nothing ever happens. */
function silentNetwork(capabilities: OffloadCapabilities, queuePairs: number): FrameTransport {
  return {
    maxFrameBytes: 65_535,
    capabilities,
    queuePairs,
    receive: () => 0,
    send: () => 0,
    [Symbol.dispose]: () => {},
  };
}

// The ends of a configuration that reach the host: vhost-user sockets, and TAPs, however deep they are wrapped.

/** A vhost-user driver of a configuration. */
export interface VhostUserEnd {
  /** Its device. */
  readonly device: ResolvedDevice;
  /** Number of the device in the configuration. */
  readonly index: number;
  /** Its options. */
  readonly options: VhostUserOptions;
  /** Absolute path of the socket; null if a descriptor is given. */
  readonly socket: string | null;
}

/** A TAP of a configuration. */
export interface TapEnd {
  /** Its device. */
  readonly device: ResolvedDevice;
  /** Its options. */
  readonly options: TapOptions;
  /** Where it stands. */
  readonly path: string;
}

/** The vhost-user drivers, in order. */
export function vhostUserEnds(config: ResolvedConfig): VhostUserEnd[] {
  return config.devices.flatMap((device, index) => {
    if (device.driver.plugin !== vhostUser) return [];
    const options = device.driver.options as VhostUserOptions;
    const { socket } = options;
    return [{
      device,
      index,
      options,
      socket: socket === null ? null : absolutePath(socket, config.baseUrl) ?? socket,
    }];
  });
}

/** The TAPs, in order. */
export function tapEnds(config: ResolvedConfig): TapEnd[] {
  return config.devices.flatMap((device) =>
    networksOf(config, device)
      .filter(({ plugin }) => plugin === tap)
      .map(({ options, path }) => ({ device, options: options as TapOptions, path }))
  );
}

/** The network of a device and those that it wraps, the outermost first. */
export function networksOf(config: ResolvedConfig, device: ResolvedDevice): ResolvedPart<NetworkPlugin>[] {
  const found: ResolvedPart<NetworkPlugin>[] = [];
  const add = (part: ResolvedPart) => {
    found.push(part as ResolvedPart<NetworkPlugin>);
    part.inner.forEach(add);
  };
  void config;
  partsOfKind(device, "network").forEach(add);
  return found;
}

/** How many queues a TAP has for a device with so many queue pairs. */
export function tapQueues(options: TapOptions, queuePairs: number): number {
  if (options.interface === undefined) return options.fds?.length ?? 1;
  return options.multiQueue ?? queuePairs > 1 ? queuePairs : 1;
}

/** May a TAP exchange unfinished frames? */
export function tapIsUnfinished(options: TapOptions): boolean {
  return options.offloads === "auto" && options.vnetHeader;
}

// What in a configuration cannot work on any host, although every part of it is right by itself.

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
