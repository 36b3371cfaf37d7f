/**
 * The chain: holds segments of one IP version, merges what follows, and flushes the result. Shared by both IP
 * versions and both rule books.
 *
 * Theory of operation. A frame comes to `process` and is judged by `take`, which a rule book implements. It
 * passes the frame, holds it as the first segment of its flow (`hold`), merges it into what is held of its
 * flow (`mergePayload`), or first flushes that (`flushFlow`) and then does one of the three. What is held is
 * a frame whose further pieces are the payloads merged into it; no payload is copied, except small ones, so
 * that a flood of tiny segments costs memory by bytes and not by segments. What merging changes in the
 * headers is kept in the `CoalescedSegment` and written by `finish`, once, at the flush.
 *
 * One timer: armed when a segment is held in an *empty* table, not moved by anything that follows. When it is
 * due, the whole table is flushed in order of opening. Nothing is therefore held longer than the interval,
 * and all that is due goes on in one batch. The table is that of all queue pairs: a flow that moves to
 * another one finds what is held of it.
 *
 * Invariants: a held frame is owned by exactly one `CoalescedSegment`; a flow has at most one in a table;
 * they are flushed in order of opening unless a frame of their flow flushes them earlier.
 *
 * @module
 */
import type { FlowClaims } from "../../pipeline/flow_claims.ts";
import { copyBytes, type Frame, type FrameBatch } from "../../pipeline/frame.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { Negotiated, Stage, StageContext, VerdictLog } from "../../pipeline/stage.ts";
import { ETHERNET_TYPE } from "../../wire/ethernet.ts";
import { MAX_ITEMS, PASSES, SegmentBurst } from "./burst.ts";
import { FlowTable } from "./flow_table.ts";
import { type CoalescedSegment, ParsedSegment, type RscFamily } from "./segments.ts";

/** What `rsc-v4` and `rsc-v6` can be told. */
export interface RscOptions {
  /** Longest time a segment is held, in µs; default 300, 0 merges only what arrives together. */
  intervalUs: number;
  /** Rule book; default the device's own. */
  rules?: RuleBook | undefined;
  /** Most flows held at once, as many again for each further queue pair; default 4096. */
  maxFlows: number;
  /** Most segments merged into one; default 1024. Strict rules only. */
  maxSegments: number;
  /** Flush a flow as soon as a segment with PSH is held of it; default false. Strict rules only. */
  flushOnPush: boolean;
  /** Flush flows that their senders have finished when the network has no more. Strict rules only. */
  flushOnIdle?: boolean | undefined;
  /** Merge segments with the TCP timestamp option; default true. Strict rules only. */
  timestamps: boolean;
}

/** Payloads up to this size are copied behind the last held piece, if there is room, instead of linked. */
const MAX_COPIED_BYTES = 256;

/** What is held of one family's flows, under one rule book. */
export abstract class RscChain implements Stage {
  /** v4 or v6. */
  protected readonly family: RscFamily;
  /** What the configuration says. */
  protected readonly options: RscOptions;
  /** The name under which it runs. */
  protected readonly name: string;
  /** Where to explain what happens; null if nothing listens. */
  protected readonly verdicts: VerdictLog | null;
  /** The segment at hand. */
  protected readonly segment: ParsedSegment = new ParsedSegment();
  /** What the threads of other queue pairs are told of what is held here; null if there are none. */
  protected readonly claims: FlowClaims | null;
  /** What is held. */
  protected readonly table: FlowTable;
  /** What the kernel is told; null where there is none, and where each frame is to be explained. */
  protected readonly burst: SegmentBurst | null;
  /** Has the kernel found the checksums of the frame at hand right? */
  protected isRight = false;
  #timerNs = Infinity;
  readonly #intervalNs: number;
  /** The batch for frames that pass or are flushed; only set while a hook of the stage runs. */
  protected output!: FrameBatch;

  /** An empty chain. @param maxFlows flows held at most */
  constructor(family: RscFamily, context: StageContext, options: RscOptions, maxFlows: number) {
    this.family = family;
    this.options = options;
    this.name = context.name;
    this.verdicts = context.verdicts;
    this.claims = context.claims ?? null;
    const { arena } = context.pool;
    this.table = new FlowTable(family.keyWords, maxFlows, arena);
    this.burst = this.verdicts === null ? SegmentBurst.make(arena, family.version) : null;
    this.#intervalNs = Math.round(options.intervalUs * 1000);
  }

  /** Judges one frame, and passes, holds or merges it. */
  protected abstract take(frame: Frame, nowNs: number): void;

  /** Writes what merging has changed into a frame that is about to be flushed. */
  protected abstract finish(held: CoalescedSegment, frame: Frame): void;

  /** The timer has run out and has flushed so many flows. */
  protected abstract timerFired(flows: number): void;

  /** The guest has agreed to something: is this family to be coalesced from now on? */
  abstract negotiated(state: Negotiated, output: FrameBatch, nowNs: number): void;

  /** Are frames merged at all now, so that the kernel has something to do? */
  protected abstract get mergesBursts(): boolean;

  /** The kernel has merged a segment into this: counts it. */
  protected abstract mergedInBurst(held: CoalescedSegment): void;

  /** Takes every frame of `input`. */
  process(input: FrameBatch, output: FrameBatch, nowNs: number): void {
    this.output = output;
    const { burst } = this;
    const { length } = input;
    if (burst === null || !this.mergesBursts) {
      for (let i = 0; i < length; i++) this.take(input.at(i), nowNs);
      return;
    }
    for (let from = 0; from < length; from += MAX_ITEMS) {
      this.#takeBurst(burst, input, from, Math.min(length, from + MAX_ITEMS), nowNs);
    }
  }

  /** Takes frames `from` to `end` - 1: the kernel what is usual, `take` what it stops at. */
  #takeBurst(burst: SegmentBurst, input: FrameBatch, from: number, end: number, nowNs: number): void {
    burst.fill(input, from, end);
    for (let i = from; i < end; i++) {
      const stop = from + burst.merge(i - from, this.table);
      for (; i < stop; i++) {
        const frame = input.at(i);
        const flow = burst.flowOf(i - from);
        if (flow === PASSES) this.output.push(frame);
        else {
          const held = this.table.heldBy(flow);
          this.#linkPayload(held, frame, burst.payloadAt(i - from), burst.payloadBytes(i - from));
          this.mergedInBurst(held);
        }
      }
      if (stop === end) return;
      this.isRight = burst.isRight;
      this.take(input.at(i), nowNs);
      this.isRight = false;
    }
  }

  /** When the timer runs out, in ns. */
  deadlineNs(): number {
    return this.#timerNs;
  }

  /** Flushes all flows, in order of opening, if the timer has run out or `nowNs` is Infinity. */
  flush(output: FrameBatch, nowNs: number): void {
    if (this.#timerNs > nowNs) return;
    this.output = output;
    const flows = this.table.count;
    for (let held = this.table.oldest; held !== null; held = this.table.oldest) this.flushFlow(held);
    if (nowNs !== Infinity) this.timerFired(flows);
    this.#timerNs = Infinity;
  }

  /**
   * Flushes, in order of opening, those of the `most` flows opened last that `isOver` names. Returns how
   * many.
   */
  protected flushSome(output: FrameBatch, most: number, isOver: (held: CoalescedSegment) => boolean): number {
    this.output = output;
    let held = this.table.newest;
    for (let i = 1; i < most && held !== null && held.previous !== null; i++) held = held.previous;
    let flows = 0;
    while (held !== null) {
      const { following } = held;
      if (isOver(held)) {
        this.flushFlow(held);
        flows++;
      }
      held = following;
    }
    if (this.table.count === 0) this.#timerNs = Infinity;
    return flows;
  }

  /** Flushes everything that is held, to be counted and released. */
  reset(output: FrameBatch): void {
    this.flush(output, Infinity);
  }

  /** The EtherType of a frame whose first piece has at least 14 bytes. */
  protected etherTypeOf(frame: Frame): number {
    return frame.view.getUint16(frame.start + ETHERNET_TYPE);
  }

  /** Holds the located segment. There must be room, and nothing held of its flow. */
  protected hold(frame: Frame, nowNs: number): CoalescedSegment {
    const { segment, table } = this;
    if (table.count === 0) this.#timerNs = nowNs + this.#intervalNs;
    const held = table.open(segment);
    frame.mark = 0;
    held.frame = frame;
    held.tail = frame;
    held.totalBytes = frame.total;
    held.pieces = 1;
    held.owner = frame.owner;
    held.begin(segment);
    held.changed = false;
    return held;
  }

  /** Appends the located segment's payload to what is held, and takes the frame over. */
  protected mergePayload(held: CoalescedSegment, frame: Frame): void {
    const { payloadAt, payloadBytes } = this.segment;
    this.#linkPayload(held, frame, payloadAt, payloadBytes);
    held.payloadBytes += payloadBytes;
    held.totalBytes += payloadBytes;
    held.changed = true;
  }

  /** Hangs a payload behind what is held; the numbers are written by others. */
  #linkPayload(held: CoalescedSegment, frame: Frame, payloadAt: number, payloadBytes: number): void {
    const tail = held.tail!;
    if (payloadBytes <= MAX_COPIED_BYTES && payloadBytes <= tail.tailRoom) {
      const to = tail.start + tail.length;
      if (payloadBytes > 0) {
        copyBytes(frame.bytes, payloadAt, payloadBytes, tail.bytes, to);
        tail.length += payloadBytes;
      }
      frame.release();
    } else {
      frame.start = payloadAt;
      frame.length = payloadBytes;
      frame.isOwned = false;
      tail.next = frame;
      held.tail = frame;
      held.pieces++;
      if (frame.owner !== held.owner) held.owner = null;
    }
  }

  /** Flushes one flow: completes the headers and passes the frame on. */
  protected flushFlow(held: CoalescedSegment): void {
    const frame = held.frame!;
    frame.last = held.tail!;
    frame.total = held.totalBytes;
    frame.pieces = held.owner === null ? 0 : held.pieces;
    this.finish(held, frame);
    if (held.claim >= 0) {
      this.claims!.release(held.claim);
      held.claim = -1;
    }
    this.table.close(held);
    this.output.push(frame);
  }
}
