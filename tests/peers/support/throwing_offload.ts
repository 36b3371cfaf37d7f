/**
 * An offload that fails in a thread, at the step that its option names: with the first frame, where nothing
 * else is said.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin } from "../../../pipeline/plugin.ts";
import type { Stage } from "../../../pipeline/stage.ts";

const STEPS = [
  "create",
  "negotiated",
  "process",
  "process and reset",
  "flush",
  "promise",
  "callback",
  "counters",
  "long text",
] as const;

const throwing: OffloadPlugin<{ at?: typeof STEPS[number] | undefined }> = defineOffload({
  name: "throwing",
  direction: "toGuest",
  options: z.strictObject({ at: z.enum(STEPS).optional() }),
  create({ publish }, { at = "process" }): Stage {
    const isInThread = "WorkerGlobalScope" in globalThis && self.name.startsWith("set ");
    const counters: Record<string, number> = publish({ frames: 0 });
    const failIf = (...steps: string[]) => {
      if (isInThread && steps.includes(at)) throw new Error(`the step ${at}`);
    };
    failIf("create");
    return {
      process(input, output) {
        failIf("process", "process and reset");
        if (at === "long text") throw new Error("x".repeat(500_000));
        if (at === "promise") Promise.reject(new Error("the step promise"));
        if (at === "callback") setTimeout(() => failIf("callback"));
        // No number: nothing can be added to it or written of it.
        if (at === "counters") counters.frames = 1n as unknown as number;
        for (let i = 0; i < input.length; i++) output.push(input.at(i));
      },
      deadlineNs: () => Infinity,
      flush: () => failIf("flush"),
      negotiated: () => failIf("negotiated"),
      reset: () => failIf("process and reset"),
    };
  },
});

export default throwing;
