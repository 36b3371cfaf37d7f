/**
 * What the reactor turns.
 * @module
 */

/** Something the reactor turns: bounded work now, and a time at which to come back. */
export interface Pollable {
  /** Does a bounded amount of work at time `nowNs`. True if it did something, and so may have more to do. */
  poll(nowNs: number): boolean;
  /** When it wants to be polled again although nobody wakes it, in ns; Infinity if never. */
  deadlineNs(): number;
}

/** Does this object have work of its own? */
export function isPollable(object: object): object is Pollable {
  return "poll" in object && "deadlineNs" in object;
}
