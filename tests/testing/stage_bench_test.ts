import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { PluginError } from "../../plugins/contract.ts";
import { rscV4 } from "../../offloads/rsc_v4.ts";
import type { FrameBatch } from "../../pipeline/frame.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { defineOffload, type OffloadPlugin } from "../../pipeline/plugin.ts";
import { perFrame, type Stage, type StageContext } from "../../pipeline/stage.ts";
import {
  BENCH_FEATURES,
  FeatureSet,
  FramePool,
  StageBench,
  tcp,
  TcpStream,
  VerdictList,
} from "../../testing/mod.ts";

interface DelayOptions {
  delayNs: number;
  rules?: string | undefined;
}

/** Holds every frame for a time of its own: what a bench must be able to run. */
function delayed(seen: string[] = []): OffloadPlugin<DelayOptions> {
  return defineOffload<DelayOptions>({
    name: "delay",
    direction: "toGuest",
    options: z.strictObject({ delayNs: z.int().min(0).default(1000), rules: z.string().optional() }),
    inherits: ["rules"],
    create(context: StageContext, { delayNs, rules }: DelayOptions): Stage {
      const { name, direction, queuePairs, network } = context;
      seen.push(
        JSON.stringify({ name, direction, rules, queuePairs, network, explains: context.verdicts !== null }),
      );
      const held: { frame: ReturnType<FrameBatch["at"]>; atNs: number }[] = [];
      const counters = context.publish({ held: 0 });
      return {
        process(input, _output, nowNs) {
          for (let i = 0; i < input.length; i++) held.push({ frame: input.at(i), atNs: nowNs + delayNs });
          counters.held += input.length;
        },
        deadlineNs: () => held.length === 0 ? Infinity : held[0].atNs,
        flush(output, nowNs) {
          while (held.length > 0 && held[0].atNs <= nowNs) output.push(held.shift()!.frame);
        },
        negotiated: (state) => void seen.push([...state.offloads].join()),
      };
    },
  });
}

Deno.test("StageBench stops at every deadline on the way, and what is due at a moment has happened then", () => {
  using bench = new StageBench(delayed());
  bench.feed(tcp({ id: 1 }));
  bench.advanceTo(400);
  bench.feed(tcp({ id: 2 }));
  bench.advanceTo(999);
  assertEquals(bench.out.length, 0);
  bench.advanceTo(1400);
  assertEquals(bench.out.map(({ atNs, number }) => [atNs, number]), [[1000, 1], [1400, 2]]);
  assertEquals(bench.clock.nowNs(), 1400);
});

Deno.test("StageBench runs several stages in order, each with its own counters", () => {
  const mark = perFrame((frame, output) => {
    frame.header.hdrLen++;
    output.push(frame);
  });
  using bench = new StageBench([
    { plugin: delayed(), options: { delayNs: 5 } },
    { name: "mark", stage: mark },
    rscV4,
  ]);
  const stream = new TcpStream();
  bench.feedBatch([stream.next(10), stream.next(10)]);
  bench.advanceTo(300_005);
  assertEquals(bench.out.map(({ atNs, bytes }) => [atNs, bytes.length]), [[300_005, 74]]);
  assertEquals(bench.counters.delay.held, 2);
  assertEquals(bench.counters["rsc-v4"].merged, 1);
});

Deno.test("StageBench passes facts on: header fields, queue and number", () => {
  using bench = new StageBench({ name: "none", stage: perFrame((frame, output) => output.push(frame)) });
  bench.feed(tcp(), { header: { flags: 2, gsoSize: 7 }, queuePair: 3, number: 99 });
  bench.feed(tcp());
  const [first, second] = bench.out;
  assertEquals([first.header.flags, first.header.gsoSize, first.queuePair, first.number], [2, 7, 3, 99]);
  assertEquals([second.header.flags, second.queuePair, second.number], [0, 0, 1]);
  assertEquals(first.bytes, tcp());
});

Deno.test("StageBench takes whatever can make bytes of itself", () => {
  using bench = new StageBench({ name: "none", stage: perFrame((frame, output) => output.push(frame)) });
  const frame = bench.frame(tcp({ id: 5 }));
  bench.feed(frame);
  bench.feedFrame(frame);
  assertEquals(bench.out.map(({ bytes }) => bytes), [tcp({ id: 5 }), tcp({ id: 5 })]);
});

Deno.test("StageBench gives a plugin the context it was told, and negotiates at once", () => {
  const seen: string[] = [];
  const network = OffloadCapabilities.of("csum", "uso4", "uso6");
  const settings = { direction: "fromGuest", rules: "qemu", queuePairs: 4, network, explain: false } as const;
  new StageBench(delayed(seen), settings).close();
  const context = {
    name: "delay",
    direction: "fromGuest",
    rules: "qemu",
    queuePairs: 4,
    network,
    explains: false,
  };
  assertEquals(seen, [JSON.stringify(context), "1,7,8,61"]);
});

Deno.test("StageBench negotiates again, switches offloads, and waits if it is told so", () => {
  const seen: string[] = [];
  const bench = new StageBench(delayed(seen), { features: null });
  assertEquals(seen.length, 1);
  bench.negotiated(BENCH_FEATURES.without(8));
  bench.setOffloads(FeatureSet.of(1));
  assertEquals(seen.slice(1), ["1,7,61", "1"]);
  bench.close();
});

Deno.test("StageBench drains when it is closed, and may be closed twice", () => {
  const bench = new StageBench(rscV4);
  bench.feed(tcp({ payload: 5 }));
  bench.close();
  bench.close();
  assertEquals(bench.out.length, 1);
});

Deno.test("StageBench.reset() releases what was held and says how much", () => {
  using bench = new StageBench(rscV4);
  bench.feed(tcp({ payload: 5 }));
  bench.feed(tcp({ payload: 5, sourcePort: 7 }));
  assertEquals([bench.reset(), bench.pool.inUse, bench.out.length], [2, 0, 0]);
});

Deno.test("StageBench finds a frame that a stage has forgotten", () => {
  const bench = new StageBench({ name: "leak", stage: { ...perFrame(() => {}), flush: () => {} } });
  bench.feed(tcp());
  assertThrows(() => bench.close(), Error, "1 frames are not back in the pool");
  const atOnce = new StageBench({ name: "leak", stage: perFrame(() => {}) });
  assertThrows(
    () => atOnce.feed(tcp()),
    PluginError,
    'plugin "leak" failed in process: it keeps a frame but',
  );
});

Deno.test("StageBench finds a stage that wants to be flushed for ever", () => {
  const stage: Stage = {
    process: (input, output) => output.push(input.at(0)),
    deadlineNs: () => 5,
    flush: () => {},
  };
  const bench = new StageBench({ name: "spin", stage });
  bench.feed(tcp());
  assertThrows(() => bench.advanceTo(10), Error, "wants to be flushed at 5 ns for ever");
});

Deno.test("StageBench names the option that is wrong, and passes on what a plugin throws", () => {
  assertThrows(() => new StageBench({ plugin: delayed(), options: { delayNs: -1 } }), TypeError, "delayNs: ");
  assertThrows(
    () => new StageBench({ plugin: delayed(), options: { nth: 1 } }),
    TypeError,
    'Cannot bench "delay"',
  );
  const broken = defineOffload({
    name: "broken",
    direction: "toGuest",
    options: z.strictObject({}),
    create: () => {
      throw new RangeError("no such thing");
    },
  });
  assertThrows(() => new StageBench(broken), RangeError, "no such thing");
});

Deno.test("StageBench refuses to go back in time, and to feed from an empty pool", () => {
  const bench = new StageBench(rscV4, { pool: new FramePool({ maxBytes: 0 }) });
  bench.advanceTo(5);
  assertThrows(() => bench.advanceTo(4), RangeError, "from 5 ns to 4 ns");
  assertThrows(() => bench.feed(tcp()), RangeError, "the pool is at its limit");
});

Deno.test("VerdictList keeps, finds and prints what stages say", () => {
  using bench = new StageBench(rscV4);
  bench.feed(tcp({ payload: 10 }), { number: 7 });
  bench.feed(tcp({ seq: 1010, payload: 10 }), { number: 8 });
  assertEquals(bench.verdicts.of(8), ["merged"]);
  assertEquals(bench.verdicts.of(9), []);
  assertEquals(bench.verdicts.names, ["held", "merged"]);
  assert(bench.verdicts instanceof VerdictList);
});
