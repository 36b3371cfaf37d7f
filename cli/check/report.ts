/**
 * The description of a configuration, for people.
 * @module
 */
import { describeIssue } from "../../config/errors.ts";
import type { Passage } from "../../transports/vhost_user/mod.ts";
import type { Io } from "../console/io.ts";
import { styleFor } from "../console/style.ts";
import { programName } from "../console/usage.ts";
import { count, labelled, plural, shellQuoted, wrap } from "../console/text.ts";
import type { ConfigDescription, DeviceDescription, PartDescription } from "./description.ts";
import type { FrontEndDescription } from "./front_ends.ts";
import { runnablePath } from "./permissions.ts";

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
  let text = `\n  ${bold(head)}  ${bold("features that the driver gets")}\n`;
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
