/**
 * Writes down what front-ends and devices say to each other: `--trace-protocol`.
 * @module
 */
import type { Machine } from "../../machine/machine.ts";
import { OutputFile } from "../../host/output_file.ts";
import {
  jsonTrace,
  type ProtocolTrace,
  textTrace,
  VhostUserTransport,
} from "../../transports/vhost_user/mod.ts";
import type { Io } from "../console/io.ts";
import { LiveOutput } from "../console/live_output.ts";
import type { ParsedArgs } from "../console/usage.ts";

/** How long the end of the trace waits for a file that takes nothing, in ms. */
const PATIENCE_MS = 1000;

/** A trace that is being written. */
export interface ProtocolLog extends AsyncDisposable {
  /** Lines that its file has not taken. */
  readonly lostLines: number;
}

/**
 * Has the dialogues of a machine written, if the command line asks for it: to a file, or for `-` to standard
 * error; as JSON lines if the file's name ends in `.jsonl`, or as text. Throws UsageError if there is no
 * vhost-user device, HostError if the file cannot be opened, ConfigError if the machine needs it. Dispose of
 * it after the machine.
 */
export function traceProtocol(machine: Machine, parsed: ParsedArgs, io: Io): ProtocolLog {
  const target = parsed.value("trace-protocol");
  if (target === undefined) return { lostLines: 0, [Symbol.asyncDispose]: () => Promise.resolve() };
  const traced = machine.devices.filter((each) => each.driver instanceof VhostUserTransport);
  if (traced.length === 0) {
    throw parsed.usageError("--trace-protocol needs a device with a vhost-user driver; leave it out");
  }
  const isJson = target.endsWith(".jsonl");
  const log = target === "-" ? null : new LogFile(machine, target, isJson, io);
  const write = (line: string) => log === null ? io.err(`${line}\n`) : log.output.write(`${line}\n`);
  const { clock } = machine.parts.reactor;
  for (const { name, device, driver } of traced) {
    const trace: ProtocolTrace = isJson
      ? jsonTrace(write, () => ({ timeNs: clock.nowNs(), device: name }), device.featureNames)
      : textTrace(
        (line) => write(`${(clock.nowNs() / 1e6).toFixed(3)} ms ${name} ${line}`),
        device.featureNames,
      );
    (driver as VhostUserTransport).trace = trace;
  }
  return {
    get lostLines() {
      return log?.output.lostLines ?? 0;
    },
    [Symbol.asyncDispose]: async () => await log?.[Symbol.asyncDispose](),
  };
}

/** A file of lines. What it cannot take is counted and told, and the devices go on. */
class LogFile implements AsyncDisposable {
  readonly output: LiveOutput;
  readonly #path: string;
  readonly #io: Io;
  readonly #file: OutputFile;

  constructor(machine: Machine, path: string, isJson: boolean, io: Io) {
    this.#path = path;
    this.#io = io;
    this.#file = OutputFile.open(path, "the trace");
    try {
      const { identity } = this.#file;
      machine.parts.files.claim({ path, use: "write", identity }, "--trace-protocol");
    } catch (error) {
      this.#file.discard();
      throw error;
    }
    this.#file.begin();
    const notice = (lines: number) =>
      isJson ? `${JSON.stringify({ event: "lost", lines })}\n` : `${lines} lines are missing here\n`;
    this.output = new LiveOutput(this.#file, notice, (why) => {
      io.err(`warning: the trace in ${path} has a gap from here on, it cannot be written: ${why}\n`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.output.settle(PATIENCE_MS);
    this.#file.close();
    const { lostLines } = this.output;
    if (lostLines > 0) this.#io.err(`warning: ${lostLines} lines of the trace in ${this.#path} are lost\n`);
  }
}
