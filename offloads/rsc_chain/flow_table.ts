/**
 * What one chain holds, by flow: found in constant time, listed in order of opening.
 *
 * Theory of operation. A flow found or opened lately is found again by a shortcut (`RecentFlows`). Behind it,
 * `buckets` is an open-addressed hash table (linear probing, at most half full, deletion by moving later
 * entries up, so there are no tombstones). The hash is a sum of 16-bit halves of the key, each times a secret
 * of its own (multiply-shift hashing: any two keys collide in the upper bits by chance only), and then mixed
 * into the lower bits: a sender cannot choose colliding flows. A list through `previous` and `following`
 * keeps the order of opening, which is the order of flushing; the hash decides nothing that can be seen. The
 * table grows by doubling up to `maxFlows` and is reused, so in steady state nothing is allocated. A second
 * set of lists, through `previousOfPair` and `followingOfPair`, one for each of 4096 hashes of the two
 * addresses, serves frames whose ports cannot be seen: they look at a few flows and not at all.
 *
 * The shortcut: segments come in trains of few flows, so most finds repeat an earlier one. A *tag*, one word
 * made of a key by one operation, picks a place, which remembers the tag and what is held of its flow. `find`
 * compares whole keys, so that a wrong guess costs a comparison and is no error. Tags are easy to collide on
 * purpose; that makes the shortcut useless and leaves the table behind it.
 *
 * Invariants: everything in the list is in exactly one bucket and in the list of its `pairSlot`; `count` is
 * the length of the list; keys are pairwise different; what the shortcut remembers is in the table.
 *
 * @module
 */
import { CoalescedSegment, type ParsedSegment } from "./segments.ts";

/** Lists by the hash of the addresses; a power of two. */
const PAIR_SLOTS = 4096;

/** A bounded table of what is held, keyed by flow. */
export class FlowTable {
  /** Most flows it will hold. */
  readonly maxFlows: number;
  readonly #keyWords: number;
  readonly #addressWords: number;
  readonly #secrets: Int32Array;
  readonly #pairFirst: (CoalescedSegment | null)[] = new Array<CoalescedSegment | null>(PAIR_SLOTS).fill(
    null,
  );
  readonly #pairLast: (CoalescedSegment | null)[] = new Array<CoalescedSegment | null>(PAIR_SLOTS).fill(null);
  #free: CoalescedSegment[] = [];
  #freeCount = 0;
  #made = 0;
  #keys: Int32Array;
  #buckets: (CoalescedSegment | null)[];
  #mask: number;
  #recent: RecentFlows;
  #count = 0;
  /** The one opened first. */
  oldest: CoalescedSegment | null = null;
  /** The one opened last. */
  newest: CoalescedSegment | null = null;

  /**
   * An empty table. @param keyWords 32-bit words of a key, of which the last holds the ports; @param maxFlows
   * flows at most
   */
  constructor(keyWords: number, maxFlows: number) {
    this.#keyWords = keyWords;
    this.#addressWords = keyWords - 1;
    this.maxFlows = maxFlows;
    this.#secrets = crypto.getRandomValues(new Int32Array(2 * keyWords + 2));
    this.#keys = new Int32Array(0);
    this.#buckets = new Array<CoalescedSegment | null>(16).fill(null);
    this.#mask = 15;
    this.#recent = new RecentFlows(16);
  }

  /** Flows held. */
  get count(): number {
    return this.#count;
  }

  /** Is there no room for another flow? */
  get isFull(): boolean {
    return this.#count >= this.maxFlows;
  }

  /** The hash of a segment's flow. */
  hashOf(segment: ParsedSegment): number {
    return this.#hash(segment, this.#keyWords);
  }

  /** What is held of the segment's flow, or null. */
  find(segment: ParsedSegment): CoalescedSegment | null {
    const held = this.#recent.recall(this.#tagOf(segment));
    return held !== null && this.#hasKey(held, segment) ? held : this.#search(segment);
  }

  /** A place for a flow of which nothing is held, last in the list. There must be room. */
  open(segment: ParsedSegment): CoalescedSegment {
    if (this.#freeCount === 0) this.#grow();
    const held = this.#free[--this.#freeCount];
    const { key } = segment;
    const hash = this.hashOf(segment);
    held.hash = hash;
    held.tag = this.#tagOf(segment);
    held.key0 = key[0];
    held.key1 = key[1];
    held.key2 = key[2];
    held.vlan = segment.vlan;
    const row = held.index * this.#keyWords;
    for (let i = 0; i < this.#keyWords; i++) this.#keys[row + i] = key[i];
    let at = hash & this.#mask;
    while (this.#buckets[at] !== null) at = at + 1 & this.#mask;
    this.#buckets[at] = held;
    held.previous = this.newest;
    held.following = null;
    if (this.newest === null) this.oldest = held;
    else this.newest.following = held;
    this.newest = held;
    this.#count++;
    this.#enlist(held, this.#hash(segment, this.#addressWords) & PAIR_SLOTS - 1);
    this.#recent.remember(held);
    return held;
  }

  /** Takes a flow out. The frame is the caller's. */
  close(held: CoalescedSegment): void {
    this.#unhash(held);
    this.#recent.forget(held);
    if (held.previous === null) this.oldest = held.following;
    else held.previous.following = held.following;
    if (held.following === null) this.newest = held.previous;
    else held.following.previous = held.previous;
    held.previous = null;
    held.following = null;
    held.frame = null;
    held.tail = null;
    this.#delist(held);
    this.#free[this.#freeCount++] = held;
    this.#count--;
  }

  /**
   * The first of a list, through `followingOfPair`, in order of opening, of all that is held between the
   * addresses of this segment in this direction, and maybe some others: `hasPair` tells. Null if there is
   * none.
   */
  firstOfPair(segment: ParsedSegment): CoalescedSegment | null {
    return this.#pairFirst[this.#hash(segment, this.#addressWords) & PAIR_SLOTS - 1];
  }

  /** Is this held between the addresses of this segment, in this direction and VLAN? */
  hasPair(held: CoalescedSegment, segment: ParsedSegment): boolean {
    if (held.vlan !== segment.vlan) return false;
    const row = held.index * this.#keyWords;
    for (let i = 0; i < this.#addressWords; i++) if (this.#keys[row + i] !== segment.key[i]) return false;
    return true;
  }

  #search(segment: ParsedSegment): CoalescedSegment | null {
    const hash = this.hashOf(segment);
    const buckets = this.#buckets;
    const mask = this.#mask;
    for (let at = hash & mask;; at = at + 1 & mask) {
      const held = buckets[at];
      if (held === null) return null;
      if (held.hash === hash && this.#hasKey(held, segment)) {
        this.#recent.remember(held);
        return held;
      }
    }
  }

  /** What tells most flows apart: the ports, the last word of the source, and the VLAN. */
  #tagOf({ key, vlan }: ParsedSegment): number {
    return key[this.#addressWords] ^ key[(this.#addressWords >>> 1) - 1] ^ vlan;
  }

  #hasKey(held: CoalescedSegment, segment: ParsedSegment): boolean {
    const { key } = segment;
    if (held.key0 !== key[0] || held.key1 !== key[1] || held.key2 !== key[2]) return false;
    if (held.vlan !== segment.vlan) return false;
    const words = this.#keyWords;
    const keys = this.#keys;
    const row = held.index * words;
    for (let i = 3; i < words; i++) if (keys[row + i] !== key[i]) return false;
    return true;
  }

  /** The hash of the VLAN and the first `words` words of a key. */
  #hash({ key, vlan }: ParsedSegment, words: number): number {
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

  #enlist(held: CoalescedSegment, slot: number): void {
    const last = this.#pairLast[slot];
    held.pairSlot = slot;
    held.previousOfPair = last;
    held.followingOfPair = null;
    if (last === null) this.#pairFirst[slot] = held;
    else last.followingOfPair = held;
    this.#pairLast[slot] = held;
  }

  #delist(held: CoalescedSegment): void {
    const { previousOfPair, followingOfPair, pairSlot } = held;
    if (previousOfPair === null) this.#pairFirst[pairSlot] = followingOfPair;
    else previousOfPair.followingOfPair = followingOfPair;
    if (followingOfPair === null) this.#pairLast[pairSlot] = previousOfPair;
    else followingOfPair.previousOfPair = previousOfPair;
    held.previousOfPair = null;
    held.followingOfPair = null;
  }

  #unhash(held: CoalescedSegment): void {
    const buckets = this.#buckets;
    const mask = this.#mask;
    let hole = held.hash & mask;
    while (buckets[hole] !== held) hole = hole + 1 & mask;
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
    for (let i = to - 1; i >= from; i--) this.#free[this.#freeCount++] = new CoalescedSegment(i);
    this.#made = to;
    const keys = new Int32Array(to * this.#keyWords);
    keys.set(this.#keys);
    this.#keys = keys;
    let buckets = 16;
    while (buckets < to * 2) buckets *= 2;
    this.#buckets = new Array<CoalescedSegment | null>(buckets).fill(null);
    this.#mask = buckets - 1;
    this.#recent = new RecentFlows(buckets);
    for (let held = this.oldest; held !== null; held = held.following) {
      let at = held.hash & this.#mask;
      while (this.#buckets[at] !== null) at = at + 1 & this.#mask;
      this.#buckets[at] = held;
    }
  }
}

/**
 * One place for each of a power of two of tags, kept apart from what they lead to, which may be far away in
 * memory.
 */
export class RecentFlows {
  readonly #tags: Int32Array<ArrayBuffer>;
  readonly #found: (CoalescedSegment | null)[];
  readonly #shift: number;

  /** Remembers nothing yet. @param places a power of two, from 2 */
  constructor(places: number) {
    this.#tags = new Int32Array(places);
    this.#found = new Array<CoalescedSegment | null>(places).fill(null);
    this.#shift = 32 - Math.log2(places);
  }

  /** What was remembered with this tag, or null. */
  recall(tag: number): CoalescedSegment | null {
    const at = this.#placeOf(tag);
    return this.#tags[at] === tag ? this.#found[at] : null;
  }

  /** Remembers this by its tag, in place of what was there. */
  remember(held: CoalescedSegment): void {
    const at = this.#placeOf(held.tag);
    this.#tags[at] = held.tag;
    this.#found[at] = held;
  }

  /** Forgets what leaves the table. */
  forget(held: CoalescedSegment): void {
    const at = this.#placeOf(held.tag);
    if (this.#found[at] === held) this.#found[at] = null;
  }

  #placeOf(tag: number): number {
    return Math.imul(tag, 0x9e3779b1) >>> this.#shift;
  }
}
