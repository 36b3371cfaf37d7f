/**
 * One memory: frames and the memory of guests in a single buffer, which kernels reach as well.
 *
 * Theory of operation. A WebAssembly memory is a piece of this process's address space that the engine
 * reserves at once and that costs nothing until it is touched. Frames and what kernels are told lie in its
 * low part, below 2 GiB, where an offset is a small integer. Guests lie above: a host maps their files into
 * ranges that `takeRange` gives, and software guests have theirs there as well. A copy from a frame to a
 * guest is then a copy within one buffer, and a kernel can do a whole burst of them without leaving
 * WebAssembly. What it reaches is this memory and nothing else of the process.
 *
 * The memory is shared, so that queue workers see the same one: nothing is mapped twice. Where no such memory
 * can be had (an address space that is limited, see RLIMIT_AS), everything lies in ordinary buffers and is
 * moved by plain code.
 *
 * A range that is given back must read as zeros and must stay readable and writable, for a late access may
 * still come: the host maps empty pages over it.
 * @module
 */
import { instantiate, type Kernels } from "../kernels/mod.ts";
import { accelerateCopies } from "./memory.ts";

const GIBIBYTE = 2 ** 30;
const PAGE_BYTES = 65_536;
/** As much as an engine gives; less where the address space is limited. */
const SIZES_BYTES = [16 * GIBIBYTE, 8 * GIBIBYTE, 4 * GIBIBYTE];
/**
 * Below this lie frames. Typed arrays are quick up to here, and offsets are small integers: the engine
 * compares wrongly with a length of 2^31.
 */
const LOW_BYTES = 2 * GIBIBYTE - PAGE_BYTES;
/** Nothing lies at the beginning: an offset of 0 is none. */
const GUARD_BYTES = PAGE_BYTES;
const CACHE_LINE_BYTES = 64;

/** A range of the arena. */
interface Range {
  start: number;
  end: number;
}

/** A memory for frames and guests, with the kernels that work in it. */
export class Arena {
  /** The memory; workers get it by a message. */
  readonly memory: WebAssembly.Memory;
  /** All of it. It is shared between threads, so that it cannot be transferred. */
  readonly buffer: ArrayBuffer;
  /** The low part, by bytes. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The low part, at any offset. */
  readonly view: DataView<ArrayBuffer>;
  /** The low part, by 32 bits. */
  readonly words: Uint32Array<ArrayBuffer>;
  /** The same, signed. */
  readonly ints: Int32Array<ArrayBuffer>;
  /** The low part, by doubles. */
  readonly doubles: Float64Array<ArrayBuffer>;
  /** What works in it. */
  readonly kernels: Kernels;
  #lowNext: number;
  readonly #lowEnd: number;
  /** Free ranges for guests, by ascending start; none that touch. */
  readonly #free: Range[];

  private constructor(memory: WebAssembly.Memory, lowStart: number, lowEnd: number, isOwner: boolean) {
    this.memory = memory;
    this.buffer = memory.buffer as ArrayBuffer;
    this.bytes = new Uint8Array(this.buffer, 0, LOW_BYTES);
    this.view = new DataView(this.buffer, 0, LOW_BYTES);
    this.words = new Uint32Array(this.buffer, 0, LOW_BYTES / 4);
    this.ints = new Int32Array(this.buffer, 0, LOW_BYTES / 4);
    this.doubles = new Float64Array(this.buffer, 0, LOW_BYTES / 8);
    this.kernels = instantiate(memory);
    accelerateCopies(this.buffer, this.kernels.copy);
    this.#lowNext = lowStart;
    this.#lowEnd = lowEnd;
    this.#free = isOwner ? [{ start: LOW_BYTES, end: this.buffer.byteLength }] : [];
  }

  /** Reserves a memory; null if none can be had. */
  static reserve(): Arena | null {
    for (const bytes of SIZES_BYTES) {
      try {
        const pages = BigInt(bytes / PAGE_BYTES);
        const descriptor = { address: "i64", initial: pages, maximum: pages, shared: true };
        const memory = new WebAssembly.Memory(descriptor as unknown as WebAssembly.MemoryDescriptor);
        return new Arena(memory, GUARD_BYTES, LOW_BYTES, true);
      } catch {
        // A smaller one may be had.
      }
    }
    return null;
  }

  /** The same memory in another thread, which may allocate in this part of the low one. */
  static attach(memory: WebAssembly.Memory, part: { readonly start: number; readonly bytes: number }): Arena {
    return new Arena(memory, part.start, part.start + part.bytes, false);
  }

  /**
   * Makes a buffer of zeros: in the low part of `arena`, for as long as that lives, or an ordinary one if
   * there is no room or no arena. RangeError for a size that cannot be.
   */
  static newBuffer(arena: Arena | null, bytes: number): Uint8Array<ArrayBuffer> {
    if (!Number.isSafeInteger(bytes) || bytes < 0) {
      throw new RangeError(`Cannot make a buffer of ${bytes} bytes`);
    }
    const at = arena?.allocate(bytes) ?? null;
    return at === null ? new Uint8Array(bytes) : arena!.bytes.subarray(at, at + bytes);
  }

  /** Bytes of the whole memory. */
  get sizeBytes(): number {
    return this.buffer.byteLength;
  }

  /**
   * Takes memory in the low part, for as long as the arena lives: zeros, from a cache line's start. Null if
   * there is no room.
   */
  allocate(bytes: number): number | null {
    const start = this.#lowNext;
    const end = start + Math.ceil(bytes / CACHE_LINE_BYTES) * CACHE_LINE_BYTES;
    if (!(end <= this.#lowEnd)) return null;
    this.#lowNext = end;
    return start;
  }

  /**
   * Takes a range for a guest's memory, whose start is `remainder` bytes behind a multiple of `alignment`.
   * Null if there is no room.
   */
  takeRange(bytes: number, alignment: number, remainder = 0): number | null {
    for (const [i, range] of this.#free.entries()) {
      const behind = (range.start - remainder) % alignment;
      const start = range.start + (behind === 0 ? 0 : alignment - behind);
      const end = start + bytes;
      if (end > range.end) continue;
      const rest = [{ start: range.start, end: start }, { start: end, end: range.end }];
      this.#free.splice(i, 1, ...rest.filter((part) => part.start < part.end));
      return start;
    }
    return null;
  }

  /** Gives back a range that `takeRange` has given. */
  giveRange(start: number, bytes: number): void {
    const end = start + bytes;
    let i = this.#free.findIndex((range) => range.start >= end);
    if (i < 0) i = this.#free.length;
    this.#free.splice(i, 0, { start, end });
    this.#join(i);
    if (i > 0) this.#join(i - 1);
  }

  /** Makes one of free range `i` and the next, if they touch. */
  #join(i: number): void {
    const next = this.#free[i + 1];
    if (next === undefined || this.#free[i].end !== next.start) return;
    this.#free[i].end = next.end;
    this.#free.splice(i + 1, 1);
  }
}
