/**
 * What `bench/gc.ts` and the program that it starts both know.
 * @module
 */
import type { GarbageSetup } from "./garbage_rig.ts";

/** Printed before the frames that count, and behind them. */
export const MARKS = ["== warm ==", "== done =="] as const;

/** One way that frames go. */
export interface GarbageCase {
  /** Its name, for people as well. */
  readonly name: string;
  /** What is set up. */
  readonly setup: GarbageSetup | "tap";
}

/** All of them. */
export const GARBAGE_CASES: readonly GarbageCase[] = [
  { name: "to guest, split", setup: { packed: false, toGuest: true, coalesce: false } },
  { name: "to guest, packed", setup: { packed: true, toGuest: true, coalesce: false } },
  { name: "from guest, split", setup: { packed: false, toGuest: false, coalesce: false } },
  { name: "from guest, packed", setup: { packed: true, toGuest: false, coalesce: false } },
  { name: "to guest, coalesced, split", setup: { packed: false, toGuest: true, coalesce: true } },
  { name: "to guest, coalesced, packed", setup: { packed: true, toGuest: true, coalesce: true } },
  {
    name: "to guest, small ones coalesced",
    setup: { packed: false, toGuest: true, coalesce: true, payloadBytes: 100 },
  },
  { name: "TAP, read and written", setup: "tap" },
];
