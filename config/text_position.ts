/**
 * Places in a text, for messages.
 * @module
 */
import { printable } from "./paths.ts";

/** How much of a line is shown around a place, in characters. */
const EXCERPT = 72;

/** A place in a text, counted from 1. */
export interface TextPosition {
  /** The line. */
  readonly line: number;
  /** The column, in characters of JavaScript. */
  readonly column: number;
}

/**
 * Where an offset lies.
 * @param text the whole text
 * @param offset 0 to the length of the text
 */
export function positionAt(text: string, offset: number): TextPosition {
  const before = text.slice(0, offset).split(/\r\n|\n|\r/);
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

/**
 * The line of an offset with a caret under it; of a long line only what is near.
 * @param text the whole text
 * @param offset 0 to the length of the text
 * @param position where that is
 */
export function excerptAt(text: string, offset: number, position: TextPosition): string {
  const start = offset - (position.column - 1);
  const line = text.slice(start).split(/[\r\n]/, 1)[0]!;
  const from = Math.max(0, position.column - 1 - EXCERPT / 2);
  const head = from > 0 ? "…" : "";
  const shown = line.slice(from, from + EXCERPT).replaceAll("\t", " ");
  const tail = from + EXCERPT < line.length ? "…" : "";
  const label = `${position.line} | `;
  // The caret must stand under what is printed, so what precedes it is measured after escaping.
  const width = printable(shown.slice(0, position.column - 1 - from)).length;
  return `${label}${head}${printable(shown)}${tail}\n${" ".repeat(label.length + head.length + width)}^`;
}
