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
 * Keys, and all that segments are compared with, are rows of numbers in the arena: the kernel finds flows by
 * the shortcut and merges into the rows (`kernels/coalesce.as.ts`). When the arena has no room for more, the
 * table goes on in ordinary memory, and the kernel has nothing to do.
 *
 * Invariants: everything in the list is in exactly one bucket and in the list of its `pairSlot`; `count` is
 * the length of the list; keys are pairwise different; what the shortcut remembers is in the table.
 *
 * @module
 */
import type { Arena } from "../../rings/arena.ts";
import { KEY, ROW_WORDS } from "../../kernels/flow_layout.ts";
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
  /** Everything made so far, by number. */
  readonly #made: CoalescedSegment[] = [];
  readonly #arena: Arena | null;
  #isInArena: boolean;
  #buckets: (CoalescedSegment | null)[];
  #mask: number;
  #rows: Words;
  #recent: RecentFlows;
  #count = 0;
  /** The one opened first. */
  oldest: CoalescedSegment | null = null;
  /** The one opened last. */
  newest: CoalescedSegment | null = null;

  /**
   * An empty table. @param keyWords 32-bit words of a key, of which the last holds the ports; @param maxFlows
   * flows at most; @param arena where its rows are to lie, so that the kernel reaches them
   */
  constructor(keyWords: number, maxFlows: number, arena: Arena | null = null) {
    this.#keyWords = keyWords;
    this.#addressWords = keyWords - 1;
    this.maxFlows = maxFlows;
    this.#secrets = crypto.getRandomValues(new Int32Array(2 * keyWords + 2));
    this.#buckets = new Array<CoalescedSegment | null>(16).fill(null);
    this.#mask = 15;
    this.#arena = arena;
    this.#isInArena = arena !== null;
    this.#rows = this.#allocate(0);
    this.#recent = new RecentFlows(16, this.#allocate(16 * PLACE_WORDS));
  }

  /** Flows held. */
  get count(): number {
    return this.#count;
  }

  /** Is there no room for another flow? */
  get isFull(): boolean {
    return this.#count >= this.maxFlows;
  }

  /** What is held as number `index` of the table. */
  heldBy(index: number): CoalescedSegment {
    return this.#made[index];
  }

  /** Where the rows begin in the arena, in bytes; 0 if they are not there. */
  get rowsAt(): number {
    return this.#isInArena ? 4 * this.#rows.at : 0;
  }

  /** The shortcut to what was found lately. */
  get recent(): RecentFlows {
    return this.#recent;
  }

  /** The hash of a segment's flow. */
  hashOf(segment: ParsedSegment): number {
    return this.#hash(segment, this.#keyWords);
  }

  /** What is held of the segment's flow, or null. */
  find(segment: ParsedSegment): CoalescedSegment | null {
    const index = this.#recent.recall(this.#tagOf(segment));
    if (index < 0) return this.#search(segment);
    const held = this.#made[index];
    return this.#hasKey(held, segment) ? held : this.#search(segment);
  }

  /** A place for a flow of which nothing is held, last in the list. There must be room. */
  open(segment: ParsedSegment): CoalescedSegment {
    if (this.#freeCount === 0) this.#grow();
    const held = this.#free[--this.#freeCount];
    const { key } = segment;
    const hash = this.hashOf(segment);
    held.hash = hash;
    held.tag = this.#tagOf(segment);
    held.vlan = segment.vlan;
    const row = held.at + KEY;
    for (let i = 0; i < this.#keyWords; i++) held.row[row + i] = key[i];
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
    const row = held.at + KEY;
    for (let i = 0; i < this.#addressWords; i++) if (held.row[row + i] !== segment.key[i]) return false;
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

  #hasKey(held: CoalescedSegment, { key, vlan }: ParsedSegment): boolean {
    if (held.vlan !== vlan) return false;
    const words = this.#keyWords;
    const row = held.at + KEY;
    for (let i = 0; i < words; i++) if (held.row[row + i] !== key[i]) return false;
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

  /**
   * Words for rows or places, all 0: in the arena as long as it has room, then in ordinary memory for good.
   */
  #allocate(words: number): Words {
    const at = this.#isInArena ? this.#arena!.allocate(4 * words) : null;
    if (at !== null) return { words: this.#arena!.ints, at: at / 4 };
    this.#isInArena = false;
    return { words: new Int32Array(words), at: 0 };
  }

  #grow(): void {
    const from = this.#made.length;
    const to = Math.min(this.maxFlows, Math.max(64, from * 2));
    const old = this.#rows;
    const rows = this.#allocate(to * ROW_WORDS);
    this.#rows = rows;
    rows.words.set(old.words.subarray(old.at, old.at + from * ROW_WORDS), rows.at);
    for (const held of this.#made) {
      held.row = rows.words;
      held.at = rows.at + held.index * ROW_WORDS;
    }
    for (let i = from; i < to; i++) {
      this.#made.push(new CoalescedSegment(i, rows.words, rows.at + i * ROW_WORDS));
    }
    for (let i = to - 1; i >= from; i--) this.#free[this.#freeCount++] = this.#made[i];
    let buckets = 16;
    while (buckets < to * 2) buckets *= 2;
    this.#buckets = new Array<CoalescedSegment | null>(buckets).fill(null);
    this.#mask = buckets - 1;
    this.#recent = new RecentFlows(buckets, this.#allocate(buckets * PLACE_WORDS));
    for (let held = this.oldest; held !== null; held = held.following) {
      let at = held.hash & this.#mask;
      while (this.#buckets[at] !== null) at = at + 1 & this.#mask;
      this.#buckets[at] = held;
    }
  }
}

/** Words in some memory, from `at` on. */
interface Words {
  readonly words: Int32Array<ArrayBuffer>;
  readonly at: number;
}

/**
 * Words of a place of the shortcut: a tag, and the number of what is held by it, plus 1, or 0; and another
 * two.
 */
const PLACE_WORDS = 4;

/**
 * One place for each of a power of two of hashes of tags, each with room for two, kept apart from what they
 * lead to, which may be far away in memory. The kernel looks here as well.
 */
export class RecentFlows {
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #at: number;
  /** By how many bits a hash is shifted to become the number of a place. */
  readonly shift: number;

  /** Remembers nothing yet. @param places a power of two, from 2; @param memory for them, all 0 */
  constructor(places: number, memory: Words) {
    this.#words = memory.words;
    this.#at = memory.at;
    this.shift = 32 - Math.log2(places);
  }

  /** Where its places begin in their memory, in bytes. */
  get placesAt(): number {
    return 4 * this.#at;
  }

  /** The number of what was remembered with this tag, or -1. */
  recall(tag: number): number {
    const words = this.#words;
    const at = this.#placeOf(tag);
    if (words[at] === tag) return words[at + 1] - 1;
    return words[at + 2] === tag ? words[at + 3] - 1 : -1;
  }

  /** Remembers this by its tag, in place of what was remembered there longest. */
  remember({ tag, index }: CoalescedSegment): void {
    const words = this.#words;
    const at = this.#placeOf(tag);
    if (words[at] !== tag && words[at + 1] !== 0) {
      words[at + 2] = words[at];
      words[at + 3] = words[at + 1];
    }
    words[at] = tag;
    words[at + 1] = index + 1;
  }

  /** Forgets what leaves the table. */
  forget({ tag, index }: CoalescedSegment): void {
    const words = this.#words;
    const at = this.#placeOf(tag);
    if (words[at + 1] === index + 1) words[at + 1] = 0;
    if (words[at + 3] === index + 1) words[at + 3] = 0;
  }

  #placeOf(tag: number): number {
    return this.#at + PLACE_WORDS * (Math.imul(tag ^ tag >>> 16, 0x9e3779b1) >>> this.shift);
  }
}
