/**
 * What came out at the end, as plain data that can be compared; and the question whether all frames are back.
 * @module
 */
import { AssertionError } from "@std/assert";
import type { FramePool } from "../core/frame_pool.ts";
import type { NetHeaderFields as HeaderFields } from "../transports/loopback.ts";

export type { HeaderFields };

/** A frame that has come out. */
export interface Delivered {
  /** When, in ns. */
  readonly atNs: number;
  /** Its virtio-net header. */
  readonly header: HeaderFields;
  /** Its bytes, a copy. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The queue pair it goes to. */
  readonly queue: number;
  /** The number of the frame in the input, or of the first one in a merged frame; 0 behind a ring, where it is lost. */
  readonly number: number;
}

/** Facts that are fed along with a frame. */
export interface FrameFacts {
  /** Fields of the virtio-net header; what is left out is 0. */
  readonly header?: Partial<HeaderFields>;
  /** The queue pair it comes on; default 0. */
  readonly queue?: number;
  /** Its number in the input; by default they are counted from 1. */
  readonly number?: number;
}

/** Bytes, or whatever can make bytes of itself, such as a `Frame`. */
export type FrameSource = Uint8Array | { toBytes(): Uint8Array };

/** The bytes of a source. */
export function bytesOf(source: FrameSource): Uint8Array {
  return source instanceof Uint8Array ? source : source.toBytes();
}

/** A copy of the fields of a header. */
export function headerFields(header: Readonly<HeaderFields>): HeaderFields {
  const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = header;
  return { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset };
}

/**
 * Throws AssertionError unless every frame is back in its pool: none is held, lost, or owned by somebody who forgot it.
 * @param pool the pool, or whatever has one
 */
export function assertPoolWhole(pool: FramePool | { readonly pool: FramePool }): void {
  const { inUse } = "pool" in pool ? pool.pool : pool;
  if (inUse !== 0) {
    throw new AssertionError(
      `${inUse} frames are not back in the pool: a stage must push on, hold or release each`,
    );
  }
}
