/**
 * One Ethernet frame on its way through the device, and the virtio-net facts that travel with it.
 * @module
 */

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
 * Copies `length` bytes from `source[from]` on to `target[to]` on. Frames mostly lie in one storage, in which a
 * copy needs no view, which would be garbage.
 */
export function copyBytes(
  source: Uint8Array<ArrayBuffer>,
  from: number,
  length: number,
  target: Uint8Array,
  to: number,
): void {
  if (source === target) target.copyWithin(to, from, from + length);
  else target.set(new Uint8Array(source.buffer, source.byteOffset + from, length), to);
}
