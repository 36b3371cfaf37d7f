/**
 * What plugins promise of frames, and what looks after it where frames leave a plugin.
 *
 * Theory of operation. Every frame knows who has it (`Frame.holder`). A pipeline notes that when it hands
 * frames to a stage, and looks when it gets them back: a frame is the stage's own, it is whole, it lies in
 * its own storage, and its header means something. That takes a few ns a frame, always, for built-in stages
 * as for any other: what is wrong here would otherwise be found by a guest, which gets the memory of other
 * guests. A frame that is never given back is found by its holder too, when a guest goes or the pool runs dry
 * (`FramePool.held`).
 *
 * Limits: a plugin runs in this process. What it writes outside of a frame's storage, or into a frame that it
 * no longer has, is not seen; a hook that does not return stops all devices.
 *
 * @module
 */
import { kindOf, shapeFault } from "../core/contract.ts";
import { Frame } from "../pipeline/frame.ts";
import { MAX_FRAME_BYTES } from "../pipeline/frame_pool.ts";

const NEEDS_CSUM = 1;
const RSC_INFO = 4;
const GSO_ECN = 0x80;
/** TCPV4 1, UDP 3, TCPV6 4, UDP_L4 5. */
const GSO_KINDS = 0b11_1010;

/**
 * Is this a frame that can be handed on: owned, in its storage, its pieces and its queue pair as they must
 * be? Its header is not looked at.
 * @param queuePairs how many the device has
 */
export function isSound(frame: Frame, queuePairs: number): boolean {
  const { start, length, slot } = frame;
  return frame instanceof Frame && frame.isOwned === true && start >= slot &&
    start + length <= slot + frame.capacity && length >= 0 &&
    (start | 0) === start && (length | 0) === length &&
    (frame.queuePair | 0) === frame.queuePair && frame.queuePair >= 0 && frame.queuePair < queuePairs &&
    (frame.next === null ? frame.total === length : arePiecesSound(frame));
}

/**
 * As `isSound`, of a frame in one piece whose header says nothing, as most are: false says only that one must
 * look closely.
 */
export function isPlain(frame: Frame, queuePairs: number): boolean {
  const { start, length, slot, header, queuePair } = frame;
  return frame instanceof Frame && frame.isOwned && frame.next === null &&
    (header.flags | header.gsoType) === 0 && start >= slot &&
    length >= 0 && start + length <= slot + frame.capacity && frame.total === length &&
    (start | 0) === start && (length | 0) === length && (queuePair | 0) === queuePair && queuePair >= 0 &&
    queuePair < queuePairs;
}

/** Does the header of this frame mean something, if it says anything (virtio 1.2, section 5.1.6)? */
export function isHeaderSound(frame: Frame): boolean {
  const { flags, gsoType } = frame.header;
  return flags === 0 && gsoType === 0 || headerFault(frame) === null;
}

/**
 * What is wrong with a frame that `isSound` or `isHeaderSound` refuses, as the rest of a sentence about who
 * hands it on.
 */
export function frameFault(frame: Frame, queuePairs: number): string {
  if (!(frame instanceof Frame)) return `it handed on ${kindOf(frame)} in place of a frame`;
  if (!frame.isOwned) return "it handed on a frame that was released before, or is part of another";
  const { start, length, slot, capacity, queuePair } = frame;
  if (!Number.isInteger(start) || !Number.isInteger(length) || length < 0) {
    return `it handed on a frame with start ${start} and length ${length}: both must be whole numbers`;
  }
  if (start < slot || start + length > slot + capacity) {
    return `it handed on a frame of ${length} bytes from ${start} on, which leaves its storage, ${slot} to ${
      slot + capacity
    }: stay within tailRoom`;
  }
  if (!Number.isInteger(queuePair) || queuePair < 0 || queuePair >= queuePairs) {
    return `it handed on a frame for queue pair ${queuePair}; there are ${queuePairs}`;
  }
  const pieces = frame.next === null
    ? (frame.total === length ? null : `total ${frame.total}, but length ${length}: raise both together`)
    : piecesFault(frame);
  if (pieces !== null) return `it handed on a frame with ${pieces}`;
  return `it handed on a frame whose header has ${headerFault(frame)}`;
}

/** What keeps a value from being a stage, as the rest of a sentence about `create`; null for a stage. */
export function stageFault(value: unknown): string | null {
  return shapeFault(value, "a stage", ["process"], [
    "deadlineNs",
    "flush",
    "negotiated",
    "reset",
  ]);
}

function arePiecesSound(first: Frame): boolean {
  let total = 0;
  let pieces = 0;
  let last = first;
  for (let piece: Frame | null = first; piece !== null; piece = piece.next) {
    const { start, length, slot } = piece;
    if (!(start >= slot && length >= 0 && start + length <= slot + piece.capacity)) return false;
    if ((start | 0) !== start || (length | 0) !== length) return false;
    total += length;
    last = piece;
    // What goes round in a circle comes to an end here.
    if (++pieces > MAX_FRAME_BYTES) return false;
  }
  return total === first.total && total <= MAX_FRAME_BYTES && last === first.last &&
    (first.pieces === pieces || first.pieces === 0);
}

function piecesFault(first: Frame): string | null {
  if (arePiecesSound(first)) return null;
  if (first.total > MAX_FRAME_BYTES) return `${first.total} bytes in all; ${MAX_FRAME_BYTES} are possible`;
  return "pieces that do not fit together or leave their storage: join frames by append() only";
}

function headerFault(frame: Frame): string | null {
  const { flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset } = frame.header;
  if (!isUnsigned(flags, 0xff)) return `the flags ${flags}`;
  if (!isUnsigned(gsoType, 0xff)) return `the gsoType ${gsoType}`;
  for (const value of [hdrLen, gsoSize, csumStart, csumOffset]) {
    if (!isUnsigned(value, 0xffff)) return `a field of ${value}; all are 0 to 65535`;
  }
  // Under RSC_INFO these two count segments and duplicate ACKs.
  const isPlaced = (flags & (NEEDS_CSUM | RSC_INFO)) === NEEDS_CSUM;
  if (isPlaced && csumStart + csumOffset + 2 > frame.length) {
    return `csumStart ${csumStart} and csumOffset ${csumOffset}, behind its ${frame.length} bytes`;
  }
  const kind = gsoType & ~GSO_ECN;
  if (kind === 0) return null;
  if (kind > 5 || (GSO_KINDS >>> kind & 1) === 0) return `the gsoType ${gsoType}, which is none`;
  // The reference gives what it has coalesced no size.
  return gsoSize === 0 && (flags & RSC_INFO) === 0 ? `the gsoType ${gsoType}, but gsoSize 0` : null;
}

function isUnsigned(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most;
}
