/**
 * An offload that stands still at the first frame for longer than anybody waits, and then goes on as if nothing had been.
 * @module
 */
import { defineOffload, type OffloadPlugin } from "../../../core/plugin.ts";
import { perFrame } from "../../../core/stage.ts";
import { z } from "zod";

const SLEEP_MS = 11_500;

const sleeping: OffloadPlugin<Record<string, never>> = defineOffload({
  name: "sleeping",
  direction: "toGuest",
  options: z.strictObject({}),
  create: () =>
    perFrame((frame, output) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, SLEEP_MS);
      output.push(frame);
    }),
});

export default sleeping;
