/**
 * Our back-end in a process of its own, as users run it, silent until it is stopped: nothing but frames wakes it.
 * @module
 */
import { TextLineStream } from "@std/streams";
import type { Namespace } from "../../tests/host/support/namespace.ts";

const MAIN = new URL("../../mod.ts", import.meta.url).href;
/** Time to start, or to stop. */
const PATIENCE_MS = 60_000;

/** A running back-end; killed with this object, unless it was stopped. */
export class GuestBackend implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #complaints: Promise<string>;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#lines = process.stdout.pipeThrough(new TextDecoderStream())
      .pipeThrough(new TextLineStream()).getReader();
    this.#complaints = new Response(process.stderr).text();
  }

  /**
   * Starts it in a network and waits until its devices are served. Throws Error with what it complains of.
   * @param file where to write the configuration
   */
  static async start(namespace: Namespace, file: string, config: unknown): Promise<GuestBackend> {
    Deno.writeTextFileSync(file, JSON.stringify(config));
    const args = ["run", "--no-prompt", "--allow-ffi", "--allow-read", MAIN, "run", file, "--json"];
    const options = { args, stdin: "null", stdout: "piped", stderr: "piped" } as const;
    const backend = new GuestBackend(
      namespace.run(() => new Deno.Command(Deno.execPath(), options).spawn()),
    );
    try {
      await backend.#next("started");
    } catch (error) {
      await backend[Symbol.asyncDispose]();
      throw error;
    }
    return backend;
  }

  /** Asks it to stop, and returns its counters by group. Throws Error with what it complained of if it failed. */
  async stop(): Promise<Readonly<Record<string, Readonly<Record<string, number>>>>> {
    this.#process.kill("SIGTERM");
    const { counters } = await this.#next("stopped");
    const { code } = await this.#process.status;
    if (code !== 0) throw new Error(`The back-end ended with ${code}: ${await this.#complaints}`);
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
  async #next(wanted: string): Promise<{ counters: Record<string, Record<string, number>> }> {
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    try {
      while (true) {
        const { value, done } = await this.#lines.read();
        if (done) throw new Error(`The back-end has ended before "${wanted}": ${await this.#complaints}`);
        const event = JSON.parse(value);
        if (event.event === wanted) return event;
      }
    } finally {
      clearTimeout(timer);
    }
  }
}
