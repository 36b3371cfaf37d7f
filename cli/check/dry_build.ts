/**
 * Builds a machine to look at, without its side effects: captures are opened to be read, nothing is written, no
 * interface and no socket is touched.
 * @module
 */
import { buildMachine } from "../../config/build.ts";
import type { Machine } from "../../config/machine.ts";
import type { ResolvedConfig, ResolvedPart } from "../../config/types.ts";
import { defineNetwork, type NetworkPlugin } from "../../core/plugin.ts";
import type { NetworkAbilities } from "../../core/stage.ts";
import type { FrameTransport } from "../../core/transport.ts";
import loopback from "../../transports/loopback.ts";
import { pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
import { tap, type TapOptions } from "../../transports/tap/mod.ts";
import { tapIsUnfinished, tapQueues } from "./ends.ts";

/** A machine that must not be started, and networks that were left closed. */
export interface DryBuild {
  /** The machine; close it. */
  readonly machine: Machine;
  /** Paths of networks that can only be opened for real, such as `$.devices[0].network`. */
  readonly closed: readonly string[];
}

const NO_ABILITIES: NetworkAbilities = { partialChecksum: false, largeTcp: false, largeUdp: false };

/** Builds what the configuration describes. Throws as `buildMachine` does. */
export function dryBuild(config: ResolvedConfig): DryBuild {
  const closed: string[] = [];
  const devices = config.devices.map((device) => {
    if (device.network === null) return device;
    return { ...device, network: dryNetwork(device.network, config, closed) };
  });
  return { machine: buildMachine({ ...config, devices }), closed };
}

/** The same network, less what it would write or open. */
function dryNetwork(
  part: ResolvedPart<NetworkPlugin>,
  config: ResolvedConfig,
  closed: string[],
): ResolvedPart<NetworkPlugin> {
  if (part.plugin === loopback) return part;
  if (part.plugin === pcap) {
    const { inner, write: _, ...options } = part.options as PcapOptions;
    if (inner === undefined) return { ...part, options };
    // A recorder passes on what the network behind it can do.
    const path = `${part.path}.inner`;
    return dryNetwork(config.resolvePart("network", inner, path), config, closed);
  }
  const { plugin, path } = part;
  let create: NetworkPlugin["create"] = () => silentNetwork(NO_ABILITIES, 1);
  if (part.plugin === tap) {
    const options = part.options as TapOptions;
    const unfinished = tapIsUnfinished(options);
    // Whether the kernel knows large UDP frames is not to be known without asking it.
    const abilities = { partialChecksum: unfinished, largeTcp: unfinished, largeUdp: false };
    create = (context) => silentNetwork(abilities, tapQueues(options, context.queuePairs));
  } else closed.push(path);
  const silent = defineNetwork({ name: plugin.name, options: plugin.options, create });
  return { plugin: silent, options: part.options, path };
}

/** A network on which nothing ever happens. */
function silentNetwork(abilities: NetworkAbilities, queuePairs: number): FrameTransport {
  return {
    maxFrameBytes: 65_535,
    abilities,
    queuePairs,
    receive: () => 0,
    send: () => 0,
    [Symbol.dispose]: () => {},
  };
}
