/**
 * What a benchmark suite is: a file `bench/<name>.ts` that exports `suite`. `bench/main.ts` finds it there.
 *
 * A suite measures and returns tables; it prints nothing, and importing it does nothing. What it starts it
 * stops, also when it fails. Peers run in the same suite, interleaved with us, so that the machine's noise
 * meets all of them.
 *
 * @module
 */

/** One group of measurements. */
export interface Suite {
  /** Its name on the command line, the same as its file's. */
  readonly name: string;
  /** One line: what it measures. */
  readonly summary: string;
  /**
   * What this machine lacks to run it at all, with the remedy, as one line; null if nothing. A missing peer
   * is no such reason.
   */
  needs?(): string | null;
  /** Measures. Throws if a figure would be wrong: something did not come through, a peer died. */
  run(options: SuiteOptions): Promise<SuiteResult>;
}

/** How to measure. */
export interface SuiteOptions {
  /** Only show that everything works: do about a tenth of the work. */
  readonly quick: boolean;
  /** How many runs to take each median of: at least 5, but 2 if `quick`. */
  readonly runs: number;
  /** Tells what is going on, on standard error. */
  progress(line: string): void;
}

/** What a suite found. */
export interface SuiteResult {
  /** The figures. */
  readonly tables: readonly Table[];
  /** What else a reader must know: peers that could not run and why, versions, what was pinned where. */
  readonly notes?: readonly string[];
  /**
   * The copy of 1448 bytes, in ns, if the suite measured it between its runs; else it is measured around the
   * suite.
   */
  readonly memcpyNs?: number;
}

/** Figures with one unit, in rows and columns. */
export interface Table {
  /** A name for programs, stable and unique in its suite: `v4-qemu`. */
  readonly id: string;
  /** What is measured, for people. */
  readonly title: string;
  /** Unit of all figures of rows that name none: `ns per segment`, `Mb/s`, `µs`. */
  readonly unit: string;
  /** What the columns stand for: `flows`. */
  readonly across: string;
  /** The columns' headings. */
  readonly columns: readonly string[];
  /** The rows. */
  readonly rows: readonly Row[];
  /** Is it to be drawn in docs/plots, by columns that are numbers? */
  readonly isPlotted?: boolean;
}

/** One line of a table. */
export interface Row {
  /** Who or what was measured. */
  readonly name: string;
  /** One median a column; null where there is none. */
  readonly values: readonly (number | null)[];
  /** Another unit than the table's; `x` for a ratio. */
  readonly unit?: string;
}

/**
 * A row of ratios of two rows, `ours / theirs` column by column: below 1 where we need less. For figures
 * where more is better swap the two, and say so in the name.
 */
export function ratioRow(name: string, ours: Row, theirs: Row): Row {
  const values = ours.values.map((value, column) => {
    const other = theirs.values[column];
    return value === null || other === null || other === undefined || other === 0 ? null : value / other;
  });
  return { name, values, unit: "x" };
}
