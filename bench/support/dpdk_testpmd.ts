/**
 * DPDK's `dpdk-testpmd` with ports to order and its forwarding threads on given processors, led by its
 * command line.
 * @module
 */
import { TestpmdShell } from "../../rigs/testpmd_shell.ts";

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
  readonly #shell: TestpmdShell;

  private constructor(shell: TestpmdShell) {
    this.#shell = shell;
  }

  /** Starts it and waits until it takes commands. Throws Error with what it complains of. */
  static async start({ ports, pairs, cores, idleCores, hugePages }: ProgramOptions): Promise<TestpmdProgram> {
    const lcores = [`0@(${idleCores})`, ...cores.map((core, index) => `${index + 1}@${core}`)].join(",");
    const args = ["--lcores", lcores, "-m", `${MEMORY_MIB}`, "--force-max-simd-bitwidth=512"]
      .concat(ports.flatMap((port) => ["--vdev", port]))
      .concat("--", "-i", "--no-mlockall", "--total-num-mbufs=8192", `--nb-cores=${cores.length}`)
      // What the other side has sent before this one starts is not to be thrown away: it may be all there is.
      .concat("--no-flush-rx")
      .concat(`--rxq=${pairs}`, `--txq=${pairs}`, "--rxd=256", "--txd=256");
    const shell = TestpmdShell.start(hugePages, args);
    try {
      await shell.ready();
      return new TestpmdProgram(shell);
    } catch (error) {
      await shell[Symbol.asyncDispose]();
      throw error;
    }
  }

  /**
   * Carries commands out, and returns what the last one prints. Throws Error if testpmd has ended or does not
   * answer.
   */
  async run(...lines: string[]): Promise<string> {
    let answer = "";
    for (const line of lines) answer = await this.#shell.command(line);
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
    return this.#shell[Symbol.asyncDispose]();
  }
}

/** A number out of what testpmd prints. Throws Error if it is not there. */
function field(text: string, name: string): number {
  const digits = new RegExp(`${name}:\\s*(\\d+)`).exec(text)?.[1];
  if (digits === undefined) throw new Error(`testpmd has not told its ${name}: ${text}`);
  return Number(digits);
}
