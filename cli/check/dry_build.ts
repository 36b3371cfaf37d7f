/**
 * Builds a machine to look at, without its side effects: captures are opened to be read, nothing is written, no
 * interface and no socket is touched.
 * @module
 */
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import type { ResolvedConfig, ResolvedPart } from "../../config/types.ts";
import { defineNetwork, type NetworkPlugin } from "../../core/plugin.ts";
import type { NetworkAbilities } from "../../core/stage.ts";
import type { FrameTransport } from "../../core/transport.ts";
import loopback from "../../transports/loopback.ts";
import { isPipe, isStandardInput } from "../../transports/pcap/byte_source.ts";
import { identityOfPath, pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
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
    return { ...device, network: dryNetwork(device.network, closed) };
  });
  const resolvePart: ResolvedConfig["resolvePart"] = (kind, written, path) => {
    const part = config.resolvePart(kind, written, path);
    return kind === "network" ? dryNetwork(part as NetworkPart, closed) as typeof part : part;
  };
  return { machine: buildMachine({ ...config, devices, resolvePart }), closed };
}

type NetworkPart = ResolvedPart<NetworkPlugin>;

/** The same network, less what it would write or open. */
function dryNetwork(part: NetworkPart, closed: string[]): NetworkPart {
  if (part.plugin === loopback) return part;
  if (part.plugin === pcap) return { ...part, plugin: dryPcap(closed) };
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
      return silentNetwork(NO_ABILITIES, 1);
    },
  };
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
