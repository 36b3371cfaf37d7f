/**
 * Moves frames one way and marks in the output of the collector (`--trace-gc`) when it is warm and when it
 * has done, with the bytes of objects that were made in between:
 *
 *     deno run --allow-all --v8-flags=--trace-gc,--expose-gc bench/support/garbage_program.ts CASE WARM_UP_FRAMES FRAMES
 *
 * What the warm-up has left is collected first. Marks go through the C library as the collector's lines do:
 * what is printed otherwise would overtake them.
 *
 * @module
 */
import { GARBAGE_CASES, MARKS } from "./garbage_cases.ts";

const { symbols: c } = Deno.dlopen("libc.so.6", {
  puts: { parameters: ["buffer"], result: "i32" },
  fflush: { parameters: ["pointer"], result: "i32" },
});

function print(line: string): void {
  c.puts(new TextEncoder().encode(`${line}\0`));
}

async function main(name: string, warmUpFrames: number, frames: number): Promise<void> {
  const { setup } = GARBAGE_CASES.find((found) => found.name === name)!;
  await using stack = new AsyncDisposableStack();
  let run: (frames: number) => void;
  // Only what is needed: a TAP calls native functions as soon as it is loaded.
  if (setup === "tap") {
    const { GarbageTap } = await import("./garbage_tap.ts");
    const tap = stack.use(new GarbageTap());
    run = (count) => tap.run(count);
  } else {
    const { GarbageRig } = await import("./garbage_rig.ts");
    const rig = stack.use(await GarbageRig.start(setup));
    run = (count) => rig.run(count);
  }
  run(warmUpFrames);
  (globalThis as unknown as { gc(): void }).gc();
  const { heapUsed } = Deno.memoryUsage();
  print(MARKS[0]);
  run(frames);
  const garbage = Deno.memoryUsage().heapUsed - heapUsed;
  print(MARKS[1]);
  print(String(garbage));
  c.fflush(null);
}

if (import.meta.main) await main(Deno.args[0], Number(Deno.args[1]), Number(Deno.args[2]));
