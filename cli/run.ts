/**
 * The command `run`: a configuration, run until it is at its end or somebody stops it.
 * @module
 */
import { buildMachine } from "../config/build.ts";
import { newRegistry } from "../config/builtins.ts";
import { loadConfig } from "../config/load.ts";
import type { Machine } from "../config/machine.ts";
import { EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";
import { CounterView } from "./run/counter_view.ts";
import { type RunEnd, RunReporter } from "./run/reporter.ts";
import { onSignals } from "./run/signals.ts";

/** How `run` is used. */
export const RUN: CommandUsage = {
  name: "run",
  operands: "CONFIG [options]",
  least: 1,
  most: 1,
  summary: "Run the devices of a configuration.",
  about: [
    "Runs the devices of a configuration until every network is at its end, as a capture is, or until the process is " +
    "told to stop. SIGINT (Ctrl-C) and SIGTERM stop it cleanly: what is held is delivered and files are completed. " +
    "SIGUSR1 prints all counters as a line of JSON.",
    'With --json the output is JSON lines, each with an "event": started, counters, stopped.',
  ],
  options: [
    { name: "stats-interval-s", value: "N", help: "Print what the devices did every N seconds." },
  ],
  examples: ["run examples/replay_capture.jsonc", "examples/loopback_echo.jsonc --stats-interval-s 1"],
};

const LONGEST_INTERVAL_S = 86_400;

/** Runs a configuration to its end. Rejects with what made it fail. */
export async function runRun(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(RUN, args, io);
  if (parsed === null) return EXIT_OK;
  const intervalS = parsed.number("stats-interval-s", 0.1, LONGEST_INTERVAL_S);
  const config = await loadConfig(parsed.operands[0], newRegistry());
  await using machine = buildMachine(config);
  const stop = new AbortController();
  const reporter = new RunReporter(new CounterView(machine), io, parsed.json, () => stop.abort());
  using _signals = onSignals({
    stop: (signal) => {
      reporter.stopping(signal);
      stop.abort();
    },
    show: () => reporter.counters(),
  });
  using _ticks = reporter.every(intervalS);
  machine.start();
  reporter.started(config);
  await runToClose(machine, stop.signal, reporter);
  return EXIT_OK;
}

/** The final counters are told however the run ends, but an error comes last, where it is seen. */
async function runToClose(machine: Machine, signal: AbortSignal, reporter: RunReporter): Promise<void> {
  let end: RunEnd = "failure";
  try {
    await machine.run(signal);
    await machine.close();
    end = signal.aborted ? "signal" : "end";
  } finally {
    // After a failure the other networks still complete what they were writing; the first error is the one to tell.
    if (end === "failure") await machine.close().catch(() => {});
    reporter.stopped(end);
  }
}
