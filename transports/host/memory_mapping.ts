/**
 * A file of memory, mapped: what another process shares with us, as an ArrayBuffer.
 *
 * Theory of operation. `map` checks the wanted range against the size of the file, for a page behind its end kills the
 * process when it is touched (SIGBUS). A file that is cut *later* does the same; only a seal prevents that. If the file takes
 * seals, shrinking is forbidden here; `isSealed` says whether that is so. Memory of a hypervisor is usually sealed by it
 * (memfd) or cannot be (hugetlbfs, /dev/shm): then we depend on that program, though not on the guest in it.
 *
 * There is exactly one ArrayBuffer for a mapping: every further one would count as memory of its own with the collector.
 * Disposing detaches it first (`transfer`), so that every view of it becomes empty and late accesses throw or read
 * undefined, and unmaps then. Without that a late access would kill the process.
 *
 * Offset and length are rounded to pages, of the file's own size if it lies in huge ones.
 *
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { lastCallError } from "./errno.ts";
import { factsOfDescriptor } from "./file_facts.ts";
import { libc } from "./libc.ts";
import { NativeCopier } from "./native_copier.ts";

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_NORESERVE = 0x4000;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const F_ADD_SEALS = 1033;
const F_GET_SEALS = 1034;
const F_SEAL_SHRINK = 2;
/** Mappings start at multiples of this; of 64 KiB where pages are that large. */
const PAGE_BYTES = Deno.build.arch === "x86_64" ? 4096 : 65_536;
const LARGEST_PAGE_BYTES = 2 ** 30;

/** Which part of a file to map. */
export interface MappingRange {
  /** First byte in the file, 0 or more. */
  readonly offsetBytes: number;
  /** Bytes, at least 1. */
  readonly lengthBytes: number;
}

/** A range of a file in memory, readable and writable, shared with everybody who maps it. */
export class MemoryMapping implements Disposable {
  static #live = 0;
  /** The range, byte for byte. Of length 0 once it has been unmapped. */
  readonly buffer: ArrayBuffer;
  /** Is the file sealed, so that it cannot be cut while it is mapped? */
  readonly isSealed: boolean;
  /** Where the range starts in this process. */
  readonly address: bigint;
  /** Copies to and from the range. */
  readonly copier: NativeCopier;
  readonly #mappedAddress: bigint;
  readonly #mappedBytes: bigint;
  #mapped = true;

  private constructor(
    buffer: ArrayBuffer,
    isSealed: boolean,
    address: bigint,
    mappedAddress: bigint,
    mappedBytes: bigint,
  ) {
    this.buffer = buffer;
    this.isSealed = isSealed;
    this.address = address;
    this.copier = new NativeCopier(address, buffer.byteLength);
    this.#mappedAddress = mappedAddress;
    this.#mappedBytes = mappedBytes;
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
   * @throws {HostError} if it cannot be mapped, with the reason
   */
  static map(number: number, range: MappingRange, what: string): MemoryMapping {
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
    const isSealed = seal(number);
    const { sizeBytes, blockBytes } = factsOfDescriptor(number);
    if (end > sizeBytes) {
      throw new HostError(
        `Cannot map ${what}: bytes ${offsetBytes} to ${end} are wanted of a file of ${sizeBytes} bytes; ` +
          `the file must hold the whole range`,
      );
    }
    const unit = pageBytes(blockBytes);
    const start = offsetBytes - offsetBytes % unit;
    const mapped = BigInt(Math.ceil((end - start) / unit) * unit);
    const pointer = libc().mmap(
      0n,
      mapped,
      PROT_READ | PROT_WRITE,
      MAP_SHARED | MAP_NORESERVE,
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
    const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, lengthBytes, offsetBytes - start);
    return new MemoryMapping(buffer, isSealed, address + BigInt(offsetBytes - start), address, mapped);
  }

  /** Empties every view of the memory, and unmaps it. Does nothing the second time. */
  [Symbol.dispose](): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    MemoryMapping.#live--;
    this.copier[Symbol.dispose]();
    this.buffer.transfer();
    libc().munmap(this.#mappedAddress, this.#mappedBytes);
  }
}

/** Forbids to shrink the file, if it takes seals. Is it forbidden now? */
function seal(number: number): boolean {
  const c = libc();
  const isSealed = () => {
    const seals = c.fcntl(number, F_GET_SEALS, 0);
    return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
  };
  return isSealed() || c.fcntl(number, F_ADD_SEALS, F_SEAL_SHRINK) === 0;
}

/** The unit to round to: the file's own if it can be a page size. */
function pageBytes(blockBytes: number): number {
  const isPage = blockBytes > PAGE_BYTES && blockBytes <= LARGEST_PAGE_BYTES &&
    (blockBytes & (blockBytes - 1)) === 0;
  return isPage ? blockBytes : PAGE_BYTES;
}
