/**
 * A short memory of duplicate ACKs that have just passed.
 * @module
 */
import { MAX_KEY_WORDS, type Segment } from "./segment.ts";

const SLOTS = 256;
/** The key, then sequence number, acknowledgment number, window and VLAN. */
const ENTRY_WORDS = MAX_KEY_WORDS + 4;

/**
 * Remembers the pure ACK that let a unit with data go because it said nothing new. Equal ones that follow are passed at
 * once instead of opening a unit: a sender counts three of them before it retransmits, and waits for none longer than it
 * must (RFC 5681, section 3.2). One slot for each of 256 values of an unseeded hash: what is delivered must not depend on a
 * seed. A flow that takes another's slot costs the other a delay of one interval at most.
 */
export class DuplicateAcks {
  readonly #keyWords: number;
  readonly #entries = new Int32Array(SLOTS * ENTRY_WORDS);

  /** Remembers nothing yet. @param keyWords 32-bit words of a flow's key */
  constructor(keyWords: number) {
    this.#keyWords = keyWords;
  }

  /** Remembers the pure ACK at hand. */
  remember(segment: Segment): void {
    const row = this.#rowOf(segment);
    const entries = this.#entries;
    for (let i = 0; i < this.#keyWords; i++) entries[row + i] = segment.key[i];
    entries[row + MAX_KEY_WORDS] = segment.seq;
    entries[row + MAX_KEY_WORDS + 1] = segment.ack;
    entries[row + MAX_KEY_WORDS + 2] = segment.window;
    entries[row + MAX_KEY_WORDS + 3] = segment.vlan;
  }

  /** Is the pure ACK at hand equal to the one of its flow that is remembered? */
  isRepeated(segment: Segment): boolean {
    const row = this.#rowOf(segment);
    const entries = this.#entries;
    if (
      entries[row + MAX_KEY_WORDS] !== segment.seq || entries[row + MAX_KEY_WORDS + 1] !== segment.ack ||
      entries[row + MAX_KEY_WORDS + 2] !== segment.window ||
      entries[row + MAX_KEY_WORDS + 3] !== segment.vlan
    ) return false;
    for (let i = 0; i < this.#keyWords; i++) if (entries[row + i] !== segment.key[i]) return false;
    return true;
  }

  /** Forgets everything. */
  clear(): void {
    this.#entries.fill(0);
  }

  #rowOf(segment: Segment): number {
    let hash = 0;
    for (let i = 0; i < this.#keyWords; i++) {
      hash = Math.imul(hash ^ segment.key[i], 0x9e3779b1) ^ hash >>> 15;
    }
    return (hash >>> 24) * ENTRY_WORDS;
  }
}
