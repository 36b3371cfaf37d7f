/**
 * Our coalescer as a program that is asked line by line, as the C programs in `bench/peers` are:
 *
 *     deno run --allow-read bench/support/coalescer.ts qemu|strict
 *
 * One rule book in a program, with both families, as in a machine: what the engine has seen of the other rule
 * book would slow it down. Reads "FAMILY FLOWS HELD PAYLOAD SEGMENTS COPY", answers "NS UNITS BYTES" (see
 * `bench/peers/peer.h`) and what a copy of 1448 bytes cost this process at that moment, in ns.
 *
 * @module
 */
import { newFramePool } from "../../pipeline/frame_pool.ts";
import type { FramePool } from "../../pipeline/frame_pool.ts";
import { Coalescing } from "./coalescing.ts";
import { LineReader } from "./line_reader.ts";
import { MemcpyBaseline } from "./memcpy_baseline.ts";

const SLOT_BYTES = 33 * 64;
const LARGE_SLOT_BYTES = 147 * 64;
/** Most payload of a frame that lies in a small slot. */
const MAX_SMALL_BYTES = 1900;
/** Frames beyond those that are held, and memory that a pool sets aside. */
const SPARE_FRAMES = 1024;
const SPARE_BYTES = 4 << 20;

/**
 * Coalescers by what they are asked for; those with equal needs share a pool, of which only one holds
 * anything at a time.
 */
class Coalescers {
  readonly #rules: "qemu" | "strict";
  readonly #pools = new Map<number, FramePool>();
  readonly #made = new Map<string, Coalescing>();

  constructor(rules: "qemu" | "strict") {
    this.#rules = rules;
  }

  find(family: "v4" | "v6", flows: number, held: number, payloadBytes: number): Coalescing {
    const key = `${family} ${flows} ${held} ${payloadBytes}`;
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const slotBytes = payloadBytes > MAX_SMALL_BYTES ? LARGE_SLOT_BYTES : SLOT_BYTES;
    const bytes = (flows * held + SPARE_FRAMES) * slotBytes + SPARE_BYTES;
    const pool = this.#pools.get(bytes) ?? newFramePool(bytes);
    this.#pools.set(bytes, pool);
    const made = new Coalescing({ family, rules: this.#rules, flows, held, payloadBytes }, pool);
    this.#made.set(key, made);
    return made;
  }
}

async function main([rules]: readonly string[]): Promise<void> {
  if (rules !== "qemu" && rules !== "strict") throw new Error('Name the rule book: "qemu" or "strict"');
  const coalescers = new Coalescers(rules);
  const baseline = new MemcpyBaseline();
  const reader = new LineReader(Deno.stdin.readable);
  for (let line = await reader.read(); line !== null; line = await reader.read()) {
    const [family, flows, held, payloadBytes, segments, copy] = line.split(" ").map(Number);
    const coalescing = coalescers.find(family === 4 ? "v4" : "v6", flows, held, payloadBytes);
    const ns = coalescing.run(segments, copy === 1 ? "withCopy" : "alone");
    const { units, bytes } = coalescing.firstCycle;
    console.log(`${ns} ${units} ${bytes} ${baseline.sample()}`);
  }
}

if (import.meta.main) await main(Deno.args);
