/**
 * Which queue pair's thread holds segments of which flow, so that none overtakes them in another thread.
 *
 * Theory of operation. With the queue pairs in threads, the network chooses the pair of each frame, and may
 * move a flow at any time. The thread that then gets the flow cannot see what the old one has of it. So a
 * thread that holds a segment, or passes one on, *claims* its flow, in a table that all threads of a device
 * share: one word for each of 65536 hashes of a flow, with the pair and more bits of the hash. Where another
 * pair has the claim, this thread asks for it and stands still until it is released. That takes the other
 * thread one round, or, if it sleeps, as long as a segment may be held; and at most 10 ms, for the other
 * thread may have been preempted, or its guest may give it no buffers. Then the claim is taken away, so that
 * a flow waits once. A claim is released only when what was claimed is in the guest's ring and shown to it
 * (`settle`).
 *
 *     free --claim--> pair a --release, settle--> free
 *                       +-----10 ms waited----> pair b
 *
 * Two flows of one word cannot be claimed together; the second one is not held, and may be overtaken. The
 * hash has a seed that no peer knows. A claim is a hint and nothing that memory depends on: no wait is
 * without end, whatever the other threads do.
 *
 * Limits: frames that hide their ports (fragments) belong to no single flow, and are not waited for; nor is a
 * flow that moves back while the segment that moved it away still waits.
 *
 * @module
 */

const SLOTS = 65_536;
/** The low bits of a claim: the pair, from 1. The rest are bits of the hash that the slot does not tell. */
const PAIR_BITS = 9;
/** How long a thread waits for a claim, in ms, and how often it looks meanwhile. */
const WAIT_LIMIT_MS = 10;
const LOOK_INTERVAL_MS = 0.05;
/** In front of the slots: the seed, and for each pair, from 1, whether another waits for it. */
const HEAD_WORDS = 1 << PAIR_BITS;

/** The memory of the claims of one device, for all its threads; nothing is claimed. */
export function newClaimMemory(): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer(4 * (HEAD_WORDS + SLOTS));
  new Int32Array(buffer)[0] = crypto.getRandomValues(new Int32Array(1))[0];
  return buffer;
}

/** The claims of one queue pair. */
export class FlowClaims {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #pair: number;
  /** How many segments are held here under each slot, those that wait for `settle` included. */
  readonly #held = new Uint16Array(SLOTS);
  readonly #released = new Int32Array(SLOTS);
  #releasedCount = 0;
  readonly #waitLimitMs: number;
  #slot = 0;
  #mine = 0;

  /**
   * Claims nothing yet.
   * @param buffer from {@linkcode newClaimMemory}; @param pair the queue pair, 0 to 510; @param waitLimitMs
   * how long it waits
   */
  constructor(buffer: SharedArrayBuffer, pair: number, waitLimitMs = WAIT_LIMIT_MS) {
    this.#words = new Int32Array(buffer);
    this.#waitLimitMs = waitLimitMs;
    this.#pair = pair + 1;
  }

  /**
   * Claims a flow for a segment that is to be held; waits if another pair holds one. Returns the slot, to be
   * released; -1 if the segment must not be held.
   * @param key the first `words` of it make the flow, together with `salt`
   */
  claim(key: Int32Array, words: number, salt: number): number {
    this.#locate(key, words, salt);
    const at = HEAD_WORDS + this.#slot;
    let owner = Atomics.compareExchange(this.#words, at, 0, this.#mine);
    if (owner !== 0 && this.#isElsewhere(owner)) {
      this.#wait(owner);
      owner = Atomics.compareExchange(this.#words, at, 0, this.#mine);
      // What is still there after the wait is not waited for again.
      if (owner !== 0 && this.#isElsewhere(owner)) {
        owner = Atomics.compareExchange(this.#words, at, owner, this.#mine) === owner ? 0 : owner;
      }
    }
    if (owner !== 0 && owner !== this.#mine) return -1;
    if (this.#held[this.#slot] === 0xffff) return -1;
    this.#held[this.#slot]++;
    return this.#slot;
  }

  /**
   * A frame of the flow is to pass: waits if another pair has claimed it. The flow is claimed until the frame
   * is shown to the guest, for the next one may come to another pair before that.
   */
  pass(key: Int32Array, words: number, salt: number): void {
    const slot = this.claim(key, words, salt);
    if (slot >= 0) this.release(slot);
  }

  /** What was claimed by this slot has left the stage. */
  release(slot: number): void {
    // A round releases far fewer, so that there are as many only if they have not been settled for long.
    if (this.#releasedCount === SLOTS) this.settle();
    this.#released[this.#releasedCount++] = slot;
  }

  /** What has left the stages has been shown to the guest, or is gone. */
  settle(): void {
    for (let i = 0; i < this.#releasedCount; i++) {
      const slot = this.#released[i];
      if (--this.#held[slot] > 0) continue;
      const at = HEAD_WORDS + slot;
      const owner = Atomics.load(this.#words, at);
      if ((owner & (1 << PAIR_BITS) - 1) === this.#pair) Atomics.compareExchange(this.#words, at, owner, 0);
    }
    this.#releasedCount = 0;
  }

  /** Does another pair wait for something that is held here? Once for each that has come to wait. */
  takeWanted(): boolean {
    if (Atomics.load(this.#words, this.#pair) === 0) return false;
    Atomics.store(this.#words, this.#pair, 0);
    return true;
  }

  /** Is it the same flow, claimed by another pair? */
  #isElsewhere(owner: number): boolean {
    return owner !== this.#mine && (owner ^ this.#mine) >>> PAIR_BITS === 0;
  }

  /** Waits while the slot has this owner. False if it still has. */
  #wait(owner: number): boolean {
    const at = HEAD_WORDS + this.#slot;
    const untilMs = performance.now() + this.#waitLimitMs;
    Atomics.store(this.#words, owner & (1 << PAIR_BITS) - 1, 1);
    do {
      if (Atomics.wait(this.#words, at, owner, LOOK_INTERVAL_MS) === "not-equal") return true;
    } while (performance.now() < untilMs);
    return Atomics.load(this.#words, at) !== owner;
  }

  #locate(key: Int32Array, words: number, salt: number): void {
    let hash = this.#words[0] ^ salt;
    let other = salt;
    for (let i = 0; i < words; i++) {
      hash = Math.imul(hash ^ key[i], 0x9e3779b1);
      hash ^= hash >>> 15;
      other = Math.imul(other + key[i] ^ hash, 0x85ebca77);
    }
    hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
    this.#slot = (hash ^ hash >>> 16) & SLOTS - 1;
    this.#mine = (other ^ other >>> 15) << PAIR_BITS | this.#pair;
  }
}
