/**
 * Frames of a TAP, read and written by our transport, beside bare calls in C and in TypeScript: `deno task
 * bench tap`.
 *
 * What the transport adds to the kernel's own cost is wanted: at most 15 % a frame. All take turns on one
 * TAP, each frame with its virtio-net header; a packet socket feeds it, out of the time (see
 * `bench/support/tap_network.ts`). Large frames are TCP of 45 segments of 1448 bytes, not segmented.
 *
 * @module
 */
import { newFramePool } from "../pipeline/frame_pool.ts";
import { network } from "../rigs/require.ts";
import { median } from "./support/statistics.ts";
import {
  ratioRow,
  type Row,
  type Suite,
  type SuiteOptions,
  type SuiteResult,
  type Table,
} from "./support/suite.ts";
import type { TapLibrary, TapPeer } from "./support/tap_peers.ts";
import type { TapFrame } from "./support/tap_network.ts";
import { MemcpyBaseline } from "./support/memcpy_baseline.ts";
import { tcpFrame } from "./tcp_frame.ts";

/** Frames in a burst. */
const BURST = 64;
/** Frames and how many at a time: what a device moves, and of large ones what the caches hold. */
const LOADS = [
  { frame: frameOf(10, 0), burst: BURST },
  { frame: frameOf(1460, 0), burst: BURST },
  { frame: frameOf(45 * 1448, 1448), burst: 16 },
];
/** Bursts before it is another's turn, and how many of them do not count. */
const BURSTS_A_TURN = 30;
const UNCOUNTED_BURSTS = 5;
const COLUMNS = LOADS.map(({ frame }) => String(frame.bytes.length));
const WAYS = ["read", "write"] as const;

/** The suite. */
export const suite: Suite = {
  name: "tap",
  summary: "frames of a TAP, beside bare calls",
  needs: () => network.map((need) => need()).find((missing) => missing !== null) ?? null,
  run,
};

/** Samples of one peer, in ns per frame: a list a load, for both ways. */
interface Figures {
  readonly name: string;
  readonly peers: readonly TapPeer[];
  readonly samples: Readonly<Record<(typeof WAYS)[number], number[][]>>;
}

async function run(options: SuiteOptions): Promise<SuiteResult> {
  // These call native functions as soon as they are loaded.
  const { bareCalls, ourTransport, TapLibrary } = await import("./support/tap_peers.ts");
  const { TapNetwork } = await import("./support/tap_network.ts");
  const notes: string[] = [];
  using stack = new DisposableStack();
  const pool = newFramePool(64 * 1024 * 1024);
  const tap = stack.use(new TapNetwork(pool));
  const all: Figures[] = [];
  const enter = (name: string, make: (frame: TapFrame) => TapPeer) =>
    all.push({
      name,
      peers: LOADS.map(({ frame }) => make(frame)),
      samples: { read: LOADS.map(() => []), write: LOADS.map(() => []) },
    });
  let library: TapLibrary | null = null;
  try {
    library = stack.use(await TapLibrary.build());
  } catch (error) {
    notes.push(`The kernel's own cost is that of bare calls in TypeScript: ${messageOf(error)}.`);
  }
  if (library !== null) enter("bare calls in C", (frame) => library.peer(tap, frame));
  enter("bare calls in TypeScript", (frame) => bareCalls(tap, frame));
  enter("our transport", (frame) => ourTransport(tap, frame, pool));
  const feeds = LOADS.map(({ frame, burst }) => tap.sending(frame, burst));
  const baseline = new MemcpyBaseline();
  const turns = options.quick ? 5 : 30;
  for (let run = 0; run <= options.runs; run++) {
    options.progress(`run ${run} of ${options.runs}`);
    for (const [load, feed] of feeds.entries()) measure(all, load, feed, turns, run > 0);
    baseline.sample();
  }
  return {
    memcpyNs: baseline.medianNs,
    tables: WAYS.map((way) => tableOf(way, all)),
    notes,
  };
}

/**
 * One run of all peers under a load, in turns of some bursts: each finds the caches as it left them. Of a
 * turn the first bursts do not count, and of all others the median does: in some the thread is pushed aside.
 */
function measure(
  all: readonly Figures[],
  load: number,
  feed: () => void,
  turns: number,
  counts: boolean,
): void {
  const { burst } = LOADS[load];
  for (const way of WAYS) {
    const took = all.map((): number[] => []);
    for (let turn = 0; turn < turns; turn++) {
      for (const [i, { peers }] of all.entries()) {
        for (let round = 0; round < BURSTS_A_TURN; round++) {
          if (way === "read") feed();
          const ns = peers[load][way](burst);
          if (round >= UNCOUNTED_BURSTS) took[i].push(ns / burst);
        }
      }
    }
    if (!counts) continue;
    for (const [i, { samples }] of all.entries()) samples[way][load].push(median(took[i]));
  }
}

function tableOf(way: (typeof WAYS)[number], all: readonly Figures[]): Table {
  const rows: Row[] = all.map(({ name, samples }) => ({
    name,
    values: samples[way].map((list) => median(list)),
  }));
  const ours = rows[rows.length - 1];
  return {
    id: way,
    title: `A frame ${way === "read" ? "read from" : "written to"} a TAP`,
    unit: "ns per frame",
    across: "bytes",
    columns: COLUMNS,
    rows: [...rows, ...rows.slice(0, -1).map((row) => ratioRow(`ours / ${row.name}`, ours, row))],
  };
}

function frameOf(payloadBytes: number, gsoSize: number): TapFrame {
  return { bytes: tcpFrame("v4", 0, payloadBytes).bytes, gsoSize };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
