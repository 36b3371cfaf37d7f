/**
 * Reads and writes of files, many in one system call (io_uring).
 *
 * Theory of operation. To enter the kernel costs more than what it does for a short frame: on a virtual
 * machine without help of the processor a read that finds nothing took 1.2 microseconds, and 0.17 as one of
 * 64 in a batch; a write of 1514 bytes to a TAP 1.6, and 0.3. So calls are written into a ring that the
 * kernel shares, and one call (io_uring_enter) has it carry out all of them, in order, in this thread. None
 * waits (RWF_NOWAIT): what would have to wait has the result -EAGAIN, so that all are over when the call
 * returns, and nothing is under way between two of them.
 *
 * Many containers refuse io_uring, and kernels before 5.6 have none of these calls: there is no batch then,
 * and its user makes each call by itself.
 *
 * Invariants: between two calls of `submit` both rings are empty. The kernel only reads the tail of the
 * requests, and only writes that of the results, within the call: no fences are needed.
 *
 * @module
 */
import { FileDescriptor } from "./descriptors.ts";
import { EAGAIN, EINTR, errno, libc, type LibcSymbols } from "./libc.ts";

const IO_URING_SETUP = 425n;
const IO_URING_ENTER = 426n;
const ENTER_GETEVENTS = 1;
const FEATURE_SINGLE_MMAP = 1;
/** Offsets for mmap. */
const RINGS_OFFSET = 0n;
const REQUESTS_OFFSET = 0x1000_0000n;
const PROT_READ_WRITE = 3;
const MAP_SHARED_POPULATE = 0x8001;
// struct io_uring_params, in words of 32 bits.
const PARAMETER_WORDS = 30;
const RESULT_ENTRIES = 1;
const FEATURES = 5;
const REQUEST_OFFSETS = 10;
const RESULT_OFFSETS = 20;
// Within struct io_sqring_offsets and struct io_cqring_offsets.
const HEAD = 0;
const TAIL = 1;
const MASK = 2;
const REQUEST_ARRAY = 6;
const RESULTS = 5;
// struct io_uring_sqe and struct io_uring_cqe, in words.
const REQUEST_WORDS = 16;
const RESULT_WORDS = 4;
const DESCRIPTOR = 1;
const ADDRESS = 4;
const LENGTH = 6;
const CALL_FLAGS = 7;
const USER_DATA = 8;
const RESULT = 2;
const OPERATION_READ = 22;
const OPERATION_WRITE = 23;
const RWF_NOWAIT = 8;
/** IOSQE_IO_LINK: the next request waits for this one, and is cancelled if it fails. */
const LINK = 4;
const ECANCELED = 125;
const TWO_32 = 2 ** 32;
/** Signals that may come in between before the rest is left undone. */
const MAX_INTERRUPTIONS = 16;

/** A mapping, as words. */
interface Words {
  readonly pointer: bigint;
  readonly bytes: bigint;
  readonly words: Uint32Array<ArrayBuffer>;
}

/** A list of calls that are carried out at once. For one thread. */
export class CallBatch implements Disposable {
  /** The most calls. */
  readonly capacity: number;
  /** Calls in it. */
  length = 0;
  readonly #c: LibcSymbols = libc();
  readonly #fd: FileDescriptor;
  readonly #mappings: readonly Words[];
  readonly #rings: Uint32Array<ArrayBuffer>;
  readonly #requests: Uint32Array<ArrayBuffer>;
  readonly #results: Int32Array;
  // Places in `#rings`.
  readonly #requestHead: number;
  readonly #requestTail: number;
  readonly #resultHead: number;
  readonly #resultTail: number;
  readonly #resultAt: number;
  readonly #resultMask: number;

  private constructor(
    fd: FileDescriptor,
    parameters: Uint32Array,
    capacity: number,
    rings: Words,
    requests: Words,
  ) {
    this.#fd = fd;
    this.capacity = capacity;
    this.#mappings = [rings, requests];
    this.#rings = rings.words;
    this.#requests = requests.words;
    const place = (at: number) => parameters[at] / 4;
    this.#requestHead = place(REQUEST_OFFSETS + HEAD);
    this.#requestTail = place(REQUEST_OFFSETS + TAIL);
    this.#resultHead = place(RESULT_OFFSETS + HEAD);
    this.#resultTail = place(RESULT_OFFSETS + TAIL);
    this.#resultAt = place(RESULT_OFFSETS + RESULTS);
    this.#resultMask = this.#rings[place(RESULT_OFFSETS + MASK)];
    this.#results = new Int32Array(capacity);
    // Request i stands in place i of its ring, for good.
    const array = place(REQUEST_OFFSETS + REQUEST_ARRAY);
    for (let i = 0; i < capacity; i++) this.#rings[array + i] = i;
  }

  /** Makes one; null if this host has none. @param capacity the most calls: a power of two */
  static open(capacity: number): CallBatch | null {
    using made = new DisposableStack();
    const parameters = new Uint32Array(PARAMETER_WORDS);
    const number = libc().io_uring_setup(
      IO_URING_SETUP,
      BigInt(capacity),
      new Uint8Array(parameters.buffer),
    );
    if (number < 0) return null;
    const fd = made.use(new FileDescriptor(number));
    if ((parameters[FEATURES] & FEATURE_SINGLE_MMAP) === 0 || parameters[0] !== capacity) return null;
    const requestRing = parameters[REQUEST_OFFSETS + REQUEST_ARRAY] + 4 * capacity;
    const resultRing = parameters[RESULT_OFFSETS + RESULTS] + 4 * RESULT_WORDS * parameters[RESULT_ENTRIES];
    const rings = map(number, Math.max(requestRing, resultRing), RINGS_OFFSET);
    if (rings === null) return null;
    made.defer(() => unmap(rings));
    const requests = map(number, 4 * REQUEST_WORDS * capacity, REQUESTS_OFFSET);
    if (requests === null) return null;
    made.move();
    return new CallBatch(fd, parameters, capacity, rings, requests);
  }

  /** Adds a call of `read`; see {@linkcode write}. It goes on behind a call that fails. */
  read(number: number, address: number, lengthBytes: number): void {
    this.#add(OPERATION_READ, number, address, lengthBytes, 0);
  }

  /**
   * Adds a call of `write`, for which there must be room.
   * @param number the descriptor
   * @param address below 2^53, of memory that stays where it is until `submit` returns
   * @param isLinked is the next call left undone if this one fails? That costs 0.1 microseconds
   */
  write(number: number, address: number, lengthBytes: number, isLinked: boolean): void {
    this.#add(OPERATION_WRITE, number, address, lengthBytes, isLinked ? LINK : 0);
  }

  /**
   * Carries all calls out, in order, and empties the batch. Returns for how many there is a result: the rest
   * was not made.
   */
  submit(): number {
    const calls = this.length;
    const rings = this.#rings;
    const first = rings[this.#requestHead];
    rings[this.#requestTail] = first + calls;
    this.length = 0;
    // Nothing is behind the last one.
    const last = (first + calls - 1 & this.capacity - 1) * REQUEST_WORDS;
    this.#requests[last] &= ~(LINK << 8);
    for (let interruptions = 0; interruptions < MAX_INTERRUPTIONS;) {
      const begun = rings[this.#requestHead] - first >>> 0;
      const ended = rings[this.#resultTail] - rings[this.#resultHead] >>> 0;
      if (begun === calls && ended === begun) break;
      const entered = this.#c.io_uring_enter(
        IO_URING_ENTER,
        this.#fd.number,
        calls - begun,
        calls,
        ENTER_GETEVENTS,
        0n,
      );
      if (entered < 0 && errno() !== EINTR) break;
      interruptions++;
    }
    const begun = rings[this.#requestHead] - first >>> 0;
    // What was not begun is taken back.
    rings[this.#requestTail] = rings[this.#requestHead];
    return this.#collect(begun);
  }

  /** The result of call `index`: bytes, or an error's number, negative. */
  result(index: number): number {
    return this.#results[index];
  }

  /** Lets go of it. */
  [Symbol.dispose](): void {
    if (!this.#fd.isOpen) return;
    for (const mapping of this.#mappings) unmap(mapping);
    this.#fd[Symbol.dispose]();
  }

  #add(operation: number, number: number, address: number, lengthBytes: number, flags: number): void {
    const index = this.length++;
    const requests = this.#requests;
    const at = (this.#rings[this.#requestTail] + index & this.capacity - 1) * REQUEST_WORDS;
    // An address has less than 53 bits, so that its upper part is a small integer.
    const high = address / TWO_32 | 0;
    requests[at] = operation | flags << 8;
    requests[at + DESCRIPTOR] = number;
    // Where in the file: where it stands.
    requests[at + 2] = 0xffff_ffff;
    requests[at + 3] = 0xffff_ffff;
    requests[at + ADDRESS] = address - high * TWO_32;
    requests[at + ADDRESS + 1] = high;
    requests[at + LENGTH] = lengthBytes;
    requests[at + CALL_FLAGS] = RWF_NOWAIT;
    requests[at + USER_DATA] = index;
  }

  /** Takes the results of `begun` calls out of their ring. */
  #collect(begun: number): number {
    const rings = this.#rings;
    const results = this.#results;
    results.fill(-EAGAIN, 0, begun);
    let head = rings[this.#resultHead];
    for (const tail = rings[this.#resultTail]; head !== tail; head = head + 1 >>> 0) {
      const at = this.#resultAt + (head & this.#resultMask) * RESULT_WORDS;
      results[rings[at]] = rings[at + RESULT];
    }
    rings[this.#resultHead] = head;
    for (let i = 0; i < begun; i++) if (results[i] === -ECANCELED) return i;
    return begun;
  }
}

function map(number: number, lengthBytes: number, offset: bigint): Words | null {
  const bytes = BigInt(lengthBytes);
  const pointer = libc().mmap(0n, bytes, PROT_READ_WRITE, MAP_SHARED_POPULATE, number, offset);
  const address = Deno.UnsafePointer.value(pointer);
  if (pointer === null || address === 0xffff_ffff_ffff_ffffn) return null;
  const buffer = new Deno.UnsafePointerView(pointer).getArrayBuffer(lengthBytes) as ArrayBuffer;
  return { pointer: address, bytes, words: new Uint32Array(buffer) };
}

function unmap({ pointer, bytes }: Words): void {
  libc().munmap(pointer, bytes);
}
