/** Types for the parts of `@std/cli` that this project uses (see compat/std/README.md). */
export interface ParseOptions {
  boolean?: boolean | string[];
  string?: string[];
  collect?: string[];
  negatable?: string[];
  alias?: Record<string, string | string[]>;
  default?: Record<string, unknown>;
  stopEarly?: boolean;
  "--"?: boolean;
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}
/** The parsed command line: `_` holds what is no option. */
export interface Args {
  _: (string | number)[];
  "--"?: string[];
  [key: string]: unknown;
}
export function parseArgs(args: string[], options?: ParseOptions): Args;
