/**
 * What a machine takes of the host before a frame has come: time to start, memory, processor while idle; and
 * the memory that 4096 held flows need: `deno task bench footprint`.
 *
 * The machine is one vhost-user device with both coalescers, started as users do. It listens when its socket
 * takes a connection. All files have been read and compiled before (a warm cache). Beside it an empty program
 * is started, which is the runtime alone.
 *
 * @module
 */
import { linux } from "../rigs/require.ts";
import { median } from "./support/statistics.ts";
import type { Row, Suite, SuiteOptions, SuiteResult, Table } from "./support/suite.ts";

const FLOWS = 4096;
/** Segments of each flow, and bytes of data in each. */
const HOLDINGS = [[1, 64], [1, 1448]];
const IDLE_MS = 5000;
const QUICK_IDLE_MS = 1000;
/** By then everything that happens once after a connection has happened. */
const SETTLED_AFTER_MS = 1000;
const HELD_MEMORY = new URL("./support/held_memory.ts", import.meta.url).pathname;

/** The suite. */
export const suite: Suite = {
  name: "footprint",
  summary: "start, memory and idleness of a machine with one device",
  needs: linux,
  run,
};

/** One start. */
interface Start {
  readonly startMs: number;
  readonly cpuMs: number;
}

async function run(options: SuiteOptions): Promise<SuiteResult> {
  // Calls native functions as soon as it is loaded.
  const { SpawnedMachine } = await import("./support/spawned_machine.ts");
  const startMachine = async (): Promise<Start> => {
    await using machine = await SpawnedMachine.start();
    return { startMs: machine.startMs, cpuMs: machine.use().cpuMs };
  };
  options.progress("start");
  const empties: Start[] = [];
  const machines: Start[] = [];
  for (let run = 0; run <= options.runs; run++) {
    const [empty, machine] = [await startNothing(), await startMachine()];
    // The first ones may have found the cache cold.
    if (run === 0) continue;
    empties.push(empty);
    machines.push(machine);
  }
  options.progress("idle");
  await using machine = await SpawnedMachine.start();
  await after(SETTLED_AFTER_MS);
  const before = machine.use();
  await after(options.quick ? QUICK_IDLE_MS : IDLE_MS);
  const idle = machine.use();
  options.progress("held flows");
  return {
    tables: [
      startTable(empties, machines),
      {
        id: "idle",
        title: "A machine with one device, its front-end connected",
        unit: "MB",
        across: "",
        columns: [`${(options.quick ? QUICK_IDLE_MS : IDLE_MS) / 1000} s idle`],
        rows: [
          { name: "resident memory", values: [idle.residentBytes / 1e6] },
          { name: "processor", unit: "ticks", values: [idle.ticks - before.ticks] },
          { name: "processor, exactly", unit: "ms", values: [idle.cpuMs - before.cpuMs] },
        ],
      },
      await heldTable(options),
    ],
    notes: [
      "To be reached: 200 ms from run to listening, 110 MB, 0 ticks, and 64 MB beyond what 4096 flows hold.",
    ],
  };
}

function startTable(empties: readonly Start[], machines: readonly Start[]): Table {
  const rowOf = (name: string, starts: readonly Start[]): Row => {
    const times = starts.map(({ startMs }) => startMs);
    return {
      name,
      values: [median(times), Math.min(...times), median(starts.map(({ cpuMs }) => cpuMs))],
    };
  };
  return {
    id: "start",
    title: "From the start of the process",
    unit: "ms",
    across: "",
    columns: ["median", "fastest", "of a processor"],
    rows: [rowOf("to the end of an empty program", empties), rowOf("to listening", machines)],
  };
}

/** Starts a program that does nothing, and waits for its end. */
async function startNothing(): Promise<Start> {
  const file = await Deno.makeTempFile({ suffix: ".ts" });
  try {
    const startedMs = performance.now();
    const { success } = await new Deno.Command(Deno.execPath(), { args: ["run", file] }).output();
    const startMs = performance.now() - startedMs;
    if (!success) throw new Error("An empty program has failed");
    return { startMs, cpuMs: NaN };
  } finally {
    await Deno.remove(file);
  }
}

async function heldTable(options: SuiteOptions): Promise<Table> {
  const rows: Row[] = [];
  for (const [segments, payloadBytes] of HOLDINGS) {
    const held: number[] = [];
    const beyond: number[] = [];
    for (let run = 0; run < (options.quick ? 1 : 5); run++) {
      const args = ["run", "--allow-all", HELD_MEMORY, ...[FLOWS, segments, payloadBytes].map(String)];
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr));
      const [heldBytes, grownBytes] = new TextDecoder().decode(stdout).split(" ").map(Number);
      held.push(heldBytes / 1e6);
      beyond.push((grownBytes - heldBytes) / 1e6);
    }
    rows.push({
      name: `${segments} x ${payloadBytes} bytes a flow`,
      values: [median(held), median(beyond)],
    });
  }
  return {
    id: "held",
    title: "Memory of held flows",
    unit: "MB",
    across: String(FLOWS),
    columns: ["held", "beyond that"],
    rows,
  };
}

function after(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
