/**
 * What a chain tells the coalescing kernel of a batch of frames, and what it hears from it.
 *
 * `kernels/coalesce.as.ts` merges what is usual and stops in front of everything else, of which it has
 * changed nothing: the chain judges that frame as if there were no kernel, and has the kernel go on behind
 * it.
 * @module
 */
import type { Arena } from "../../rings/arena.ts";
import * as layout from "../../kernels/flow_layout.ts";
import type { FrameBatch } from "../../pipeline/frame.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN, TCP_URG } from "../../wire/tcp_ip.ts";
import { VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import type { FlowTable } from "./flow_table.ts";

/** Most frames of a burst. */
export const MAX_ITEMS = layout.MAX_ITEMS;
/** In place of a flow: the frame is one of the other IP version, which passes. */
export const PASSES = layout.PASSES | 0;

const ITEM_WORDS = 4;
/** Flags with which a segment is never merged. */
const UNMERGEABLE = TCP_SYN | TCP_FIN | TCP_RST | TCP_URG;

/** A list of frames for the kernel, made once for each chain. */
export class SegmentBurst {
  readonly #arena: Arena;
  readonly #words: Int32Array<ArrayBuffer>;
  /** Where the block begins, in bytes. */
  readonly #block: number;
  /** Where its list begins, in words. */
  readonly #list: number;
  #isQemu = false;
  /** Longer frames are none that the kernel looks at. */
  #maxFrameBytes = 0;

  private constructor(arena: Arena, block: number) {
    this.#arena = arena;
    this.#words = arena.ints;
    this.#block = block;
    this.#list = (block + layout.LIST) / 4;
  }

  /** Makes one in this arena for an IP version; null if there is none, or it has no room. */
  static make(arena: Arena | null, version: 4 | 6): SegmentBurst | null {
    const block = arena?.allocate(layout.FLOW_BLOCK_BYTES) ?? null;
    if (block === null) return null;
    const burst = new SegmentBurst(arena!, block);
    burst.#set(layout.FAMILY, version);
    return burst;
  }

  /** The reference's rules. @param maxBytes most bytes of a frame, merged or not */
  configureQemu(maxIpLength: number, maxBytes: number): void {
    this.#isQemu = true;
    this.#maxFrameBytes = maxBytes;
    this.#set(layout.IS_QEMU, 1);
    this.#set(layout.FLAGS_MASK, UNMERGEABLE);
    this.#set(layout.MAX_IP_LENGTH, maxIpLength);
    this.#set(layout.MAX_BYTES, maxBytes);
  }

  /** Strict rules. @param maxFrameBytes most bytes of a frame that is merged; @param options as configured */
  configureStrict(
    maxFrameBytes: number,
    options: { readonly flushOnPush: boolean; readonly timestamps: boolean; readonly maxSegments: number },
  ): void {
    this.#maxFrameBytes = maxFrameBytes;
    this.#set(layout.FLAGS_MASK, UNMERGEABLE | TCP_ACK | (options.flushOnPush ? TCP_PSH : 0));
    this.#set(layout.FLAGS_VALUE, TCP_ACK);
    this.#set(layout.TIMESTAMPS, options.timestamps ? 1 : 0);
    this.#set(layout.MAX_SEGMENTS, options.maxSegments);
  }

  /** What a guest takes, under strict rules. */
  limitStrict(maxIpLength: number, guestEcn: boolean): void {
    this.#set(layout.MAX_IP_LENGTH, maxIpLength);
    this.#set(layout.ECN, guestEcn ? 1 : 0);
  }

  /** Lists frames `from` to `end` - 1 of a batch, at most {@linkcode MAX_ITEMS}. */
  fill(input: FrameBatch, from: number, end: number): void {
    const words = this.#words;
    const { bytes } = this.#arena;
    let at = this.#list;
    for (let i = from; i < end; i++, at += ITEM_WORDS) {
      const frame = input.at(i);
      words[at] = frame.start;
      words[at + 2] = frame.queuePair;
      // 0 bytes: the kernel stops in front of it.
      if (frame.next !== null || frame.bytes !== bytes || frame.length > this.#maxFrameBytes) {
        words[at + 1] = 0;
      } else if (this.#isQemu) words[at + 1] = frame.length;
      else {
        const { flags, gsoType } = frame.header;
        if (flags === 0 && gsoType === 0) words[at + 1] = frame.length | layout.SUM;
        else {
          const isVouchedFor = gsoType === 0 && (flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0 &&
            (flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0;
          words[at + 1] = isVouchedFor ? frame.length : 0;
        }
      }
    }
    this.#set(layout.ITEM_COUNT, end - from);
  }

  /**
   * Merges from item `from` on into what is held in the table; returns in front of which item the kernel
   * stopped.
   */
  merge(from: number, table: FlowTable): number {
    const { rowsAt } = table;
    if (rowsAt === 0) {
      // The table has outgrown the arena.
      this.#set(layout.IS_RIGHT, 0);
      return from;
    }
    this.#set(layout.FROM, from);
    this.#set(layout.ROWS, rowsAt);
    this.#set(layout.PLACES, table.recent.placesAt);
    this.#set(layout.SHIFT, table.recent.shift);
    return this.#arena.kernels.coalesce(this.#block);
  }

  /** Has the kernel found the checksums right of the segment in front of which it stopped? */
  get isRight(): boolean {
    return this.#words[(this.#block + layout.IS_RIGHT) / 4] !== 0;
  }

  /** The number of the flow into which item `i` is merged, or {@linkcode PASSES}. */
  flowOf(i: number): number {
    return this.#words[this.#list + ITEM_WORDS * i + layout.ITEM_FLOW / 4];
  }

  /** Where the payload of item `i` begins. */
  payloadAt(i: number): number {
    return this.#words[this.#list + ITEM_WORDS * i];
  }

  /** Bytes of the payload of item `i`. */
  payloadBytes(i: number): number {
    return this.#words[this.#list + ITEM_WORDS * i + layout.ITEM_BYTES / 4];
  }

  #set(offset: number, value: number): void {
    this.#words[(this.#block + offset) / 4] = value;
  }
}
