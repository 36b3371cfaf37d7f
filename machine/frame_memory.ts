/**
 * The memory that frames of a machine lie in.
 * @module
 */
import { FramePool } from "../core/frame_pool.ts";
import { accelerateChecksums } from "../wire/checksum_kernel.ts";

const PAGE_BYTES = 65_536;
/** What lies further up in one buffer is reached slowly. */
const MOST_BYTES = 2 ** 31 - PAGE_BYTES;

/**
 * A pool of frames that checksums are quick over: its memory is that of WebAssembly, reserved at once but used only as frames
 * are. Where it cannot be had the pool uses ordinary memory, which is slower and nothing else.
 * @param maxBytes most bytes of frame storage
 */
export function newFramePool(maxBytes: number): FramePool {
  const buffer = reserve(Math.min(maxBytes, MOST_BYTES));
  return new FramePool(buffer === null ? { maxBytes } : { maxBytes, buffer });
}

function reserve(bytes: number): ArrayBuffer | null {
  const pages = Math.ceil(bytes / PAGE_BYTES);
  try {
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    accelerateChecksums(memory);
    return memory.buffer as ArrayBuffer;
  } catch {
    return null;
  }
}
