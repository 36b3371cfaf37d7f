/**
 * Memory with a descriptor (memfd), to be shared with other processes.
 * @module
 */
import { checked } from "./errno.ts";
import { FileDescriptor } from "./file_descriptor.ts";
import { cString, libc } from "./libc.ts";

const MFD_CLOEXEC = 1;
const MFD_ALLOW_SEALING = 2;

/**
 * Makes a file of memory, zeroed, that has no path; it can be mapped and sealed. Throws SystemCallError.
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
