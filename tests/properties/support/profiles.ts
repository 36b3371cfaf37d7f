/**
 * The sorts of scenarios that are run, and how many streams of each belong to an ordinary test run.
 * @module
 */
import type fc from "fast-check";
import {
  anyMachine,
  anyStream,
  EVENTS,
  NASTY,
  ORDINARY,
  plainMachine,
  scenarios,
  starvedMachine,
} from "./arbitraries.ts";
import type { Scenario } from "./scenario.ts";

/** One sort of scenarios. */
export interface Profile {
  /** What it is about. */
  readonly name: string;
  /** Makes them. */
  readonly scenarios: fc.Arbitrary<Scenario>;
  /** Streams in an ordinary test run. */
  readonly streams: number;
}

/**
 * Most streams through one machine: each of them is judged by itself, and a machine costs as much as a
 * stream.
 */
const STREAMS = 8;

/** All sorts. */
export const PROFILES: readonly Profile[] = [
  {
    name: "ordinary traffic",
    scenarios: scenarios(plainMachine, anyStream(ORDINARY), STREAMS),
    streams: 5000,
  },
  {
    name: "nasty traffic through any machine",
    scenarios: scenarios(anyMachine, anyStream(NASTY), STREAMS),
    streams: 6000,
  },
  {
    name: "resets, links and offloads that come and go",
    scenarios: scenarios(anyMachine, anyStream({ ...NASTY, ...EVENTS }), STREAMS),
    streams: 6000,
  },
  {
    name: "guests that post too few buffers",
    scenarios: scenarios(starvedMachine, anyStream({ ...NASTY, ...EVENTS, post: 8 }), STREAMS),
    streams: 3000,
  },
];
