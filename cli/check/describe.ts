/**
 * What a configuration would be, as one value: what `check --json` prints, and what the text is made from.
 * @module
 */
import type { ConfigIssue } from "../../config/errors.ts";
import { partKind } from "../../config/kinds.ts";
import { isPlainObject } from "../../config/plain.ts";
import { DEVICE_KEYS, SWITCH_KEYS } from "../../config/schema.ts";
import type { ResolvedConfig, ResolvedPart } from "../../config/types.ts";
import { featureName } from "../../core/features.ts";
import type {
  DevicePlugin,
  FeaturePassage,
  HostNeed,
  PartRow,
  PluginDescription,
} from "../../plugins/plugin.ts";
import { deviceTold } from "../../machine/descriptions.ts";
import type { MachineDevice } from "../../machine/machine.ts";
import { guarded } from "../../machine/plugin_guards.ts";
import { describeOptions } from "../plugins.ts";
import type { HostFindings } from "./host.ts";
import { type Permissions, valueAt } from "./permissions.ts";

/** A plugin and its options, complete; and what else it tells of itself. */
export interface PartDescription {
  /** The plugin's name. */
  readonly use: string;
  /** Its options as written, completed by the defaults that are known. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The parts that it wraps, if it does. */
  readonly inner?: readonly PartDescription[];
}

/**
 * A device. What stands in its slots is beside these by the names of the slots, such as `network`, or as the
 * kind of part has it, such as `stages.toGuest`; and so is what its plugin tells of it.
 */
export interface DeviceDescription extends PartDescription {
  /** What it is called. */
  readonly name: string;
  /** Its device type (virtio 1.2, section 5). */
  readonly type: number;
  /** The way to the guest. */
  readonly driver: PartDescription;
  /** The features it offers, by name. */
  readonly features: readonly string[];
  /** The largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** What its driver would accept of them, by name; null if the driver is a program that is not there yet. */
  readonly agreed: readonly string[] | null;
  /** What front-ends would make of it; none if its driver knows of none. */
  readonly frontEnds: readonly FrontEndDescription[];
  /** What works differently than expected. */
  readonly notes: readonly ConfigIssue[];
}

/** What becomes of the features of a device at one front-end, by name. */
export interface FrontEndDescription extends Readonly<Record<FeaturePassage, readonly string[]>> {
  /** The front-end, by the name of its profile. */
  readonly name: string;
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
  /** Polling before sleeps: for how long at most, in µs (0: none), and how many threads would do so. */
  readonly polling: { readonly maxUs: number; readonly threads: number };
  /** The devices. */
  readonly devices: readonly DeviceDescription[];
  /** What this host lacks to run it. */
  readonly host: HostFindings;
  /** What Deno must permit. */
  readonly permissions: Permissions;
}

type Lines = PluginDescription["lines"] & object;

/** Some parts of a slot, for people. */
export interface PartsView extends Pick<PartRow, "label" | "none"> {
  /** The parts. */
  readonly parts: readonly PartDescription[];
  /** Has the slot a list? */
  readonly isList: boolean;
  /** What their plugins say. */
  readonly lines: Lines;
}

/** A device with what only people are told, and what it needs. */
export interface DeviceView {
  /** The device. */
  readonly device: DeviceDescription;
  /** What its plugin says. */
  readonly lines: Lines;
  /** What that of its driver says. */
  readonly driverLines: Lines;
  /** What stands in its slots. */
  readonly rows: readonly PartsView[];
  /** What it offers besides, and when. */
  readonly offers: readonly string[];
  /** What must be on this host. */
  readonly needs: readonly HostNeed[];
}

/**
 * Describes a device of a machine that was built to be looked at.
 * @param written the configuration as it stands in the file
 */
export function describeDevice(config: ResolvedConfig, written: unknown, made: MachineDevice): DeviceView {
  const { resolved, device, driver } = made;
  const agreed = guarded(resolved.driver, "negotiate", () => driver.negotiate?.(device)) ?? null;
  const { frontEnds, hints, descriptions } = deviceTold(config, made, agreed);
  const names = (bits: Iterable<number>) => Array.from(bits, (bit) => featureName(bit, device.featureNames));
  const part = (one: ResolvedPart): PartDescription => ({
    ...descriptions.get(one)!.json,
    use: one.plugin.name,
    options: optionsOf(one, written),
    ...(one.inner.length > 0 && { inner: one.inner.map(part) }),
  });
  const linesOf = (parts: readonly ResolvedPart[]): Lines =>
    parts.flatMap((one) => [...descriptions.get(one)!.lines, ...linesOf(one.inner)]);
  const slots: Record<string, unknown> = {};
  const rows = Object.entries(resolved.plugin.slots ?? {}).flatMap(([slot, { kind, many }]) => {
    const parts = [resolved.parts[slot] ?? []].flat() as readonly ResolvedPart[];
    const grouped = partKind(kind).rows?.(parts) ?? [{ label: slot, key: slot, parts, none: "none" }];
    const isList = many === true;
    return grouped.map((row, i): PartsView => {
      const parts = row.parts.map(part);
      const [key, group] = row.key.split(".");
      const value = isList ? parts : parts[0] ?? null;
      slots[key] = group === undefined ? value : { ...slots[key] as object, [group]: value };
      const isLast = i === grouped.length - 1;
      return { ...row, parts, isList, lines: isLast ? linesOf([resolved.parts[slot] ?? []].flat()) : [] };
    });
  });
  const { source } = config;
  const all = [...descriptions.values()];
  const { json, lines } = descriptions.get(resolved)!;
  const head = {
    use: resolved.plugin.name,
    options: optionsOf(resolved, written),
    name: resolved.name,
    type: device.type,
    driver: part(resolved.driver),
  };
  return {
    device: {
      // The order of the keys; what plugins bring takes the place of none.
      ...head,
      ...slots,
      ...json,
      ...head,
      features: names(device.features),
      queueSizes: device.queueSizes,
      agreed: agreed === null ? null : names(agreed),
      frontEnds: frontEnds.map(({ name, features }) => {
        const those = (wanted: FeaturePassage) =>
          names([...features].filter(([, passage]) => passage === wanted).map(([bit]) => bit));
        return {
          name,
          agreed: those("agreed"),
          newer: those("newer"),
          own: those("own"),
          lost: those("lost"),
        };
      }),
      notes: source === undefined ? hints : source.located(hints),
    },
    lines,
    driverLines: linesOf([resolved.driver]),
    rows,
    offers: [...new Set(all.flatMap(({ offers }) => offers))],
    needs: all.flatMap(({ needs }) => needs),
  };
}

/**
 * The options of a part as people write them, completed by the defaults: what the plugin makes of them is its
 * own affair.
 */
function optionsOf({ plugin, path }: ResolvedPart, written: unknown): Record<string, unknown> {
  const { slots = {} } = plugin as DevicePlugin;
  const keys = ["use", ...partKind(plugin.kind).hasSwitch === true ? SWITCH_KEYS : []];
  if (plugin.kind === "device") keys.push(...DEVICE_KEYS, ...Object.keys(slots));
  const defaults = describeOptions(plugin).filter((option) => option.default !== undefined)
    .map((option) => [option.name, option.default]);
  const entry = valueAt(written, path);
  const given = isPlainObject(entry) ? Object.entries(entry).filter(([key]) => !keys.includes(key)) : [];
  return Object.fromEntries([...defaults, ...given]);
}
