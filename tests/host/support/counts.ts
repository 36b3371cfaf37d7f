import { assertEquals } from "@std/assert";
import { FileDescriptor } from "../../../host/descriptors.ts";
import { MemoryMapping } from "../../../host/memory_mapping.ts";

/**
 * What this process has open, by the kernel's own account.
 */

/** Open descriptors, sorted. The one that lists them is not among them. */
export function openDescriptors(): string[] {
  const found: string[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      found.push(`${name} ${Deno.readLinkSync(`/proc/self/fd/${name}`)}`);
    } catch {
      // The directory itself, closed by now.
    }
  }
  return found.sort();
}

/** How many mappings of files named like this there are. */
export function mappingsOf(name: string): number {
  return Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes(name)).length;
}

/** Calls a function and asserts that it leaves no descriptor and no mapping behind. */
export function assertNothingLeft(fn: () => void): void {
  const before = openDescriptors();
  const descriptors = FileDescriptor.live;
  const mappings = MemoryMapping.live;
  fn();
  // Sockets are closed by a thread of their own.
  for (let tries = 0; tries < 200 && openDescriptors().join() !== before.join(); tries++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  }
  assertEquals(openDescriptors(), before);
  assertEquals(FileDescriptor.live, descriptors);
  assertEquals(MemoryMapping.live, mappings);
}
