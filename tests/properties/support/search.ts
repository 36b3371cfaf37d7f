/**
 * Looks for a scenario that breaks a rule, shrinks it, and writes it down so that it can be run again.
 *
 * The record is a vector file: its events are what happened, its outputs what the device did, and the head
 * carries the scenario itself, which says more than a vector can (rings, resets, links, frames that come in
 * one batch).
 * @module
 */
import fc from "fast-check";
import { vectorPacket } from "../../../testing/vectors/format.ts";
import {
  toHex,
  type Vector,
  type VectorEvent,
  type VectorPacket,
  writeVector,
} from "../../../testing/vectors/format.ts";
import type { ReceivedPacket } from "../../../devices/net/driver/mod.ts";
import { writeNetHeader } from "../../../wire/virtio_net_header.ts";
import { Bench } from "./bench.ts";
import { ACCEPTED, possible, type Scenario } from "./scenario.ts";
import type { Injection } from "./traffic.ts";
import type { Witness } from "./witness.ts";

/** Milliseconds after which a search, shrinking included, has to be content with what it has. */
const PATIENCE_MS = 180_000;

/** How much was run. */
export interface Tally {
  /** Streams. */
  streams: number;
  /** Frames that went in. */
  frames: number;
  /** Packets that came out. */
  packets: number;
}

/** A scenario that breaks a rule. */
export interface Failure {
  /** The seed it was found with. */
  readonly seed: number;
  /** The scenario, shrunk. */
  readonly scenario: Scenario;
  /** What is wrong, in words. */
  readonly violations: readonly string[];
}

/** Runs a scenario and returns what is wrong. */
export async function violationsOf(
  scenario: Scenario,
  tally: Tally = { streams: 0, frames: 0, packets: 0 },
  witness: Witness | null = null,
): Promise<string[]> {
  const violations: string[] = [];
  try {
    const bench = await Bench.open(scenario.machine, witness);
    for (const stream of scenario.streams) {
      const report = bench.run(stream);
      tally.streams++;
      tally.frames += report.frames;
      tally.packets += report.packets;
      violations.push(...report.violations);
    }
    violations.push(...await bench.close());
  } catch (error) {
    violations.push(`threw ${error instanceof Error ? error.stack : error}`);
  }
  return violations;
}

/** Runs `runs` scenarios that follow from the seed; null if all is well. */
export async function search(
  scenarios: fc.Arbitrary<Scenario>,
  seed: number,
  runs: number,
  tally: Tally,
): Promise<Failure | null> {
  const property = fc.asyncProperty(scenarios, async (scenario) => {
    const [first] = await violationsOf(scenario, tally);
    if (first !== undefined) throw new Error(first);
  });
  const details = await fc.check(property, { seed, numRuns: runs, interruptAfterTimeLimit: PATIENCE_MS });
  if (!details.failed || details.counterexample === null) return null;
  const [scenario] = details.counterexample;
  return { seed, scenario, violations: await violationsOf(scenario) };
}

/** The text of a vector file that tells what happened, and with which the scenario can be run again. */
export async function recordOf({ seed, scenario, violations }: Failure): Promise<string> {
  const recorder = new Recorder();
  await violationsOf(scenario, undefined, recorder);
  const machine = possible(scenario.machine);
  const accepted: "all" | readonly string[] = ACCEPTED[machine.accepted];
  const names = accepted === "all" ? ACCEPTED.rscWithEcn : accepted;
  const vector: Vector = {
    head: {
      name: `fuzz-${seed}`,
      what: "A scenario that breaks a rule under strict rules, found by the fuzzer and shrunk",
      config: {
        // The machine that runs vectors has one queue pair.
        features: [...names.filter((name) => name !== "MQ"), "VERSION_1"],
        mrg_rxbuf: machine.mergeable,
        rsc_interval_ns: Math.round(machine.intervalUs * 1000),
        rx_bufs: Math.max(machine.queueSize, 256),
        rx_buf_len: machine.bufferBytes,
        ...(machine.posted > 0 ? { rx_posted: machine.posted } : {}),
      },
      oracle: "",
      observed: [...violations],
      scenario,
    },
    events: recorder.events,
    packets: recorder.packets,
    acks: [],
  };
  return writeVector(vector);
}

/** The scenario in such a text. Throws Error if there is none. */
export function scenarioIn(text: string): Scenario {
  const head = JSON.parse(text.slice(0, text.indexOf("\n"))) as { scenario?: Scenario };
  if (head.scenario === undefined) {
    throw new Error("The first line has no scenario: give a file of the fuzzer's own");
  }
  return head.scenario;
}

class Recorder implements Witness {
  readonly events: VectorEvent[] = [];
  readonly packets: VectorPacket[] = [];

  frame(atNs: number, { bytes, header }: Injection): void {
    const raw = new Uint8Array(10);
    writeNetHeader(new DataView(raw.buffer), 0, header, 0, raw.length);
    const plain = raw.every((byte) => byte === 0);
    this.events.push({ t_ns: atNs, frame: toHex(bytes), ...(plain ? {} : { vnet_hdr: toHex(raw) }) });
  }

  offloads(atNs: number, mask: readonly number[]): void {
    this.events.push({ t_ns: atNs, offloads: mask.reduce((bits, bit) => bits | 1n << BigInt(bit), 0n) });
  }

  post(atNs: number, buffers: number): void {
    this.events.push({ t_ns: atNs, post: buffers });
  }

  packet(atNs: number, packet: ReceivedPacket): void {
    this.packets.push(vectorPacket(atNs, packet));
  }
}
