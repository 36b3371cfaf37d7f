/**
 * What a configuration would be, as one value: what `check --json` prints, and what the text is made from.
 * @module
 */
import type { Machine } from "../../config/machine.ts";
import type { ResolvedConfig, ResolvedPart } from "../../config/types.ts";
import type { Direction } from "../../core/stage.ts";
import { featureName } from "../../wire/net_features.ts";
import { formatMac } from "../../wire/ethernet.ts";
import type { Permissions } from "./permissions.ts";

/** A plugin and its options, complete. */
export interface PartDescription {
  /** The plugin's name. */
  readonly use: string;
  /** Its options, as far as they can be shown. */
  readonly options: unknown;
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
  /** The largest size of each queue. */
  readonly queueSizes: readonly number[];
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
  /** What Deno must permit. */
  readonly permissions: Permissions;
}

/** Describes a configuration that was built. */
export function describeConfig(
  file: string,
  config: ResolvedConfig,
  machine: Machine,
  closed: readonly string[],
): Omit<ConfigDescription, "permissions"> {
  const devices = config.devices.map((resolved, i): DeviceDescription => {
    const { device } = machine.devices[i];
    const network = resolved.network;
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
      queueSizes: device.queueSizes,
    };
  });
  const { name, clock, frameMemoryBytes } = config;
  return { file, name, clock, frameMemoryBytes, devices };
}

function part({ plugin, options }: ResolvedPart): PartDescription {
  return { use: plugin.name, options: showable(options) };
}

/** Options may be anything that a plugin's schema makes of what was written. */
function showable(value: unknown, depth = 0): unknown {
  if (value instanceof Uint8Array) return value.length === 6 ? formatMac(value) : `${value.length} bytes`;
  if (Array.isArray(value)) return depth > 4 ? "…" : value.map((item) => showable(item, depth + 1));
  if (typeof value === "bigint" || typeof value === "symbol") return String(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return value;
  if (depth > 4) return "…";
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, showable(item, depth + 1)]));
}
