/**
 * The units of one chain: found by flow in constant time, listed in the order in which they were opened.
 *
 * Theory of operation. A unit found or opened lately is found again by a shortcut (`recent_units.ts`). Behind it, `buckets` is
 * an open-addressed hash table of units (linear probing, at most half full,
 * deletion by moving later entries up, so there are no tombstones). The hash is a sum of 16-bit halves of the key, each
 * times a secret of its own (multiply-shift hashing: any two keys collide in the upper bits by chance only, whatever they
 * are), and then mixed into the lower bits: whoever sends the traffic cannot choose colliding flows. A list through
 * `previous` and `following` keeps the order of opening, which is the order of draining; the hash decides nothing that can
 * be seen. Units and buckets grow by doubling up to `maxFlows` and are reused, so in steady state nothing is allocated.
 * A second set of lists, through `previousOfPair` and `followingOfPair`, one for each of 4096 hashes of the two addresses,
 * serves frames whose ports cannot be seen: they look at a few units and not at all.
 *
 * Invariants: every unit in the list is in exactly one bucket; `count` is the length of the list; keys of units are
 * pairwise different; every unit is in the list of its `pairSlot`.
 *
 * @module
 */
import type { Segment } from "./segment.ts";
import { Unit } from "./unit.ts";

/** Lists of units by the hash of their addresses; a power of two. */
const PAIR_SLOTS = 4096;

/** A bounded table of units, keyed by flow. */
export class FlowTable {
  /** Most units it will hold. */
  readonly maxFlows: number;
  readonly #keyWords: number;
  readonly #addressWords: number;
  readonly #secrets: Int32Array;
  readonly #pairFirst: (Unit | null)[] = new Array<Unit | null>(PAIR_SLOTS).fill(null);
  readonly #pairLast: (Unit | null)[] = new Array<Unit | null>(PAIR_SLOTS).fill(null);
  #free: Unit[] = [];
  #freeCount = 0;
  #made = 0;
  #keys: Int32Array;
  #buckets: (Unit | null)[];
  #mask: number;
  #recent: RecentUnits;
  #count = 0;
  /** The unit opened first of those held. */
  oldest: Unit | null = null;
  /** The unit opened last of those held. */
  newest: Unit | null = null;

  /** An empty table. @param keyWords 32-bit words of a key, of which the last holds the ports; @param maxFlows units at most */
  constructor(keyWords: number, maxFlows: number) {
    this.#keyWords = keyWords;
    this.#addressWords = keyWords - 1;
    this.maxFlows = maxFlows;
    this.#secrets = crypto.getRandomValues(new Int32Array(2 * keyWords + 2));
    this.#keys = new Int32Array(0);
    this.#buckets = new Array<Unit | null>(16).fill(null);
    this.#mask = 15;
    this.#recent = new RecentUnits(16);
  }

  /** Units held. */
  get count(): number {
    return this.#count;
  }

  /** Is there no room for another unit? */
  get isFull(): boolean {
    return this.#count >= this.maxFlows;
  }

  /** The hash of a segment's flow. */
  hashOf(segment: Segment): number {
    return this.#hash(segment, this.#keyWords);
  }

  /** The unit of the segment's flow, or null. */
  find(segment: Segment): Unit | null {
    const unit = this.#recent.recall(this.#tagOf(segment));
    return unit !== null && this.#hasKey(unit, segment) ? unit : this.#search(segment);
  }

  /** A unit for a flow that has none, last in the list. There must be room. */
  open(segment: Segment): Unit {
    if (this.#freeCount === 0) this.#grow();
    const unit = this.#free[--this.#freeCount];
    const { key } = segment;
    const hash = this.hashOf(segment);
    unit.hash = hash;
    unit.tag = this.#tagOf(segment);
    unit.key0 = key[0];
    unit.key1 = key[1];
    unit.key2 = key[2];
    unit.vlan = segment.vlan;
    const row = unit.index * this.#keyWords;
    for (let i = 0; i < this.#keyWords; i++) this.#keys[row + i] = key[i];
    let at = hash & this.#mask;
    while (this.#buckets[at] !== null) at = at + 1 & this.#mask;
    this.#buckets[at] = unit;
    unit.previous = this.newest;
    unit.following = null;
    if (this.newest === null) this.oldest = unit;
    else this.newest.following = unit;
    this.newest = unit;
    this.#count++;
    this.#enlist(unit, this.#hash(segment, this.#addressWords) & PAIR_SLOTS - 1);
    this.#recent.remember(unit);
    return unit;
  }

  /** Takes a unit out. Its frame is the caller's. */
  close(unit: Unit): void {
    this.#unhash(unit);
    this.#recent.forget(unit);
    if (unit.previous === null) this.oldest = unit.following;
    else unit.previous.following = unit.following;
    if (unit.following === null) this.newest = unit.previous;
    else unit.following.previous = unit.previous;
    unit.previous = null;
    unit.following = null;
    unit.frame = null;
    unit.tail = null;
    this.#delist(unit);
    this.#free[this.#freeCount++] = unit;
    this.#count--;
  }

  /**
   * The first of a list, through `followingOfPair`, in order of opening, of all units between the addresses of this segment
   * in this direction, and maybe some others: `hasPair` tells. Null if there is none.
   */
  firstOfPair(segment: Segment): Unit | null {
    return this.#pairFirst[this.#hash(segment, this.#addressWords) & PAIR_SLOTS - 1];
  }

  /** Is this unit between the addresses of this segment, in this direction and VLAN? */
  hasPair(unit: Unit, segment: Segment): boolean {
    if (unit.vlan !== segment.vlan) return false;
    const row = unit.index * this.#keyWords;
    for (let i = 0; i < this.#addressWords; i++) if (this.#keys[row + i] !== segment.key[i]) return false;
    return true;
  }

  #search(segment: Segment): Unit | null {
    const hash = this.hashOf(segment);
    const buckets = this.#buckets;
    const mask = this.#mask;
    for (let at = hash & mask;; at = at + 1 & mask) {
      const unit = buckets[at];
      if (unit === null) return null;
      if (unit.hash === hash && this.#hasKey(unit, segment)) {
        this.#recent.remember(unit);
        return unit;
      }
    }
  }

  /** What tells most flows apart: the ports, the last word of the source, and the VLAN. */
  #tagOf({ key, vlan }: Segment): number {
    return key[this.#addressWords] ^ key[(this.#addressWords >>> 1) - 1] ^ vlan;
  }

  #hasKey(unit: Unit, segment: Segment): boolean {
    const { key } = segment;
    if (unit.key0 !== key[0] || unit.key1 !== key[1] || unit.key2 !== key[2]) return false;
    if (unit.vlan !== segment.vlan) return false;
    const words = this.#keyWords;
    const keys = this.#keys;
    const row = unit.index * words;
    for (let i = 3; i < words; i++) if (keys[row + i] !== key[i]) return false;
    return true;
  }

  /** The hash of the VLAN and the first `words` words of a key. */
  #hash({ key, vlan }: Segment, words: number): number {
    const secrets = this.#secrets;
    const last = secrets.length - 2;
    let sum = Math.imul(vlan & 0xffff, secrets[last]) + Math.imul(vlan >>> 16, secrets[last + 1]) | 0;
    for (let i = 0; i < words; i++) {
      const word = key[i];
      sum = sum + Math.imul(word & 0xffff, secrets[2 * i]) + Math.imul(word >>> 16, secrets[2 * i + 1]) | 0;
    }
    sum = Math.imul(sum ^ sum >>> 16, 0x9e3779b1);
    return sum ^ sum >>> 15;
  }

  #enlist(unit: Unit, slot: number): void {
    const last = this.#pairLast[slot];
    unit.pairSlot = slot;
    unit.previousOfPair = last;
    unit.followingOfPair = null;
    if (last === null) this.#pairFirst[slot] = unit;
    else last.followingOfPair = unit;
    this.#pairLast[slot] = unit;
  }

  #delist(unit: Unit): void {
    const { previousOfPair, followingOfPair, pairSlot } = unit;
    if (previousOfPair === null) this.#pairFirst[pairSlot] = followingOfPair;
    else previousOfPair.followingOfPair = followingOfPair;
    if (followingOfPair === null) this.#pairLast[pairSlot] = previousOfPair;
    else followingOfPair.previousOfPair = previousOfPair;
    unit.previousOfPair = null;
    unit.followingOfPair = null;
  }

  #unhash(unit: Unit): void {
    const buckets = this.#buckets;
    const mask = this.#mask;
    let hole = unit.hash & mask;
    while (buckets[hole] !== unit) hole = hole + 1 & mask;
    for (let at = hole + 1 & mask; buckets[at] !== null; at = at + 1 & mask) {
      const home = buckets[at]!.hash & mask;
      // An entry may move into the hole unless its home lies between the hole and itself.
      if ((at - home & mask) >= (at - hole & mask)) {
        buckets[hole] = buckets[at];
        hole = at;
      }
    }
    buckets[hole] = null;
  }

  #grow(): void {
    const from = this.#made;
    const to = Math.min(this.maxFlows, Math.max(64, from * 2));
    for (let i = to - 1; i >= from; i--) this.#free[this.#freeCount++] = new Unit(i);
    this.#made = to;
    const keys = new Int32Array(to * this.#keyWords);
    keys.set(this.#keys);
    this.#keys = keys;
    let buckets = 16;
    while (buckets < to * 2) buckets *= 2;
    this.#buckets = new Array<Unit | null>(buckets).fill(null);
    this.#mask = buckets - 1;
    this.#recent = new RecentUnits(buckets);
    for (let unit = this.oldest; unit !== null; unit = unit.following) {
      let at = unit.hash & this.#mask;
      while (this.#buckets[at] !== null) at = at + 1 & this.#mask;
      this.#buckets[at] = unit;
    }
  }
}

// Where the unit of a flow was last found: a shortcut past the hash of the whole key.
//
// Theory of operation. Segments come in trains of few flows, so most finds repeat an earlier one. A *tag*, one word made of a key
// by one operation, picks a place, and the place remembers one unit and its tag. Whoever asks compares whole keys, so that a
// wrong unit costs a comparison and is no error. Tags are easy to collide on purpose; who does so gets what he would have had
// without the shortcut: the table behind it, whose hash is secret.
//
// Invariant: a unit that is remembered is in the table. The tags stand apart from the units, so that a place which remembers
// another flow is recognised without a look at that flow's unit, which may be far away.

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
