/**
 * Our back-end in a process of its own on given processors, as users run it, with a flood behind it.
 * @module
 */
import { LineReader } from "./line_reader.ts";

const MAIN = new URL("../../mod.ts", import.meta.url).href;
const FLOOD = new URL("./flood.ts", import.meta.url).href;
/** Time to start, or to stop. */
const PATIENCE_MS = 60_000;

/** How it is. */
export interface OurOptions {
  /** Where it listens. */
  readonly socket: string;
  /** Where to write its configuration. */
  readonly file: string;
  /** Does it offer packed rings? */
  readonly packed: boolean;
  /** Queue pairs. */
  readonly pairs: number;
  /** Who works them. */
  readonly mode: "loop" | "threads";
  /** Bytes of each frame that it has for the guest, or null if it has none. */
  readonly frameBytes: number | null;
  /** The processors that it may use. */
  readonly cores: readonly number[];
}

/** Counters by group. */
export type Counters = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** A running back-end; killed with this object, unless it was stopped. */
export class OurBackend implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: LineReader;
  readonly #complaints: Promise<string>;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = new LineReader(process.stdout);
    this.#complaints = new Response(process.stderr).text();
  }

  /** Starts it and waits until it listens. Throws Error with what it complains of. */
  static async start({ file, cores, ...options }: OurOptions): Promise<OurBackend> {
    Deno.writeTextFileSync(file, JSON.stringify(configuration(options)));
    const command = new Deno.Command("taskset", {
      args: ["-c", cores.join(","), Deno.execPath(), "run", "--no-prompt", "--allow-ffi", "--allow-read"]
        .concat(MAIN, "run", file, "--json"),
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    });
    const backend = new OurBackend(command.spawn());
    try {
      await backend.#next("started");
      return backend;
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Asks it to stop, and returns its counters. Throws Error with what it complained of if it failed. */
  async stop(): Promise<Counters> {
    this.#process.kill("SIGTERM");
    const { counters } = await this.#next("stopped");
    const { code } = await this.#process.status;
    if (code !== 0) throw new Error(`Our back-end ended with ${code}: ${await this.#complaints}`);
    return counters;
  }

  /** Kills it, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await Promise.all([this.#process.status, this.#complaints, this.#lines.cancel()]);
  }

  async #next(wanted: string): Promise<{ counters: Counters }> {
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    try {
      while (true) {
        const line = await this.#lines.read();
        if (line === null) {
          throw new Error(`Our back-end has ended before "${wanted}": ${await this.#complaints}`);
        }
        const event = JSON.parse(line);
        if (event.event === wanted) return event;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

function configuration({ socket, packed, pairs, mode, frameBytes }: Omit<OurOptions, "file" | "cores">) {
  return {
    devices: [{
      use: "net",
      mac: "52:54:00:12:34:56",
      queuePairs: pairs,
      queueSize: 256,
      packedRing: packed,
      mode,
      driver: { use: "vhost-user", socket },
      network: { use: FLOOD, frameBytes },
      offloads: [],
    }],
  };
}
