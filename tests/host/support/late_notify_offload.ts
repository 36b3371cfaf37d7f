/**
 * An offload that changes nothing of a frame, but makes its thread slow: every `Atomics.notify` there comes some
 * milliseconds after the store that it tells of, as if the thread had been preempted in between.
 * @module
 */
import { defineOffload, type OffloadPlugin } from "../../../core/plugin.ts";
import { perFrame } from "../../../core/stage.ts";
import { z } from "zod";

const DELAY_MS = 3;

function delayNotify(): void {
  const notify = Atomics.notify;
  const sleeper = new Int32Array(new SharedArrayBuffer(4));
  Atomics.notify = (words: Int32Array | BigInt64Array, index: number, count?: number) => {
    Atomics.wait(sleeper, 0, 0, DELAY_MS);
    return notify(words as Int32Array, index, count);
  };
}

const lateNotify: OffloadPlugin<Record<string, never>> = defineOffload({
  name: "late-notify",
  direction: "toGuest",
  options: z.strictObject({}),
  create() {
    // Threads are workers, and those have a name of their own.
    if ("WorkerGlobalScope" in globalThis && self.name.startsWith("pair ")) delayNotify();
    return perFrame((frame, output) => void output.push(frame));
  },
});

export default lateNotify;
