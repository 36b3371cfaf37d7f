import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { GuestError } from "../../rings/guest_error.ts";
import { PluginError } from "../../plugins/contract.ts";
import { FeatureSet } from "../../core/features.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { type NamedStage, Pipeline } from "../../pipeline/pipeline.ts";
import { type QemuStage, requestOffloads } from "../../pipeline/qemu_compat.ts";
import { perFrame, type Stage } from "../../pipeline/stage.ts";

/** A line with a sink that notes numbers, and a log in which stages and sink write. */
class Line {
  readonly pool = new FramePool();
  readonly log: string[] = [];
  readonly sunk: number[] = [];
  readonly pipeline: Pipeline;
  /** What the sink does besides noting. */
  onSunk: (number: number) => void = () => {};
  readonly #input = new FrameBatch();

  constructor(...stages: NamedStage[]) {
    this.pipeline = new Pipeline(stages, {
      accept: (frames, nowNs) => {
        this.log.push(`sink ${frames.length} at ${nowNs}`);
        const numbers: number[] = [];
        for (let i = 0; i < frames.length; i++) numbers.push(frames.at(i).number);
        frames.releaseAll();
        for (const number of numbers) {
          this.sunk.push(number);
          this.onSunk(number);
        }
      },
    });
  }

  push(numbers: readonly number[], nowNs = 0): void {
    for (const number of numbers) {
      const frame = this.pool.take(60)!;
      frame.number = number;
      this.#input.push(frame);
    }
    this.pipeline.push(this.#input, nowNs);
    assertEquals(this.#input.length, 0, "the input is cleared");
  }
}

/** Holds everything for `holdNs` from the first frame on, or until it is flushed. */
class Holder implements Stage {
  readonly held = new FrameBatch();
  dueNs = Infinity;
  readonly #holdNs: number;

  constructor(holdNs: number) {
    this.#holdNs = holdNs;
  }

  process(input: FrameBatch, _output: FrameBatch, nowNs: number): void {
    for (let i = 0; i < input.length; i++) this.held.push(input.at(i));
    if (this.dueNs === Infinity && this.held.length > 0) this.dueNs = nowNs + this.#holdNs;
  }

  deadlineNs(): number {
    return this.dueNs;
  }

  flush(output: FrameBatch, nowNs: number): void {
    if (nowNs < this.dueNs && nowNs !== Infinity) return;
    for (let i = 0; i < this.held.length; i++) output.push(this.held.at(i));
    this.held.clear();
    this.dueNs = Infinity;
  }
}

function named(name: string, stage: Stage): NamedStage {
  return { name, stage };
}

/** Adds `amount` to the number of each frame. */
function adds(amount: number): Stage {
  return perFrame((frame, output) => {
    frame.number = frame.number * 10 + amount;
    output.push(frame);
  });
}

const negotiated = { features: FeatureSet.of(1), offloads: FeatureSet.of(1) };

Deno.test("Pipeline.push() runs stages in order and hands the last output to the sink", () => {
  const line = new Line(named("one", adds(1)), named("two", adds(2)), named("three", adds(3)));
  line.push([7, 8], 5);
  assertEquals(line.sunk, [7123, 8123]);
  assertEquals(line.log, ["sink 2 at 5"]);
  assertEquals(line.pool.inUse, 0);
});

Deno.test("Pipeline.push() without stages goes straight to the sink, and an empty batch goes nowhere", () => {
  const line = new Line();
  line.push([1, 2, 3]);
  line.push([]);
  assertEquals([line.sunk, line.log], [[1, 2, 3], ["sink 3 at 0"]]);
  assertEquals(line.pipeline.deadlineNs(), Infinity);
});

Deno.test("Pipeline.push() lets a stage drop, hold and multiply frames", () => {
  const pool = new FramePool();
  const line = new Line(named("odd", {
    process(input, output) {
      for (let i = 0; i < input.length; i++) {
        const frame = input.at(i);
        if (frame.number % 2 === 0) frame.release();
        else {
          output.push(frame);
          const copy = pool.takeCopy(frame.toBytes())!;
          copy.number = -frame.number;
          output.push(copy);
        }
      }
    },
  }));
  line.push([1, 2, 3]);
  assertEquals(line.sunk, [1, -1, 3, -3]);
  assertEquals([line.pool.inUse, pool.inUse], [0, 0]);
});

Deno.test("Pipeline.push() does not call a stage that nothing reaches", () => {
  let calls = 0;
  const line = new Line(
    named("sieve", perFrame((frame) => frame.release())),
    named("counter", { process: () => void calls++ }),
  );
  line.push([1, 2]);
  assertEquals([calls, line.log], [0, []]);
});

Deno.test("Pipeline.deadlineNs() is the earliest of all stages", () => {
  const line = new Line(named("late", new Holder(500)), named("none", adds(0)));
  assertEquals(line.pipeline.deadlineNs(), Infinity);
  line.push([1], 100);
  assertEquals(line.pipeline.deadlineNs(), 600);
  assertEquals(line.pipeline.flushDue(599), false);
  assertEquals([line.sunk.length, line.pipeline.deadlineNs()], [0, 600]);
  assertEquals(line.pipeline.flushDue(600), true);
  assertEquals([line.sunk, line.pipeline.deadlineNs()], [[10], Infinity]);
  assertEquals(line.pipeline.flushDue(1e9), false);
});

Deno.test("Pipeline.flushDue() runs what a stage lets go through the stages behind it only", () => {
  const line = new Line(named("before", adds(1)), named("holder", new Holder(10)), named("behind", adds(2)));
  line.push([5]);
  line.pipeline.flushDue(10);
  assertEquals(line.sunk, [512]);
});

/** Three holders side by side: each holds only the frames of its number. */
function sideBySide(holds: readonly [number, number, number]): Line {
  const stages = holds.map((holdNs, index): NamedStage => {
    const holder = new Holder(holdNs);
    return named(`holder${index}`, {
      process(input, output, nowNs) {
        const own = new FrameBatch();
        for (let i = 0; i < input.length; i++) {
          (input.at(i).number === index ? own : output).push(input.at(i));
        }
        if (own.length > 0) holder.process(own, output, nowNs);
      },
      deadlineNs: () => holder.deadlineNs(),
      flush: (output, nowNs) => holder.flush(output, nowNs),
    });
  });
  return new Line(...stages);
}

Deno.test("Pipeline.flushDue() flushes the earliest deadline first", () => {
  const line = sideBySide([300, 100, 200]);
  line.push([0, 1, 2], 0);
  assertEquals(line.pipeline.flushDue(1000), true);
  assertEquals(line.sunk, [1, 2, 0]);
});

Deno.test("Pipeline.flushDue() flushes equal deadlines in the order of arming", () => {
  const line = sideBySide([100, 100, 100]);
  line.push([2]);
  line.push([0]);
  line.push([1]);
  line.pipeline.flushDue(100);
  assertEquals(line.sunk, [2, 0, 1]);
});

Deno.test("Pipeline.flushDue() asks each stage once, and does not let one that stays due keep the others waiting", () => {
  const holder = new Holder(50);
  let asked = 0;
  const stubborn: Stage = {
    process: (input, output) => {
      for (let i = 0; i < input.length; i++) output.push(input.at(i));
    },
    deadlineNs: () => 0,
    flush: () => void asked++,
  };
  const line = new Line(named("stubborn", stubborn), named("holder", holder));
  line.push([1]);
  assertEquals(line.pipeline.flushDue(50), true);
  assertEquals([asked, line.sunk], [1, [1]]);
  assertEquals(line.pipeline.flushDue(51), false, "a stage that lets nothing go has done nothing");
  assertEquals(asked, 2);
});

Deno.test("Pipeline.flushDue() reports work if a stage only puts its deadline off", () => {
  let dueNs = Infinity;
  const line = new Line(named("lazy", {
    process: (input) => {
      input.releaseAll();
      dueNs = 10;
    },
    deadlineNs: () => dueNs,
    flush: (_output, nowNs) => {
      dueNs = nowNs + 10;
    },
  }));
  line.push([1]);
  assertEquals([line.pipeline.flushDue(10), line.pipeline.deadlineNs()], [true, 20]);
});

Deno.test("Pipeline.drain() flushes every stage in order, through those behind", () => {
  const first = new Holder(10);
  const second = new Holder(10);
  const line = new Line(named("first", first), named("second", second));
  line.push([1, 2]);
  assertEquals([first.held.length, line.sunk.length], [2, 0]);
  line.pipeline.drain(3);
  assertEquals([first.held.length, second.held.length, line.sunk], [0, 0, [1, 2]]);
  assertEquals([line.log, line.pipeline.deadlineNs()], [["sink 2 at 3"], Infinity]);
});

Deno.test("Pipeline.negotiated() tells every stage, and what leaves goes through those behind", () => {
  const told: string[] = [];
  const holder = new Holder(100);
  const line = new Line(
    named("holder", {
      process: (input, output, nowNs) => holder.process(input, output, nowNs),
      deadlineNs: () => holder.deadlineNs(),
      negotiated(state, output, nowNs) {
        told.push(`${state.features} ${state.offloads} ${nowNs}`);
        holder.flush(output, Infinity);
      },
    }),
    named("behind", adds(4)),
    named("told", { ...adds(5), negotiated: (state) => void told.push(`second ${state.features}`) }),
  );
  line.push([1, 2]);
  line.pipeline.negotiated(negotiated, 9);
  assertEquals(told, ["0x2 0x2 9", "second 0x2"]);
  assertEquals([line.sunk, line.log, line.pipeline.deadlineNs()], [[145, 245], ["sink 2 at 9"], Infinity]);
});

Deno.test("requestOffloads() tells every stage that listens", () => {
  const told: string[] = [];
  const listener: QemuStage = {
    ...adds(0),
    qemu: { offloadsRequested: (mask) => void told.push(`${mask}`) },
  };
  const line = new Line(named("a", listener), named("deaf", adds(0)), named("b", listener));
  requestOffloads(line.pipeline, FeatureSet.of(7));
  assertEquals(told, ["0x80", "0x80"]);
});

Deno.test("Pipeline.reset() releases what stages hold, by reset or by flush, and counts it", () => {
  const [plain, aware] = [new Holder(100), new Holder(100)];
  let resets = 0;
  const line = new Line(
    named("plain", {
      process(input, output, nowNs) {
        const own = new FrameBatch();
        for (let i = 0; i < input.length; i++) (input.at(i).number < 3 ? own : output).push(input.at(i));
        plain.process(own, output, nowNs);
      },
      deadlineNs: () => plain.deadlineNs(),
      flush: (output, nowNs) => plain.flush(output, nowNs),
    }),
    named("aware", {
      process: (input, output, nowNs) => aware.process(input, output, nowNs),
      deadlineNs: () => aware.deadlineNs(),
      reset(output) {
        resets++;
        aware.flush(output, Infinity);
      },
    }),
  );
  line.push([1, 2, 3, 4, 5]);
  assertEquals(line.pipeline.reset(), 5);
  assertEquals([resets, line.pool.inUse, line.sunk.length], [1, 0, 0]);
  assertEquals(line.pipeline.deadlineNs(), Infinity);
  assertEquals(line.pipeline.reset(), 0);
});

for (const hook of ["process", "flush", "negotiated", "offloadsRequested", "reset", "deadlineNs"] as const) {
  Deno.test(`Pipeline names plugin, hook and cause of a stage that throws in ${hook}, and never calls it again`, () => {
    const cause = new TypeError("no such field");
    let calls = 0;
    const fails = (): never => {
      calls++;
      throw cause;
    };
    const bad: Stage & Partial<QemuStage> = {
      process: (input, output) => {
        for (let i = 0; i < input.length; i++) output.push(input.at(i));
      },
      ...(hook === "offloadsRequested" ? { qemu: { [hook]: fails } } : { [hook]: fails }),
    };
    const line = new Line(named("first", adds(1)), named("bad", bad), named("last", adds(2)));
    const act = (): void => {
      line.push([1, 2]);
      requestOffloads(line.pipeline, FeatureSet.of(1));
      line.pipeline.negotiated(negotiated, 0);
      line.pipeline.drain(0);
      line.pipeline.reset();
    };
    const error = assertThrows(act, PluginError, `plugin "bad" failed in ${hook}: no such field`);
    assertEquals([error.plugin, error.hook], ["bad", hook]);
    assertStrictEquals(error.cause, cause);
    assertStrictEquals(line.pipeline.failure, error);

    const inUse = line.pool.inUse;
    assertStrictEquals(assertThrows(() => line.push([3]), PluginError), error);
    assertStrictEquals(assertThrows(() => line.pipeline.negotiated(negotiated, 0), PluginError), error);
    line.pipeline.drain(1);
    requestOffloads(line.pipeline, FeatureSet.none);
    assertEquals([line.pipeline.flushDue(1e12), line.pipeline.reset(), calls], [false, 0, 1]);
    assertEquals(
      [line.pipeline.deadlineNs(), line.pool.inUse],
      [Infinity, inUse],
      "what is pushed is released",
    );
  });
}

Deno.test("Pipeline has no frame left in its batches when the sink throws", () => {
  const line = new Line(named("one", adds(1)));
  line.onSunk = (number) => {
    if (number === 21) throw new GuestError("descriptor-loop", "a broken ring");
  };
  assertThrows(() => line.push([1, 2, 3]), GuestError, "a broken ring");
  assertEquals([line.pipeline.failure, line.sunk], [null, [11, 21]]);
  line.push([4]);
  assertEquals(line.sunk, [11, 21, 41], "nothing comes twice");
  assertEquals(line.pool.inUse, 0);
});

Deno.test("Pipeline's batches keep their capacity over rounds of any size", () => {
  const seen = new Map<FrameBatch, number[]>();
  const line = new Line(
    ...["a", "b", "c"].map((name) =>
      named(name, {
        process(input, output) {
          for (let i = 0; i < input.length; i++) output.push(input.at(i));
          const capacities = seen.get(output) ?? [];
          capacities.push(output.capacity);
          seen.set(output, capacities);
        },
      })
    ),
  );
  const many = Array.from({ length: 500 }, (_, i) => i);
  for (const numbers of [many, [1], many, [2, 3], many]) line.push(numbers);
  assertEquals(seen.size, 2, "two batches serve the whole line");
  for (const capacities of seen.values()) {
    assert(capacities[0] >= 500);
    assertEquals(new Set(capacities).size, 1, `capacities ${capacities}`);
  }
});

Deno.test("Pipeline.idle() asks the stages in order, once after frames have come, and goes on with what they let go", () => {
  const holder = new Holder(1000);
  const asked: number[] = [];
  const idle = Object.assign(holder, {
    idle(output: FrameBatch, nowNs: number) {
      asked.push(nowNs);
      holder.flush(output, Infinity);
    },
  });
  const line = new Line({ name: "holder", stage: idle }, {
    name: "pass",
    stage: perFrame((f, o) => o.push(f)),
  });
  assertEquals([line.pipeline.idle(1), asked], [false, []], "nothing has come yet");
  line.push([1, 2], 5);
  assertEquals([line.sunk, line.pipeline.deadlineNs()], [[], 1005]);
  assertEquals([line.pipeline.idle(6), line.pipeline.idle(7)], [true, false]);
  assertEquals([line.sunk, asked, line.pipeline.deadlineNs()], [[1, 2], [6], Infinity]);
  line.push([3], 8);
  line.pipeline.flushDue(2000);
  assertEquals([line.pipeline.idle(2001), line.pipeline.idle(2002)], [false, false], "nothing is held");
  assertEquals([line.sunk, asked, line.pool.inUse], [[1, 2, 3], [6, 2001], 0]);
});

Deno.test("Pipeline.idle() that throws, or returns a promise, ends the pipeline and takes the frames back", () => {
  const misdeeds: Stage["idle"][] = [
    () => {
      throw new Error("no luck today");
    },
    // deno-lint-ignore no-explicit-any
    (() => Promise.resolve()) as any,
  ];
  for (const misdeed of misdeeds) {
    const line = new Line({ name: "bad", stage: Object.assign(new Holder(1000), { idle: misdeed! }) });
    line.push([1]);
    const error = assertThrows(() => line.pipeline.idle(1), PluginError);
    assertEquals([error.hook, line.pipeline.failure, line.pipeline.idle(2)], ["idle", error, false]);
  }
});
