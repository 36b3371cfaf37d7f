/**
 * The coalescer alone, beside C programs that do the same: `deno task bench rsc`.
 *
 * Segments of 1448 bytes, in order, round robin over the flows, in batches of 64; see
 * `bench/support/coalescing.ts` for what is timed. Up to 64 flows 64 segments of each are held, beyond that
 * 8: with more the figure would be that of the memory.
 *
 * @module
 */
import { dpdkArguments, type PeerSource } from "./support/compile.ts";
import { Peer } from "./support/peer.ts";
import { median } from "./support/statistics.ts";
import { ratioRow, type Row, type Suite, type SuiteOptions, type SuiteResult } from "./support/suite.ts";

const PAYLOAD_BYTES = 1448;
const LOADS = [[1, 64], [8, 64], [64, 64], [512, 8], [4096, 8]].map(([flows, held]) => ({ flows, held }));
/**
 * What the project has set itself, in ns per segment, where a copy of 1448 bytes takes 25 ns; null where it
 * has not.
 */
const LIMITS = { qemu: [45, 45, 60, 80, 200], strict: [120, 120, 120, null, null] };
const LIMITS_MEMCPY_NS = 25;
/** Segments of a flow, and bytes of data in each, whose memory is looked at. */
const HOLDINGS = [[1, 1448], [8, 1448], [8, 64]];
const HOLDING_FLOWS = [64, 512, 4096];
const RTE_GRO = { name: "rte_gro", library: { name: "libdpdk", debian: "libdpdk-dev" } };
const COLUMNS = LOADS.map(({ flows }) => String(flows));

/** Something that can be measured under each load. */
interface Contender {
  readonly name: string;
  /** ns per segment under load number `load`. */
  measure(load: number, segments: number): Promise<number>;
}

function contender(name: string, peer: Peer, family: 4 | 6, copy: boolean): Contender {
  return {
    name,
    measure: (load, segments) =>
      peer.measure({ family, ...LOADS[load], payloadBytes: PAYLOAD_BYTES, segments, copy }),
  };
}

/** One of our programs: both families, with and without a copy. */
function ours(rules: "qemu" | "strict", peer: Peer): Contender[] {
  return ([4, 6] as const).flatMap((family) => [
    contender(`v${family} ${rules}`, peer, family, false),
    contender(`v${family} ${rules}, copied in`, peer, family, true),
  ]);
}

/** Medians a load of every contender, all taking turns. */
async function measure(
  contenders: readonly Contender[],
  options: SuiteOptions,
): Promise<Map<string, Row>> {
  const segments = options.quick ? 16_384 : 262_144;
  const samples = contenders.map(() => LOADS.map((): number[] => []));
  for (let run = 0; run <= options.runs; run++) {
    options.progress(run === 0 ? "warming up" : `run ${run} of ${options.runs}`);
    for (let load = 0; load < LOADS.length; load++) {
      for (const [i, contender] of contenders.entries()) {
        const ns = await contender.measure(load, segments);
        if (run > 0) samples[i][load].push(ns);
      }
    }
  }
  return new Map(
    contenders.map(({ name }, i) => [name, { name, values: samples[i].map((list) => median(list)) }]),
  );
}

/** Held segments and what the process grows by. Each a process of its own. */
async function memoryRows(): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [segments, payloadBytes] of HOLDINGS) {
    const held: number[] = [];
    const beyond: number[] = [];
    for (const flows of HOLDING_FLOWS) {
      const script = new URL("./support/held_memory.ts", import.meta.url).pathname;
      const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--allow-all", script, ...[flows, segments, payloadBytes].map(String)],
      }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr));
      const [heldBytes, grownBytes] = new TextDecoder().decode(stdout).split(" ").map(Number);
      held.push(heldBytes / 1e6);
      beyond.push((grownBytes - heldBytes) / 1e6);
    }
    const name = `${segments} x ${payloadBytes} bytes a flow`;
    rows.push({ name: `${name}: held`, values: held }, { name: `${name}: beyond that`, values: beyond });
  }
  return rows;
}

async function startPeer(
  source: PeerSource,
  args: () => readonly string[],
  notes: string[],
): Promise<Peer | null> {
  let peer: Peer | null = null;
  try {
    peer = await Peer.inC(source, args());
    // It may have been built and still not run here.
    await peer.measure({ family: 4, ...LOADS[0], payloadBytes: PAYLOAD_BYTES, segments: 1, copy: true });
    return peer;
  } catch (error) {
    await peer?.[Symbol.asyncDispose]();
    notes.push(`NOT COMPARED with ${source.name}: ${(error as Error).message}`);
    return null;
  }
}

/** What the project has set itself, at what a copy costs now. */
function limitRow(rules: keyof typeof LIMITS, memcpyNs: number): Row {
  const scale = memcpyNs / LIMITS_MEMCPY_NS;
  return {
    name: `limit for ${rules}, at this baseline`,
    values: LIMITS[rules].map((limit) => limit === null ? null : limit * scale),
  };
}

/** The suite. */
export const suite: Suite = {
  name: "rsc",
  summary: "the coalescer alone, and C programs that do the same",
  async run(options: SuiteOptions): Promise<SuiteResult> {
    const notes: string[] = [];
    await using qemu = Peer.ours("qemu");
    await using strict = Peer.ours("strict");
    await using hashTable = await startPeer({ name: "hash_table" }, () => [], notes);
    await using rteGro = await startPeer(RTE_GRO, dpdkArguments, notes);
    const contenders = [...ours("qemu", qemu), ...ours("strict", strict)];
    if (hashTable !== null) contenders.push(contender("hash table in C, copied in", hashTable, 4, true));
    if (rteGro !== null) {
      contenders.push(
        contender("rte_gro, copied in", rteGro, 4, true),
        contender("rte_gro", rteGro, 4, false),
      );
    }
    const rows = await measure(contenders, options);
    const row = (name: string): Row => rows.get(name)!;
    const memcpyNs = median([...qemu.copiesNs, ...strict.copiesNs]);
    const peers: Row[] = [row("v4 qemu, copied in")];
    for (const name of ["hash table in C, copied in", "rte_gro, copied in"]) {
      if (rows.has(name)) peers.push(row(name), ratioRow(`v4 qemu / ${name}`, peers[0], row(name)));
    }
    if (rows.has("rte_gro")) {
      peers.push(row("v4 qemu"), row("rte_gro"));
      peers.push(ratioRow("v4 qemu / rte_gro", row("v4 qemu"), row("rte_gro")));
    }
    options.progress("memory");
    const common = { unit: "ns per segment", across: "flows", columns: COLUMNS };
    return {
      memcpyNs,
      notes,
      tables: [
        {
          ...common,
          id: "alone",
          title: "Frames as the network transport has read them; nothing is copied",
          rows: [
            row("v4 qemu"),
            row("v6 qemu"),
            ratioRow("v6 / v4", row("v6 qemu"), row("v4 qemu")),
            limitRow("qemu", memcpyNs),
            row("v4 strict"),
            row("v6 strict"),
            limitRow("strict", memcpyNs),
          ],
        },
        { ...common, id: "peers", title: "Beside C programs", rows: peers },
        {
          ...common,
          id: "copied",
          title: "Frames copied in from another buffer",
          rows: ["v4 qemu", "v6 qemu", "v4 strict", "v6 strict"].map((name) => row(`${name}, copied in`)),
        },
        {
          id: "memory",
          title:
            "Headers and payload held under strict rules, and by how much more the resident memory grows",
          unit: "MB",
          across: "flows",
          columns: HOLDING_FLOWS.map(String),
          rows: await memoryRows(),
        },
      ],
    };
  },
};
