/**
 * Builds a machine to look at, without its side effects: captures are opened to be read, nothing is written, no
 * interface and no socket is touched.
 * @module
 */
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import { partsOfKind } from "../../plugins/plugin.ts";
import type { NetworkPlugin } from "../../pipeline/plugin.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import type { FrameTransport } from "../../pipeline/frame_transport.ts";
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
