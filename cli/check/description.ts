/**
 * What a configuration would be, as one value: what `check --json` prints, and what the text is made from.
 * @module
 */
import type { ConfigIssue } from "../../config/errors.ts";
import { isPlainObject } from "../../config/plain.ts";
import type { PluginKind } from "../../config/plugin_shape.ts";
import { DEVICE_KEYS, OFFLOAD_KEYS } from "../../config/schema.ts";
import type { Machine } from "../../machine/machine.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import type { Device } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { Direction } from "../../core/stage.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import {
  featureName,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_USO,
} from "../../wire/net_features.ts";
import { describeOptions } from "../plugins/describe.ts";
import { tapEnds, tapIsUnfinished, vhostUserEnds } from "./ends.ts";
import { describeFrontEnds, type FrontEndDescription } from "./front_ends.ts";
import type { HostFindings } from "./host_findings.ts";
import { notesOn } from "./notes.ts";
import type { Permissions } from "./permissions.ts";

/** A plugin and its options, complete. */
export interface PartDescription {
  /** The plugin's name. */
  readonly use: string;
  /** Its options as written, completed by the defaults that are known. */
  readonly options: Readonly<Record<string, unknown>>;
}

/** A device. */
export interface DeviceDescription extends PartDescription {
  /** What it is called. */
  readonly name: string;
  /** Its device type (virtio 1.2, section 5). */
  readonly type: number;
  /** The way to the guest. */
  readonly driver: PartDescription;
  /** The way to the network. */
  readonly network: PartDescription | null;
  /** Is the network one that cannot be opened for a look? Then the features are those over a plain network. */
  readonly networkClosed: boolean;
  /** The stages of both directions, in order. */
  readonly stages: Readonly<Record<Direction, readonly PartDescription[]>>;
  /** The features it offers, by name. */
  readonly features: readonly string[];
  /** Those that it offers as well if the kernel behind its TAP knows large UDP frames (Linux 6.2). */
  readonly kernelFeatures: readonly string[];
  /** The largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** What its driver would accept of them, by name; null if the driver is a program that is not there yet. */
  readonly agreed: readonly string[] | null;
  /** What front-ends would make of it; none without a vhost-user driver. */
  readonly frontEnds: readonly FrontEndDescription[];
  /** What works otherwise than one may think. */
  readonly notes: readonly ConfigIssue[];
}

/** A whole configuration. */
export interface ConfigDescription {
  /** The file. */
  readonly file: string;
  /** What the machine is called. */
  readonly name: string;
  /** Which clock drives it. */
  readonly clock: "system" | "virtual";
  /** Memory for frames, in bytes. */
  readonly frameMemoryBytes: number;
  /** The devices. */
  readonly devices: readonly DeviceDescription[];
  /** What this host lacks to run it. */
  readonly host: HostFindings;
  /** What Deno must permit. */
  readonly permissions: Permissions;
}

/** What was found out when the configuration was built to be looked at. */
export interface BuildFindings {
  /** Paths of networks that could not be opened for a look. */
  readonly closed: readonly string[];
  /** The features that each device's driver would accept; null where that is not known. */
  readonly agreed: readonly (FeatureSet | null)[];
}

/** Describes a configuration that was built. */
export function describeConfig(
  file: string,
  written: unknown,
  config: ResolvedConfig,
  machine: Machine,
  { closed, agreed }: BuildFindings,
): Omit<ConfigDescription, "permissions" | "host"> {
  const part = (resolved: ResolvedPart): PartDescription => ({
    use: resolved.plugin.name,
    options: optionsOf(resolved, written),
  });
  const devices = config.devices.map((resolved, i): DeviceDescription => {
    const { device } = machine.devices[i];
    const network = resolved.network;
    const end = vhostUserEnds(config).find((end) => end.device === resolved);
    const frontEnds = end === undefined ? [] : describeFrontEnds(device, end.options.profile);
    const line = (direction: Direction) =>
      resolved.offloads
        .filter(({ plugin }) => plugin.direction === direction || plugin.direction === "both")
        .map(part);
    return {
      ...part(resolved),
      name: resolved.name,
      type: device.id,
      driver: part(resolved.driver),
      network: network === null ? null : part(network),
      // A recorder is open, but the network in it may not be.
      networkClosed: network !== null && closed.some((path) => path.startsWith(network.path)),
      stages: { toGuest: line("toGuest"), fromGuest: line("fromGuest") },
      features: [...device.features].map(featureName),
      kernelFeatures: kernelFeatures(config, resolved, device),
      queueSizes: device.queueSizes,
      agreed: agreed[i] === null ? null : Array.from(agreed[i], featureName),
      frontEnds,
      notes: located(config, notesOn(config, resolved, device, { frontEnds, agreed: agreed[i] })),
    };
  });
  const { name, clock, frameMemoryBytes } = config;
  return { file, name, clock, frameMemoryBytes, devices };
}

/** The notes with their places, if the configuration was read from a text. */
function located({ source }: ResolvedConfig, notes: readonly ConfigIssue[]): readonly ConfigIssue[] {
  return source === undefined ? notes : source.located(notes);
}

/** What a TAP adds if its kernel knows large UDP frames. */
function kernelFeatures(config: ResolvedConfig, resolved: ResolvedDevice, { features }: Device): string[] {
  if (!tapEnds(config).some((end) => end.device === resolved && tapIsUnfinished(end.options))) return [];
  const { withheldFeatures } = resolved.options as NetOptions;
  return UDP_FEATURES.filter(([bit, needs]) =>
    !features.has(bit) && features.has(needs) && !withheldFeatures.includes(bit)
  ).map(([bit]) => featureName(bit));
}

/** Features for large UDP frames, and what they depend on. */
const UDP_FEATURES: readonly (readonly [bit: number, needs: number])[] = [
  [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_CSUM],
];

/** The keys of an entry that are not its plugin's options. */
const OWN_KEYS: Readonly<Record<PluginKind, readonly string[]>> = {
  device: ["use", ...DEVICE_KEYS],
  driver: ["use"],
  network: ["use"],
  offload: ["use", ...OFFLOAD_KEYS],
};

/** The options of a part as people write them, completed by the defaults: what the plugin makes of them is its own affair. */
function optionsOf({ plugin, path }: ResolvedPart, written: unknown): Record<string, unknown> {
  const defaults = describeOptions(plugin).filter((option) => option.default !== undefined)
    .map((option) => [option.name, option.default]);
  const entry = valueAt(written, path);
  const given = isPlainObject(entry)
    ? Object.entries(entry).filter(([key]) => !OWN_KEYS[plugin.kind].includes(key))
    : [];
  return Object.fromEntries([...defaults, ...given]);
}

/** The value at a path such as `$.devices[0].network`. */
function valueAt(root: unknown, path: string): unknown {
  let value = root;
  for (const [, name, index] of path.matchAll(/\.(\w+)|\[(\d+)\]/g)) {
    if (index !== undefined) value = Array.isArray(value) ? value[Number(index)] : undefined;
    else value = isPlainObject(value) ? value[name] : undefined;
  }
  return value;
}
