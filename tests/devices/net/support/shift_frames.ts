/**
 * A stage that moves every frame towards the start of its slot.
 * @module
 */
import { z } from "zod";
import { defineOffload } from "../../../../pipeline/plugin.ts";
import { perFrame } from "../../../../pipeline/stage.ts";

export default defineOffload({
  name: "shift-frames",
  direction: "toGuest",
  options: z.strictObject({ headroomBytes: z.int().min(0) }),
  create: (_context, { headroomBytes }) =>
    perFrame((frame, output) => {
      const start = frame.slot + headroomBytes;
      frame.bytes.copyWithin(start, frame.start, frame.start + frame.length);
      frame.start = start;
      output.push(frame);
    }),
});
