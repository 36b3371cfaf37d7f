import { TextLineStream } from "@std/streams";
import { ROOT } from "./command.ts";

/** A command line in a process of its own, with its output line by line. */
export class CommandProcess {
  readonly #child: Deno.ChildProcess;
  readonly #lines: ReadableStreamDefaultReader<string>;
  readonly #err: Promise<string>;

  constructor(flags: readonly string[], args: readonly string[], env: Record<string, string> = {}) {
    this.#child = new Deno.Command(Deno.execPath(), {
      args: ["run", "--no-prompt", ...flags, "mod.ts", ...args],
      cwd: ROOT,
      env: { NO_COLOR: "1", ...env },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#lines = this.#child.stdout.pipeThrough(new TextDecoderStream()).pipeThrough(new TextLineStream())
      .getReader();
    this.#err = new Response(this.#child.stderr).text();
  }

  /** The next line; null at the end. */
  async line(): Promise<string | null> {
    const { value, done } = await this.#lines.read();
    return done ? null : value;
  }

  /** Reads on to a line with this text, and returns it. Throws Error at the end. */
  async lineWith(text: string): Promise<string> {
    for (;;) {
      const line = await this.line();
      if (line === null) throw new Error(`no line with ${text}; standard error: ${await this.#err}`);
      if (line.includes(text)) return line;
    }
  }

  get pid(): number {
    return this.#child.pid;
  }

  signal(signal: Deno.Signal): void {
    this.#child.kill(signal);
  }

  /** Everything that is still to come, and the exit code. */
  async end(): Promise<{ code: number; rest: string[]; err: string }> {
    const rest: string[] = [];
    for (let line = await this.line(); line !== null; line = await this.line()) rest.push(line);
    const { code } = await this.#child.status;
    return { code, rest, err: await this.#err };
  }
}
