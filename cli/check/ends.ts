/**
 * The ends of a configuration that reach the host: vhost-user sockets, and TAPs, however deep they are wrapped.
 * @module
 */
import { absolutePath } from "../../machine/transport_builder.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import type { NetworkPlugin } from "../../core/plugin.ts";
import { pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
import { tap, type TapOptions } from "../../transports/tap/mod.ts";
import { vhostUser, type VhostUserOptions } from "../../transports/vhost_user/mod.ts";

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
  for (let part = device.network; part !== null;) {
    found.push(part);
    const { inner } = part.plugin === pcap ? part.options as PcapOptions : { inner: undefined };
    part = inner === undefined ? null : config.resolvePart("network", inner, `${part.path}.inner`);
  }
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
