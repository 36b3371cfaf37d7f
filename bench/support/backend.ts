/**
 * Our back-end in a process of its own, as users run it, silent until it is stopped: nothing but frames wakes
 * it.
 * @module
 */
import { LineReader } from "./line_reader.ts";

const MAIN = new URL("../../mod.ts", import.meta.url).href;
/** Time to start, or to stop. */
const PATIENCE_MS = 60_000;

/** Counters by group. */
export type Counters = Readonly<Record<string, Readonly<Record<string, number>>>>;

/** A running back-end; killed with this object, unless it was stopped. */
export class Backend implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: LineReader;
  readonly #complaints: Promise<string>;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = new LineReader(process.stdout);
    this.#complaints = new Response(process.stderr).text();
  }

  /**
   * Starts it and waits until its devices are served. Throws Error with what it complains of.
   * @param file where to write the configuration
   * @param spawn starts the command line wherever it is to run; all its output must be piped
   */
  static async start(
    file: string,
    config: unknown,
    spawn: (commandLine: readonly [string, ...string[]]) => Deno.ChildProcess,
  ): Promise<Backend> {
    Deno.writeTextFileSync(file, JSON.stringify(config));
    const rights = ["--no-prompt", "--allow-ffi", "--allow-read"];
    const backend = new Backend(spawn([Deno.execPath(), "run", ...rights, MAIN, "run", file, "--json"]));
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

  /** Waits for an event. */
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

/** How a back-end is to be started. */
export const SPAWN_OPTIONS = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
