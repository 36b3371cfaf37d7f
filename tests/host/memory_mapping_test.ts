import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena } from "../../rings/arena.ts";
import { HostError } from "../../core/errors.ts";
import { FileDescriptor, O_RDWR } from "../../host/descriptors.ts";
import { cString, libc } from "../../host/libc.ts";
import { arenaAddress, MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { hostTest, tun } from "../../rigs/require.ts";
import { assertNothingLeft, mappingsOf } from "./support/counts.ts";

const PAGE = 4096;

Deno.test("MemoryMapping shares bytes with every other mapping of the file", () => {
  using file = newMemoryFile("dv-share", 4 * PAGE);
  using whole = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 4 * PAGE }, "memory");
  using part = MemoryMapping.map(file.number, { offsetBytes: PAGE + 7, lengthBytes: 100 }, "memory");
  assertEquals(part.buffer.byteLength, 100);
  new Uint8Array(whole.buffer)[PAGE + 7] = 42;
  new Uint8Array(part.buffer)[99] = 43;
  assertEquals(new Uint8Array(part.buffer)[0], 42);
  assertEquals(new Uint8Array(whole.buffer)[PAGE + 106], 43);
});

Deno.test("MemoryMapping outlives the descriptor", () => {
  const file = newMemoryFile("dv-outlive", PAGE);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: PAGE }, "memory");
  file[Symbol.dispose]();
  new Uint8Array(mapping.buffer)[PAGE - 1] = 9;
  assertEquals(new Uint8Array(mapping.buffer)[PAGE - 1], 9);
});

Deno.test("MemoryMapping empties every view before it unmaps", () => {
  using file = newMemoryFile("dv-views", PAGE);
  const mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: PAGE }, "memory");
  const bytes = new Uint8Array(mapping.buffer);
  const words = new Uint16Array(mapping.buffer, 64, 8);
  const view = new DataView(mapping.buffer);
  bytes[5] = 1;
  assertEquals(mappingsOf("dv-views"), 1);
  mapping[Symbol.dispose]();
  mapping[Symbol.dispose]();
  assertEquals(mappingsOf("dv-views"), 0);
  assertEquals([bytes.length, words.length, mapping.buffer.byteLength], [0, 0, 0]);
  assertEquals(bytes[5], undefined);
  bytes[5] = 2;
  assertThrows(() => view.getUint8(0), TypeError);
});

Deno.test("MemoryMapping maps into an arena: once for all who ask, and empty pages when the last lets go", () => {
  const arena = Arena.reserve();
  assert(arena !== null);
  using file = newMemoryFile("dv-arena", 4 * PAGE);
  const map = (offsetBytes: number, lengthBytes: number) =>
    MemoryMapping.map(file.number, { offsetBytes, lengthBytes }, "memory", undefined, arena);
  const first = map(PAGE + 16, PAGE);
  const second = map(PAGE + 16, PAGE);
  const whole = map(0, 4 * PAGE);
  assertEquals([first.buffer, second.buffer, whole.buffer].every((buffer) => buffer === arena.buffer), true);
  assertEquals(first.bufferOffset, second.bufferOffset);
  assertEquals(first.bufferOffset % PAGE, 16);
  assertEquals(first.address, arenaAddress(arena) + BigInt(first.bufferOffset));
  assertEquals(mappingsOf("dv-arena"), 2);
  const bytes = new Uint8Array(arena.buffer, first.bufferOffset, PAGE);
  bytes[5] = 42;
  assertEquals(new Uint8Array(arena.buffer, whole.bufferOffset)[PAGE + 16 + 5], 42);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  assertEquals([mappingsOf("dv-arena"), bytes[5]], [2, 42]);
  second[Symbol.dispose]();
  assertEquals(mappingsOf("dv-arena"), 1);
  assertEquals(bytes[5], 0, "a late look finds zeros");
  bytes[5] = 1;
  assertEquals(
    new Uint8Array(arena.buffer, whole.bufferOffset)[PAGE + 16 + 5],
    42,
    "and a late store is lost",
  );
  whole[Symbol.dispose]();
  assertEquals(mappingsOf("dv-arena"), 0);
  const again = map(0, PAGE);
  assertEquals(new Uint8Array(arena.buffer, again.bufferOffset)[PAGE - 1], 0);
  again[Symbol.dispose]();
});

Deno.test("MemoryMapping maps what is too large for an arena elsewhere", () => {
  const arena = Arena.reserve();
  assert(arena !== null);
  using file = newMemoryFile("dv-large", arena.sizeBytes);
  const range = { offsetBytes: 0, lengthBytes: arena.sizeBytes };
  using mapping = MemoryMapping.map(file.number, range, "memory", undefined, arena);
  assert(mapping.buffer !== arena.buffer);
  assertEquals([mapping.bufferOffset, mapping.buffer.byteLength], [0, arena.sizeBytes]);
  new Uint8Array(mapping.buffer, arena.sizeBytes - 1)[0] = 3;
  assertEquals(
    arena.takeRange(arena.sizeBytes - arena.bytes.length, PAGE),
    arena.bytes.length,
    "nothing of the arena is used",
  );
});

Deno.test("MemoryMapping refuses what reaches beyond the file", () => {
  using file = newMemoryFile("dv-short", 2 * PAGE);
  const map = (offsetBytes: number, lengthBytes: number) => () =>
    MemoryMapping.map(file.number, { offsetBytes, lengthBytes }, "memory region 3")[Symbol.dispose]();
  map(0, 2 * PAGE)();
  map(2 * PAGE - 1, 1)();
  const error = assertThrows(map(PAGE, PAGE + 1), HostError);
  assertEquals(
    error.message,
    "Cannot map memory region 3: bytes 4096 to 8193 are wanted of a file of 8192 bytes; the file must hold the whole range",
  );
  assertThrows(map(2 * PAGE, 1), HostError, "the file must hold the whole range");
  for (
    const [offset, length] of [[-1, 5], [0, 0], [0, -1], [0.5, 1], [0, 1.5], [NaN, 1], [0, Infinity], [
      2 ** 53,
      1,
    ]]
  ) {
    assertThrows(map(offset, length), HostError, "must be integers");
  }
  assertEquals(mappingsOf("dv-short"), 0);
});

Deno.test("MemoryMapping forbids to shrink a file that takes seals", () => {
  using file = newMemoryFile("dv-seal", 2 * PAGE);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 2 * PAGE }, "memory");
  assertEquals([mapping.risks.canBeCut, mapping.risks.missingBytes], [false, 0]);
  assertEquals(libc().ftruncate(file.number, BigInt(PAGE)), -1);
  assertEquals(new Uint8Array(mapping.buffer)[2 * PAGE - 1], 0);
});

Deno.test("MemoryMapping says that a plain file cannot be sealed", async () => {
  const path = await Deno.makeTempFile({ dir: "/dev/shm" });
  try {
    await Deno.truncate(path, PAGE);
    using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
    using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: PAGE }, "memory");
    assertEquals(mapping.risks.name, path);
    assertEquals([mapping.risks.canBeCut, mapping.risks.missingBytes], [true, PAGE]);
    new Uint8Array(mapping.buffer)[0] = 77;
    assertEquals((await Deno.readFile(path))[0], 77);
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("MemoryMapping refuses what cannot be mapped or written, and says why", async () => {
  const range = { offsetBytes: 0, lengthBytes: PAGE };
  using device = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open it");
  assertThrows(
    () => MemoryMapping.map(device.number, range, "memory"),
    HostError,
    "must hold the whole range",
  );
  const path = await Deno.makeTempFile();
  try {
    await Deno.truncate(path, PAGE);
    using readOnly = FileDescriptor.open(cString(path), 0, "open it");
    assertThrows(
      () => MemoryMapping.map(readOnly.number, range, "memory"),
      HostError,
      "EACCES (permission denied); the file must be open for reading and writing",
    );
  } finally {
    await Deno.remove(path);
  }
  assertThrows(() => MemoryMapping.map(-1, range, "memory"), HostError, "EBADF");
});

const WHOLE = { offsetBytes: 0, lengthBytes: 4 * PAGE };

Deno.test("MemoryMapping takes only what can be sealed, where that is wanted", async () => {
  const terms = { memory: "sealed", populate: false } as const;
  using file = newMemoryFile("dv-sealed", 4 * PAGE);
  using _mapping = MemoryMapping.map(file.number, WHOLE, "memory", terms);
  const path = await Deno.makeTempFile({ dir: "/dev/shm" });
  try {
    await Deno.truncate(path, 4 * PAGE);
    using plain = FileDescriptor.open(cString(path), O_RDWR, "open it");
    const error = assertThrows(() => MemoryMapping.map(plain.number, WHOLE, "memory", terms), HostError);
    assertEquals(
      error.message,
      `Cannot map memory, ${path}: it can be cut, which would end this program, and takes no seal; use a memfd that may be ` +
        "sealed (QEMU: memory-backend-memfd)",
    );
  } finally {
    await Deno.remove(path);
  }
});

/** Mounts a small file system of a type in a folder, for the time of a test. */
async function mounted(type: string, options: string, fn: (folder: string) => void): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "dv-mount-" });
  const run = async (command: string, ...args: string[]) => {
    const { success, stderr } = await new Deno.Command(command, { args }).output();
    assert(success, new TextDecoder().decode(stderr));
  };
  try {
    await run("mount", "-t", type, "-o", options, "none", folder);
    try {
      fn(folder);
    } finally {
      await run("umount", folder);
    }
  } finally {
    await Deno.remove(folder);
  }
}

hostTest("MemoryMapping refuses memory that finds no room, where it is to be populated", [tun], async () => {
  await mounted("tmpfs", `size=${2 * PAGE}`, (folder) => {
    const path = `${folder}/sparse`;
    Deno.writeFileSync(path, new Uint8Array(0));
    Deno.truncateSync(path, 4 * PAGE);
    using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
    {
      // The third page that is touched would end this process.
      using mapping = MemoryMapping.map(file.number, WHOLE, "memory");
      assertEquals(mapping.risks.missingBytes, 4 * PAGE);
    }
    const terms = { memory: "local", populate: true } as const;
    assertNothingLeft(() => {
      const error = assertThrows(() => MemoryMapping.map(file.number, WHOLE, "memory", terms), HostError);
      assertEquals(
        error.message,
        `Cannot populate ${
          4 * PAGE
        } bytes of memory, ${path}: EFAULT (bad address); its file system is full: make room there`,
      );
    });
    Deno.truncateSync(path, 0);
    Deno.truncateSync(path, 2 * PAGE);
    using fits = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 2 * PAGE }, "memory", terms);
    assertEquals([fits.risks.missingBytes, new Uint8Array(fits.buffer)[2 * PAGE - 1]], [0, 0]);
  });
});

hostTest(
  "MemoryMapping refuses what lies neither in memory nor on a device, unless any will do",
  [tun],
  async () => {
    await mounted("ramfs", "size=1M", (folder) => {
      const path = `${folder}/served`;
      Deno.writeFileSync(path, new Uint8Array(4 * PAGE));
      using file = FileDescriptor.open(cString(path), O_RDWR, "open it");
      const map = (memory: "local" | "any") =>
        MemoryMapping.map(file.number, WHOLE, "memory", { memory, populate: false });
      assertThrows(() => map("local"), HostError, "could make this one wait; use a memfd");
      using _mapping = map("any");
    });
  },
);

Deno.test("MemoryMapping leaves nothing behind after 200 times", () => {
  using file = newMemoryFile("dv-cycles", 16 * PAGE);
  assertNothingLeft(() => {
    for (let i = 0; i < 200; i++) {
      using mapping = MemoryMapping.map(file.number, { offsetBytes: i, lengthBytes: 3 * PAGE }, "memory");
      assertEquals(MemoryMapping.live, 1);
      assert(mapping.buffer.byteLength === 3 * PAGE);
    }
  });
  assertEquals(mappingsOf("dv-cycles"), 0);
});

Deno.test("MemoryMapping that is disposed of counts as memory no more, collected or not", () => {
  using file = newMemoryFile("dv-counted", 2 ** 30);
  const before = Deno.memoryUsage().external;
  for (let i = 0; i < 20; i++) {
    MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 2 ** 30 }, "memory")[Symbol.dispose]();
    assert(Deno.memoryUsage().external < before + 2 ** 29, `after ${i + 1} times`);
  }
});

Deno.test("MemoryMapping carries files of many GiB", () => {
  using file = newMemoryFile("dv-large", 64 * 2 ** 30);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 64 * 2 ** 30 }, "memory");
  const view = new DataView(mapping.buffer);
  view.setUint32(64 * 2 ** 30 - 4, 0xdeadbeef);
  assertEquals(view.getUint32(64 * 2 ** 30 - 4), 0xdeadbeef);
});
