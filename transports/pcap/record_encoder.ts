/**
 * What a capture's writer needs of a format.
 * @module
 */
import type { CaptureSink } from "./capture_sink.ts";

/** Encodes records of one format; allocates nothing per record. */
export interface RecordEncoder {
  /** The bytes with which the file begins. */
  fileHeader(): Uint8Array;
  /** Says anew which time is 0 in `timeNs`, in ns since 1970, for what follows. */
  setStart(startUnixNs: bigint): void;
  /** Bytes before a packet's own. */
  readonly headBytes: number;
  /** The most bytes after a packet's own. */
  readonly maxTailBytes: number;
  /**
   * Writes what stands before and after a packet of `length` bytes at `at`; returns the bytes of the whole record.
   * @param flags the packet's `epb_flags`, its direction among them
   */
  encode(
    sink: CaptureSink,
    at: number,
    length: number,
    flags: number,
    timeNs: number,
    comment: string,
  ): number;
}
