/**
 * The chain: what holds segments and lets units go, whatever the family and the rule book.
 *
 * Theory of operation. A frame comes to `process` and is judged by `take`, which a rule book implements. It passes the
 * frame on, opens a unit with it (`hold`), merges it into the unit of its flow (`mergePayload`), or first lets that unit
 * go (`drain`) and then does one of the three. A unit is a frame whose further pieces are the payloads merged into it; no
 * payload is copied, except small ones, so that a flood of tiny segments costs memory by bytes and not by segments. What
 * merging changes in the headers is kept in the unit and written by `finish` once, when it leaves.
 *
 * One timer: armed when a unit is opened in an *empty* table, not moved by anything that follows, and draining the whole
 * table in order of opening when it is due. A unit therefore never waits longer than the interval, and all that is due
 * leaves in one batch. The table is that of all queue pairs: a flow that moves to another one meets its unit.
 *
 * Invariants: a frame held is owned by exactly one unit; a flow has at most one unit in a table; units leave in order of
 * opening unless their flow makes them leave earlier.
 *
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import type { FlowClaims } from "../../pipeline/flow_claims.ts";
import type { Frame } from "../../pipeline/frame.ts";
import type { FrameBatch } from "../../pipeline/frame_batch.ts";
import type { Negotiated, Stage, StageContext, VerdictLog } from "../../pipeline/stage.ts";
import { FlowTable } from "./flow_table.ts";
import type { RscFamily, RscOptions } from "./plugin.ts";
import { MAX_KEY_WORDS, Segment } from "./segment.ts";
import type { Unit } from "./unit.ts";

/** Payloads up to this size are copied behind the last piece of their unit, if there is room, instead of linked. */
const COPIED_PAYLOAD_BYTES = 256;

/** Offset of the EtherType in a frame. */
const ETHER_TYPE = 12;

/** One family's held units, under one rule book. */
export abstract class RscChain implements Stage {
  /** v4 or v6. */
  protected readonly family: RscFamily;
  /** What the configuration says. */
  protected readonly options: RscOptions;
  /** The name under which it runs. */
  protected readonly name: string;
  /** Where to explain what happens; null if nobody listens. */
  protected readonly verdicts: VerdictLog | null;
  /** The segment at hand. */
  protected readonly segment: Segment = new Segment();
  /** What the threads of other queue pairs are told of what is held here; null if there are none. */
  protected readonly claims: FlowClaims | null;
  /** What is held. */
  protected readonly table: FlowTable;
  #timerNs = Infinity;
  readonly #intervalNs: number;
  /** The batch to which `take` puts frames out; only set while a hook of the stage runs. */
  protected output!: FrameBatch;

  /** An empty chain. @param maxFlows units held at most */
  constructor(family: RscFamily, context: StageContext, options: RscOptions, maxFlows: number) {
    this.family = family;
    this.options = options;
    this.name = context.name;
    this.verdicts = context.verdicts;
    this.claims = context.claims ?? null;
    this.table = new FlowTable(family.keyWords, maxFlows);
    this.#intervalNs = Math.round(options.intervalUs * 1000);
  }

  /** Judges one frame and puts it out, holds it, or merges it. */
  protected abstract take(frame: Frame, nowNs: number): void;

  /** Writes into a unit that is about to leave what merging has changed. */
  protected abstract finish(unit: Unit, frame: Frame): void;

  /** The timer has run out and `units` have left. */
  protected abstract timerFired(units: number): void;

  /** The guest has agreed to something: is this family to be coalesced from now on? */
  abstract negotiated(state: Negotiated, output: FrameBatch, nowNs: number): void;

  /** The guest asks for other offloads; see {@linkcode Stage}. */
  offloadsRequested?(mask: FeatureSet): void;

  /** Takes every frame of `input`. */
  process(input: FrameBatch, output: FrameBatch, nowNs: number): void {
    this.output = output;
    for (let i = 0; i < input.length; i++) this.take(input.at(i), nowNs);
  }

  /** When the timer runs out, in ns. */
  deadlineNs(): number {
    return this.#timerNs;
  }

  /** Lets all units go, in order of opening, if the timer has run out or `nowNs` is Infinity. */
  flush(output: FrameBatch, nowNs: number): void {
    if (this.#timerNs > nowNs) return;
    this.output = output;
    const units = this.table.count;
    for (let unit = this.table.oldest; unit !== null; unit = this.table.oldest) this.drain(unit);
    if (nowNs !== Infinity) this.timerFired(units);
    this.#timerNs = Infinity;
  }

  /** Lets go everything that is held, to be counted and released. */
  reset(output: FrameBatch): void {
    this.flush(output, Infinity);
  }

  /** The EtherType of a frame whose first piece has at least 14 bytes. */
  protected etherTypeOf(frame: Frame): number {
    return frame.view.getUint16(frame.start + ETHER_TYPE);
  }

  /** Opens a unit with the located segment. The caller has made sure that there is room and that the flow has none. */
  protected hold(frame: Frame, nowNs: number): Unit {
    const { segment, table } = this;
    if (table.count === 0) this.#timerNs = nowNs + this.#intervalNs;
    const unit = table.open(segment);
    frame.offerAgain = false;
    unit.frame = frame;
    unit.tail = frame;
    unit.totalBytes = frame.total;
    unit.pieces = 1;
    unit.owner = frame.owner;
    unit.ipAt = segment.ipAt;
    unit.tcpAt = segment.tcpAt;
    unit.tcpHeaderBytes = segment.tcpHeaderBytes;
    unit.seq = segment.seq;
    unit.payloadBytes = segment.payloadBytes;
    unit.ipLength = segment.ipLength;
    unit.ack = segment.ack;
    unit.window = segment.window;
    unit.offsetFlags = segment.offsetFlags;
    unit.changed = false;
    return unit;
  }

  /** Appends the located segment's payload to a unit and takes the frame over. */
  protected mergePayload(unit: Unit, frame: Frame): void {
    const { payloadAt, payloadBytes } = this.segment;
    const tail = unit.tail!;
    if (payloadBytes <= COPIED_PAYLOAD_BYTES && payloadBytes <= tail.tailRoom) {
      const to = tail.start + tail.length;
      if (payloadBytes > 0) {
        tail.bytes.set(new Uint8Array(frame.bytes.buffer, payloadAt, payloadBytes), to);
        tail.length += payloadBytes;
      }
      frame.release();
    } else {
      frame.start = payloadAt;
      frame.length = payloadBytes;
      frame.isOwned = false;
      tail.next = frame;
      unit.tail = frame;
      unit.pieces++;
      if (frame.owner !== unit.owner) unit.owner = null;
    }
    unit.payloadBytes += payloadBytes;
    unit.totalBytes += payloadBytes;
    unit.changed = true;
  }

  /** Lets a unit go. */
  protected drain(unit: Unit): void {
    const frame = unit.frame!;
    frame.last = unit.tail!;
    frame.total = unit.totalBytes;
    frame.pieces = unit.owner === null ? 0 : unit.pieces;
    this.finish(unit, frame);
    if (unit.claim >= 0) {
      this.claims!.release(unit.claim);
      unit.claim = -1;
    }
    this.table.close(unit);
    this.output.push(frame);
  }
}

// How many units stand before a given one in a list that loses entries anywhere and gains them at its end only.

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

// A short memory of duplicate ACKs that have just passed.

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
