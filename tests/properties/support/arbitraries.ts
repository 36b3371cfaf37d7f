/**
 * Scenarios by chance, from the ordinary to the absurd.
 * @module
 */
import fc from "fast-check";
import {
  ACCEPTED,
  type Accepted,
  type EventKind,
  type FrameKind,
  type MachineChoice,
  PLAIN_MACHINE,
  type Scenario,
  type Step,
  TIME_COUNT,
} from "./scenario.ts";
import { SIZE_COUNT } from "./traffic.ts";

/** How often each kind comes, beside the others; 0 for a kind that is not named. */
export type Weights = Partial<Record<FrameKind | EventKind, number>>;

/** Traffic as it mostly is. */
export const ORDINARY: Weights = {
  next: 30,
  burst: 6,
  padded: 3,
  push: 4,
  acking: 6,
  pureAck: 3,
  windowUpdate: 5,
  dupAck: 2,
  olderAck: 1,
  gap: 1,
  duplicate: 1,
  retransmit: 2,
  swapped: 1,
  keepAlive: 1,
  control: 1,
  timestamp: 2,
  dataValid: 2,
  partial: 2,
  other: 1,
};

/** Every kind of frame, most of them nasty. */
export const NASTY: Weights = {
  next: 24,
  burst: 3,
  padded: 4,
  push: 2,
  acking: 3,
  pureAck: 2,
  windowUpdate: 4,
  dupAck: 2,
  olderAck: 3,
  gap: 2,
  duplicate: 3,
  retransmit: 3,
  swapped: 2,
  keepAlive: 2,
  control: 3,
  tcpEcn: 3,
  ipEcn: 3,
  trait: 4,
  timestamp: 4,
  tcpOptions: 2,
  dataOffset: 2,
  badTcp: 2,
  badIp: 2,
  badLength: 3,
  truncated: 2,
  version: 1,
  ipOptions: 3,
  fragment: 3,
  vlan: 4,
  form: 3,
  dataValid: 3,
  partial: 3,
  large: 2,
  other: 2,
  garbage: 3,
};

/** What a guest does meanwhile. */
export const EVENTS: Weights = { offloads: 3, reset: 2, link: 3, promiscuous: 2, pairs: 1, send: 2, post: 1 };

/** Steps with these weights, over up to `flows` flows, `length` at most. */
export function steps(weights: Weights, flows: number, length: number): fc.Arbitrary<readonly Step[]> {
  const kinds = Object.entries(weights).flatMap(([kind, weight]) => new Array<string>(weight).fill(kind));
  const step: fc.Arbitrary<Step> = fc.tuple(
    fc.constantFrom(...kinds as Step[0][]),
    fc.nat(flows - 1),
    fc.nat(SIZE_COUNT - 1),
    fc.nat(TIME_COUNT - 1),
    fc.nat(0x7fff_ffff),
  );
  return fc.array(step, { maxLength: length, size: "max" });
}

/** One stream of any sort. */
export function anyStream(weights: Weights, length = 40): fc.Arbitrary<readonly Step[]> {
  return fc.oneof(
    { weight: 4, arbitrary: steps(weights, 1, length) },
    { weight: 4, arbitrary: steps(weights, 4, length) },
    { weight: 4, arbitrary: steps(weights, 8, length) },
    { weight: 2, arbitrary: steps(weights, 64, length) },
    { weight: 1, arbitrary: steps(weights, 400, 3 * length) },
  );
}

/** A machine of any sort that is fed with all the buffers it wants. */
export const anyMachine: fc.Arbitrary<MachineChoice> = fc.record({
  ring: fc.constantFrom("split" as const, "packed" as const),
  indirect: fc.constantFrom(false, true, "always" as const),
  eventIndex: fc.boolean(),
  mergeable: fc.constantFrom(true, true, true, false),
  bufferBytes: fc.constantFrom(2048, 4096, 1526, 256, 64, 65_562),
  queueSize: fc.constantFrom(64, 16, 2, 256),
  pieces: fc.constantFrom(1, 1, 2, 3),
  pairs: fc.constantFrom(1, 1, 2, 3, 4),
  regions: fc.constantFrom(1, 2, 3),
  polling: fc.boolean(),
  legacy: fc.constantFrom(false, false, false, true),
  posted: fc.constant(0),
  accepted: fc.constantFrom(
    ...["rsc", "rscWithEcn", "gso", ...Object.keys(ACCEPTED)] as Accepted[],
  ),
  rss: fc.boolean(),
  intervalUs: fc.constantFrom(300, 0, 1, 10_000, 50.5),
  maxFlows: fc.constantFrom(4096, 1, 2, 8),
  maxSegments: fc.constantFrom(1024, 2, 3, 45),
  flushOnPush: fc.constantFrom(false, false, true),
  flushOnIdle: fc.boolean(),
  timestamps: fc.constantFrom(true, true, false),
  v6First: fc.boolean(),
  memoryMiB: fc.constantFrom(128, 128, 128, 8),
});

/** The plainest machine, with a choice of what matters to coalescing. */
export const plainMachine: fc.Arbitrary<MachineChoice> = fc.record({
  accepted: fc.constantFrom("rsc" as const, "rscWithEcn" as const, "gso" as const),
  intervalUs: fc.constantFrom(300, 0, 10_000),
  maxFlows: fc.constantFrom(4096, 2),
  maxSegments: fc.constantFrom(1024, 2),
  flushOnPush: fc.boolean(),
  flushOnIdle: fc.boolean(),
}).map((choice) => ({ ...PLAIN_MACHINE, ...choice }));

/** A guest that posts few buffers, and more of them now and then. */
export const starvedMachine: fc.Arbitrary<MachineChoice> = fc.tuple(anyMachine, fc.constantFrom(1, 2, 5, 30))
  .map(([machine, posted]) => ({ ...machine, posted }));

/** Scenarios of a machine and `streams` streams. */
export function scenarios(
  machine: fc.Arbitrary<MachineChoice>,
  stream: fc.Arbitrary<readonly Step[]>,
  streams: number,
): fc.Arbitrary<Scenario> {
  return fc.record({ machine, streams: fc.array(stream, { minLength: 1, maxLength: streams, size: "max" }) });
}
