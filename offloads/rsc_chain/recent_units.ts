/**
 * Where the unit of a flow was last found: a shortcut past the hash of the whole key.
 *
 * Theory of operation. Segments come in trains of few flows, so most finds repeat an earlier one. A *tag*, one word made of a key
 * by one operation, picks a place, and the place remembers one unit and its tag. Whoever asks compares whole keys, so that a
 * wrong unit costs a comparison and is no error. Tags are easy to collide on purpose; who does so gets what he would have had
 * without the shortcut: the table behind it, whose hash is secret.
 *
 * Invariant: a unit that is remembered is in the table. The tags stand apart from the units, so that a place which remembers
 * another flow is recognised without a look at that flow's unit, which may be far away.
 *
 * @module
 */
import type { Unit } from "./unit.ts";

/** One place for each of a power of two of tags. */
export class RecentUnits {
  readonly #tags: Int32Array<ArrayBuffer>;
  readonly #units: (Unit | null)[];
  readonly #shift: number;

  /** Remembers nothing yet. @param places a power of two, from 2 */
  constructor(places: number) {
    this.#tags = new Int32Array(places);
    this.#units = new Array<Unit | null>(places).fill(null);
    this.#shift = 32 - Math.log2(places);
  }

  /** A unit with this tag, or null. */
  recall(tag: number): Unit | null {
    const at = Math.imul(tag, 0x9e3779b1) >>> this.#shift;
    return this.#tags[at] === tag ? this.#units[at] : null;
  }

  /** This unit is to be recalled by its tag, in place of whichever was. */
  remember(unit: Unit): void {
    const at = Math.imul(unit.tag, 0x9e3779b1) >>> this.#shift;
    this.#tags[at] = unit.tag;
    this.#units[at] = unit;
  }

  /** The unit leaves the table. */
  forget(unit: Unit): void {
    const at = Math.imul(unit.tag, 0x9e3779b1) >>> this.#shift;
    if (this.#units[at] === unit) this.#units[at] = null;
  }
}
