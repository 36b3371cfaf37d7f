import { assert, assertEquals, assertThrows } from "@std/assert";
import { PluginError } from "../../plugins/contract.ts";
import { FeatureSet } from "../../core/features.ts";
import { type Frame, FrameBatch, type FrameHolder } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { Pipeline } from "../../pipeline/pipeline.ts";
import { requestOffloads } from "../../pipeline/qemu_compat.ts";
import { perFrame, type Stage, stageFault } from "../../pipeline/stage.ts";

const HOLDER: FrameHolder = { plugin: "bad", path: "$.devices[0].offloads[1]", kind: "stage" };
const NEGOTIATED = { features: FeatureSet.none, offloads: FeatureSet.none };

/** What a misbehaving stage is made of: the pool lent to it, and other frames of the machine. */
interface Parts {
  readonly pool: FramePool;
  readonly foreign: Frame;
}

/**
 * A name, the hook and the text that tell of it, the stage, and what is done besides pushing three frames.
 */
type Misdeed = readonly [
  what: string,
  hook: string,
  text: string,
  stage: (parts: Parts) => Stage,
  then?: (line: Pipeline, pool: FramePool) => void,
];

/** A stage that does something to each frame and hands it on. */
function changing(change: (frame: Frame) => void): () => Stage {
  return () =>
    perFrame((frame, output) => {
      change(frame);
      output.push(frame);
    });
}

function passing(more: Partial<Stage>): Stage {
  return { ...perFrame((frame, output) => output.push(frame)), ...more };
}

const NOT_ITS_STORAGE = "which leaves its storage";
const drain = (line: Pipeline) => void line.drain(0);
const flush = (line: Pipeline) => {
  for (let i = 0; i < 2000; i++) line.flushDue(i);
};

const MISDEEDS: readonly Misdeed[] = [
  [
    "a length beyond the slot",
    "process",
    NOT_ITS_STORAGE,
    changing((frame) => {
      frame.length = frame.total = 60_000;
    }),
  ],
  ["a start before the slot", "process", NOT_ITS_STORAGE, changing((frame) => frame.start = frame.slot - 14)],
  [
    "a length that is negative",
    "process",
    "both must be whole numbers",
    changing((frame) => {
      frame.length = frame.total = -1;
    }),
  ],
  [
    "a length that is NaN",
    "process",
    "both must be whole numbers",
    changing((frame) => {
      frame.length = frame.total = NaN;
    }),
  ],
  [
    "a start with a fraction",
    "process",
    "both must be whole numbers",
    changing((frame) => frame.start += 0.5),
  ],
  [
    "a length without its total",
    "process",
    "total 60, but length 61",
    changing((frame) => frame.length = 61),
  ],
  [
    "a queue pair that is not",
    "process",
    "for queue pair 2; there are 2",
    changing((frame) => frame.queuePair = 2),
  ],
  [
    "a queue pair that is negative",
    "process",
    "for queue pair -1",
    changing((frame) => frame.queuePair = -1),
  ],
  [
    "a queue pair with a fraction",
    "process",
    "for queue pair 0.5",
    changing((frame) => frame.queuePair = 0.5),
  ],
  [
    "a checksum behind the frame",
    "process",
    "csumStart 58 and csumOffset 16",
    changing(({ header }) => {
      header.flags = 1;
      header.csumStart = 58;
      header.csumOffset = 16;
    }),
  ],
  [
    "a large frame without a size",
    "process",
    "the gsoType 1, but gsoSize 0",
    changing(({ header }) => {
      header.flags = 1;
      header.gsoType = 1;
    }),
  ],
  [
    "a type of large frame that is none",
    "process",
    "the gsoType 9, which is none",
    changing(({ header }) => {
      header.gsoType = 9;
    }),
  ],
  ["flags that are no number", "process", "the flags -2", changing(({ header }) => header.flags = -2)],
  [
    "pieces joined by hand",
    "process",
    "join frames by append() only",
    ({ pool }) =>
      perFrame((frame, output) => {
        frame.next = pool.take(10);
        output.push(frame);
      }),
  ],
  ["pieces in a circle", "process", "join frames by append() only", changing((frame) => frame.next = frame)],
  ["more bytes than a frame has", "process", "69632 are possible", ({ pool }) =>
    perFrame((frame, output) => {
      frame.append(pool.take(69_600)!);
      output.push(frame);
    })],
  ["a frame twice", "process", "it pushed a frame twice", () =>
    perFrame((frame, output) => {
      output.push(frame);
      output.push(frame);
    })],
  ["a frame and again later", "process", "it pushed a frame twice", () => {
    let first: Frame | null = null;
    return perFrame((frame, output) => {
      output.push(first ??= frame);
      if (frame !== first) frame.release();
    });
  }],
  ["a frame that it has released", "process", "was released before", () =>
    perFrame((frame, output) => {
      frame.release();
      output.push(frame);
    })],
  ["a frame and then releases it", "process", "was released before", () =>
    perFrame((frame, output) => {
      output.push(frame);
      frame.release();
    })],
  ["releases twice", "process", "Cannot release a frame twice", () =>
    perFrame((frame) => {
      frame.release();
      frame.release();
    })],
  [
    "a frame from elsewhere",
    "process",
    'network "wire" has it by now',
    ({ foreign }) =>
      perFrame((frame, output) => {
        frame.release();
        output.push(foreign);
      }),
  ],
  [
    "no frame at all",
    "process",
    "it handed on undefined in place of a frame",
    () =>
      perFrame((frame, output) => {
        frame.release();
        output.push(undefined as unknown as Frame);
      }),
  ],
  ["nothing, and has no flush", "process", "it keeps a frame but has no flush", () => perFrame(() => {})],
  ["to its input", "process", "it changed its input from 3 to 4 frames", ({ pool }) => ({
    process: (input) => input.push(pool.take(60)!),
  })],
  ["shortens its input", "process", "it changed its input from 3 to 1 frames", () => ({
    process: (input) => input.shorten(1),
  })],
  ["to a batch that it has kept", "deadlineNs", "batches are lent until then", ({ pool }) => {
    const kept: FrameBatch[] = [];
    return passing({
      process: (input, output) => {
        kept.push(input, output);
        for (let i = 0; i < input.length; i++) output.push(input.at(i));
      },
      deadlineNs: () => {
        kept[1].push(pool.take(60)!);
        return Infinity;
      },
    });
  }, drain],
  ["returns a promise", "process", "it returned a promise", () => // deno-lint-ignore require-await
  ({ process: async (input) => input.releaseAll() })],
  ["rejects", "process", "it returned a promise", () => ({
    process: (input) => {
      input.releaseAll();
      return Promise.reject(new Error("this is not heard")) as unknown as void;
    },
  })],
  [
    "returns a promise for each frame",
    "process",
    "it returned a promise",
    () =>
      // deno-lint-ignore require-await
      perFrame(async (frame) => frame.release()),
  ],
  ["promises to flush", "flush", "it returned a promise", () => passing({ flush: async () => {} }), drain],
  [
    "a deadline that is NaN",
    "deadlineNs",
    "it returned NaN; a time in ns",
    () => passing({ deadlineNs: () => NaN }),
  ],
  [
    "a deadline that is none",
    "deadlineNs",
    "it returned undefined",
    () => passing({ deadlineNs: () => undefined as unknown as number }),
  ],
  [
    "a deadline that is promised",
    "deadlineNs",
    "it returned a promise",
    () => passing({ deadlineNs: () => Promise.resolve(1) as unknown as number }),
  ],
  [
    "a deadline that has passed, for ever",
    "deadlineNs",
    "wants to be flushed at 0 ns for ever",
    () => passing({ deadlineNs: () => 0, flush: () => {} }),
    flush,
  ],
  ["a deadline that never comes to rest", "deadlineNs", "for ever: flush must move its deadline", () => {
    let dueNs = 0;
    return passing({ deadlineNs: () => dueNs++, flush: () => {} });
  }, flush],
  ["keeps frames when the guest goes", "reset", "it keeps 3 frames", () => ({
    process: () => {},
    flush: () => {},
  }), (line) => void line.reset()],
  ["keeps frames when the pool is empty", "flush", "it keeps 3 frames: the pool is empty", () => ({
    process: () => {},
    flush: () => {},
  }), (line) => line.refuseHoarders()],
  ["to its output of another time", "process", "batches are lent until then", ({ pool }) => {
    let kept: FrameBatch | null = null;
    return passing({
      process: (input, output) => {
        kept = output;
        for (let i = 0; i < input.length; i++) output.push(input.at(i));
      },
      qemu: { offloadsRequested: () => kept?.push(pool.take(60)!) },
    } as Partial<Stage>);
  }, (line, pool) => {
    requestOffloads(line, FeatureSet.none);
    const input = new FrameBatch();
    input.push(pool.take(60)!);
    line.push(input, 0);
  }],
  ["a frame from flush that it let go before", "flush", "was released before", () => {
    const held = new FrameBatch();
    return {
      process: (input) => {
        for (let i = 0; i < input.length; i++) held.push(input.at(i));
      },
      flush: (output) => {
        for (let i = 0; i < held.length; i++) output.push(held.at(i));
      },
    };
  }, (line) => {
    line.drain(0);
    line.drain(0);
  }],
  ["a bad frame from reset", "reset", NOT_ITS_STORAGE, ({ pool }) =>
    passing({
      reset: (output) => {
        const frame = pool.take(60)!;
        frame.length = frame.total = 1e6;
        output.push(frame);
      },
    }), (line) => void line.reset()],
  ["a bad frame from negotiated", "negotiated", NOT_ITS_STORAGE, ({ pool }) =>
    passing({
      negotiated: (_state, output) => {
        const frame = pool.take(60)!;
        frame.length = frame.total = 1e6;
        output.push(frame);
      },
    }), (line) => line.negotiated(NEGOTIATED, 0)],
];

for (const [what, hook, text, make, then] of MISDEEDS) {
  Deno.test(`a stage that pushes or does: ${what}, is named, and its frames come back`, () => {
    const pool = new FramePool({ maxBytes: 4 << 20 });
    const foreign = pool.lentTo({ plugin: "wire", path: "", kind: "network" }).take(60)!;
    const bad = make({ pool: pool.lentTo(HOLDER), foreign });
    let delivered = 0;
    const sink = {
      accept: (frames: FrameBatch) => {
        for (let i = 0; i < frames.length; i++) {
          const { start, slot, capacity, total } = frames.at(i);
          assert(start >= slot && start + total <= slot + capacity, "memory of others gets out");
        }
        delivered += frames.length;
        frames.releaseAll();
      },
    };
    const before = { name: "before", stage: passing({}) };
    const after = { name: "after", stage: passing({}) };
    const line = new Pipeline([before, { name: "bad", stage: bad, holder: HOLDER }, after], sink, {
      pool,
      queuePairs: 2,
    });
    const input = new FrameBatch();
    const error = assertThrows(() => {
      for (let i = 0; i < 3; i++) input.push(pool.take(60)!);
      line.push(input, 0);
      then?.(line, pool);
    }, PluginError);
    assert(error.message.includes(text), error.message);
    assert(error.message.startsWith(`${HOLDER.path}: plugin "bad" failed in ${hook}: `), error.message);
    assertEquals([error.plugin, error.hook, error.path], ["bad", hook, HOLDER.path]);
    assertEquals(input.length, 0);
    // A piece that was joined by hand is known to no pool, and a frame in a circle is no longer one.
    if (!what.includes("pieces")) {
      assertEquals(pool.inUse, foreign.isOwned ? 1 : 0, "the pool has all others back");
    }
    assertEquals(delivered % 3, 0);
  });
}

Deno.test("what a stage may do stays allowed: clear its input by releaseAll, hand on frames of a pool of its own", () => {
  const pool = new FramePool();
  const own = new FramePool();
  const stage: Stage = {
    process: (input, output) => {
      input.releaseAll();
      output.push(own.take(14)!);
    },
  };
  const line = new Pipeline([{ name: "fine", stage }], { accept: (frames) => frames.releaseAll() }, { pool });
  const input = new FrameBatch();
  for (let i = 0; i < 3; i++) input.push(pool.take(60)!);
  line.push(input, 0);
  assertEquals([line.failure, pool.inUse, own.inUse], [null, 0, 0]);
});

Deno.test("a frame that came in with a header which means nothing is no stage's fault", () => {
  const pool = new FramePool();
  const line = new Pipeline([{ name: "fine", stage: passing({}) }], {
    accept: (frames) => frames.releaseAll(),
  });
  const input = new FrameBatch();
  const frame = pool.take(60)!;
  frame.header.gsoType = 9;
  input.push(frame);
  line.push(input, 0);
  assertEquals([line.failure, pool.inUse], [null, 0]);
});

Deno.test("stageFault() says what keeps a value from being a stage", () => {
  const cases: [unknown, string | null][] = [
    [undefined, "it returned undefined, not a stage"],
    [() => {}, "it returned a function, not a stage"],
    [Promise.reject(new Error("unheard")), "it returned a promise, not a stage; leave async out"],
    [{}, "it returned a stage without process()"],
    [{ process: 1 }, "it returned a stage without process()"],
    [{ process() {}, flush: 5 }, "it returned a stage whose flush is 5, not a function"],
    [{ process() {}, flush() {} }, null],
  ];
  for (const [value, fault] of cases) assertEquals(stageFault(value), fault);
});
