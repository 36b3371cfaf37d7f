/**
 * What held segments cost in memory. A program of its own, so that nothing else is in the figure:
 *
 *     deno run --allow-all bench/support/held_memory.ts FLOWS SEGMENTS_A_FLOW PAYLOAD_BYTES
 *
 * Prints one line: bytes of frames held, and by how many bytes the resident memory of the process has grown
 * meanwhile.
 *
 * @module
 */
import { newFramePool } from "../../pipeline/frame_pool.ts";
import { Coalescing } from "./coalescing.ts";

if (import.meta.main) {
  const [flows, held, payloadBytes] = Deno.args.map(Number);
  // A small one first: what is compiled and made once is not the memory of packets.
  new Coalescing({ family: "v4", rules: "strict", flows: 64, held: 8, payloadBytes }, newFramePool(16 << 20))
    .run(16_384, "alone");
  // The segments' source has a copy of a segment for each flow; it is there before.
  const coalescing = new Coalescing(
    { family: "v4", rules: "strict", flows, held, payloadBytes },
    newFramePool(512 << 20),
  );
  const before = residentBytes();
  const frames = coalescing.hold();
  const after = residentBytes();
  // Small payloads are copied to where others are: that takes fewer frames. Units that had to leave would not
  // be held.
  if (frames < flows || frames > flows * held) throw new Error(`${frames} frames are out of the pool`);
  console.log(`${flows * (54 + held * payloadBytes)} ${after - before}`);
}

/** Bytes of this process in memory, exactly: `Deno.memoryUsage` may be pages behind. */
function residentBytes(): number {
  const rollup = Deno.readTextFileSync("/proc/self/smaps_rollup");
  return Number(/^Rss:\s*(\d+) kB$/m.exec(rollup)![1]) * 1024;
}
