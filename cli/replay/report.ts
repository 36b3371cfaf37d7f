/**
 * The result of a replay, for people. The parts are shared with the demonstration.
 * @module
 */
import { MAX_CAPTURED_BYTES } from "../../transports/pcap/captured_packet.ts";
import { MAX_INTERFACES } from "../../transports/pcap/pcapng_parser.ts";
import { bar, count, duration, type Io, numberTable, plural, styleFor, wrap } from "../console/io.ts";
import type { Explanation } from "./explainer.ts";
import type { ReplaySummary } from "./summary.ts";

const MAX_LISTED = 8;

/** The whole report. */
export function replayReport(summary: ReplaySummary, io: Io): string {
  const { bold } = styleFor(io);
  const { input, output } = summary;
  const parts = [
    remarksText(summary, io) + headText(summary, io),
    numberTable([
      ["", "came in", "guest got"],
      ["frames, packets", count(input.frames), count(output.packets)],
      ["bytes", count(input.bytes), count(output.bytes)],
      ["average size", average(input.bytes, input.frames), average(output.bytes, output.packets)],
      ["with TCP data", count(input.dataFrames), count(output.dataPackets)],
      ["interrupts", "", count(output.interrupts)],
    ]),
    factorText(summary, io),
    segmentsText(summary, io),
    reasonsText(summary, io),
    leftOutText(summary, io),
    odditiesText(summary, io),
    troubleText(summary, io),
  ];
  return parts.filter((part) => part !== "").map((part) =>
    part.replace(/^(\w.*)\n/, (_, line) => `${bold(line)}\n`)
  )
    .join("\n");
}

/** What must be known first; empty if nothing must. */
export function remarksText({ remarks }: ReplaySummary, io: Io): string {
  const { bold } = styleFor(io);
  const lines = remarks.flatMap((remark) => wrap(remark, io.columns)).map(bold);
  return lines.length === 0 ? "" : `${lines.join("\n")}\n\n`;
}

/** What was replayed, and to whom. */
export function headText({ capture, guest, rules, intervalUs, pace }: ReplaySummary, io: Io): string {
  const share = guest.ofPayloadBytes === 0
    ? "no TCP payload in the capture"
    : `it receives ${count(guest.payloadBytes)} of ${count(guest.ofPayloadBytes)} bytes of TCP payload`;
  const facts = [capture.format, plural(capture.packets, "packet"), duration(capture.durationNs)];
  const held = pace === "fast" ? "all frames at once" : "at the recorded times";
  return [
    `${capture.file} (${facts.join(", ")})`,
    ...wrap(`Guest ${guest.mac}, chosen ${guest.chosen}: ${share}`, io.columns),
    ...wrap(`Rules "${rules}", interval ${intervalUs} us, ${held}`, io.columns),
    "",
  ].join("\n");
}

/** The coalescing factor in a sentence. */
export function factorText({ coalescingFactor, input, output }: ReplaySummary, io: Io): string {
  const { bold, green } = styleFor(io);
  if (coalescingFactor === null) return "No TCP data came in: there was nothing to coalesce.\n";
  const factor = coalescingFactor.toFixed(1);
  const isWhole = input.dataSegments === input.dataFrames;
  const came = isWhole ? plural(input.dataSegments, "TCP segment") : plural(input.dataFrames, "frame");
  const held = isWhole ? "" : `, which held ${plural(input.dataSegments, "segment")} already`;
  const text = `Coalescing factor ${factor}: ${came} with data in ${
    plural(output.dataPackets, "packet")
  }${held}.`;
  const lines = wrap(text, io.columns - 2).map((line) => `  ${line}\n`).join("");
  return lines.replace(`factor ${factor}`, `factor ${green(bold(factor))}`);
}

/** How many packets hold how many segments, as bars. */
export function segmentsText({ output, offloads }: ReplaySummary, io: Io): string {
  const { cyan } = styleFor(io);
  const groups = grouped(Object.entries(output.packetsBySegments));
  if (groups.length === 0) return "";
  const most = Math.max(...groups.map(({ packets }) => packets));
  const labels = groups.map(({ from, to }) => from === to ? `${from}` : `${from} to ${to}`);
  const labelWidth = Math.max(...labels.map((label) => label.length));
  const numberWidth = count(most).length;
  const barWidth = Math.min(io.columns - labelWidth - numberWidth - 6, 48);
  const lines = groups.map(({ packets }, i) => {
    const number = count(packets).padStart(numberWidth);
    return `  ${labels[i].padStart(labelWidth)}  ${number}  ${cyan(bar(packets, most, barWidth, io))}`
      .trimEnd();
  });
  const parts = offloads.largeFrames > 0 && !offloads.undone ? "frames" : "segments";
  return `Packets with TCP data, by the ${parts} in them\n${lines.join("\n")}\n`;
}

/** Which rules decided how often. */
export function reasonsText({ reasons }: ReplaySummary, io: Io): string {
  if (reasons.length === 0) return "";
  const { dim } = styleFor(io);
  const stages = new Set(reasons.map(({ stage }) => stage));
  const rows = reasons.map(({ stage, verdict, rule, count: frames }) => {
    const name = stages.size > 1 && stage !== "" ? `${stage} ${verdict}` : verdict;
    return { frames: count(frames), rule, name };
  });
  const width = (key: "frames" | "rule" | "name") => Math.max(...rows.map((row) => row[key].length));
  const widths = [width("frames"), width("rule"), width("name")];
  const indent = 2 + widths[0] + 2 + widths[1] + 2 + widths[2] + 2;
  // A narrow terminal gets the meaning on lines of its own.
  const beside = io.columns - indent >= 30;
  let text = "Why, by rule\n";
  rows.forEach(({ frames, rule, name }, i) => {
    const head = `  ${frames.padStart(widths[0])}  ${rule.padEnd(widths[1])}  ${name.padEnd(widths[2])}  `;
    const margin = beside ? indent : 2 + widths[0] + 2;
    const lines = wrap(reasons[i].meaning, io.columns - margin).map(dim);
    if (!beside) lines.unshift("");
    text += lines.map((line, n) => `${n === 0 ? head : " ".repeat(margin)}${line}`.trimEnd() + "\n").join("");
  });
  return text;
}

/** What the guest did not get. */
export function leftOutText({ leftOut, snappedNumbers }: ReplaySummary, io: Io): string {
  const numbers = snappedNumbers.slice(0, MAX_LISTED).join(", ");
  const more = leftOut.snapped > MAX_LISTED ? " and more" : "";
  const rows: [number, string][] = [
    [leftOut.notForGuest, "not sent to the guest"],
    [
      leftOut.snapped,
      `not wholly in the capture (number ${numbers}${more}); record with a larger snap length`,
    ],
    [leftOut.otherLinkType, "no Ethernet"],
    [leftOut.tooLong, "too long for a frame"],
    [leftOut.tooShort, "shorter than an Ethernet header"],
    [leftOut.unreadable, "not to be read, see below"],
    [leftOut.cutOff, "cut off by the end of the file"],
    [leftOut.filtered, "refused by the guest's receive filter"],
  ];
  return countedText("Left out of the replay", rows, io);
}

/** What is odd about the capture; empty if nothing is. */
export function odditiesText({ oddities }: ReplaySummary, io: Io): string {
  const rows = Object.entries(oddities).map(([name, value]): [number, string] => [
    value,
    ODDITY_TEXTS[name] ?? name,
  ]);
  return countedText("Odd in the capture", rows, io);
}

/** What each oddity means. */
const ODDITY_TEXTS: Readonly<Record<string, string>> = {
  capturedAboveOriginal: "captured length above the original one; all captured bytes were taken",
  fcsContradictsIp: "no room for the frame check sequence that the file declares, by the IP length",
  badOptions: "blocks with options that are not right; the rest of these was not read",
  lengthsDisagree:
    "blocks whose two lengths disagree or are no multiple of 4; the first was taken, rounded up",
  beyondBlock: "longer than the block; left out",
  unknownInterface: "of an interface that the section does not describe; left out",
  beyondInterfaceLimit: `of an interface beyond number ${
    count(MAX_INTERFACES)
  }, a limit of this program; left out`,
  beyondLengthLimit: `longer than ${count(MAX_CAPTURED_BYTES)} bytes, a limit of this program; left out`,
};

/** A heading, and counts with what they count; those of 0 are not shown. */
function countedText(heading: string, rows: readonly (readonly [number, string])[], io: Io): string {
  const shown = rows.filter(([frames]) => frames > 0);
  if (shown.length === 0) return "";
  const width = Math.max(...shown.map(([frames]) => count(frames).length));
  const lines = shown.flatMap(([frames, reason]) => {
    const [first, ...others] = wrap(reason, io.columns - width - 4);
    return [
      `  ${count(frames).padStart(width)}  ${first}`,
      ...others.map((line) => " ".repeat(width + 4) + line),
    ];
  });
  return `${heading}\n${lines.join("\n")}\n`;
}

/** What went wrong; empty if nothing did. */
export function troubleText({ dropped, guestErrors }: ReplaySummary, io: Io): string {
  const { red } = styleFor(io);
  const lines = [
    ...Object.entries(dropped).map(([name, frames]) => `  ${count(frames)}  dropped by the device (${name})`),
    ...guestErrors.slice(0, MAX_LISTED).map((error) => `  the guest found: ${error}`),
  ];
  return lines.length === 0 ? "" : `Trouble\n${lines.map(red).join("\n")}\n`;
}

/** The line above explanations. */
export const EXPLANATION_HEAD = "   frame      time, us  stage   verdict                   rule  opened by\n";

/** One line of an explanation. */
export function explanationLine({ frame, timeNs, stage, verdict, rule, openedBy }: Explanation): string {
  const time = (timeNs / 1000).toFixed(1).padStart(12);
  const number = String(frame).padStart(8);
  if (stage === "") return `${number}  ${time}  -       ${verdict}\n`;
  const opener = openedBy === 0 || openedBy === frame ? "" : `  ${openedBy}`;
  return `${number}  ${time}  ${stage.padEnd(6)}  ${verdict.padEnd(24)}  ${rule.padEnd(4)}${opener}`
    .trimEnd() + "\n";
}

/** Bytes of one of so many. */
export function average(bytes: number, of: number): string {
  return of === 0 ? "-" : count(bytes / of);
}

interface Group {
  readonly from: number;
  readonly to: number;
  packets: number;
}

/** Few counts one by one; many in groups that double: 1, 2 to 3, 4 to 7, and so on. */
function grouped(entries: readonly (readonly [string, number])[]): Group[] {
  const groups: Group[] = [];
  for (const [key, packets] of entries) {
    const segments = Number(key);
    const power = 2 ** Math.floor(Math.log2(Math.max(segments, 1)));
    const [from, to] = entries.length <= 10
      ? [segments, segments]
      : [Math.min(power, segments), 2 * power - 1];
    const last = groups.at(-1);
    if (last?.from === from) last.packets += packets;
    else groups.push({ from, to, packets });
  }
  return groups;
}
