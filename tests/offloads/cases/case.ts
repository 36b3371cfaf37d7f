/**
 * What the numbered cases are made of: what comes, what must come out under each rule book, and how both are
 * run.
 *
 * Every case runs twice: through a pipeline with the two RSC stages, and through a whole device with rings,
 * unless `pipelineOnly` says why that cannot be. Everything that comes out is compared: time, order, all six
 * header fields, every byte; and every counter of the family that tells of a refusal must be 0 unless the
 * case names it.
 */
import { assertEquals } from "@std/assert";
import type { FeatureSet } from "../../../core/features.ts";
import { rscV4 } from "../../../offloads/rsc_v4.ts";
import { rscV6 } from "../../../offloads/rsc_v6.ts";
import {
  BENCH_FEATURES,
  type Delivered,
  type FrameFacts,
  type HeaderFields,
  MachineBench,
  parseTcp,
  StageBench,
} from "../../../testing/mod.ts";
import { featureName, VIRTIO_NET_F_MRG_RXBUF } from "../../../wire/net_features.ts";

/** A frame that comes: when, in ns, and with which facts. */
export type Arrival = readonly [atNs: number, frame: Uint8Array, facts?: FrameFacts];

/**
 * A frame that must come out: when, `[flags,gso,segments]` with `-` for a frame without RSC_INFO, its bytes,
 * and what else its header says. Under RSC_INFO, `csumStart` is the number of segments; with NEEDS_CSUM,
 * `hdrLen` is that of the headers.
 */
export type Departure = readonly [
  atNs: number,
  info: string,
  frame: Uint8Array,
  header?: Partial<HeaderFields>,
];

/** What must come of a case under a rule book. */
export interface Outcome {
  /** What happens, for the name of the test. */
  readonly says: string;
  /** All that comes out, in order. */
  readonly out: readonly Departure[];
  /** Counters of the family concerned. */
  readonly counters?: Readonly<Record<string, number>>;
}

/** What a case is given. */
export interface Given {
  /** What comes, in order. */
  readonly arrive: readonly Arrival[];
  /** Whose counters are named; default `v4`. */
  readonly family?: "v4" | "v6";
  /** Options of both stages. */
  readonly options?: Readonly<Record<string, unknown>>;
  /** Features that the guest accepts; default those of the vectors. */
  readonly features?: FeatureSet;
  /** Why the case cannot go through a whole device. */
  readonly pipelineOnly?: string;
}

/** Q: the reference. S: strict. QS: both, with counters of its own for each. */
export interface Outcomes {
  readonly Q?: Outcome;
  readonly S?: Outcome;
  readonly QS?: Omit<Outcome, "counters"> & {
    readonly Q?: Outcome["counters"];
    readonly S?: Outcome["counters"];
  };
}

/** Long after everything is due. */
export const END_NS = 60_000_000;

/** Declares the tests of a case: one for each outcome. */
export function testCase(number: number, given: Given, { Q, S, QS }: Outcomes): void {
  if (QS !== undefined) {
    declare(number, "qemu", given, { ...QS, counters: QS.Q ?? {} });
    declare(number, "strict", given, { ...QS, counters: QS.S ?? {} });
  }
  if (Q !== undefined) declare(number, "qemu", given, Q);
  if (S !== undefined) declare(number, "strict", given, S);
}

type Rules = "qemu" | "strict";

function declare(number: number, rules: Rules, given: Given, outcome: Outcome): void {
  const letter = rules === "qemu" ? "Q" : "S";
  Deno.test(`case ${number} ${letter}: ${outcome.says}`, async () => {
    throughPipeline(rules, given, outcome);
    if (given.pipelineOnly === undefined) await throughDevice(rules, given, outcome);
  });
}

function throughPipeline(rules: Rules, given: Given, outcome: Outcome): void {
  const { options = {}, features = BENCH_FEATURES } = given;
  const stages = [{ plugin: rscV4, options }, { plugin: rscV6, options }];
  using bench = new StageBench(stages, { rules, features });
  for (const [atNs, frame, facts] of given.arrive) {
    bench.advanceTo(atNs);
    bench.feed(frame, facts);
  }
  bench.advanceTo(END_NS);
  compare("in the pipeline", rules, given, outcome, bench);
}

async function throughDevice(rules: Rules, given: Given, outcome: Outcome): Promise<void> {
  await using bench = await startDevice(rules, given);
  for (const [atNs, frame, facts] of given.arrive) {
    bench.advanceTo(atNs);
    bench.feed(frame, facts);
  }
  bench.advanceTo(END_NS);
  compare("in the device", rules, given, outcome, bench);
  assertEquals(bench.guest.errors, [], "in the device: the guest found nothing wrong");
}

/** A machine whose guest accepts the features of the case, and the same rings as in the vectors. */
export async function startDevice(
  rules: Rules,
  { options = {}, features = BENCH_FEATURES }: Pick<Given, "options" | "features"> = {},
  guest: Record<string, unknown> = {},
): Promise<MachineBench> {
  return await MachineBench.start({
    rules,
    offloads: [{ use: "rsc-v4", ...options }, { use: "rsc-v6", ...options }],
    guest: { accept: Array.from(features, featureName), ...buffersFor(features), ...guest },
  });
}

/** Without MRG_RXBUF a packet must fit into one buffer, as in the vectors. */
function buffersFor(features: FeatureSet): Record<string, unknown> {
  const mergeable = features.has(VIRTIO_NET_F_MRG_RXBUF);
  return { mergeable, receiveBufferBytes: mergeable ? 4096 : 69_632 };
}

/** What both kinds of bench show. */
interface Shown {
  readonly out: readonly Delivered[];
  readonly counters: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

function compare(where: string, rules: Rules, given: Given, outcome: Outcome, shown: Shown): void {
  const brief = shown.out.map(({ atNs, header, bytes }) => `${atNs} ${infoOf(header)} ${bytes.length} bytes`);
  const wanted = outcome.out.map(([atNs, info, frame]) => `${atNs} ${info} ${frame.length} bytes`);
  const differs = wanted.findIndex((line, i) => line !== brief[i]);
  const from = differs < 0 ? wanted.length : Math.max(0, differs - 1);
  assertEquals(
    brief.slice(from, from + 6),
    wanted.slice(from, from + 6),
    `${where}: times, order and kinds from ${from} on`,
  );
  assertEquals(brief.length, wanted.length, `${where}: how many`);
  for (const [i, [, info, frame, header]] of outcome.out.entries()) {
    const got = shown.out[i];
    assertEquals(
      got.header,
      expectedHeader(info, frame, header ?? {}),
      `${where}: header of output ${i + 1}`,
    );
    assertEquals(firstDifference(got.bytes, frame), "none", `${where}: bytes of output ${i + 1}`);
  }
  const counters = shown.counters[`rsc-${given.family ?? "v4"}`];
  assertEquals(
    refusals(rules, counters, outcome.counters ?? {}),
    outcome.counters ?? {},
    `${where}: counters`,
  );
}

/** `[flags,gso,segments]`. */
export function infoOf({ flags, gsoType, csumStart }: HeaderFields): string {
  return `[${flags},${gsoType},${(flags & 4) === 0 ? "-" : csumStart}]`;
}

/** Time, `[flags,gso,segments]` and bytes of everything that has come out. */
export function departures({ out }: Pick<Shown, "out">): [number, string, Uint8Array][] {
  return out.map(({ atNs, header, bytes }) => [atNs, infoOf(header), bytes]);
}

function expectedHeader(info: string, frame: Uint8Array, more: Partial<HeaderFields>): HeaderFields {
  const [, flags, gsoType, segments] = /^\[(\d+),(\d+),(\d+|-)\]$/.exec(info)!;
  const header = {
    flags: Number(flags),
    gsoType: Number(gsoType),
    hdrLen: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  if (segments !== "-") header.csumStart = Number(segments);
  if (header.gsoType !== 0 && (header.flags & 1) !== 0) {
    const { tcpAt, dataOffset } = parseTcp(frame);
    header.hdrLen = tcpAt + 4 * dataOffset;
  }
  return { ...header, ...more };
}

function firstDifference(got: Uint8Array, wanted: Uint8Array): string {
  const at = wanted.findIndex((byte, i) => byte !== got[i]);
  return at < 0 ? "none" : `byte ${at} is ${got[at]}, not ${wanted[at]}`;
}

/** Counters that tell of ordinary work, not of refusals. */
const ORDINARY: Readonly<Record<Rules, readonly string[]>> = {
  qemu: ["received", "coalesced", "cache", "empty_cache", "no_match_cache", "no_match", "timer"],
  strict: [
    "received",
    "held",
    "merged",
    "packets_coalesced",
    "segments_coalesced",
    "packets_single",
    "drained_by_timer",
  ],
};

/** The named counters, and all others that are not 0 and tell of refusals. */
function refusals(
  rules: Rules,
  counters: Readonly<Record<string, number>>,
  named: Readonly<Record<string, number>>,
): Record<string, number> {
  const shown = Object.entries(counters).filter(([name, count]) =>
    name in named || (count !== 0 && !ORDINARY[rules].includes(name))
  );
  return Object.fromEntries(shown);
}
