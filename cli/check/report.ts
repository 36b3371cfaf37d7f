/**
 * The description of a configuration, for people.
 * @module
 */
import { type ConfigIssue, describeIssue } from "../../config/errors.ts";
import { isPlainObject } from "../../config/plain.ts";
import { DEVICE_KEYS, SWITCH_KEYS } from "../../config/schema.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import type { Device } from "../../core/device.ts";
import { featureName, type FeatureSet } from "../../core/features.ts";
import { type DevicePlugin, partsOfKind } from "../../plugins/plugin.ts";
import type { OffloadPlugin } from "../../pipeline/plugin.ts";
import type { Direction } from "../../pipeline/stage.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import type { Machine } from "../../machine/machine.ts";
import { frontEndsOf, type Passage, passagesTo, type ProfileName } from "../../transports/vhost_user/mod.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_USO,
} from "../../wire/net_features.ts";
import { count, type Io, labelled, plural, shellQuoted, styleFor, wrap } from "../console/io.ts";
import { programName } from "../console/usage.ts";
import { describeOptions } from "../plugins.ts";
import { tapEnds, tapIsUnfinished, vhostUserEnds } from "./build.ts";
import { type HostFindings, notesOn } from "./notes.ts";
import { type Permissions, runnablePath, valueAt } from "./permissions.ts";

const COLUMN = 14;

/** The whole report. */
export function checkReport(description: ConfigDescription, io: Io): string {
  const { bold, cyan, green, red } = styleFor(io);
  const { file, name, clock, devices, frameMemoryBytes, permissions } = description;
  const time = clock === "system" ? "in real time" : "in virtual time";
  const facts = `${plural(devices.length, "device")}, ${time}, ${
    count(frameMemoryBytes / 2 ** 20)
  } MiB for frames`;
  const { problems, unseen } = description.host;
  const verdict = problems.length === 0 ? green("Good:") : red("Not on this host:");
  let text = `${verdict} ${file}\n${bold(name)}: ${facts}\n`;
  for (const problem of problems) {
    text += labelled("  lacks", describeIssue(problem), COLUMN, io.columns);
  }
  for (const one of unseen) text += labelled("  not seen", one, COLUMN, io.columns);
  for (const device of devices) text += `\n${deviceText(device, io)}`;
  const runnable = runnablePath(file);
  text += `\n${bold(runnable === file ? "Run it with" : "Save it as a file, and run it with")}\n`;
  text += `  ${cyan(["deno run", ...permissions.flags, programName(), shellQuoted(runnable)].join(" "))}\n`;
  if (permissions.modules.length > 0) {
    const modules = permissions.modules.join(", ");
    text += wrap(`Modules may need more than these permissions; their authors know: ${modules}`, io.columns)
      .join("\n") + "\n";
  }
  return text;
}

function deviceText(device: DeviceDescription, io: Io): string {
  const { bold } = styleFor(io);
  const line = (label: string, value: string) => labelled(`  ${label}`, value, COLUMN, io.columns);
  const { toGuest, fromGuest } = device.stages;
  let text = `${bold(device.name)} (${device.use}, device type ${device.type})\n`;
  text += line("options", optionsText(device.options));
  text += line("guest by", partText(device.driver));
  text += line("network", device.network === null ? "none" : partText(device.network));
  text += stagesText("to guest", toGuest, line) + stagesText("from guest", fromGuest, line);
  text += line("queues", queuesText(device.queueSizes));
  const offers = device.features.join(", ");
  const kernel = device.kernelFeatures.join(", ");
  let sure = device.networkClosed
    ? "; and more, if the network takes unfinished frames (it was not opened)"
    : "";
  if (kernel !== "") sure += `; and ${kernel}, if the kernel is Linux 6.2 or newer`;
  text += line("offers", offers + sure);
  if (device.agreed !== null) text += line("agreed", device.agreed.join(", "));
  for (const note of device.notes) text += line("mind", describeIssue(note));
  return text + frontEndsText(device.frontEnds, io);
}

/** What is left of the features with each front-end: those that fare alike in one row. */
function frontEndsText(frontEnds: readonly FrontEndDescription[], io: Io): string {
  if (frontEnds.length === 0) return "";
  const { bold } = styleFor(io);
  const rows = new Map<string, string[]>();
  const [first] = frontEnds;
  for (const name of PASSAGES.flatMap((passage) => first[passage])) {
    const cells = frontEnds.map((end) => {
      const cell = CELLS[PASSAGES.find((passage) => end[passage].includes(name))!];
      return cell.padEnd(end.name.length);
    }).join("  ");
    rows.set(cells, [...rows.get(cells) ?? [], name]);
  }
  const head = frontEnds.map(({ name }) => name).join("  ");
  let text = `\n  ${bold(head)}  ${bold("features the driver gets")}\n`;
  for (const [cells, names] of rows) {
    text += labelled(`  ${cells}`, names.join(", "), head.length + 4, io.columns);
  }
  return text + wrap(LEGEND, io.columns - 2).map((each) => `  ${each}\n`).join("");
}

const PASSAGES: readonly Passage[] = ["agreed", "newer", "own", "lost"];
const CELLS: Readonly<Record<Passage, string>> = { agreed: "yes", newer: "new", own: "own", lost: "-" };
const LEGEND =
  "yes: agreed on with this device; new: by new versions only; own: the front-end's own affair; " +
  "-: not with this front-end";

function stagesText(
  label: string,
  stages: readonly PartDescription[],
  line: (label: string, value: string) => string,
): string {
  if (stages.length === 0) return line(label, "no stages: frames pass as they are");
  return stages.map((stage, i) => line(i === 0 ? label : "", `${i + 1}. ${partText(stage)}`)).join("");
}

function partText({ use, options }: PartDescription): string {
  const shown = optionsText(options);
  return shown === "none" ? use : `${use}: ${shown}`;
}

function optionsText(options: Readonly<Record<string, unknown>>): string {
  const entries = Object.entries(options);
  if (entries.length === 0) return "none";
  return entries.map(([key, value]) => `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}

/** Equal neighbours in one: `2 of 1024, 64`. */
function queuesText(sizes: readonly number[]): string {
  const runs: { size: number; times: number }[] = [];
  for (const size of sizes) {
    const last = runs.at(-1);
    if (last?.size === size) last.times++;
    else runs.push({ size, times: 1 });
  }
  return runs.map(({ size, times }) => times === 1 ? `1 of ${size}` : `${times} of ${size}`).join(", ") +
    " descriptors";
}

// What a configuration would be, as one value: what `check --json` prints, and what the text is made from.

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
    const [network = null] = partsOfKind(resolved, "network");
    const end = vhostUserEnds(config).find((end) => end.device === resolved);
    const frontEnds = end === undefined
      ? []
      : describeFrontEnds(resolved.plugin, device, end.options.profile);
    const named = (features: FeatureSet) =>
      Array.from(features, (bit) => featureName(bit, device.featureNames));
    const line = (direction: Direction) =>
      (partsOfKind(resolved, "offload") as ResolvedPart<OffloadPlugin>[])
        .filter(({ plugin }) => plugin.direction === direction || plugin.direction === "both")
        .map(part);
    return {
      ...part(resolved),
      name: resolved.name,
      type: device.type,
      driver: part(resolved.driver),
      network: network === null ? null : part(network),
      // A recorder is open, but the network in it may not be.
      networkClosed: network !== null && closed.some((path) => path.startsWith(network.path)),
      stages: { toGuest: line("toGuest"), fromGuest: line("fromGuest") },
      features: named(device.features),
      kernelFeatures: kernelFeatures(config, resolved, device),
      queueSizes: device.queueSizes,
      agreed: agreed[i] === null ? null : named(agreed[i]),
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
function kernelFeatures(config: ResolvedConfig, resolved: ResolvedDevice, device: Device): string[] {
  const { features, featureNames } = device;
  if (!tapEnds(config).some((end) => end.device === resolved && tapIsUnfinished(end.options))) return [];
  const { withheldFeatures } = resolved.options as NetOptions;
  return UDP_FEATURES.filter(([bit, needs]) =>
    !features.has(bit) && features.has(needs) && !withheldFeatures.includes(bit)
  ).map(([bit]) => featureName(bit, featureNames));
}

/** Features for large UDP frames, and what they depend on. */
const UDP_FEATURES: readonly (readonly [bit: number, needs: number])[] = [
  [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_CSUM],
];

/** The keys of an entry that are not its plugin's options. */
const OWN_KEYS: Readonly<Record<string, readonly string[]>> = {
  device: ["use", "network", "offloads", ...DEVICE_KEYS],
  driver: ["use"],
  network: ["use"],
  offload: ["use", ...SWITCH_KEYS],
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

// What each front-end would make of a device.

/** What becomes of the features of a device at one front-end, by name. */
export interface FrontEndDescription extends Readonly<Record<Passage, readonly string[]>> {
  /** The front-end, by the name of its profile. */
  readonly name: string;
}

/** Every front-end that can be expected at this device. */
export function describeFrontEnds(
  plugin: DevicePlugin,
  device: Device,
  profile: ProfileName,
): FrontEndDescription[] {
  return frontEndsOf(plugin.frontEnd, profile).map((name) => {
    const passages = [...passagesTo(name, device, profile)];
    const names = (wanted: Passage) =>
      passages.filter(([, passage]) => passage === wanted)
        .map(([bit]) => featureName(bit, device.featureNames));
    return { name, agreed: names("agreed"), newer: names("newer"), own: names("own"), lost: names("lost") };
  });
}
