/**
 * A complete plugin: drops every nth frame to the guest, as a bad line would. Name it in a configuration by
 * its path: `"offloads": [{ "use": "./drop_every.ts", "nth": 10 }, "rsc-v4"]`.
 *
 * In a project of your own, which `init` begins, import from `@deno-virtio/deno-virtio/plugin` instead of
 * `../plugin.ts`.
 * @module
 */
import { z } from "zod";
import { defineOffload, type OffloadPlugin, perFrame } from "../plugin.ts";

/** What `drop-every` can be told. */
export interface DropEveryOptions {
  /** Which frames are lost: every nth; default 10. */
  nth: number;
}

/** The plugin. */
const dropEvery: OffloadPlugin<DropEveryOptions> = defineOffload({
  name: "drop-every",
  summary: "Drops every nth frame to the guest.",
  direction: "toGuest",
  options: z.strictObject({ nth: z.int().min(2).default(10).describe("Which frames are lost: every nth.") }),
  create(context, options) {
    const counters = context.publish({ dropped: 0 });
    let seen = 0;
    return perFrame((frame, output) => {
      if (++seen % options.nth !== 0) return output.push(frame);
      counters.dropped++;
      frame.release();
    });
  },
});

export default dropEvery;
