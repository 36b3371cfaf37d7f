/**
 * What the machine is, and what it is worth at this moment: the copy of 1448 bytes, which every figure is to
 * be read against.
 * @module
 */
import { median } from "./statistics.ts";

const BYTES = 1448;
const COPIES = 5000;
const RUNS = 9;
/** Targets in turn, so that no copy waits for the one before; all together stay in the second-level cache. */
const TARGETS = 64;

/** The machine and what runs on it. */
export interface MachineFacts {
  /** The processor's own name. */
  readonly cpu: string;
  /** Processors that this program may use. */
  readonly cores: number;
  /** Release of the kernel. */
  readonly kernel: string;
  /** Version of Deno. */
  readonly deno: string;
  /** Version of V8. */
  readonly v8: string;
}

/** Asks the machine what it is. */
export function machineFacts(): MachineFacts {
  return {
    cpu: cpuName(),
    cores: navigator.hardwareConcurrency,
    kernel: `${Deno.build.os} ${Deno.osRelease()}`,
    deno: Deno.version.deno,
    v8: Deno.version.v8,
  };
}

function cpuName(): string {
  try {
    return /^model name\s*:\s*(.+)$/m.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? Deno.build.arch;
  } catch {
    return Deno.build.arch;
  }
}

/** Copies of 1448 bytes from and to memory that is in the caches. */
export class MemcpyBaseline {
  readonly #source = new Uint8Array(BYTES).fill(7);
  readonly #target = new Uint8Array(TARGETS * BYTES);
  readonly #samplesNs: number[] = [];

  /**
   * Measures once more, for some tenths of a millisecond, and returns it in ns. A suite calls it between its
   * runs.
   */
  sample(): number {
    const start = performance.now();
    for (let i = 0; i < COPIES; i++) this.#target.set(this.#source, (i & (TARGETS - 1)) * BYTES);
    const ns = (performance.now() - start) * 1e6 / COPIES;
    this.#samplesNs.push(ns);
    return ns;
  }

  /** The median in ns of the samples so far; NaN without any. */
  get medianNs(): number {
    return median(this.#samplesNs);
  }
}

/** The copy of 1448 bytes in ns, now. */
export function measureMemcpyNs(): number {
  const warm = new MemcpyBaseline();
  for (let i = 0; i < 3; i++) warm.sample();
  const baseline = new MemcpyBaseline();
  for (let i = 0; i < RUNS; i++) baseline.sample();
  return baseline.medianNs;
}
