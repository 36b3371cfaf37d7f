/**
 * The command `run`: a configuration, run until it is at its end or stopped.
 * @module
 */
import { newRegistry } from "../config/builtins.ts";
import { loadConfig } from "../config/load.ts";
import { buildMachine } from "../machine/build.ts";
import type { Machine } from "../machine/machine.ts";
import { EXIT_OK } from "./console/failure.ts";
import type { Io } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";
import { attachment, capabilitiesOf, withSocket } from "./run/attach.ts";
import { traceProtocol } from "./run/protocol_log.ts";
import { CounterView, onSignals, onStrayErrors, type RunEnd, RunReporter } from "./run/reporter.ts";

/** How `run` is used. */
export const RUN: CommandUsage = {
  name: "run",
  operands: "CONFIG [options]",
  least: 1,
  most: 1,
  summary: "Run the devices of a configuration.",
  about: [
    "Runs the devices of a configuration until nothing is left to do, as when every capture is at its end, or until the process is " +
    "told to stop. SIGINT (Ctrl-C), SIGTERM and SIGHUP stop it cleanly: what is held is delivered and files are completed. " +
    "SIGUSR2 prints all counters as a line of JSON.",
    "Tells on standard error, with the time of day, who connects, on which features guest and device agree, when a driver is " +
    "ready, which queues start and stop, which rules a guest breaks, and who goes; under systemd with the priorities of its " +
    "journal (needs --allow-env=JOURNAL_STREAM). No output, trace or recording keeps a device waiting: what a pipe or a disk " +
    "does not take is counted.",
    "For devices with a vhost-user driver it prints the command lines with which QEMU and User-mode Linux attach to them. As management " +
    "programs expect of a back-end, it stays in the foreground, and knows --socket-path, --fd and --print-capabilities.",
    "A plugin that fails stops its own device. The others go on, and the exit code is 1 in the end.",
    'With --json the output is JSON lines, each with an "event": started (with what QEMU, libvirt and User-mode Linux need, under ' +
    '"attach"), counters, connected, memory-at-risk, memory-out-of-reach, features, ready, queue-started, queue-stopped, fault, refused, reset, disconnected, ' +
    "failed, recording-failed, recording-resumed, suppressed (so many of a kind were not told one by one), lost, stopped.",
  ],
  options: [
    { name: "stats-interval-s", value: "N", help: "Print what the devices did every N seconds." },
    { name: "libvirt", help: "Print XML for libvirt instead of command lines." },
    {
      name: "socket-path",
      value: "PATH",
      help: "Socket of the only vhost-user device, instead of the configured one.",
    },
    {
      name: "fd",
      value: "N",
      help:
        "Number of an open socket for it, passed by the program that starts this one: listening or connected.",
    },
    {
      name: "print-capabilities",
      help: "Print the type of the vhost-user devices as JSON, and do nothing else; CONFIG may be left out.",
    },
    {
      name: "trace-protocol",
      value: "FILE",
      help:
        "Write down what front-ends and devices say to each other: JSON lines if FILE ends in .jsonl, else text; " +
        "to standard error if it is -. A file needs --allow-write.",
    },
  ],
  examples: [
    "run examples/replay_capture.jsonc",
    "examples/loopback_echo.jsonc --stats-interval-s 1",
    "run examples/real_guest.jsonc --trace-protocol -",
  ],
};

/** What is told of software guests, too. */
const NEWS_OF_SOFTWARE_GUESTS: ReadonlySet<string> = new Set([
  "failed",
  "fault",
  "recording-failed",
  "recording-resumed",
]);
const LONGEST_INTERVAL_S = 86_400;

/** Runs a configuration to its end. Rejects with what made it fail. */
export async function runRun(args: readonly string[], io: Io): Promise<number> {
  // Who asks for that alone, as management programs do, has no configuration.
  const asks = args.includes("--print-capabilities");
  const parsed = parseCommand(asks ? { ...RUN, least: 0 } : RUN, args, io);
  if (parsed === null) return EXIT_OK;
  if (asks) {
    io.out(`${await capabilitiesOf(parsed)}\n`);
    return EXIT_OK;
  }
  const intervalS = parsed.number("stats-interval-s", 0.1, LONGEST_INTERVAL_S);
  const config = withSocket(await loadConfig(parsed.operands[0], newRegistry()), parsed);
  // Disposed of in reverse: what the machine says while it closes is still written down.
  await using end = new AsyncDisposableStack();
  let reporter: RunReporter | null = null;
  // A software guest is started and stopped with the machine: only what it does wrong is news.
  const quiet = new Set(
    config.devices.filter(({ driver }) => driver.plugin.runsSoftwareDriver === true).map(({ name }) => name),
  );
  const machine = buildMachine(config, {
    events: (device, event) => {
      if (!quiet.has(device) || NEWS_OF_SOFTWARE_GUESTS.has(event.event)) reporter?.event(device, event);
    },
  });
  let trace;
  try {
    trace = end.use(traceProtocol(machine, parsed, io));
  } finally {
    end.use(machine);
  }
  const stop = new AbortController();
  reporter = new RunReporter(new CounterView(machine), io, parsed.json, () => trace.lostLines);
  using _signals = signalsTo(reporter, stop);
  using _errors = onStrayErrors(machine);
  using _ticks = reporter.every(intervalS);
  machine.start();
  reporter.started(config, attachment(config, machine), parsed.flag("libvirt"));
  await runToClose(machine, stop.signal, reporter);
  return EXIT_OK;
}

function signalsTo(reporter: RunReporter, stop: AbortController): Disposable {
  return onSignals({
    stop: (signal) => {
      reporter.stopping(signal);
      stop.abort();
    },
    show: () => reporter.counters(),
  });
}

/** The final counters are told however the run ends, but an error comes last, where it is seen. */
async function runToClose(machine: Machine, signal: AbortSignal, reporter: RunReporter): Promise<void> {
  let end: RunEnd = "failure";
  try {
    await machine.run(signal);
    await machine.close();
    // A promise that a plugin has had rejected is heard of when the event loop turns.
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (machine.failure !== null) throw machine.failure;
    end = signal.aborted ? "signal" : "end";
  } finally {
    // After a failure the other networks still complete what they were writing; the first error is the one to
    // tell.
    if (end === "failure") await machine.close().catch(() => {});
    reporter.stopped(end);
  }
}
