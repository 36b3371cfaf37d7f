/**
 * Every counter by group, live.
 * @module
 */

/** Keeps groups of counters apart by their names. */
export class CounterBook {
  /** The groups. */
  readonly groups: Record<string, Record<string, number>> = {};

  /**
   * Takes a group in under its name, with `#2` behind it if that stands there before. Returns the same counters. Throws
   * TypeError for what is no object.
   */
  publish<T extends Record<string, number>>(group: string, counters: T): T {
    if (typeof counters !== "object" || counters === null) {
      throw new TypeError("Cannot publish what is no object: counters are numbers in an object");
    }
    let name = group;
    for (let n = 2; Object.hasOwn(this.groups, name); n++) name = `${group}#${n}`;
    this.groups[name] = counters;
    return counters;
  }
}
