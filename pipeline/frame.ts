/**
 * One Ethernet frame on its way through the device, with the virtio-net facts that travel with it; batches of
 * frames; and what makes a frame sound.
 *
 * Theory of operation. Every frame knows who has it (`holder`). A pipeline notes that when it hands frames to
 * a stage, and looks when it gets them back; so does the guard of a network. A frame is the plugin's own, it
 * is whole, it lies in its own storage, and its header means something. That takes a few ns a frame, always,
 * for built-in plugins as for any other: what is wrong here would otherwise be found by a guest, which gets
 * the memory of other guests. A frame that is never given back is found by its holder too, when a guest goes
 * or the pool runs dry (`FramePool.held`).
 *
 * Limits: a plugin runs in this process. What it writes outside of a frame's storage, or into a frame that it
 * no longer has, is not seen; a hook that does not return stops all devices.
 *
 * @module
 */
import { copyWithin } from "../rings/memory.ts";
import { kindOf } from "../plugins/contract.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../wire/virtio_net_header.ts";

/** The largest frame a pool takes, in bytes: a 65535-byte IPv6 payload, its headers, and room to be rude. */
export const MAX_FRAME_BYTES = 69_632;

/** The most queue pairs that a device can have (virtio 1.2, section 5.1.5). */
export const MAX_QUEUE_PAIRS = 0x8000;

/**
 * What the virtio-net header says of a frame (virtio 1.2, section 5.1.6), less `num_buffers`, which belongs
 * to the ring. All fields are unsigned; the names are those of the specification.
 */
export class NetHeader {
  /** NEEDS_CSUM 1, DATA_VALID 2, RSC_INFO 4. */
  flags = 0;
  /** NONE 0, TCPV4 1, UDP 3, TCPV6 4, UDP_L4 5; ECN 0x80. */
  gsoType = 0;
  /** Bytes of all headers, a hint; 0 if unknown. */
  hdrLen = 0;
  /** Bytes of payload in each segment; 0 if the frame is not to be segmented. */
  gsoSize = 0;
  /** Where checksumming starts; under RSC_INFO the number of coalesced segments. */
  csumStart = 0;
  /** Where the checksum is stored, from `csumStart`; under RSC_INFO the number of duplicate ACKs. */
  csumOffset = 0;

  /** Sets every field to 0. */
  clear(): void {
    this.flags = 0;
    this.gsoType = 0;
    this.hdrLen = 0;
    this.gsoSize = 0;
    this.csumStart = 0;
    this.csumOffset = 0;
  }

  /** Takes every field from another header. */
  copyFrom(other: NetHeader): void {
    this.flags = other.flags;
    this.gsoType = other.gsoType;
    this.hdrLen = other.hdrLen;
    this.gsoSize = other.gsoSize;
    this.csumStart = other.csumStart;
    this.csumOffset = other.csumOffset;
  }
}

/**
 * Where a released frame returns to: the frames of its size in the pool that made it.
 */
export interface FrameOwner {
  /** Takes back `pieces` pieces, `first` and those that follow it by `next`, which all have this owner. */
  giveBack(first: Frame, pieces: number): void;
}

/** Who has a frame: the plugin that has to push it on, hold it or release it. */
export interface FrameHolder {
  /** Its name. */
  readonly plugin: string;
  /** Where it stands in the configuration, such as `$.devices[0].offloads[1]`; empty if it stands in none. */
  readonly path: string;
  /** What it is. */
  readonly kind: "stage" | "network" | "driver" | "device";
}

/**
 * One Ethernet frame, without the virtio header and without FCS. **The receiver of a frame pushes it on,
 * holds it, or releases it.**
 *
 * The bytes are `bytes[start]` to `bytes[start + length - 1]`. A frame as received is in one piece. A frame
 * that a stage has merged may continue in `next`: the pieces follow each other without a gap, and `total` of
 * the first counts them all. All headers are in the first piece, so a stage that only reads headers need not
 * know.
 *
 * `bytes` is shared with other frames of the pool: never write outside `slot` to `slot + capacity`.
 */
export class Frame {
  /** The storage in which this frame lies, with others. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /**
   * The same storage as a DataView, big-endian as the network is unless told otherwise: `view.getUint16(start
   * + 12)`.
   */
  readonly view: DataView<ArrayBuffer>;
  /** First byte of this frame's own storage in `bytes`. */
  readonly slot: number;
  /** Bytes of this frame's own storage, headroom included. */
  readonly capacity: number;
  /** Where it returns to. */
  readonly owner: FrameOwner;

  /** First byte of the frame in `bytes`. */
  start = 0;
  /** Bytes in this piece. */
  length = 0;
  /** Bytes in all pieces; only true of the first piece. */
  total = 0;
  /** The next piece of the same frame, or null. */
  next: Frame | null = null;
  /** The last piece of the frame; only true of the first piece. */
  last: Frame = this;
  /** How many pieces it has, if all have one owner, else 0; only true of the first piece. */
  pieces = 1;
  /** The virtio-net facts about this frame. */
  readonly header: NetHeader = new NetHeader();
  /** The queue pair it came on, or goes to. */
  queuePair = 0;
  /**
   * Its number in the input, from 1, where the transport counts (a capture does); else 0. Shown in
   * explanations.
   */
  number = 0;
  /** What a stage has marked it with for its device, as `mark` of Linux's `sk_buff`; 0 if none has. */
  mark = 0;
  /**
   * Who has it; null if its pool was not lent (`FramePool.lentTo`). Of a frame in the pool: who had it last.
   */
  holder: FrameHolder | null = null;
  /**
   * Is it a frame, and not a further piece of one, or in the pool? Kept to find frames that are released
   * twice.
   */
  isOwned = false;

  /** Made by a pool only. */
  constructor(
    owner: FrameOwner,
    bytes: Uint8Array<ArrayBuffer>,
    view: DataView<ArrayBuffer>,
    slot: number,
    capacity: number,
  ) {
    this.owner = owner;
    this.bytes = bytes;
    this.view = view;
    this.slot = slot;
    this.capacity = capacity;
  }

  /** Bytes free behind the data in this piece's own storage. */
  get tailRoom(): number {
    return this.slot + this.capacity - this.start - this.length;
  }

  /**
   * Shortens a frame in one piece to `length` bytes, from its end. A length not below the present one changes
   * nothing.
   */
  trim(length: number): void {
    if (this.next === null && length < this.length) {
      this.length = length;
      this.total = length;
    }
  }

  /**
   * Appends `other`, all its pieces, to this frame, which then owns them. Throws Error if another owns them
   * already.
   */
  append(other: Frame): void {
    if (!other.isOwned) throw new Error("Cannot append a frame that is part of another or in the pool");
    const alike = this.pieces !== 0 && other.pieces !== 0 && this.owner === other.owner;
    this.pieces = alike ? this.pieces + other.pieces : 0;
    other.isOwned = false;
    this.last.next = other;
    this.last = other.last;
    this.total += other.total;
  }

  /** Copies all pieces to `target` from `at` on and returns how many bytes that were. */
  copyTo(target: Uint8Array, at: number): number {
    return copyPieces(this, target, at);
  }

  /** A copy of the bytes of all pieces, for tests and edges; allocates. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const copy = new Uint8Array(this.total);
    this.copyTo(copy, 0);
    return copy;
  }

  /**
   * Gives the frame, all its pieces, back to the pool. Throws if it is there already, or part of another: a
   * frame has one owner.
   */
  release(): void {
    if (!this.isOwned) throw releasedTwice();
    this.isOwned = false;
    if (this.pieces !== 0) this.owner.giveBack(this, this.pieces);
    else releasePieces(this);
  }
}

function releasePieces(first: Frame): void {
  for (let piece: Frame | null = first; piece !== null;) {
    const { next }: Frame = piece;
    piece.next = null;
    piece.owner.giveBack(piece, 1);
    piece = next;
  }
}

function releasedTwice(): Error {
  return new Error(
    "Cannot release a frame twice: a plugin that has pushed it on, or appended it, no longer owns it",
  );
}

function copyPieces(first: Frame, target: Uint8Array, at: number): number {
  let to = at;
  for (let piece: Frame | null = first; piece !== null; piece = piece.next) {
    copyBytes(piece.bytes, piece.start, piece.length, target, to);
    to += piece.length;
  }
  return to - at;
}

/**
 * Copies `length` bytes from `source[from]` on to `target[to]` on. Frames mostly lie in one storage, in which
 * a copy needs no view, which would be garbage.
 */
export function copyBytes(
  source: Uint8Array<ArrayBuffer>,
  from: number,
  length: number,
  target: Uint8Array,
  to: number,
): void {
  if (source === target) copyWithin(source, to, from, length);
  else target.set(new Uint8Array(source.buffer, source.byteOffset + from, length), to);
}

/**
 * Frames in order. Keeps its own count: clearing an array by `length = 0` drops its storage, and the next
 * push would allocate anew. It grows when it must and never shrinks.
 *
 * @example
 * ```ts
 * import { FrameBatch } from "./frame.ts";
 * import { FramePool } from "./frame_pool.ts";
 * const pool = new FramePool();
 * const batch = new FrameBatch();
 * batch.push(pool.take(60)!);
 * for (let i = 0; i < batch.length; i++) batch.at(i).release();
 * batch.clear();
 * if (pool.inUse !== 0) throw new Error("unreachable");
 * ```
 */
export class FrameBatch {
  readonly #frames: (Frame | null)[];
  #length = 0;

  /** An empty batch. @param capacity frames to reserve room for at first */
  constructor(capacity = 64) {
    this.#frames = new Array<Frame | null>(capacity).fill(null);
  }

  /** How many frames it holds. */
  get length(): number {
    return this.#length;
  }

  /** How many frames it can hold without growing: never less than it ever held. */
  get capacity(): number {
    return this.#frames.length;
  }

  /** The frame at `index`, which must be below `length`. */
  at(index: number): Frame {
    return this.#frames[index]!;
  }

  /** Adds a frame at the end; the batch owns it until it is cleared or handed on. */
  push(frame: Frame): void {
    const at = this.#length++;
    // The same frames come again and again: a reference that is there is not stored again, for its write
    // barrier.
    if (this.#frames[at] !== frame) this.#frames[at] = frame;
  }

  /**
   * Puts another frame in the place `index`, which must be below `length`; the one that was there is the
   * caller's.
   */
  set(index: number, frame: Frame): void {
    if (this.#frames[index] !== frame) this.#frames[index] = frame;
  }

  /** Forgets the frames from place `length` on, which have another owner by now. */
  shorten(length: number): void {
    this.#length = length;
  }

  /** Forgets the frames, which have another owner by now. Releases none. */
  clear(): void {
    this.#length = 0;
  }

  /** Forgets the first `count` frames and moves the rest to the front. */
  dropFirst(count: number): void {
    if (count === 0) return;
    const left = this.#length - count;
    for (let i = 0; i < left; i++) this.#frames[i] = this.#frames[i + count];
    this.#length = left;
  }

  /** Releases every frame and clears. */
  releaseAll(): void {
    for (let i = 0; i < this.#length; i++) this.#frames[i]!.release();
    this.#length = 0;
  }
}

/** The kinds of large frame, a bit for each. */
const GSO_KINDS = 1 << VIRTIO_NET_HDR_GSO_TCPV4 | 1 << VIRTIO_NET_HDR_GSO_TCPV6 |
  1 << VIRTIO_NET_HDR_GSO_UDP | 1 << VIRTIO_NET_HDR_GSO_UDP_L4;

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
  const isPlaced = (flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_RSC_INFO)) ===
    VIRTIO_NET_HDR_F_NEEDS_CSUM;
  if (isPlaced && csumStart + csumOffset + 2 > frame.length) {
    return `csumStart ${csumStart} and csumOffset ${csumOffset}, behind its ${frame.length} bytes`;
  }
  const kind = gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  if (kind === 0) return null;
  if (kind > VIRTIO_NET_HDR_GSO_UDP_L4 || (GSO_KINDS >>> kind & 1) === 0) {
    return `the gsoType ${gsoType}, which is none`;
  }
  // The reference gives what it has coalesced no size.
  return gsoSize === 0 && (flags & VIRTIO_NET_HDR_F_RSC_INFO) === 0
    ? `the gsoType ${gsoType}, but gsoSize 0`
    : null;
}

function isUnsigned(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most;
}
