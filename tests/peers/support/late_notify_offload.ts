/**
 * Preemption, planted where it once did harm. An offload that changes nothing of a frame has its thread sleep
 * between a store and the `Atomics.notify` that tells of it; `delayWaits` has this thread sleep before it
 * waits for such a store.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin } from "../../../pipeline/plugin.ts";
import { perFrame } from "../../../pipeline/stage.ts";

const NOTIFY_DELAY_MS = 3;
const WAIT_DELAY_MS = 1;

const sleeper = new Int32Array(new SharedArrayBuffer(4));
const { notify, wait } = Atomics;

function delayNotifies(oneIn: number): void {
  Atomics.notify = (words: Int32Array | BigInt64Array, index: number, count?: number) => {
    if (Math.random() * oneIn < 1) wait(sleeper, 0, 0, NOTIFY_DELAY_MS);
    return notify(words as Int32Array, index, count);
  };
}

/** Until it is disposed of, one of `oneIn` waits of this thread begins late. */
export function delayWaits(oneIn: number): Disposable {
  Atomics.wait = (...args: unknown[]) => {
    if (Math.random() * oneIn < 1) wait(sleeper, 0, 0, WAIT_DELAY_MS);
    return wait(...args as Parameters<typeof wait>);
  };
  return { [Symbol.dispose]: () => void (Atomics.wait = wait) };
}

const lateNotify: OffloadPlugin<{ oneIn?: number | undefined }> = defineOffload({
  name: "late-notify",
  direction: "toGuest",
  options: z.strictObject({ oneIn: z.int().min(1).optional() }),
  create(_context, { oneIn = 1 }) {
    // Threads are workers, and those have a name of their own.
    if ("WorkerGlobalScope" in globalThis && self.name.startsWith("set ")) delayNotifies(oneIn);
    return perFrame((frame, output) => void output.push(frame));
  },
});

export default lateNotify;
