/**
 * A table as a line plot in SVG: its columns are the x axis, its rows the lines. Greys and colours are of a
 * brightness that can be read on white and on black.
 * @module
 */
import type { Table } from "./suite.ts";

const WIDTH = 720;
const HEIGHT = 340;
const LEFT = 64;
const RIGHT = 150;
const TOP = 44;
const BOTTOM = 54;
const COLOURS = ["#2f81c7", "#d9730d", "#2e9e5b", "#b453c4"];
const INK = "#7a828e";
/** Least distance between labels, in pixels: of the x axis, and of lines at their ends. */
const MIN_X_PX = 38;
const MIN_LABEL_PX = 16;
const Y_TICKS = 5;

/** Draws a table whose columns are numbers. Throws if one is not, or if there is nothing to draw. */
export function plot(table: Table): string {
  const xs = table.columns.map(Number);
  const ys = table.rows.flatMap(({ values }) => values.filter((value) => value !== null));
  if (xs.length < 2 || ys.length === 0 || xs.some((x) => !Number.isFinite(x))) {
    throw new Error(
      `Cannot plot "${table.id}": its columns must be two numbers or more, and it must have values`,
    );
  }
  const step = niceStep(Math.max(...ys) / Y_TICKS);
  const top = Math.ceil(Math.max(...ys) / step) * step;
  // Without a zero the x axis goes by doublings.
  const place = (x: number): number => xs[0] > 0 ? Math.log2(x) : x;
  const width = WIDTH - LEFT - RIGHT;
  const height = HEIGHT - TOP - BOTTOM;
  const toX = (x: number): number => {
    const [first, last] = [place(xs[0]), place(xs[xs.length - 1])];
    return LEFT + (place(x) - first) / (last - first) * width;
  };
  const toY = (y: number): number => TOP + height - y / top * height;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" font-family="sans-serif" font-size="12" fill="${INK}">`,
    `<title>${escape(table.title)}</title>`,
    text(LEFT, 20, table.title, 'font-weight="bold" font-size="13"'),
    text(LEFT, 36, table.unit, ""),
    text(LEFT + width / 2, HEIGHT - 10, table.across, 'text-anchor="middle"'),
  ];
  for (let i = 0; i * step <= top + step / 2; i++) {
    const y = toY(i * step);
    parts.push(line([[LEFT, y], [LEFT + width, y]], INK, i === 0 ? 1 : 0.25));
    parts.push(text(LEFT - 8, y + 4, String(Number((i * step).toPrecision(6))), 'text-anchor="end"'));
  }
  let labelledPx = -Infinity;
  for (const x of xs) {
    const px = toX(x);
    parts.push(line([[px, TOP + height], [px, TOP + height + 4]], INK, 1));
    if (px - labelledPx < MIN_X_PX) continue;
    labelledPx = px;
    parts.push(text(px, TOP + height + 18, String(x), 'text-anchor="middle"'));
  }
  parts.push(...drawRows(table, xs, toX, toY), "</svg>");
  return `${parts.join("\n")}\n`;
}

function drawRows(
  table: Table,
  xs: readonly number[],
  toX: (x: number) => number,
  toY: (y: number) => number,
): string[] {
  const parts: string[] = [];
  const labels: { name: string; y: number; colour: string }[] = [];
  for (const [i, { name, values }] of table.rows.entries()) {
    const colour = COLOURS[i % COLOURS.length];
    const points: [number, number][] = [];
    for (const [column, value] of values.entries()) {
      if (value !== null) points.push([toX(xs[column]), toY(value)]);
    }
    if (points.length === 0) continue;
    parts.push(line(points, colour, 1, 2));
    for (const [x, y] of points) {
      parts.push(`<circle cx="${round(x)}" cy="${round(y)}" r="2.5" fill="${colour}"/>`);
    }
    labels.push({ name, y: points[points.length - 1][1], colour });
  }
  let aboveY = -Infinity;
  for (const { name, y, colour } of labels.sort((a, b) => a.y - b.y)) {
    aboveY = Math.max(y, aboveY + MIN_LABEL_PX);
    parts.push(text(WIDTH - RIGHT + 8, aboveY + 4, name, `fill="${colour}"`));
  }
  return parts;
}

/** 1, 2 or 5 times a power of ten, at least `least`. */
function niceStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999)!;
}

function line(
  points: readonly (readonly [number, number])[],
  colour: string,
  opacity: number,
  width = 1,
): string {
  const path = points.map(([x, y]) => `${round(x)},${round(y)}`).join(" ");
  return `<polyline points="${path}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-opacity="${opacity}"/>`;
}

function text(x: number, y: number, words: string, attributes: string): string {
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escape(words)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escape(words: string): string {
  return words.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
