/**
 * The description of a configuration, for people.
 * @module
 */
import type { Io } from "../console/io.ts";
import { styleFor } from "../console/style.ts";
import { count, labelled, plural, shellQuoted, wrap } from "../console/text.ts";
import type { ConfigDescription, DeviceDescription, PartDescription } from "./description.ts";

const COLUMN = 14;

/** The whole report. */
export function checkReport(description: ConfigDescription, io: Io): string {
  const { bold, cyan, green } = styleFor(io);
  const { file, name, clock, devices, frameMemoryBytes, permissions } = description;
  const time = clock === "system" ? "in real time" : "in virtual time";
  const facts = `${plural(devices.length, "device")}, ${time}, ${
    count(frameMemoryBytes / 2 ** 20)
  } MiB for frames`;
  let text = `${green("Good:")} ${file}\n${bold(name)}: ${facts}\n`;
  for (const device of devices) text += `\n${deviceText(device, io)}`;
  text += `\n${bold("Run it with")}\n`;
  text += `  ${cyan(["deno run", ...permissions.flags, "mod.ts", shellQuoted(file)].join(" "))}\n`;
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
  const sure = device.networkClosed
    ? "; and more, if the network takes unfinished frames (it was not opened)"
    : "";
  return text + line("offers", offers + sure);
}

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
