/**
 * The machine under a benchmark with DPDK: its processors, its huge pages, and what a cache line costs
 * between two processors.
 * @module
 */
import { BuiltPeer } from "./compile.ts";
import { MEMORY_MIB } from "./dpdk_testpmd.ts";
import { median } from "./statistics.ts";

const HUGE_PAGES = "/proc/sys/vm/nr_hugepages";
const PROBE_MS = 30;

/** The processors that this program may use. */
export function allowedCores(): number[] {
  const status = Deno.readTextFileSync("/proc/self/status");
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? "0";
  return list.split(",").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** Huge pages that were set aside; given back with this object. */
export class HugePages implements Disposable {
  /** Are there as many as were asked for? */
  readonly areThere: boolean;
  readonly #before: number | null;

  /**
   * Sets huge pages of 2 MiB aside, if that can be had.
   * @param programs how many programs use them at a time
   */
  constructor(programs: number) {
    const needed = programs * MEMORY_MIB / 2;
    let before: number | null = null;
    try {
      before = Number(Deno.readTextFileSync(HUGE_PAGES));
      Deno.writeTextFileSync(HUGE_PAGES, `${before + Math.max(0, needed - freePages())}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotFound)) {
        throw error;
      }
    }
    this.#before = before;
    this.areThere = freePages() >= needed;
  }

  /** Gives them back. */
  [Symbol.dispose](): void {
    if (this.#before !== null) Deno.writeTextFileSync(HUGE_PAGES, `${this.#before}`);
  }
}

function freePages(): number {
  const facts = Deno.readTextFileSync("/proc/meminfo");
  if (!/^Hugepagesize:\s*2048 kB$/m.test(facts)) return 0;
  return Number(/^HugePages_Free:\s*(\d+)$/m.exec(facts)?.[1] ?? 0);
}

/** Measures what it costs to bring a cache line from one processor to another: the state of the machine. */
export class CacheLineProbe implements Disposable {
  readonly #peer: BuiltPeer;
  readonly #cores: readonly [number, number];
  readonly #samplesNs: number[] = [];

  private constructor(peer: BuiltPeer, cores: readonly [number, number]) {
    this.#peer = peer;
    this.#cores = cores;
  }

  /** Builds it. Throws Error with what is missing, or what the compiler said. */
  static async build(cores: readonly [number, number]): Promise<CacheLineProbe> {
    return new CacheLineProbe(await BuiltPeer.build({ name: "cache_line" }), cores);
  }

  /** Measures once more, while nothing else runs on those processors. Returns ns. */
  async sample(): Promise<number> {
    const [ns] = await this.#peer.run(...this.#cores, PROBE_MS);
    this.#samplesNs.push(ns);
    return ns;
  }

  /** Least, median and most of the samples so far, in ns. */
  get summaryNs(): readonly [number, number, number] {
    return [Math.min(...this.#samplesNs), median(this.#samplesNs), Math.max(...this.#samplesNs)];
  }

  /** Takes away what was built. */
  [Symbol.dispose](): void {
    this.#peer[Symbol.dispose]();
  }
}
