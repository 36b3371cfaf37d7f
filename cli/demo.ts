/**
 * The command `demo`: a small real capture, with and without coalescing, so that a newcomer sees what it is
 * about.
 * @module
 */
import { fileURLToPath } from "node:url";
import { HostError } from "../core/errors.ts";
import { EXIT_OK } from "./console/failure.ts";
import {
  bar,
  count,
  duration,
  type Io,
  numberTable,
  plural,
  shellQuoted,
  styleFor,
  wrap,
} from "./console/io.ts";
import { type CommandUsage, parseCommand, programName } from "./console/usage.ts";
import { busiestStation, DEFAULT_INTERVAL_US } from "./replay.ts";
import { CaptureInput, readStatistics } from "./replay/capture_input.ts";
import { replayCapture, type ReplaySetup } from "./replay/replay_capture.ts";
import { average, reasonsText, segmentsText, troubleText } from "./replay/report.ts";
import { offloadRemarks } from "./replay/summary.ts";
import { type ReplaySummary, summarize } from "./replay/summary.ts";

/** How `demo` is used. */
export const DEMO: CommandUsage = {
  name: "demo",
  operands: "[CAPTURE] [options]",
  least: 0,
  most: 1,
  summary: "Show coalescing at work on a small real capture.",
  about: [
    "Sends a capture through the device twice, without and with receive segment coalescing, and shows what the guest " +
    "has to do in either case. Without CAPTURE it is a download of 256 KiB between two Linux machines.",
  ],
  options: [],
  examples: ["demo", "demo capture.pcapng"],
};

const DEMO_CAPTURE = "../tests/captures/bulk_v4_timestamps.pcapng";

/** Replays a capture with and without coalescing. */
export async function runDemo(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(DEMO, args, io);
  if (parsed === null) return EXIT_OK;
  using capture = CaptureInput.open(parsed.operands[0] ?? ownCapture());
  const statistics = readStatistics(capture);
  const guestMac = busiestStation(statistics, capture.name);
  const replay = async (part: Pick<ReplaySetup, "rules" | "intervalUs">): Promise<ReplaySummary> => {
    const setup: ReplaySetup = {
      capture,
      guestMac,
      undoOffloads: true,
      knownMss: statistics.knownMss,
      pace: "recorded",
      ...part,
    };
    const result = await replayCapture(setup);
    if (result.failure !== null) throw result.failure;
    return summarize(setup, statistics, result, "automatically");
  };
  const without = await replay({ rules: "strict", intervalUs: null });
  const strict = await replay({ rules: "strict", intervalUs: DEFAULT_INTERVAL_US });
  const qemu = await replay({ rules: "qemu", intervalUs: DEFAULT_INTERVAL_US });
  if (parsed.json) io.out(`${JSON.stringify({ without, strict, qemu }, null, 2)}\n`);
  else io.out(demoReport({ without, strict, qemu }, io));
  return EXIT_OK;
}

/** The capture that comes with the source; a published package leaves it out. */
function ownCapture(): string {
  const url = new URL(DEMO_CAPTURE, import.meta.url);
  if (url.protocol !== "file:") {
    throw new HostError('The demonstration\'s capture comes with the source only; name one: "demo CAPTURE"');
  }
  const path = fileURLToPath(url);
  const here = `${Deno.cwd()}/`;
  return path.startsWith(here) ? path.slice(here.length) : path;
}

/** One capture, three times. */
export interface DemoRuns {
  /** A device without coalescing. */
  readonly without: ReplaySummary;
  /** With it, under the strict rules. */
  readonly strict: ReplaySummary;
  /** With it, under the reference's rules. */
  readonly qemu: ReplaySummary;
}

/** So many packets are shown one by one. */
const MAX_SINGLE_BARS = 12;

/** The whole text. */
export function demoReport(runs: DemoRuns, io: Io): string {
  const { bold } = styleFor(io);
  const { strict } = runs;
  const sections = [
    introduction(strict, io),
    `${bold("What the guest has to do")}\n${comparison(runs)}\n${conclusion(runs, io)}`,
    deliveries(strict, io),
    headed(reasonsText(strict, io), io),
    headed(troubleText(strict, io), io),
    nextSteps(strict.capture.file, io),
  ];
  return sections.filter((section) => section !== "").join("\n");
}

function introduction(summary: ReplaySummary, io: Io): string {
  const { capture, guest } = summary;
  const { bold } = styleFor(io);
  const text =
    `${plural(capture.packets, "packet")} of real traffic, ${
      duration(capture.durationNs)
    } long, go to a virtio ` +
    `network device, which hands those for ${guest.mac} to its guest through real virtqueues. Receive segment ` +
    "coalescing (RSC) makes one large packet of TCP segments that follow each other closely.";
  return `${bold("Coalescing at work:")} ${capture.file}\n\n${
    [text, ...offloadRemarks(summary)].flatMap((part) => wrap(part, io.columns)).join("\n")
  }\n`;
}

function comparison({ without, strict }: DemoRuns): string {
  const row = (label: string, value: (summary: ReplaySummary) => number) => {
    const [before, after] = [value(without), value(strict)];
    return [label, count(before), count(after), before === 0 ? "" : percent(after / before - 1)];
  };
  return numberTable([
    ["", "without RSC", "with RSC", "change"],
    row("packets to take", ({ output }) => output.packets),
    row("with TCP data", ({ output }) => output.dataPackets),
    row("interrupts", ({ output }) => output.interrupts),
    row("bytes", ({ output }) => output.bytes),
    [
      "average packet, bytes",
      average(without.output.bytes, without.output.packets),
      average(strict.output.bytes, strict.output.packets),
      "",
    ],
  ]);
}

function conclusion({ strict, qemu }: DemoRuns, io: Io): string {
  const { bold, green } = styleFor(io);
  const { coalescingFactor: factor, input, output } = strict;
  if (factor === null) return "  No TCP data came in: there was nothing to coalesce.\n";
  const same = input.payloadBytes === output.payloadBytes ? "the same" : "NOT the same";
  const facts =
    `${plural(input.dataSegments, "TCP segment")} with data in ${plural(output.dataPackets, "packet")}; ` +
    `${same} ${count(input.payloadBytes)} bytes of TCP payload.`;
  const reference =
    `Under the rules of the reference ("qemu") the factor is ${qemu.coalescingFactor?.toFixed(1)}` +
    `${qemuReason(qemu)}.`;
  const lines = [...wrap(facts, io.columns - 2), ...wrap(reference, io.columns - 2)].map((line) =>
    `  ${line}\n`
  );
  return `  Coalescing factor ${green(bold(factor.toFixed(1)))}\n${lines.join("")}`;
}

/** Most traffic of today has timestamps, on which the reference gives up. */
function qemuReason({ reasons, input }: ReplaySummary): string {
  const options = reasons.filter(({ verdict }) => verdict === "tcp_all_opt").reduce(
    (sum, { count }) => sum + count,
    0,
  );
  return options * 2 > input.dataSegments ? ": it does not merge segments with the timestamp option" : "";
}

/** Every packet with data as a bar, or groups of them if there are many. */
function deliveries(summary: ReplaySummary, io: Io): string {
  const { bold, cyan } = styleFor(io);
  const packets = Object.entries(summary.output.packetsBySegments)
    .flatMap(([segments, times]) =>
      new Array<number>(Math.min(times, MAX_SINGLE_BARS + 1)).fill(Number(segments))
    );
  if (packets.length === 0) return "";
  if (packets.length > MAX_SINGLE_BARS) return headed(segmentsText(summary, io), io);
  const most = Math.max(...packets);
  const width = String(most).length;
  const room = Math.min(io.columns - width - 16, 48);
  const lines = packets.reverse().map((segments) => {
    const what = segments === 1 ? "segment " : "segments";
    return `  ${String(segments).padStart(width)} ${what}  ${cyan(bar(segments, most, room, io))}`.trimEnd();
  });
  return `${bold("Packets with TCP data that the guest got, by the segments in them")}\n${
    lines.join("\n")
  }\n`;
}

function nextSteps(file: string, io: Io): string {
  const { bold, cyan, dim } = styleFor(io);
  // -R is short for --allow-read: the longest line has 80 characters.
  const run = `deno run -R ${programName()}`;
  const steps = [
    ["Why each single frame was merged or not:", `${run} replay ${shellQuoted(file)} --explain`],
    ["A device from a JSON file, checked and then run:", `${run} check examples/replay_capture.jsonc`],
    ["Bit for bit what QEMU does, 100 recordings:", `${run} vectors tests/vectors/rsc`],
  ];
  const text = steps.map(([what, command]) => `  ${what}\n    ${cyan(command)}\n`).join("");
  return `${bold("Next steps")} ${dim("(npx -y deno@2.9.6 stands in for deno)")}\n${text}`;
}

/** The first line of a section, bold. */
function headed(section: string, io: Io): string {
  const { bold } = styleFor(io);
  return section.replace(/^.*/, (line) => line === "" ? "" : bold(line));
}

function percent(change: number): string {
  const rounded = Math.round(change * 100);
  return rounded === 0 ? "0 %" : `${rounded > 0 ? "+" : "-"}${Math.abs(rounded)} %`;
}
