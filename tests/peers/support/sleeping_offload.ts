/**
 * An offload that stands still at the first frame for longer than anybody waits, and then goes on as if
 * nothing had been; or in a thread before that, when it is made.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin } from "../../../pipeline/plugin.ts";
import { perFrame } from "../../../pipeline/stage.ts";

const SLEEP_MS = 3000;
const START_MS = 8500;

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

const sleeping: OffloadPlugin<{ at?: "create" | undefined }> = defineOffload({
  name: "sleeping",
  direction: "toGuest",
  options: z.strictObject({ at: z.literal("create").optional() }),
  create(_context, { at }) {
    if (at === "create" && "WorkerGlobalScope" in globalThis && self.name.startsWith("set ")) {
      sleep(START_MS);
    }
    return perFrame((frame, output) => {
      sleep(SLEEP_MS);
      output.push(frame);
    });
  },
});

export default sleeping;
