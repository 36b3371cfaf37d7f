/**
 * A stage that corrupts some segments on their way to the guest, as a bad line does: named in configurations
 * of tests by its path.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin, perFrame } from "../../../plugin.ts";

/** Frames shorter than this carry no data worth corrupting. */
const MIN_BYTES = 1000;
/** Which of the others are corrupted: every so manieth. */
const EVERY = 500;

/** The plugin. */
const corruptSome: OffloadPlugin<Record<string, never>> = defineOffload({
  name: "corrupt-some",
  summary: "Flips a bit of data in every 500th large frame to the guest.",
  direction: "toGuest",
  options: z.strictObject({}),
  create(context) {
    const counters = context.publish({ corrupted: 0 });
    let seen = 0;
    return perFrame((frame, output) => {
      if (frame.length >= MIN_BYTES && ++seen % EVERY === 0) {
        frame.bytes[frame.start + frame.length - 1] ^= 0x10;
        counters.corrupted++;
      }
      output.push(frame);
    });
  },
});

export default corruptSome;
