/**
 * The command `replay`: one capture through a device that coalesces, and what came of it.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { isStandardInput } from "../config/load.ts";
import { type FileIdentity, identityOfPath, identityOfStandardInput } from "../host/file_identity.ts";
import { formatMac, isMulticast, parseMac } from "../wire/ethernet.ts";
import { EXIT_FAILED, EXIT_OK } from "./console/failure.ts";
import { type Io, styleFor } from "./console/io.ts";
import { type CommandUsage, parseCommand, type ParsedArgs } from "./console/usage.ts";
import { CaptureInput, type CaptureStatistics, readStatistics } from "./replay/capture_input.ts";
import { Explainer, type Explanation } from "./replay/explainer.ts";
import { replayCapture, type ReplaySetup } from "./replay/replay_capture.ts";
import { EXPLANATION_HEAD, explanationLine, replayReport } from "./replay/report.ts";
import { summarize } from "./replay/summary.ts";

/** How `replay` is used. */
export const REPLAY: CommandUsage = {
  name: "replay",
  operands: "CAPTURE [options]",
  least: 1,
  most: 1,
  summary: "Send a capture through a coalescing device and explain what came out.",
  about: [
    "Sends the frames of a capture (pcap or pcapng, also packed by gzip, also from a pipe; - is standard input) through a network device with receive segment coalescing " +
    "for IPv4 and IPv6 to a guest made of software, and says what the guest got and why. Time is that of the capture: " +
    "the replay itself takes no longer than it must, and the same capture always gives the same result.",
    "The guest is the station that receives most TCP payload in the capture, unless --guest names another.",
  ],
  options: [
    {
      name: "out",
      value: "FILE",
      help: "Write what the guest got, at the times it got it, to a pcapng file.",
    },
    {
      name: "rules",
      value: "BOOK",
      help: "strict (right, the default) or qemu (as the reference, faults included).",
    },
    {
      name: "interval-us",
      value: "N",
      help: "Longest time a segment is held, in microseconds. Default 300.",
    },
    { name: "guest", value: "MAC", help: "The guest's address in the capture, such as 52:54:00:00:00:01." },
    { name: "pace", value: "PACE", help: "recorded (the default), or fast: all frames arrive at once." },
    {
      name: "undo-offloads",
      help:
        "Cut frames captured with TSO or GRO at their connection's MSS, and take unfinished checksums for right.",
    },
    {
      name: "explain",
      help: "Print a line for each frame: number, time, verdict, rule, and the frame that opened its packet.",
    },
  ],
  examples: [
    "replay tests/captures/bulk_v4_timestamps.pcapng",
    "replay capture.pcap --explain --rules qemu",
    "replay capture.pcap --out delivered.pcapng",
    "replay - < capture.pcapng.gz",
    "replay tests/captures/offloads_v4_timestamps.pcap --undo-offloads",
  ],
};

/** Default of `--interval-us`: the reference's. */
export const DEFAULT_INTERVAL_US = 300;
const LONGEST_INTERVAL_US = 10_000_000;

/** Replays a capture. 1 if the capture is damaged, the output failed, or the guest found faults. */
export async function runReplay(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(REPLAY, args, io);
  if (parsed === null) return EXIT_OK;
  const [capture] = parsed.operands;
  const given = parsed.value("guest");
  const guestMac = given === undefined ? undefined : unicastMac(given, parsed);
  const rules = parsed.choice("rules", ["strict", "qemu"]);
  const pace = parsed.choice("pace", ["recorded", "fast"]);
  const intervalUs = parsed.number("interval-us", 0, LONGEST_INTERVAL_US) ?? DEFAULT_INTERVAL_US;
  const out = parsed.value("out");
  const read = out === undefined ? null : refuseOverwriting(capture, out);
  using input = CaptureInput.open(capture);
  const statistics = readStatistics(input);
  const setup: ReplaySetup = {
    capture: input,
    guestMac: guestMac ?? busiestStation(statistics, input.name),
    rules,
    intervalUs,
    undoOffloads: parsed.flag("undo-offloads"),
    knownMss: statistics.knownMss,
    pace,
  };
  const explain = parsed.flag("explain");
  if (explain && !parsed.json) io.out(styleFor(io).bold(EXPLANATION_HEAD));
  using explainer = explain
    ? new Explainer(
      input,
      setup.guestMac,
      (explanation) => io.out(explanationText(explanation, parsed.json)),
    )
    : undefined;
  const result = await replayCapture(setup, { out, read, explainer });
  const summary = summarize(setup, statistics, result, given === undefined ? "automatically" : "by --guest");
  if (parsed.json) {
    // With explanations the output is JSON lines, without them one document to read.
    io.out(
      explain
        ? `${JSON.stringify({ event: "summary", ...summary })}\n`
        : `${JSON.stringify(summary, null, 2)}\n`,
    );
  } else {
    io.out((explain ? "\n" : "") + replayReport(summary, io));
    if (out !== undefined && result.failure === null) io.out(`\nWrote ${out}\n`);
  }
  if (result.failure !== null) throw result.failure;
  return result.guestErrors.length === 0 ? EXIT_OK : EXIT_FAILED;
}

/** The station that receives most TCP payload, or else most frames. Throws HostError if there is none. */
export function busiestStation(statistics: CaptureStatistics, capture: string): string {
  const [busiest] = statistics.stations;
  if (busiest !== undefined) return busiest.mac;
  const { packets, isAllOther, otherLinkTypes } = statistics;
  if (packets > 0 && isAllOther) {
    throw new HostError(
      `Cannot find a guest in "${capture}": its packets are of link type ${
        otherLinkTypes.join(", ")
      }, of which no ` +
        "Ethernet frame can be made; capture on an Ethernet interface",
    );
  }
  throw new HostError(
    `Cannot find a guest in "${capture}": ${
      packets === 0 ? "it holds no packet" : "no Ethernet frame is sent to a single station"
    }; name the guest by --guest to see what is left out`,
  );
}

function unicastMac(text: string, parsed: ParsedArgs): string {
  let mac: Uint8Array | null = null;
  try {
    mac = parseMac(text);
  } catch {
    // Said below.
  }
  if (mac !== null && !isMulticast(mac, 0) && mac.some((byte) => byte !== 0)) return formatMac(mac);
  throw parsed.usageError(
    `--guest is "${text}"; write the address of one station, such as 52:54:00:00:00:01`,
  );
}

function explanationText(explanation: Explanation, json: boolean): string {
  return json ? `${JSON.stringify({ event: "frame", ...explanation })}\n` : explanationLine(explanation);
}

/** Creating the output would empty the capture. Returns which file the capture is. */
function refuseOverwriting(capture: string, out: string): FileIdentity | null {
  const read = isStandardInput(capture) ? identityOfStandardInput() : identityOfPath(capture);
  if (capture !== out && (read === null || read !== identityOfPath(out))) return read;
  throw new HostError(`Cannot write to "${out}" while reading it; choose another file`);
}
