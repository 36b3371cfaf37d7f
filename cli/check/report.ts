/**
 * The description of a configuration, for people.
 * @module
 */
import { describeIssue, printable } from "../../config/errors.ts";
import type { FeaturePassage } from "../../plugins/plugin.ts";
import { PASSAGES } from "../../machine/descriptions.ts";
import { count, type Io, labelled, plural, shellQuoted, styleFor, wrap } from "../console/io.ts";
import { programName } from "../console/usage.ts";
import type { ConfigDescription, DeviceView, FrontEndDescription, PartDescription } from "./describe.ts";
import { runnablePath } from "./permissions.ts";

const COLUMN = 14;

/** The whole report. @param views the devices of the description, with what is for people alone */
export function checkReport(
  description: ConfigDescription,
  views: readonly DeviceView[],
  io: Io,
): string {
  const { bold, cyan, green, red } = styleFor(io);
  const { file, name, clock, devices, frameMemoryBytes, permissions, polling } = description;
  const time = clock === "system" ? "in real time" : "in virtual time";
  const facts = `${plural(devices.length, "device")}, ${time}, ${
    count(frameMemoryBytes / 2 ** 20)
  } MiB for frames`;
  const { problems, unseen } = description.host;
  const verdict = problems.length === 0 ? green("Good:") : red("Not on this host:");
  let text = `${verdict} ${file}\n${bold(name)}: ${facts}\n`;
  if (polling.maxUs > 0) {
    const threads = plural(polling.threads, "thread");
    const processors = plural(polling.threads, "processor");
    const value = `${threads} for up to ${
      count(polling.maxUs)
    } µs before each sleep: under traffic, ${processors} in full use`;
    text += labelled("  polls", value, COLUMN, io.columns);
  }
  for (const problem of problems) {
    text += labelled("  lacks", describeIssue(problem), COLUMN, io.columns);
  }
  for (const one of unseen) text += labelled("  not seen", one, COLUMN, io.columns);
  for (const view of views) text += `\n${deviceText(view, io)}`;
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

function deviceText({ device, lines, driverLines, rows, offers }: DeviceView, io: Io): string {
  const { bold } = styleFor(io);
  const line = (label: string, value: string) => labelled(`  ${label}`, value, COLUMN, io.columns);
  const told = (lines: DeviceView["lines"]) =>
    lines.map(([label, value]) => line(printable(label), printable(value))).join("");
  let text = `${bold(device.name)} (${device.use}, device type ${device.type})\n`;
  text += line("options", optionsText(device.options)) + told(lines);
  text += line("guest by", partText(device.driver)) + told(driverLines);
  for (const { label, parts, isList, none, lines } of rows) {
    if (parts.length === 0) text += line(label, none);
    parts.forEach((part, i) => {
      text += line(i === 0 ? label : "", isList ? `${i + 1}. ${partText(part)}` : partText(part));
    });
    text += told(lines);
  }
  text += line("queues", queuesText(device.queueSizes));
  text += line("offers", [device.features.join(", "), ...offers.map(printable)].join("; "));
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

const CELLS: Readonly<Record<FeaturePassage, string>> = {
  agreed: "yes",
  newer: "new",
  own: "own",
  lost: "-",
};
const LEGEND =
  "yes: agreed on with this device; new: by new versions only; own: the front-end's own affair; " +
  "-: not with this front-end";

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
