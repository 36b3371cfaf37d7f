/**
 * DPDK's `dpdk-testpmd` with ports to order and its forwarding threads on given processors, led by its command line.
 * @module
 */

const PROMPT = "testpmd> ";
/** Time that one command, or the start, may take. */
const PATIENCE_MS = 15_000;
/** Memory of one program in MiB: 8192 packets and what the environment itself takes. */
export const MEMORY_MIB = 64;

/** How it is started. */
export interface ProgramOptions {
  /** Its ports, as `--vdev` takes them. */
  readonly ports: readonly string[];
  /** Queue pairs of each port. */
  readonly pairs: number;
  /** A processor for each thread that forwards; the queues are spread over them. */
  readonly cores: readonly number[];
  /** Processors for everything else: commands, connections. */
  readonly idleCores: readonly number[];
  /** Memory from huge pages, or ordinary memory. */
  readonly hugePages: boolean;
}

/** Frames per second of one port over a span of time, as testpmd counts them. */
export interface PortRates {
  /** Frames that it has received. */
  readonly received: number;
  /** Frames that it has sent. */
  readonly sent: number;
}

/** What one port has counted since it was started. */
export interface PortTotals extends PortRates {
  /** Bytes of the frames that it has received. */
  readonly receivedBytes: number;
  /** Bytes of the frames that it has sent. */
  readonly sentBytes: number;
}

/** A running testpmd. */
export class TestpmdProgram implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #reading: Promise<void>;
  readonly #complaints: Promise<string>;
  readonly #runtimeFolder: string;
  #output = "";
  #ended = false;
  #end: Promise<void> | null = null;
  #changed: () => void = () => {};

  private constructor(process: Deno.ChildProcess, runtimeFolder: string) {
    this.#process = process;
    this.#runtimeFolder = runtimeFolder;
    this.#writer = process.stdin.getWriter();
    this.#reading = this.#read();
    this.#complaints = new Response(process.stderr).text();
  }

  /** Starts it and waits until it takes commands. Throws Error with what it complains of. */
  static async start({ ports, pairs, cores, idleCores, hugePages }: ProgramOptions): Promise<TestpmdProgram> {
    const runtimeFolder = Deno.makeTempDirSync({ prefix: "testpmd-" });
    const lcores = [`0@(${idleCores})`, ...cores.map((core, index) => `${index + 1}@${core}`)].join(",");
    const memory = hugePages ? ["--in-memory", "--single-file-segments"] : ["--no-huge", "--no-shconf"];
    const args = ["-o0", "dpdk-testpmd", "--lcores", lcores, "-m", `${MEMORY_MIB}`, ...memory]
      .concat("--no-pci", "--no-telemetry", "--force-max-simd-bitwidth=512")
      .concat(ports.flatMap((port) => ["--vdev", port]))
      .concat("--", "-i", "--no-mlockall", "--total-num-mbufs=8192", `--nb-cores=${cores.length}`)
      // What the other side has sent before this one starts is not to be thrown away: it may be all there is.
      .concat("--no-flush-rx")
      .concat(`--rxq=${pairs}`, `--txq=${pairs}`, "--rxd=256", "--txd=256");
    // Unbuffered: the prompt goes past the buffer, and must not overtake what it follows.
    const command = new Deno.Command("stdbuf", {
      args,
      env: { XDG_RUNTIME_DIR: runtimeFolder, RUNTIME_DIRECTORY: runtimeFolder },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    });
    const program = new TestpmdProgram(command.spawn(), runtimeFolder);
    try {
      await program.#prompt("start");
      return program;
    } catch (error) {
      await program[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Carries commands out, and returns what the last one prints. Throws Error if testpmd has ended or does not answer. */
  async run(...lines: string[]): Promise<string> {
    let answer = "";
    for (const line of lines) {
      this.#output = "";
      await this.#writer.write(new TextEncoder().encode(`${line}\n`));
      answer = await this.#prompt(line);
    }
    return answer;
  }

  /** Frames per second of a port since this was asked last. */
  async rates(port: number): Promise<PortRates> {
    const text = await this.run(`show port stats ${port}`);
    return { received: field(text, "Rx-pps"), sent: field(text, "Tx-pps") };
  }

  /** What a port has counted. */
  async totals(port: number): Promise<PortTotals> {
    const text = await this.run(`show port stats ${port}`);
    return {
      received: field(text, "RX-packets"),
      receivedBytes: field(text, "RX-bytes"),
      sent: field(text, "TX-packets"),
      sentBytes: field(text, "TX-bytes"),
    };
  }

  /** Lets it end, by force if need be. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#end ??= this.#quit();
  }

  async #quit(): Promise<void> {
    await this.#writer.write(new TextEncoder().encode("quit\n")).catch(() => {});
    await this.#writer.close().catch(() => {});
    const timer = setTimeout(() => this.#process.kill("SIGKILL"), PATIENCE_MS);
    await Promise.all([this.#process.status, this.#reading, this.#complaints]);
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
    if (this.#ended) throw new Error(`testpmd has ended at "${what}": ${await this.#complaints}`);
    if (late) throw new Error(`testpmd has not answered "${what}": ${this.#output}`);
    return this.#output;
  }
}

/** A number out of what testpmd prints. Throws Error if it is not there. */
function field(text: string, name: string): number {
  const digits = new RegExp(`${name}:\\s*(\\d+)`).exec(text)?.[1];
  if (digits === undefined) throw new Error(`testpmd has not told its ${name}: ${text}`);
  return Number(digits);
}
