/**
 * What a buffer costs in a virtqueue: pop, push and publish, in bursts of 64 one-element chains; and the copy
 * of a few bytes into a chain, by which the bound for copying byte by byte was set: `deno task bench rings`.
 *
 * The driver's part, making the same buffers available again, is in the figures of the queues: next to
 * nothing for split rings; for packed ones it is measured alone and taken off in a row of its own.
 *
 * @module
 */
import { DescriptorChain } from "../rings/descriptor_chain.ts";
import { GuestMemory } from "../rings/memory.ts";
import { PackedVirtqueue } from "../rings/packed_virtqueue.ts";
import { SplitVirtqueue } from "../rings/split_virtqueue.ts";
import type { Virtqueue } from "../rings/virtqueue.ts";
import { median } from "./support/statistics.ts";
import { Stopwatch } from "./support/stopwatch.ts";
import type { Suite, SuiteOptions, SuiteResult } from "./support/suite.ts";
import { packedRing, type Ring, RING_SIZE, ringAddresses, splitRing } from "./support/recycling_driver.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";

const BURST = 64;
/** Bursts that are timed together. */
const LAP_BURSTS = 50;
const TABLES = 0x8000;
const BUFFERS = 0x10000;
const BUFFER_BYTES = 1024;
const LENGTHS = [2, 8, 12, 16, 24, 25, 64, 1514];

/** A driver that makes the same buffers available over and over, and its queue. */
interface Rig {
  readonly ring: Ring;
  readonly queue: Virtqueue;
}

function newRig(layout: "split" | "packed", indirect: boolean): Rig {
  const buffer = new ArrayBuffer(0x80000);
  const memory = new GuestMemory([{ guestAddress: 0, size: 0x80000, buffer, bufferOffset: 0 }]);
  const addresses = Array.from({ length: RING_SIZE }, (_, i) => BUFFERS + i * BUFFER_BYTES);
  const setup = { ...ringAddresses(0), eventIndex: true, indirect };
  const common = { buffer, at: 0, each: BURST };
  const ring = { ...common, addresses, bytes: BUFFER_BYTES, flags: 2 };
  if (indirect) {
    const words = new Uint32Array(buffer, TABLES, RING_SIZE * 4);
    addresses.forEach((address, i) =>
      words.set([address, 0, BUFFER_BYTES, layout === "split" ? 2 : 2 << 16], i * 4)
    );
  }
  const tables = { ...common, addresses: addresses.map((_, i) => TABLES + 16 * i), bytes: 16, flags: 4 };
  const make = layout === "split" ? splitRing : packedRing;
  return {
    ring: make(indirect ? tables : ring),
    queue: layout === "split" ? new SplitVirtqueue(memory, setup) : new PackedVirtqueue(memory, setup),
  };
}

const chain = new DescriptorChain();

function burst({ ring, queue }: Rig): void {
  ring.refill();
  for (let i = 0; i < BURST; i++) {
    if (!queue.pop(chain)) throw new Error("The driver has made too little available");
    queue.push(chain.head, chain.writableBytes);
  }
  queue.publish();
}

/** What is measured by bursts: ns per chain or per copy. */
interface Subject {
  readonly samples: number[];
  burst(): void;
}

function queueSubject(rig: Rig): Subject {
  return { samples: [], burst: () => burst(rig) };
}

function copySubject(length: number): Subject {
  const buffer = new ArrayBuffer(4096);
  const memory = new GuestMemory([{ guestAddress: 0, size: 4096, buffer, bufferOffset: 0 }]);
  const data = new Uint8Array(2048);
  const target = new DescriptorChain();
  target.begin();
  target.add(memory, 0, 2048, true);
  target.finish(0, 1);
  return {
    samples: [],
    burst: () => {
      for (let i = 0; i < BURST; i++) {
        target.rewind();
        target.write(data, 0, length);
      }
    },
  };
}

/** The suite. */
export const suite: Suite = {
  name: "rings",
  summary: "pop, push and publish of a buffer, and short copies into one",
  run(options: SuiteOptions): Promise<SuiteResult> {
    const laps = options.quick ? 40 : 400;
    const watch = new Stopwatch();
    const layouts = (["split", "packed"] as const).map((layout) => ({
      layout,
      subjects: [newRig(layout, false), newRig(layout, true)].map(queueSubject),
    }));
    const { ring: idle } = newRig("packed", false);
    const driver: Subject = { samples: [], burst: () => idle.refill() };
    const copies = LENGTHS.map(copySubject);
    const all = [...layouts.flatMap(({ subjects }) => subjects), driver, ...copies];
    const baseline = new MemcpyBaseline();
    for (let run = 0; run <= options.runs; run++) {
      for (const subject of all) {
        watch.reset(laps);
        for (let lap = 0; lap < laps; lap++) {
          watch.start();
          for (let i = 0; i < LAP_BURSTS; i++) subject.burst();
          watch.stop();
          watch.lap();
        }
        if (run > 0) subject.samples.push(watch.lapNs / (LAP_BURSTS * BURST));
      }
      baseline.sample();
    }
    const values = (subjects: readonly Subject[]): number[] => subjects.map(({ samples }) => median(samples));
    const [driverNs] = values([driver]);
    const lessDriver = values(layouts[1].subjects).map((ns) => ns - driverNs);
    return Promise.resolve({
      memcpyNs: baseline.medianNs,
      tables: [
        {
          id: "queues",
          title: "A chain of one buffer through a queue, in bursts of 64",
          unit: "ns per chain",
          across: "descriptors",
          columns: ["direct", "indirect"],
          rows: [
            ...layouts.map(({ layout, subjects }) => ({ name: layout, values: values(subjects) })),
            { name: "packed, less the driver's own stores", values: lessDriver },
          ],
        },
        {
          id: "copies",
          title: "Bytes written into a chain",
          unit: "ns per write",
          across: "bytes",
          columns: LENGTHS.map(String),
          rows: [{ name: "DescriptorChain.write", values: values(copies) }],
        },
      ],
    });
  },
};
