/**
 * Rounds on a machine whose processors are near each other now and far then, and rows of what was found in
 * each state.
 * @module
 */
import { median } from "./statistics.ts";
import { ratioRow, type Row } from "./suite.ts";

/** What was found in one round. */
export interface Sample {
  /** Millions of frames a second. */
  readonly mpps: number;
  /** What a cache line took just before, in ns; NaN if it is unknown. */
  readonly lineNs: number;
}

/** Each round, by name; ours comes first. */
export type Samples = Map<string, Sample[]>;

/** Rounds that belong together. */
export interface State {
  /** What it is called; empty if there is but one. */
  readonly name: string;
  /** Does a round belong to it, before which a cache line took so many ns? */
  holds(lineNs: number): boolean;
}

/** Between what machines were seen to take, 25 to 45 ns, and 150 to 240. */
const NEAR_BELOW_NS = 80;
/** Two processors near each other, or far. */
export const STATES: readonly State[] = [
  { name: "near", holds: (lineNs) => !(lineNs >= NEAR_BELOW_NS) },
  { name: "far", holds: (lineNs) => lineNs >= NEAR_BELOW_NS },
];
/** Where both ends are on one processor. */
export const ANY_STATE: readonly State[] = [{ name: "", holds: () => true }];

/** Every column once for each state. */
export function headings(columns: readonly string[], states: readonly State[]): string[] {
  return columns.flatMap((column) => states.map(({ name }) => name === "" ? column : `${column}, ${name}`));
}

/** A row for each peer, and one of the ratio of ours to it, with a value for each column and state. */
export function rowsOf(what: string, columns: readonly Samples[], states: readonly State[]): Row[] {
  const [first, ...peers] = [...columns[0].keys()].map((name): Row => ({
    name: `${name}, ${what}`,
    values: columns.flatMap((samples) => states.map((state) => middle(samples.get(name), state))),
  }));
  return [first, ...peers, ...peers.map((peer) => ratioRow(`ours / ${peer.name}`, first, peer))];
}

function middle(samples: readonly Sample[] | undefined, state: State): number | null {
  const values = (samples ?? []).filter(({ lineNs }) => state.holds(lineNs)).map(({ mpps }) => mpps);
  return values.length === 0 ? null : median(values);
}
