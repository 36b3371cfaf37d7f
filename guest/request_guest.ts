/**
 * A software guest whose queues are worked by hand: requests posted one by one into any queue of any device.
 *
 * Theory of operation. Buffers lie in a heap of guest memory, each piece by itself with guard bytes around
 * it. The heap holds a pattern wherever no posted buffer lies. What the device returns is copied out and its
 * place gets the pattern again, so that {@linkcode RequestGuest.checkMemory} finds every byte that a device
 * has written where it must not: beside a buffer, into one that it only reads, into one that it has given
 * back, and into anything after a reset.
 *
 * It is what the `loopback` driver makes for a device type that brings no driver of its own: it accepts what
 * is offered, sets all queues up and leaves them idle. The driver of a device type extends it to post
 * requests and look at what comes back.
 * @module
 */
import type { Device } from "../core/device.ts";
import type { FeatureSet } from "../core/features.ts";
import type { GuestMemory } from "../rings/memory.ts";
import { BAD_USED, BufferList, NOTHING_USED } from "./driver_ring.ts";
import type { PlacedQueue, QueuePlan, Reservation } from "./guest_queues.ts";
import {
  chooseFeatures,
  completeGuestOptions,
  DEVICE_FEATURES,
  type FeatureWishes,
  guestOptionsSchema,
  RING_FEATURE_NAMES,
  type SoftwareGuestOptions,
} from "./options.ts";
import { type GuestCounters, type GuestHooks, newGuestCounters, SoftwareGuest } from "./software_guest.ts";

/** Descriptors that a request may have. */
export const MAX_REQUEST_DESCRIPTORS = 32;
/** Bytes of guest memory for buffers, by default. */
export const DEFAULT_HEAP_BYTES = 2_097_152;
const GUARD_BYTES = 16;

/** A request that was posted. */
export interface GuestRequest {
  /** The index of its queue. */
  readonly queue: number;
  /** Bytes that the device may read in all. */
  readonly readableBytes: number;
  /** Bytes that the device may write in all. */
  readonly writableBytes: number;
  /** Has the device returned it? */
  readonly isDone: boolean;
  /** What the device says it has written, copied when it returned the request; empty before that. */
  readonly written: Uint8Array<ArrayBuffer>;
  /**
   * All that stood in its writable pieces when the device returned it, said to be written or not; empty
   * before that.
   */
  readonly buffer: Uint8Array<ArrayBuffer>;
}

/** What the guest counts. */
export type RequestCounters = GuestCounters & {
  /** Requests posted. */
  requests: number;
  /** Requests that the device has returned. */
  returned: number;
  /** Bytes that it says it has written into them. */
  writtenBytes: number;
};

/** What the guest tells of itself. */
export interface RequestHooks extends GuestHooks {
  /** The device has returned this request. */
  onReturned?(request: GuestRequest): void;
}

interface Piece {
  readonly address: number;
  readonly length: number;
  /** What the device reads there; null where it writes. */
  readonly readable: Uint8Array | null;
}

interface PostedRequest extends GuestRequest {
  readonly pieces: readonly Piece[];
  isDone: boolean;
  written: Uint8Array<ArrayBuffer>;
  buffer: Uint8Array<ArrayBuffer>;
}

const NOTHING: Uint8Array<ArrayBuffer> = new Uint8Array(0);

/**
 * A software guest that posts what it is told.
 *
 * @example
 * ```ts
 * import { RequestGuest } from "./request_guest.ts";
 * const guest = new RequestGuest();
 * if (guest.attached || guest.options.ring !== "split") throw new Error("unreachable");
 * ```
 */
export class RequestGuest extends SoftwareGuest {
  /** Whom it tells what; may be filled at any time. */
  declare readonly hooks: RequestHooks;
  /** What it has counted, over all attachments; live. */
  declare readonly counters: RequestCounters;
  readonly #heapBytes: number;
  #reserved: Reservation | null = null;
  #heap: Heap | null = null;
  readonly #posted = new Map<number, PostedRequest>();
  #lastToken = 0;
  readonly #list = new BufferList(MAX_REQUEST_DESCRIPTORS);

  /**
   * Makes a guest that is not attached yet.
   * @param options complete options; left out: the default of each
   * @param hooks whom to tell what
   * @param heapBytes guest memory for buffers
   */
  constructor(
    options: SoftwareGuestOptions = completeGuestOptions(guestOptionsSchema, {}),
    hooks: RequestHooks = {},
    heapBytes: number = DEFAULT_HEAP_BYTES,
  ) {
    super(
      options,
      hooks,
      { requests: 0, returned: 0, writtenBytes: 0, ...newGuestCounters() } as RequestCounters,
    );
    this.#heapBytes = heapBytes;
  }

  /** Requests that the device has not returned. */
  get outstanding(): number {
    return this.#posted.size;
  }

  /**
   * Adds a request to a queue; the device sees it after `kick`. Null if ring or memory have no room for it.
   * @param readable what the device reads, in one piece or several
   * @param writableBytes what the device may write, in one piece or several; preset to zeros
   * @throws {RangeError} if there is no such queue, or a chain cannot look like this
   */
  post(
    queue: number,
    readable: Uint8Array | readonly Uint8Array[],
    writableBytes: number | readonly number[],
  ): GuestRequest | null {
    const ring = this.attached ? this.rings[queue] ?? null : null;
    if (ring === null) {
      throw new RangeError(`Cannot post to queue ${queue}: the guest is not attached, or has no such queue`);
    }
    const sources = (readable instanceof Uint8Array ? [readable] : readable).filter(({ length }) =>
      length > 0
    );
    const sizes = (typeof writableBytes === "number" ? [writableBytes] : writableBytes).filter((n) =>
      n !== 0
    );
    const count = sources.length + sizes.length;
    if (count < 1 || count > MAX_REQUEST_DESCRIPTORS) {
      throw new RangeError(
        `Cannot post a request of ${count} pieces: it must be 1 to ${MAX_REQUEST_DESCRIPTORS}`,
      );
    }
    const pieces: Piece[] = [];
    for (const one of [...sources, ...sizes]) {
      const isRead = typeof one !== "number";
      const length = isRead ? one.length : one;
      const address = this.#heap!.allocate(length);
      if (address < 0) break;
      pieces.push({ address, length, readable: isRead ? one.slice() : null });
    }
    const list = this.#list;
    list.clear();
    for (const { address, length, readable } of pieces) {
      if (readable !== null) list.addReadable(address, length);
      else list.addWritable(address, length);
    }
    const token = this.#nextToken();
    if (pieces.length < count || !ring.add(list, token)) {
      for (const piece of pieces) this.#heap!.free(piece);
      return null;
    }
    for (const { address, length, readable } of pieces) {
      this.memory.copyIn(address, readable ?? new Uint8Array(length), 0, length);
    }
    const request: PostedRequest = {
      queue,
      readableBytes: sources.reduce((sum, { length }) => sum + length, 0),
      writableBytes: sizes.reduce((sum, length) => sum + length, 0),
      isDone: false,
      written: NOTHING,
      buffer: NOTHING,
      pieces,
    };
    this.#posted.set(token, request);
    this.counters.requests++;
    return request;
  }

  /** Shows the device what was posted to a queue, and kicks it if it wants that. */
  kick(queue: number): void {
    if (this.attached) this.notifications.publish(queue);
  }

  /**
   * Looks at all memory in which no buffer lies that the device may write; after a reset, at all memory. What
   * the device has changed there is counted as `malformed`. A reset is over when the status reads 0.
   */
  checkMemory(): void {
    const heap = this.#heap;
    if (heap === null || (!this.attached && this.session.status !== 0)) return;
    if (!this.attached && !heap.isFrozen) heap.freeze();
    heap.check(this.#posted.values(), (problem) => this.malformed(problem));
  }

  /** Resets the device. What it writes after that is wrong. */
  override detach(): void {
    if (!this.attached) return;
    this.checkMemory();
    const heap = this.#heap!;
    heap.freeze();
    super.detach();
    // Requests are in flight: the device may write until they are over.
    if (this.session.status !== 0) heap.thaw();
    this.#posted.clear();
  }

  /** What the driver knows of its device's features: accepts any, by number. */
  protected get wishes(): FeatureWishes {
    return { understood: DEVICE_FEATURES, ...RING_FEATURE_NAMES };
  }

  /** Accepts what the options say. */
  protected override chooseFeatures(offered: FeatureSet): FeatureSet {
    return chooseFeatures(offered, this.options, this.wishes);
  }

  /** Uses every queue of the device. */
  protected override planQueues(plan: QueuePlan, device: Device): void {
    for (let index = 0; index < device.queueSizes.length; index++) {
      if (device.queueSizes[index] > 0) {
        plan.addQueue(index, { longest: MAX_REQUEST_DESCRIPTORS, shortest: 1 });
      }
    }
    this.#reserved = plan.reserve(this.#heapBytes);
  }

  /** Makes the heap. */
  protected override prepare(_queues: readonly PlacedQueue[]): void {
    this.#heap = new Heap(this.memory, this.#reserved!.address, this.#heapBytes);
  }

  /** Takes what the device has returned. */
  protected override work(_nowNs: number): boolean {
    const { notifications } = this;
    let worked = false;
    for (let index = 0; index < notifications.rings.length; index++) {
      if (notifications.rings[index] !== null && notifications.work(index, this.#takeOne) > 0) worked = true;
    }
    return worked;
  }

  readonly #takeOne = (index: number): boolean => {
    const ring = this.rings[index]!;
    const token = ring.takeUsed();
    if (token === NOTHING_USED) return false;
    if (token === BAD_USED) this.malformed(ring.fault);
    else this.#take(token, ring.usedBytes);
    return true;
  };

  /** The device has returned a request: for drivers that go on with it. */
  protected returned(_request: GuestRequest): void {}

  #take(token: number, usedBytes: number): void {
    const request = this.#posted.get(token)!;
    this.#posted.delete(token);
    const { writableBytes, pieces } = request;
    const count = Math.min(usedBytes, writableBytes);
    if (count < usedBytes) {
      this.malformed(`used length ${usedBytes} is beyond the ${writableBytes} bytes that may be written`);
    }
    const buffer = new Uint8Array(writableBytes);
    let at = 0;
    for (const piece of pieces) {
      if (piece.readable === null) {
        this.memory.copyOut(piece.address, buffer, at, piece.length);
        at += piece.length;
      } else this.#checkUnchanged(piece);
      this.#heap!.free(piece);
    }
    request.buffer = buffer;
    request.written = buffer.slice(0, count);
    request.isDone = true;
    this.counters.returned++;
    this.counters.writtenBytes += count;
    this.hooks.onReturned?.(request);
    this.returned(request);
  }

  #checkUnchanged({ address, length, readable }: Piece): void {
    const found = new Uint8Array(length);
    this.memory.copyOut(address, found, 0, length);
    const at = found.findIndex((byte, i) => byte !== readable![i]);
    if (at >= 0) this.malformed(`byte ${at} of a buffer was written that the device must only read`);
  }

  #nextToken(): number {
    do this.#lastToken = this.#lastToken % 0x7fff_ffff + 1; while (this.#posted.has(this.#lastToken));
    return this.#lastToken;
  }
}

/** Memory for pieces of requests, with a pattern wherever none lies. */
class Heap {
  readonly #memory: GuestMemory;
  readonly #address: number;
  readonly #pattern: Uint8Array<ArrayBuffer>;
  /** Free ranges by ascending offset. */
  readonly #free: { at: number; length: number }[];
  #frozen: Uint8Array | null = null;

  constructor(memory: GuestMemory, address: number, bytes: number) {
    this.#memory = memory;
    this.#address = address;
    this.#pattern = Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + (i >>> 8) * 7 + 0xa5) & 0xff);
    this.#free = [{ at: 0, length: bytes }];
    memory.copyIn(address, this.#pattern, 0, bytes);
  }

  /** The address of `length` bytes with guards on both sides; -1 if there is no room. */
  allocate(length: number): number {
    const wanted = length + 2 * GUARD_BYTES;
    const i = this.#free.findIndex((range) => range.length >= wanted);
    if (i < 0) return -1;
    const range = this.#free[i];
    const at = range.at;
    range.at += wanted;
    range.length -= wanted;
    if (range.length === 0) this.#free.splice(i, 1);
    return this.#address + at + GUARD_BYTES;
  }

  free({ address, length }: Piece): void {
    const at = address - this.#address - GUARD_BYTES;
    const range = { at, length: length + 2 * GUARD_BYTES };
    this.#memory.copyIn(address, this.#pattern, address - this.#address, length);
    let i = this.#free.findIndex((other) => other.at > at);
    if (i < 0) i = this.#free.length;
    this.#free.splice(i, 0, range);
    for (const at of [i, i - 1]) {
      const [before, after] = [this.#free[at], this.#free[at + 1]];
      if (before === undefined || after === undefined || before.at + before.length !== after.at) continue;
      before.length += after.length;
      this.#free.splice(at + 1, 1);
    }
  }

  /** May nothing be written at all? */
  get isFrozen(): boolean {
    return this.#frozen !== null;
  }

  /** From now on nothing may be written at all. */
  freeze(): void {
    this.#frozen = this.#bytes();
  }

  /** Buffers may be written again. */
  thaw(): void {
    this.#frozen = null;
  }

  /** Tells of the first byte that was written where no posted buffer lies; of a frozen heap, of any byte. */
  check(posted: Iterable<PostedRequest>, report: (problem: string) => void): void {
    const found = this.#bytes();
    if (this.#frozen === null) {
      for (const { pieces } of posted) {
        for (const { address, length, readable } of pieces) {
          const at = address - this.#address;
          if (readable === null) found.set(this.#pattern.subarray(at, at + length), at);
          else if (readable.every((byte, i) => found[at + i] === byte)) {
            found.set(this.#pattern.subarray(at, at + length), at);
          }
        }
      }
    }
    const expected = this.#frozen ?? this.#pattern;
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    if (at < 0) return;
    const where = `byte ${at} of the guest's ${found.length} bytes for buffers was written`;
    report(this.#frozen === null ? `${where}, where no writable buffer lies` : `${where} after the reset`);
    if (this.#frozen !== null) this.#frozen = found;
  }

  #bytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#pattern.length);
    this.#memory.copyOut(this.#address, bytes, 0, bytes.length);
    return bytes;
  }
}
