import { assertEquals } from "@std/assert";
import { FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { perFrame } from "../../pipeline/stage.ts";

Deno.test("perFrame() shows each frame to the function, in order, with output and time", () => {
  const pool = new FramePool();
  const [input, output] = [new FrameBatch(), new FrameBatch()];
  for (let number = 1; number <= 4; number++) {
    const frame = pool.take(60)!;
    frame.number = number;
    input.push(frame);
  }
  const times: number[] = [];
  const stage = perFrame((frame, out, nowNs) => {
    times.push(nowNs);
    if (frame.number % 2 === 0) frame.release();
    else out.push(frame);
  });
  stage.process(input, output, 77);
  assertEquals(times, [77, 77, 77, 77]);
  assertEquals(Array.from({ length: output.length }, (_, i) => output.at(i).number), [1, 3]);
  assertEquals([input.length, pool.inUse], [4, 2], "the engine clears the input, not the stage");
});

Deno.test("perFrame() makes a stage that holds nothing", () => {
  const stage = perFrame((frame) => frame.release());
  assertEquals(Object.keys(stage), ["process"]);
  stage.process(new FrameBatch(), new FrameBatch(), 0);
});
