/**
 * What has been counted since the last time that somebody asked.
 * @module
 */
import type { CounterGroups } from "../../core/device.ts";

/** Compares counters with what they were. */
export class Tally {
  readonly #groups: CounterGroups;
  #told: Record<string, Record<string, number>> = {};

  /** Everything counts as news the first time. @param groups live counters */
  constructor(groups: CounterGroups) {
    this.#groups = groups;
  }

  /** By how much each counter has grown since the last time; only those that have. */
  take(): Record<string, Record<string, number>> {
    const grown: Record<string, Record<string, number>> = {};
    for (const [group, counters] of Object.entries(this.#groups)) {
      const told = this.#told[group] ??= {};
      for (const [name, count] of Object.entries(counters)) {
        if (typeof count !== "number") {
          throw new TypeError(`the counter "${name}" of ${group} is a ${typeof count}, not a number`);
        }
        const more = count - (told[name] ?? 0);
        if (more === 0) continue;
        (grown[group] ??= {})[name] = more;
        told[name] = count;
      }
    }
    return grown;
  }
}
