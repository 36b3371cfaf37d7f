/**
 * Writes down what front-ends and devices say to each other: `--trace-protocol`.
 * @module
 */
import type { Machine } from "../../config/machine.ts";
import {
  jsonTrace,
  type ProtocolTrace,
  textTrace,
  VhostUserTransport,
} from "../../transports/vhost_user/mod.ts";
import type { Io } from "../console/io.ts";
import type { ParsedArgs } from "../console/usage.ts";

/**
 * Has the dialogues of a machine written, if the command line asks for it: to a file, or for `-` to standard error; as JSON
 * lines if the file's name ends in `.jsonl`, or as text. Throws UsageError if there is no vhost-user device, and what opening
 * the file throws. Dispose of it after the machine.
 */
export function traceProtocol(machine: Machine, parsed: ParsedArgs, io: Io): Disposable {
  const target = parsed.value("trace-protocol");
  if (target === undefined) return { [Symbol.dispose]: () => {} };
  const traced = machine.devices.filter((each) => each.driver instanceof VhostUserTransport);
  if (traced.length === 0) {
    throw parsed.usageError("--trace-protocol needs a device with a vhost-user driver; leave it out");
  }
  const log = target === "-" ? null : new LogFile(target, io);
  const write = (line: string) => log === null ? io.err(`${line}\n`) : log.write(line);
  const { clock } = machine.parts.reactor;
  for (const { name, driver } of traced) {
    const trace: ProtocolTrace = target.endsWith(".jsonl")
      ? jsonTrace(write, () => ({ timeNs: clock.nowNs(), device: name }))
      : textTrace((line) => write(`${(clock.nowNs() / 1e6).toFixed(3)} ms ${name} ${line}`));
    (driver as VhostUserTransport).trace = trace;
  }
  return { [Symbol.dispose]: () => log?.[Symbol.dispose]() };
}

/** A file of lines. If it cannot take one, that is told once, and the devices go on. */
class LogFile implements Disposable {
  readonly #path: string;
  readonly #io: Io;
  readonly #file: Deno.FsFile;
  readonly #encoder = new TextEncoder();
  #isBroken = false;

  constructor(path: string, io: Io) {
    this.#path = path;
    this.#io = io;
    this.#file = Deno.openSync(path, { write: true, create: true, truncate: true });
  }

  write(line: string): void {
    if (this.#isBroken) return;
    const bytes = this.#encoder.encode(`${line}\n`);
    try {
      for (let at = 0; at < bytes.length;) at += this.#file.writeSync(bytes.subarray(at));
    } catch (error) {
      this.#isBroken = true;
      const why = error instanceof Error ? error.message : String(error);
      this.#io.err(`warning: the trace in ${this.#path} ends here, it cannot be written: ${why}\n`);
    }
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
