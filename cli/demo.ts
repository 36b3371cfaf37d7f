/**
 * The command `demo`: a small real capture, with and without coalescing, so that a newcomer sees what it is about.
 * @module
 */
import { fileURLToPath } from "node:url";
import { HostError } from "../core/errors.ts";
import { EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";
import { demoReport } from "./demo/report.ts";
import { busiestStation, DEFAULT_INTERVAL_US } from "./replay.ts";
import { CaptureInput } from "./replay/capture_input.ts";
import type { ReplaySetup } from "./replay/machine.ts";
import { replayCapture } from "./replay/replay_capture.ts";
import { type ReplaySummary, summarize } from "./replay/summary.ts";
import { surveyCapture } from "./replay/survey.ts";

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
  const survey = surveyCapture(capture);
  const guestMac = busiestStation(survey, capture.name);
  const replay = async (part: Pick<ReplaySetup, "rules" | "intervalUs">): Promise<ReplaySummary> => {
    const setup: ReplaySetup = {
      capture,
      guestMac,
      undoOffloads: true,
      knownMss: survey.knownMss,
      pace: "recorded",
      ...part,
    };
    const result = await replayCapture(setup);
    if (result.failure !== null) throw result.failure;
    return summarize(setup, survey, result, "automatically");
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
