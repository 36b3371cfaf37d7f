/**
 * How many units stand before a given one in a list that loses entries anywhere and gains them at its end only.
 * @module
 */

/**
 * Counts in logarithmic time what the reference counts by walking its list (`no_match`). A Fenwick tree over the numbers
 * in which entries were added remembers those that have gone; while none has, the number is the answer.
 */
export class OpeningOrder {
  #gone = new Int32Array(64);
  #added = 0;
  #removed = 0;

  /** Adds an entry at the end and returns its number. */
  add(): number {
    return this.#added++;
  }

  /** Forgets everything: the list is empty. */
  clear(): void {
    if (this.#removed > 0) this.#gone.fill(0);
    this.#added = 0;
    this.#removed = 0;
  }

  /** Is it time to number the entries anew, because far more have been added than are left? */
  wantsRenumbering(left: number): boolean {
    return this.#added > 1024 && this.#added > 4 * left;
  }

  /** The entry with this number has gone. */
  remove(number: number): void {
    if (this.#added + 1 > this.#gone.length) this.#enlarge();
    this.#removed++;
    this.#mark(number);
  }

  /** How many of the entries before this number are left. */
  before(number: number): number {
    if (this.#removed === 0) return number;
    let gone = 0;
    for (let at = Math.min(number, this.#gone.length - 1); at > 0; at -= at & -at) gone += this.#gone[at];
    return number - gone;
  }

  #mark(number: number): void {
    for (let at = number + 1; at < this.#gone.length; at += at & -at) this.#gone[at]++;
  }

  #enlarge(): void {
    const old = this.#gone;
    const size = old.length - 1;
    let length = old.length;
    while (length < this.#added + 1) length *= 2;
    const grown = new Int32Array(length);
    // Turns the tree into plain marks, and the marks into the larger tree.
    for (let at = size; at >= 1; at--) {
      const parent = at + (at & -at);
      if (parent <= size) old[parent] -= old[at];
    }
    this.#gone = grown;
    for (let at = 1; at <= size; at++) for (let n = old[at]; n > 0; n--) this.#mark(at - 1);
  }
}
