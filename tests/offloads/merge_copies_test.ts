import { assertEquals } from "@std/assert";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import { newFramePool } from "../../pipeline/frame_pool.ts";
import { TcpStream } from "../../testing/packets.ts";
import { StageBench } from "../../testing/stage_bench.ts";

/** How often `action` makes a `Uint8Array`. */
function arraysMade(action: () => void): number {
  const original = globalThis.Uint8Array;
  let made = 0;
  globalThis.Uint8Array = new Proxy(original, {
    construct(target, args, newTarget) {
      made++;
      return Reflect.construct(target, args, newTarget);
    },
  });
  try {
    action();
  } finally {
    globalThis.Uint8Array = original;
  }
  return made;
}

Deno.test("a small payload is copied behind what is held without an array being made for it", () => {
  assertEquals(arraysMade(() => new Uint8Array(1)), 1);
  for (const rules of ["strict", "qemu"] as const) {
    using bench = new StageBench(rscV4, { rules, explain: false, pool: newFramePool(1 << 20) });
    const stream = new TcpStream();
    const payloads = Array.from(
      { length: 8 },
      (_, i) => Uint8Array.from({ length: 100 }, (_, at) => 100 * i + at),
    );
    const frames = payloads.map((payload) => bench.frame(stream.next(payload)));
    assertEquals(arraysMade(() => frames.forEach((frame) => bench.feedFrame(frame))), 0);
    bench.drain();
    assertEquals(bench.out.length, 1);
    assertEquals([...bench.out[0].bytes.subarray(54)], payloads.flatMap((payload) => [...payload]));
  }
});
