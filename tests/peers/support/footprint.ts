/**
 * What this process holds: open files, shared mappings, and memory that is in use.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { FileDescriptor } from "../../../host/descriptors.ts";
import { MemoryMapping } from "../../../host/memory_mapping.ts";

/** What the collector's own bookkeeping and the runtime's caches may add, in bytes. */
const TOLERANCE_BYTES = 3 * 2 ** 20;

/** A moment's holdings. Objects that are not used any more do not count. */
export interface Footprint {
  /** Open files by kind, such as `socket`, and their numbers. */
  readonly files: Readonly<Record<string, number>>;
  /** Mappings that are shared with others. */
  readonly sharedMappings: number;
  /** Descriptors and mappings that objects of ours own. */
  readonly owned: readonly [descriptors: number, mappings: number];
  /** Bytes of objects, and of what belongs to them outside of the heap. */
  readonly heapBytes: number;
}

/** Takes stock. */
export function footprint(): Footprint {
  collectGarbage();
  const { heapUsed, external } = Deno.memoryUsage();
  return {
    files: openFiles(),
    sharedMappings: Deno.readTextFileSync("/proc/self/maps").match(/^\S+ ...s /gm)?.length ?? 0,
    owned: [FileDescriptor.live, MemoryMapping.live],
    heapBytes: heapUsed + external,
  };
}

/**
 * Asserts that nothing is held that was not held before. Programs that have ended may take up to two seconds
 * to be gone.
 */
export async function assertNothingKept(before: Footprint): Promise<void> {
  const things = ({ files, sharedMappings, owned }: Footprint) => ({ files, sharedMappings, owned });
  let now = footprint();
  for (let tries = 0; tries < 20; tries++) {
    if (JSON.stringify(things(now)) === JSON.stringify(things(before))) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
    now = footprint();
  }
  assertEquals(things(now), things(before));
  const grown = now.heapBytes - before.heapBytes;
  assert(grown < TOLERANCE_BYTES, `objects have grown by ${grown} bytes`);
}

function openFiles(): Record<string, number> {
  const kinds: string[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      // Numbers of sockets and pipes differ each time.
      kinds.push(Deno.readLinkSync(`/proc/self/fd/${name}`).replace(/:\[\d+\]$/, ""));
    } catch {
      // The folder itself, which is closed by now.
    }
  }
  const counted: Record<string, number> = {};
  for (const kind of kinds.sort()) counted[kind] = (counted[kind] ?? 0) + 1;
  return counted;
}

let collect: (() => void) | null = null;

function collectGarbage(): void {
  if (collect === null) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
}
