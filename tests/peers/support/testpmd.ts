/**
 * DPDK's `dpdk-testpmd` with a virtio-user port: a front-end with a poll-mode driver, led by its command
 * line.
 */
import { TestpmdShell } from "../../../rigs/testpmd_shell.ts";

/** The address of its port. */
export const GUEST_MAC = "52:54:00:12:34:56";
const HUGE_PAGES = "/proc/sys/vm/nr_hugepages";
/** Enough for 128 MiB of packets and what the environment itself takes. */
const PAGES_NEEDED = 96;

/** How the port is made, and how it meets the back-end. */
export interface TestpmdOptions {
  /** Path of the socket. */
  readonly socket: string;
  /** Does testpmd make the socket? */
  readonly server: boolean;
  readonly pairs: number;
  readonly packed: boolean;
  readonly mergeable: boolean;
  /** Memory from huge pages, of which 128 MiB must be free, or ordinary memory. */
  readonly hugePages: boolean;
  /** The longest frame that it is to take and to make. */
  readonly maxFrameBytes: number;
  /** Bytes of each of its buffers, if frames are to lie in several; by default a frame fits into one. */
  readonly bufferBytes?: number;
  /** Further parameters of the port, such as `in_order=0`. */
  readonly portParameters?: string;
  /** What the port is to do for testpmd on receiving, a mask of RTE_ETH_RX_OFFLOAD_ bits. */
  readonly receiveOffloads?: number;
}

/** Numbers of frames as testpmd counts them since its last start. */
export interface PortStats {
  readonly received: number;
  readonly receivedBytes: number;
  readonly missed: number;
  readonly sent: number;
  readonly receivedPerQueue: readonly number[];
}

/** The functions that the driver has chosen for receiving and sending, in its own words. */
export interface BurstPaths {
  readonly receive: string;
  readonly send: string;
}

/** Huge pages, and the right to set some aside. */
export function hugePages(): string | null {
  try {
    Deno.openSync(HUGE_PAGES, { write: true }).close();
    return null;
  } catch {
    return `${HUGE_PAGES} cannot be written: run as root, on a kernel with huge pages`;
  }
}

/** Sets huge pages aside, as long as the result is not disposed of. */
export function reserveHugePages(): Disposable {
  const before = Number(Deno.readTextFileSync(HUGE_PAGES));
  const free = Number(/HugePages_Free:\s*(\d+)/.exec(Deno.readTextFileSync("/proc/meminfo"))?.[1]);
  Deno.writeTextFileSync(HUGE_PAGES, `${before + Math.max(0, PAGES_NEEDED - free)}`);
  return { [Symbol.dispose]: () => Deno.writeTextFileSync(HUGE_PAGES, `${before}`) };
}

/** A running testpmd. */
export class Testpmd implements AsyncDisposable {
  readonly #shell: TestpmdShell;

  private constructor(shell: TestpmdShell) {
    this.#shell = shell;
  }

  /** Starts it. Its port is there when `ready` is fulfilled; a server waits for the back-end before. */
  static start(options: TestpmdOptions): Testpmd {
    const { socket, server, pairs, packed, mergeable, hugePages, maxFrameBytes, receiveOffloads } = options;
    const port = [
      `net_virtio_user0,path=${socket},mac=${GUEST_MAC},queues=${pairs},queue_size=256`,
      `packed_vq=${Number(packed)},mrg_rxbuf=${Number(mergeable)}`,
      ...(server ? ["server=1"] : []),
      ...(options.portParameters === undefined ? [] : [options.portParameters]),
    ].join(",");
    // One thread answers commands, one forwards; where they run is the scheduler's business.
    const args = ["--lcores", "0@(0,1),1@(0,1)", "-m", "128"]
      .concat(
        "--vdev",
        port,
        // The driver says which path it takes; wide vectors are not used unless they are allowed.
        "--log-level=pmd.net.virtio.init:info",
        "--force-max-simd-bitwidth=512",
        "--",
        "-i",
        "--no-mlockall",
        "--total-num-mbufs=4096",
        ...(options.bufferBytes === undefined ? [] : ["--enable-scatter"]),
        // Without a mask testpmd asks for what it needs by itself.
        ...(receiveOffloads === undefined ? [] : [`--rx-offloads=0x${receiveOffloads.toString(16)}`]),
      )
      .concat(`--rxq=${pairs}`, `--txq=${pairs}`, "--rxd=256", "--txd=256")
      .concat(
        `--mbuf-size=${options.bufferBytes ?? maxFrameBytes + 512}`,
        `--max-pkt-len=${Math.max(1518, maxFrameBytes + 4)}`,
      );
    return new Testpmd(TestpmdShell.start(hugePages, args));
  }

  /** Waits until it takes commands. */
  ready(): Promise<void> {
    return this.#shell.ready();
  }

  /** The paths that the driver has taken at the last start of its port. */
  async paths(): Promise<BurstPaths> {
    for (let tries = 0; tries < 200; tries++) {
      const [receive, send] = ["Rx", "Tx"].map((way) =>
        [...this.#shell.log.matchAll(new RegExp(`virtio: using (.+) ${way} path on port 0`, "g"))].at(-1)?.[1]
      );
      if (receive !== undefined && send !== undefined) return { receive, send };
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    throw new Error(`testpmd has not said which paths it takes: ${this.#shell.log}`);
  }

  /** Starts forwarding in this mode, with counters at 0. */
  async forward(mode: "txonly" | "rxonly" | "macswap", ...settings: string[]): Promise<void> {
    for (const line of [`set fwd ${mode}`, ...settings, "clear port stats all", "start"]) {
      await this.command(line);
    }
  }

  /** Stops forwarding and returns how many frames it had to drop because the port did not take them. */
  async stopForwarding(): Promise<number> {
    const report = await this.command("stop");
    // The sum of all queues comes last.
    return Number([...report.matchAll(/TX-dropped:\s*(\d+)/g)].at(-1)?.[1]);
  }

  /** Carries a command out and returns what it prints. */
  command(line: string): Promise<string> {
    return this.#shell.command(line);
  }

  /** Ends it at once, without a word to the back-end. */
  kill(): void {
    this.#shell.kill();
  }

  /** What the port has counted since the counters were cleared. */
  async stats(pairs = 1): Promise<PortStats> {
    const text = await this.command("show port stats 0");
    const number = (name: string) => Number(new RegExp(`${name}:\\s*(\\d+)`).exec(text)?.[1]);
    const more = await this.command("show port xstats 0");
    const perQueue = Array.from(
      { length: pairs },
      (_, queue) => Number(new RegExp(`rx_q${queue}_good_packets:\\s*(\\d+)`).exec(more)?.[1]),
    );
    return {
      received: number("RX-packets"),
      receivedBytes: number("RX-bytes"),
      missed: number("RX-missed"),
      sent: number("TX-packets"),
      receivedPerQueue: perQueue,
    };
  }

  /** Lets it end, by force if need be. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#shell[Symbol.asyncDispose]();
  }
}
