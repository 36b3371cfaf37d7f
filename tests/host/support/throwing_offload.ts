/**
 * An offload that fails with the first frame.
 * @module
 */
import { defineOffload, type OffloadPlugin } from "../../../core/plugin.ts";
import { perFrame } from "../../../core/stage.ts";
import { z } from "zod";

const throwing: OffloadPlugin<Record<string, never>> = defineOffload({
  name: "throwing",
  direction: "toGuest",
  options: z.strictObject({}),
  create: () =>
    perFrame(() => {
      throw new Error("the first frame");
    }),
});

export default throwing;
