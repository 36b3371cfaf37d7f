/**
 * Colours, where they may be used; elsewhere the text as it is.
 * @module
 */
import type { Io } from "./io.ts";

/** Text as it is to look. */
export interface Style {
  /** For headings. */
  bold(text: string): string;
  /** For what matters less. */
  dim(text: string): string;
  /** For failures. */
  red(text: string): string;
  /** For good results. */
  green(text: string): string;
  /** For what can be typed, and bars. */
  cyan(text: string): string;
}

/** The style for an output. */
export function styleFor({ color }: Pick<Io, "color">): Style {
  const sequence = (on: number, off: number) => (text: string): string =>
    color && text !== "" ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return {
    bold: sequence(1, 22),
    dim: sequence(2, 22),
    red: sequence(31, 39),
    green: sequence(32, 39),
    cyan: sequence(36, 39),
  };
}
