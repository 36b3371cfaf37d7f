/**
 * The machine of a replay: a network device with both RSC stages, a capture as its network, a guest made of software.
 * @module
 */
import { buildMachine } from "../../machine/build.ts";
import { BUILT_IN_PLUGINS } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import type { Machine } from "../../machine/machine.ts";
import { defineUndoOffloads, undoOffloads } from "../../offloads/undo_offloads.ts";
import type { MssTable } from "../../offloads/undo_offloads/offload_finder.ts";
import { builtIns, PluginRegistry } from "../../config/registry.ts";
import { defineNetwork, type NetworkPlugin } from "../../core/plugin.ts";
import type { RuleBook, VerdictLog } from "../../core/stage.ts";
import { PcapReplay, type ReplayPace } from "../../transports/pcap/replay.ts";
import { newReplayCounters } from "../../transports/pcap/replay_counters.ts";
import { pathToFileURL } from "node:url";
import { z } from "zod";
import type { CaptureInput } from "./capture_input.ts";
import type { InputTally } from "./tallies.ts";

/** What a replay is to be. */
export interface ReplaySetup {
  /** The capture. */
  readonly capture: CaptureInput;
  /** The guest's address. */
  readonly guestMac: string;
  /** The rule book. */
  readonly rules: RuleBook;
  /** Longest time a segment is held, in microseconds; null for a device without RSC. */
  readonly intervalUs: number | null;
  /** Make of frames captured with offloads what was on the wire? */
  readonly undoOffloads: boolean;
  /** What the connections of the capture have announced. */
  readonly knownMss: MssTable;
  /** When frames arrive. */
  readonly pace: ReplayPace;
}

/** Builds the machine. Throws HostError if the capture cannot be opened. */
export async function buildReplayMachine(
  setup: ReplaySetup,
  input: InputTally,
  verdicts: VerdictLog,
): Promise<Machine> {
  const { intervalUs } = setup;
  const rsc = intervalUs === null ? [] : ["rsc-v4", "rsc-v6"].map((use) => ({ use, intervalUs }));
  const written = {
    name: "replay",
    clock: "virtual",
    devices: [{
      use: "net",
      name: "net0",
      mac: setup.guestMac,
      rules: setup.rules,
      driver: { use: "loopback", queueSize: 1024, reuse: true },
      network: "capture-input",
      offloads: [...setup.undoOffloads ? [undoOffloads.name] : [], "input-tally", ...rsc],
    }],
  };
  const registry = new PluginRegistry(builtIns([
    ...BUILT_IN_PLUGINS.filter((plugin) => plugin.name !== undoOffloads.name),
    // The guest's own SYNs do not arrive at it, but they bound the segments that do.
    defineUndoOffloads(setup.knownMss),
    input.plugin(),
    inputNetwork(setup),
  ]));
  const config = await parseConfig(JSON.stringify(written), pathToFileURL("replay.json"), registry);
  return buildMachine(config, { verdicts });
}

/** The capture as a network; unlike the network `pcap` it reads what was opened already. */
function inputNetwork({ capture, pace }: ReplaySetup): NetworkPlugin<Record<string, never>> {
  return defineNetwork<Record<string, never>>({
    name: "capture-input",
    options: z.strictObject({}),
    create: ({ guestMac, pool, publish }) =>
      new PcapReplay({
        reader: capture.reader(),
        openWriter: null,
        pace,
        take: "guest",
        guestMac,
        pool,
        counters: publish(newReplayCounters()),
      }),
  });
}
