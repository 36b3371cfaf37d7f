/**
 * Memory that several programs or threads share: files of memory, mapped, and copies between them and frames.
 *
 * Theory of operation. `MemoryMapping.map` checks the wanted range against the size of the file, for a page
 * behind its end kills the process when it is touched (SIGBUS). Three things do the same, or worse, *later*:
 *
 * - The file is cut. Only a seal prevents that: if the file takes seals, shrinking is forbidden here. Memory
 *   of a hypervisor is usually sealed by it (memfd) or cannot be (a file in /dev/shm or on hugetlbfs): then
 *   we depend on that program, though not on the guest in it.
 * - A page that was never used finds no room in its file system. The guest chooses which page is used first.
 *   `populate` has all of them found here, and refuses memory for which there is no room; huge pages are
 *   reserved anyway.
 * - The program that serves the file does not answer (FUSE, a network): then a page is waited for, for ever.
 *   So the file must lie in memory (only such files know seals) or on a device.
 *
 * `risks` says what of this can happen. Offset and length are rounded to pages, of the file's own size if it
 * lies in huge ones.
 *
 * A mapping lies in the arena of its machine if it gets one and there is room: frames and kernels are in the
 * same buffer then (`rings/arena.ts`). A range of a file is mapped there once, however many devices ask for
 * it. Disposing maps empty pages over it: an access that comes late finds zeros. It must not find a hole,
 * which would end the process, nor the memory of another.
 *
 * Elsewhere there is exactly one ArrayBuffer for a mapping: every further one would count as memory of its
 * own with the collector. Disposing detaches it first (`transfer`), so that every view of it becomes empty
 * and late accesses throw or read undefined, and unmaps then. It is transferred to a buffer of no bytes: one
 * of the same length would count as memory until it is collected, and a front-end that changes its memory
 * often would keep the collector busy, 100 ms for 7 GiB.
 * @module
 */
import type { Arena } from "../rings/arena.ts";
import { HostError } from "../core/errors.ts";
import { factsOfDescriptor, FileDescriptor, nameOfDescriptor } from "./descriptors.ts";
import { addressOf, checked, cString, lastCallError, libc } from "./libc.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MADV_DONTFORK = 10;
const MADV_DONTDUMP = 16;
const MADV_POPULATE_WRITE = 23;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
/** Mappings start at multiples of this; of 64 KiB where pages are that large. */
const PAGE_BYTES = Deno.build.arch === "x86_64" ? 4096 : 65_536;
const MAX_PAGE_BYTES = 2 ** 30;
const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/** Which part of a file to map. */
export interface MappingRange {
  /** First byte in the file, 0 or more. */
  readonly offsetBytes: number;
  /** Bytes, at least 1. */
  readonly lengthBytes: number;
}

/** Which memory is taken, and what is done with it. */
export interface MappingTerms {
  /**
   * `sealed`: what cannot be cut; `local`: what lies in memory or on a device; `any`: also what another
   * program serves.
   */
  readonly memory: "sealed" | "local" | "any";
  /** Have all of it allocated at once; takes some 0.3 s for each GiB that is not yet. */
  readonly populate: boolean;
}

/** How a file can end this program. */
export interface MappingRisks {
  /** Which file it is. */
  readonly identity: string;
  /** The name that the kernel has for it. */
  readonly name: string;
  /** It can be cut. */
  readonly canBeCut: boolean;
  /** Bytes that are not allocated, where there may be no room for them. */
  readonly missingBytes: number;
}

const USUAL_TERMS: MappingTerms = { memory: "any", populate: false };
/** Memory files without a path have room as long as there is memory, unless their pages are huge. */
const UNLIMITED = "/memfd:";

/** A range of a file in memory, readable and writable, shared with all programs that map it. */
export class MemoryMapping implements Disposable {
  static #live = 0;
  /** What the range is a slice of. Of length 0 once it has been unmapped, but for an arena. */
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` it starts. */
  readonly bufferOffset: number;
  /** How it can end this program. */
  readonly risks: MappingRisks;
  /** Where the range starts in this process. */
  readonly address: bigint;
  readonly #unmap: () => void;
  #mapped = true;

  private constructor(place: MappedPlace, behind: number, risks: MappingRisks) {
    this.buffer = place.buffer;
    this.bufferOffset = place.bufferOffset + (place.isArena ? behind : 0);
    this.risks = risks;
    this.address = place.address + BigInt(behind);
    this.#unmap = place.unmap;
    MemoryMapping.#live++;
  }

  /** How many there are: for tests that look for leaks. */
  static get live(): number {
    return MemoryMapping.#live;
  }

  /**
   * Maps a range of an open file. The descriptor is not needed any more afterwards.
   * @param number the descriptor of a memfd, a file of hugetlbfs or any other that can be mapped
   * @param range what to map; what reaches beyond the file is refused
   * @param what what it is called in messages, such as `memory region 0`
   * @param terms which memory is taken; any if left out
   * @param arena where it is to lie, if there is room
   * @throws {HostError} if it cannot be mapped, with the reason
   */
  static map(
    number: number,
    range: MappingRange,
    what: string,
    terms = USUAL_TERMS,
    arena: Arena | null = null,
  ): MemoryMapping {
    const { offsetBytes, lengthBytes } = range;
    const end = offsetBytes + lengthBytes;
    if (
      !Number.isSafeInteger(offsetBytes) || offsetBytes < 0 || !(lengthBytes >= 1) ||
      !Number.isSafeInteger(end)
    ) {
      throw new HostError(
        `Cannot map ${what}: offset ${offsetBytes} and length ${lengthBytes} must be integers from 0 and 1 to 2^53 - 1`,
      );
    }
    // Sealed before the size is read: in between, the file could be cut.
    const seals = seal(number);
    const { sizeBytes, allocatedBytes, blockBytes, isOnDevice, identity } = factsOfDescriptor(number);
    const name = nameOfDescriptor(number);
    const refuse = (why: string) => new HostError(`Cannot map ${what}, ${name}: ${why}`);
    if (seals === null && !isOnDevice && terms.memory !== "any") {
      throw refuse(
        "it lies neither in memory nor on a device, and the program that serves it could make this one wait; " +
          "use a memfd, or a file of tmpfs or hugetlbfs",
      );
    }
    const canBeCut = seals !== "sealed";
    if (canBeCut && terms.memory === "sealed") {
      throw refuse(
        "it can be cut, which would end this program, and takes no seal; use a memfd that may be sealed " +
          "(QEMU: memory-backend-memfd)",
      );
    }
    if (end > sizeBytes) {
      throw new HostError(
        `Cannot map ${what}: bytes ${offsetBytes} to ${end} are wanted of a file of ${sizeBytes} bytes; ` +
          `the file must hold the whole range`,
      );
    }
    const unit = pageBytes(blockBytes);
    const start = offsetBytes - offsetBytes % unit;
    const wanted: WantedPlace = {
      number,
      start,
      mappedBytes: Math.ceil((end - start) / unit) * unit,
      unit,
      identity,
      behind: offsetBytes - start,
      lengthBytes,
      what,
    };
    const place = arena === null ? mapAnywhere(wanted) : mapIntoArena(arena, wanted) ?? mapAnywhere(wanted);
    const address = place.address;
    if (terms.populate && libc().madvise(address, BigInt(wanted.mappedBytes), MADV_POPULATE_WRITE) !== 0) {
      const error = lastCallError(`populate ${lengthBytes} bytes of ${what}, ${name}`, {
        EFAULT: "its file system is full: make room there",
        EINVAL: "Linux 5.14 or later is needed",
      });
      place.unmap();
      throw error;
    }
    const isLimited = !name.startsWith(UNLIMITED) && !isOnDevice;
    const missingBytes = isLimited && !terms.populate ? Math.max(sizeBytes - allocatedBytes, 0) : 0;
    const risks = { identity, name, canBeCut, missingBytes };
    return new MemoryMapping(place, wanted.behind, risks);
  }

  /** Has nothing of the range be reached any more, and unmaps it. Does nothing the second time. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    MemoryMapping.#live--;
    this.#unmap();
  }
}

/** What is to be mapped: whole pages of a file, and which bytes of them are wanted. */
interface WantedPlace {
  readonly number: number;
  readonly start: number;
  readonly mappedBytes: number;
  readonly unit: number;
  readonly identity: string;
  readonly behind: number;
  readonly lengthBytes: number;
  readonly what: string;
}

/** Where pages are mapped. */
interface MappedPlace {
  /** An arena's, or exactly the wanted bytes. */
  readonly buffer: ArrayBuffer;
  /** Where the pages start in the arena; else 0. */
  readonly bufferOffset: number;
  readonly isArena: boolean;
  /** Where the pages start in this process. */
  readonly address: bigint;
  unmap(): void;
}

function mmap(
  at: bigint,
  { mappedBytes, number, start, lengthBytes, what }: WantedPlace,
  flags: number,
): bigint {
  const pointer = libc().mmap(
    at,
    BigInt(mappedBytes),
    PROT_READ | PROT_WRITE,
    MAP_SHARED | flags,
    number,
    BigInt(start),
  );
  const address = Deno.UnsafePointer.value(pointer);
  if (pointer === null || address === MAP_FAILED) {
    throw lastCallError(`map ${lengthBytes} bytes of ${what}`, {
      EACCES: "the file must be open for reading and writing",
      EPERM: "the file must not be sealed against writing",
      ENODEV: "the file must be one that can be mapped: a memfd, or one of hugetlbfs or tmpfs",
      EINVAL: "the offset must be a multiple of the file's page size",
    });
  }
  return address;
}

function mapAnywhere(wanted: WantedPlace): MappedPlace {
  const address = mmap(0n, wanted, 0);
  const { mappedBytes, lengthBytes, behind } = wanted;
  const pointer = Deno.UnsafePointer.create(address)!;
  const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes, behind);
  return {
    buffer,
    bufferOffset: 0,
    isArena: false,
    address,
    unmap: () => {
      buffer.transfer(0);
      libc().munmap(address, BigInt(mappedBytes));
    },
  };
}

/** What is mapped into an arena, by file and range, and how often. */
const mappedInto = new WeakMap<Arena, Map<string, { place: MappedPlace; times: number }>>();

/** Null if there is no room. */
function mapIntoArena(arena: Arena, wanted: WantedPlace): MappedPlace | null {
  const { identity, start, mappedBytes, unit } = wanted;
  let known = mappedInto.get(arena);
  if (known === undefined) mappedInto.set(arena, known = new Map());
  const key = `${identity} ${start} ${mappedBytes}`;
  const entry = known.get(key);
  if (entry !== undefined) {
    entry.times++;
    return entry.place;
  }
  const base = arenaAddress(arena);
  // The address in this process is a multiple of the unit, not that in the arena.
  const remainder = Number((BigInt(unit) - base % BigInt(unit)) % BigInt(unit));
  const at = arena.takeRange(mappedBytes, unit, remainder);
  if (at === null) return null;
  const address = base + BigInt(at);
  try {
    mmap(address, wanted, MAP_FIXED);
  } catch (error) {
    arena.giveRange(at, mappedBytes);
    throw error;
  }
  // A dump of this process is no place for a guest's memory.
  libc().madvise(address, BigInt(mappedBytes), MADV_DONTDUMP);
  const made = {
    times: 1,
    place: {
      buffer: arena.buffer,
      bufferOffset: at,
      isArena: true,
      address,
      unmap: () => {
        if (--made.times > 0) return;
        known.delete(key);
        const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
        const empty = libc().mmap(address, BigInt(mappedBytes), PROT_READ | PROT_WRITE, flags, -1, 0n);
        // As the rest of the arena is: the kernel makes one mapping of both again.
        libc().madvise(address, BigInt(mappedBytes), MADV_DONTFORK);
        // What could not be taken back stays mapped, and is never given to another.
        if (Deno.UnsafePointer.value(empty) === address) arena.giveRange(at, mappedBytes);
      },
    },
  };
  known.set(key, made);
  return made.place;
}

const addresses = new WeakMap<Arena, bigint>();

/** Where an arena lies in this process. */
export function arenaAddress(arena: Arena): bigint {
  let address = addresses.get(arena);
  if (address === undefined) addresses.set(arena, address = addressOf(arena.bytes));
  return address;
}

/**
 * Forbids to shrink the file, if it takes seals. Null for a file that knows none: it does not lie in memory.
 */
function seal(number: number): "sealed" | "unsealed" | null {
  const c = libc();
  const seals = c.fcntl(number, F_GET_SEALS, 0);
  if (seals < 0) return null;
  const isSealed = (seals & F_SEAL_SHRINK) !== 0 || c.fcntl(number, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
  return isSealed ? "sealed" : "unsealed";
}

/** The unit to round to: the file's own if it can be a page size. */
function pageBytes(blockBytes: number): number {
  const isPage = blockBytes > PAGE_BYTES && blockBytes <= MAX_PAGE_BYTES &&
    (blockBytes & (blockBytes - 1)) === 0;
  return isPage ? blockBytes : PAGE_BYTES;
}

/**
 * Memory that another thread of this process has mapped, as an ArrayBuffer. It is taken back before the
 * memory is unmapped: a later access would end the process.
 */
export class MemoryView implements Disposable {
  /** The memory. Of length 0 once it has been taken back. */
  readonly buffer: ArrayBuffer;

  /** Sees `lengthBytes` bytes from `address` on, as they are mapped. RangeError for address 0. */
  constructor(address: bigint, lengthBytes: number) {
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new RangeError("Cannot see memory at address 0: nothing is mapped there");
    this.buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes);
  }

  /** Empties every view of it. */
  [Symbol.dispose](): void {
    if (this.buffer.byteLength > 0) this.buffer.transfer();
  }
}

/**
 * Makes a file of memory (memfd), zeroed, that has no path; it can be mapped, sealed, and passed to other
 * programs. Throws SystemCallError.
 * @param name what it is called in /proc, up to 249 bytes
 * @param sizeBytes its size
 */
export function newMemoryFile(name: string, sizeBytes: number): FileDescriptor {
  const c = libc();
  const flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const file = new FileDescriptor(checked(c.memfd_create(cString(name), flags), `make memory file ${name}`));
  try {
    checked(c.ftruncate(file.number, BigInt(sizeBytes)), `give memory file ${name} ${sizeBytes} bytes`);
    return file;
  } catch (cause) {
    file[Symbol.dispose]();
    throw cause;
  }
}

/**
 * Where the bytes of frames lie in this process, for system calls that read and write them in place. Many
 * frames share one storage, which never moves while it is reachable; so each is asked for once. Lives as long
 * as the pool whose frames it is used for.
 */
export class FrameAddresses {
  readonly #known = new Map<Uint8Array<ArrayBuffer>, bigint>();
  #last: Uint8Array<ArrayBuffer> | null = null;
  #pointer = 0n;
  #address = 0;

  /**
   * The address of `bytes[0]`, for lists; that of a frame's data is `start` further on. Below 2^53. Throws
   * HostError.
   */
  of(bytes: Uint8Array<ArrayBuffer>): number {
    if (bytes !== this.#last) this.#turnTo(bytes);
    return this.#address;
  }

  /** The same, as calls take it. */
  pointer(bytes: Uint8Array<ArrayBuffer>): bigint {
    if (bytes !== this.#last) this.#turnTo(bytes);
    return this.#pointer;
  }

  #turnTo(bytes: Uint8Array<ArrayBuffer>): void {
    const pointer = this.#known.get(bytes) ?? this.#ask(bytes);
    this.#last = bytes;
    this.#pointer = pointer;
    this.#address = Number(pointer);
  }

  #ask(bytes: Uint8Array<ArrayBuffer>): bigint {
    const pointer = addressOf(bytes);
    if (!Number.isSafeInteger(Number(pointer) + bytes.length)) {
      throw new HostError(`Cannot use memory at ${pointer}: addresses must be below 2^53`);
    }
    this.#known.set(bytes, pointer);
    return pointer;
  }
}
