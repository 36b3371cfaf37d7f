/**
 * The whole network device in memory: frames from a network that has them ready, through filter, steering and
 * stages, into the buffers of a guest, used ring published; and from a guest's buffers to a network that
 * takes them: `deno task bench device`.
 * @module
 */
import { DeviceRig } from "./support/device_rig.ts";
import { median } from "./support/statistics.ts";
import type { Suite, SuiteOptions, SuiteResult } from "./support/suite.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";

const SIZES = [64, 1502];

/** The suite. */
export const suite: Suite = {
  name: "device",
  summary: "the whole network device in memory, without stages",
  run(options: SuiteOptions): Promise<SuiteResult> {
    const rounds = options.quick ? 1000 : 5000;
    const baseline = new MemcpyBaseline();
    const rows = [true, false].flatMap((toGuest) =>
      (["split", "packed"] as const).map((layout) => ({
        name: `${toGuest ? "to guest" : "from guest"}, ${layout}`,
        rigs: SIZES.map((frameBytes) => new DeviceRig({ layout, frameBytes, toGuest })),
        samples: SIZES.map((): number[] => []),
      }))
    );
    for (let run = 0; run <= options.runs; run++) {
      for (const { rigs, samples } of rows) {
        for (const [i, rig] of rigs.entries()) {
          const ns = rig.run(rounds);
          if (run > 0) samples[i].push(ns);
        }
      }
      baseline.sample();
    }
    return Promise.resolve({
      memcpyNs: baseline.medianNs,
      tables: [{
        id: "frames",
        title: "A frame through the device, in bursts of 64",
        unit: "ns per frame",
        across: "bytes",
        columns: SIZES.map(String),
        rows: rows.map(({ name, samples }) => ({ name, values: samples.map((list) => median(list)) })),
      }],
    });
  },
};
