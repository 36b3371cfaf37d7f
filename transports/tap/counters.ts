/**
 * What a TAP counts.
 * @module
 */
import { errnoName } from "../../host/errno.ts";

/**
 * Counters of a TAP. Errors of system calls are counted as they come up, under names such as `write_EIO` (the interface is
 * down) and `write_EINVAL` (the kernel does not take a frame's header); such a frame is dropped.
 */
export interface TapCounters extends Record<string, number> {
  /** Frames read. */
  read: number;
  /** Their bytes, without headers. */
  readBytes: number;
  /** Frames written. */
  written: number;
  /** Their bytes, without headers. */
  writtenBytes: number;
  /** Times that a frame could not be written yet, and stayed with the device. */
  again: number;
  /** Dropped on reading: longer than everything that was ready to take it. */
  truncated: number;
  /** Dropped: longer than a frame can be. */
  tooLong: number;
  /** Dropped on reading: the virtio-net header contradicts the frame. */
  badHeader: number;
  /** Dropped: the kernel had queued them before there was a guest. */
  noGuest: number;
  /** Dropped on writing: still to be checksummed or segmented, and there is no header to say so. */
  unfinished: number;
  /** Dropped on writing: the interface has been deleted. */
  noInterface: number;
}

/** Counters of a TAP, all 0. */
export function newTapCounters(): TapCounters {
  return {
    read: 0,
    readBytes: 0,
    written: 0,
    writtenBytes: 0,
    again: 0,
    truncated: 0,
    tooLong: 0,
    badHeader: 0,
    noGuest: 0,
    unfinished: 0,
    noInterface: 0,
  };
}

/** Counts an error of a system call under its name. */
export function countError(
  counters: TapCounters,
  call: "read" | "write" | "offload" | "queue",
  error: number,
): void {
  const name = `${call}_${errnoName(error)}`;
  counters[name] = (counters[name] ?? 0) + 1;
}
