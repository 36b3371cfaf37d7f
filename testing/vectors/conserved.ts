/**
 * What is checked for being conserved: what went in, what came out, and under what conditions.
 * @module
 */
import type { NetHeader } from "../../core/frame.ts";
import type { VectorPacket } from "./format.ts";

/** A frame that went in. */
export interface ConservedInput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** The virtio header that came with it. */
  readonly header: Readonly<Omit<NetHeader, "clear" | "copyFrom">>;
  /** Did it come while its family was not coalesced? Then it must leave alone. Default false. */
  readonly alone?: boolean;
  /** May segments with ECN marks be merged? Default true. */
  readonly ecn?: boolean;
  /** Does the guest know DATA_VALID? Default true; otherwise that flag is taken off. */
  readonly dataValid?: boolean;
}

/** A packet that came out. */
export interface ConservedOutput {
  /** When, in ns. */
  readonly atNs: number;
  /** The Ethernet frame. */
  readonly bytes: Uint8Array;
  /** Its header, as recorded. */
  readonly hdr: VectorPacket["hdr"];
  /** The queue pair; default 0. Order only counts within one. */
  readonly queue?: number;
}

/** Under what conditions. */
export interface ConservationOptions {
  /** The longest that a unit may be held, in ns; Infinity if the guest was starved of buffers. */
  readonly intervalNs: number;
  /** Did the guest accept RSC_EXT? Then merged units carry RSC_INFO, and otherwise none does. */
  readonly rscInfo: boolean;
  /** Most segments in a unit; default any number. */
  readonly mostSegments?: number;
  /** May segments with timestamps be merged? Default true. */
  readonly timestamps?: boolean;
  /** Must a packet leave as soon as a segment with PSH is in it? Default false. */
  readonly flushOnPush?: boolean;
  /** Was the device reset at the end? Then what it held is gone; see `left`. Default false. */
  readonly endsInReset?: boolean;
}
