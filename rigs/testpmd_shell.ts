/**
 * DPDK's `dpdk-testpmd`, led by its command line.
 * @module
 */

const PROMPT = "testpmd> ";
/** Time that one command, or the start, may take. */
const PATIENCE_MS = 15_000;

/** A running testpmd. */
export class TestpmdShell implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #reading: Promise<void>;
  readonly #logging: Promise<void>;
  readonly #runtimeFolder: string;
  #output = "";
  #log = "";
  #ended = false;
  #end: Promise<void> | null = null;
  #changed: () => void = () => {};

  private constructor(process: Deno.ChildProcess, runtimeFolder: string) {
    this.#process = process;
    this.#runtimeFolder = runtimeFolder;
    this.#writer = process.stdin.getWriter();
    this.#reading = this.#read();
    this.#logging = this.#readLog();
  }

  /**
   * Starts it. `ready` waits until it takes commands.
   * @param args its parameters
   * @param hugePages memory from huge pages, or ordinary memory
   */
  static start(hugePages: boolean, args: readonly string[]): TestpmdShell {
    const runtimeFolder = Deno.makeTempDirSync({ prefix: "testpmd-" });
    const memory = hugePages ? ["--in-memory", "--single-file-segments"] : ["--no-huge", "--no-shconf"];
    // The output unbuffered: the prompt goes past the buffer, and must not overtake what it follows.
    const command = new Deno.Command("stdbuf", {
      args: ["-o0", "dpdk-testpmd", "--no-pci", "--no-telemetry", ...memory, ...args],
      env: { XDG_RUNTIME_DIR: runtimeFolder, RUNTIME_DIRECTORY: runtimeFolder },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    return new TestpmdShell(command.spawn(), runtimeFolder);
  }

  /** What it has logged so far. */
  get log(): string {
    return this.#log;
  }

  /** Waits until it takes commands. Throws Error with what it complains of. */
  async ready(): Promise<void> {
    await this.#prompt("start");
  }

  /** Carries a command out and returns what it prints. Throws Error if it has ended or does not answer. */
  async command(line: string): Promise<string> {
    this.#output = "";
    await this.#writer.write(new TextEncoder().encode(`${line}\n`));
    return await this.#prompt(line);
  }

  /** Ends it at once, without a word to the other side. */
  kill(): void {
    this.#process.kill("SIGKILL");
  }

  /** Lets it end, by force if need be. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#end ??= this.#quit();
  }

  async #quit(): Promise<void> {
    await this.#writer.write(new TextEncoder().encode("quit\n")).catch(() => {});
    await this.#writer.close().catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    await Promise.all([this.#process.status, this.#reading, this.#logging]);
    clearTimeout(timer);
    Deno.removeSync(this.#runtimeFolder, { recursive: true });
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of this.#process.stdout) {
      this.#output += decoder.decode(bytes, { stream: true });
      this.#changed();
    }
    this.#ended = true;
    this.#changed();
  }

  async #readLog(): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of this.#process.stderr) this.#log += decoder.decode(bytes, { stream: true });
  }

  async #prompt(what: string): Promise<string> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.#changed();
    }, PATIENCE_MS);
    try {
      while (!this.#output.includes(PROMPT) && !late && !this.#ended) {
        await new Promise<void>((resolve) => this.#changed = resolve);
      }
    } finally {
      clearTimeout(timer);
    }
    if (this.#ended) {
      await this.#logging;
      throw new Error(`testpmd has ended at "${what}": ${this.#log}`);
    }
    if (late) throw new Error(`testpmd has not answered "${what}": ${this.#output}`);
    return this.#output;
  }
}
