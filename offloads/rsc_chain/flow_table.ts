/**
 * The units of one chain: found by flow in constant time, listed in the order in which they were opened.
 *
 * Theory of operation. `buckets` is an open-addressed hash table of unit numbers (linear probing, at most half full,
 * deletion by moving later entries up, so there are no tombstones). The hash is seeded per table: whoever sends the
 * traffic cannot choose colliding flows. A list through `previous` and `following` keeps the order of opening, which is the
 * order of draining; the hash decides nothing that can be seen. Units and buckets grow by doubling up to `mostFlows` and
 * are reused, so in steady state nothing is allocated. `pairs` counts held units by a hash of their two addresses: a frame
 * whose ports cannot be seen asks it before the list is searched.
 *
 * Invariants: every unit in the list is in exactly one bucket; `count` is the length of the list; keys of units are
 * pairwise different.
 *
 * @module
 */
import type { Segment } from "./segment.ts";
import { Unit } from "./unit.ts";

const PAIR_SLOTS = 4096;

/** A bounded table of units, keyed by flow. */
export class FlowTable {
  /** Most units it will hold. */
  readonly mostFlows: number;
  readonly #keyWords: number;
  readonly #addressWords: number;
  readonly #seed: number;
  readonly #pairs = new Uint16Array(PAIR_SLOTS);
  #units: Unit[] = [];
  #free: Unit[] = [];
  #freeCount = 0;
  #keys: Int32Array;
  #buckets: Int32Array;
  #mask: number;
  #count = 0;
  /** The unit opened first of those held. */
  oldest: Unit | null = null;
  /** The unit opened last of those held. */
  newest: Unit | null = null;

  /** An empty table. @param keyWords 32-bit words of a key, of which the last holds the ports; @param mostFlows units at most */
  constructor(keyWords: number, mostFlows: number) {
    this.#keyWords = keyWords;
    this.#addressWords = keyWords - 1;
    this.mostFlows = mostFlows;
    this.#seed = crypto.getRandomValues(new Int32Array(1))[0];
    this.#keys = new Int32Array(0);
    this.#buckets = new Int32Array(16);
    this.#mask = 15;
  }

  /** Units held. */
  get count(): number {
    return this.#count;
  }

  /** Is there no room for another unit? */
  get isFull(): boolean {
    return this.#count >= this.mostFlows;
  }

  /** The hash of a segment's flow, for `find` and `open`. */
  hashOf(segment: Segment): number {
    const key = segment.key;
    let hash = this.#seed;
    for (let i = 0; i < this.#keyWords; i++) {
      hash = Math.imul(hash ^ key[i], 0x9e3779b1);
      hash ^= hash >>> 15;
    }
    return hash;
  }

  /** The unit of the segment's flow, or null. */
  find(segment: Segment, hash: number): Unit | null {
    const buckets = this.#buckets;
    const mask = this.#mask;
    for (let at = hash & mask;; at = at + 1 & mask) {
      const entry = buckets[at];
      if (entry === 0) return null;
      const unit = this.#units[entry - 1];
      if (unit.hash === hash && this.#sameKey(unit.index, segment.key)) return unit;
    }
  }

  /** A unit for a flow that has none, last in the list. There must be room. */
  open(segment: Segment, hash: number): Unit {
    if (this.#freeCount === 0) this.#grow();
    const unit = this.#free[--this.#freeCount];
    unit.hash = hash;
    const row = unit.index * this.#keyWords;
    for (let i = 0; i < this.#keyWords; i++) this.#keys[row + i] = segment.key[i];
    let at = hash & this.#mask;
    while (this.#buckets[at] !== 0) at = at + 1 & this.#mask;
    this.#buckets[at] = unit.index + 1;
    unit.previous = this.newest;
    unit.following = null;
    if (this.newest === null) this.oldest = unit;
    else this.newest.following = unit;
    this.newest = unit;
    this.#count++;
    this.#pairs[this.#pairOf(unit.index)]++;
    return unit;
  }

  /** Takes a unit out. Its frame is the caller's. */
  close(unit: Unit): void {
    this.#unhash(unit);
    if (unit.previous === null) this.oldest = unit.following;
    else unit.previous.following = unit.following;
    if (unit.following === null) this.newest = unit.previous;
    else unit.following.previous = unit.previous;
    unit.previous = null;
    unit.following = null;
    unit.frame = null;
    this.#pairs[this.#pairOf(unit.index)]--;
    this.#free[this.#freeCount++] = unit;
    this.#count--;
  }

  /** May there be a unit between the addresses of this segment, in this direction? Never a false no. */
  mayHavePair(segment: Segment): boolean {
    return this.#count > 0 && this.#pairs[pairHash(segment.key, 0, this.#addressWords)] > 0;
  }

  /** Is this unit between the addresses of this segment, in this direction? */
  hasPair(unit: Unit, segment: Segment): boolean {
    const row = unit.index * this.#keyWords;
    for (let i = 0; i < this.#addressWords; i++) if (this.#keys[row + i] !== segment.key[i]) return false;
    return true;
  }

  #sameKey(index: number, key: Int32Array): boolean {
    const keys = this.#keys;
    const row = index * this.#keyWords;
    for (let i = this.#keyWords - 1; i >= 0; i--) if (keys[row + i] !== key[i]) return false;
    return true;
  }

  #pairOf(index: number): number {
    return pairHash(this.#keys, index * this.#keyWords, this.#addressWords);
  }

  #unhash(unit: Unit): void {
    const buckets = this.#buckets;
    const mask = this.#mask;
    let hole = unit.hash & mask;
    while (buckets[hole] !== unit.index + 1) hole = hole + 1 & mask;
    for (let at = hole + 1 & mask; buckets[at] !== 0; at = at + 1 & mask) {
      const home = this.#units[buckets[at] - 1].hash & mask;
      // An entry may move into the hole unless its home lies between the hole and itself.
      if ((at - home & mask) >= (at - hole & mask)) {
        buckets[hole] = buckets[at];
        hole = at;
      }
    }
    buckets[hole] = 0;
  }

  #grow(): void {
    const from = this.#units.length;
    const to = Math.min(this.mostFlows, Math.max(64, from * 2));
    for (let i = to - 1; i >= from; i--) this.#free[this.#freeCount++] = new Unit(i);
    const fresh = this.#free.slice(0, this.#freeCount).reverse();
    this.#units = this.#units.concat(fresh);
    const keys = new Int32Array(to * this.#keyWords);
    keys.set(this.#keys);
    this.#keys = keys;
    let buckets = 16;
    while (buckets < to * 2) buckets *= 2;
    this.#buckets = new Int32Array(buckets);
    this.#mask = buckets - 1;
    for (let unit = this.oldest; unit !== null; unit = unit.following) {
      let at = unit.hash & this.#mask;
      while (this.#buckets[at] !== 0) at = at + 1 & this.#mask;
      this.#buckets[at] = unit.index + 1;
    }
  }
}

function pairHash(words: Int32Array, at: number, count: number): number {
  let hash = 0;
  for (let i = 0; i < count; i++) hash = Math.imul(hash ^ words[at + i], 0x85ebca6b) ^ hash >>> 13;
  return (hash ^ hash >>> 16) & PAIR_SLOTS - 1;
}
