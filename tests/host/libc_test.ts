import { assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { HostError } from "../../core/errors.ts";
import { factsOfDescriptor, factsOfPath, FileDescriptor, O_RDWR } from "../../host/descriptors.ts";
import {
  addressOf,
  checked,
  cString,
  EBADF,
  errno,
  errnoName,
  lastCallError,
  libc,
  openLibc,
  SystemCallError,
} from "../../host/libc.ts";
import { assertNothingLeft } from "./support/counts.ts";

Deno.test("libc() opens the library once", () => {
  assertStrictEquals(libc(), libc());
});

Deno.test({
  name: "openLibc() says which permission is missing",
  permissions: { ffi: false },
  fn: () => {
    const error = assertThrows(openLibc, HostError);
    assertEquals(
      error.message,
      "Cannot call libc.so.6: Deno may not call native functions; add --allow-ffi, which is the right to do anything",
    );
  },
});

Deno.test("errno() tells why the last call failed", () => {
  assertEquals(libc().close(-1), -1);
  assertEquals(errno(), EBADF);
  assertEquals(libc().open(cString("/nowhere/at/all"), 0, 0), -1);
  assertEquals(errnoName(errno()), "ENOENT");
});

Deno.test("errnoName() has a name for every number", () => {
  assertEquals([1, 11, 77, 4000].map(errnoName), ["EPERM", "EAGAIN", "EBADFD", "E4000"]);
});

Deno.test("checked() passes results on and throws with attempt, name and remedy", () => {
  assertEquals(checked(0, "do nothing"), 0);
  const open = (remedies = {}) =>
    checked(libc().open(cString("/nowhere/x"), 0, 0), "open /nowhere/x", remedies);
  const error = assertThrows(() => open({ ENOENT: "make it first" }), SystemCallError);
  assertEquals(error.code, "ENOENT");
  assertEquals(error.message, "Cannot open /nowhere/x: ENOENT (no such file or directory); make it first");
  assertThrows(open, HostError, "Cannot open /nowhere/x: ENOENT (no such file or directory)");
  assertThrows(() => open({ else: "think" }), HostError, "; think");
});

Deno.test("SystemCallError has remedies of its own for limits and an answer for unknown numbers", () => {
  assertEquals(
    new SystemCallError("open a", 24).message,
    'Cannot open a: EMFILE (too many open files); raise the limit of open files ("ulimit -n")',
  );
  assertEquals(new SystemCallError("open a", 4000).message, "Cannot open a: E4000 (unknown error)");
  libc().close(-1);
  assertEquals(lastCallError("close").code, "EBADF");
});

Deno.test("cString() ends text with a zero byte and refuses one within", () => {
  assertEquals(cString("aé"), Uint8Array.of(97, 0xc3, 0xa9, 0));
  assertThrows(() => cString("a\0b"), HostError, 'Cannot pass "a\\u0000b" on');
});

Deno.test("addressOf() respects where a view begins", () => {
  const bytes = new Uint8Array(4096);
  assertEquals(addressOf(bytes.subarray(100)), addressOf(bytes) + 100n);
});

Deno.test("FileDescriptor closes once, and its number cannot be used afterwards", () => {
  assertNothingLeft(() => {
    const fd = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open /dev/null");
    const { number } = fd;
    fd[Symbol.dispose]();
    assertEquals(libc().close(number), -1, "it was still open");
    assertEquals(fd.isOpen, false);
    assertThrows(() => fd.number, Error, "has been closed");
    // The next owner of the number must not lose it to a second dispose.
    using next = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open /dev/null");
    assertEquals(next.number, number);
    fd[Symbol.dispose]();
    assertEquals(factsOfDescriptor(number).isSocket, false);
  });
});

Deno.test("FileDescriptor.release() hands the number over", () => {
  assertNothingLeft(() => {
    const fd = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open /dev/null");
    const number = fd.release();
    fd[Symbol.dispose]();
    assertEquals(libc().close(number), 0);
  });
});

Deno.test("FileDescriptor.makeNonBlocking() sets both flags and keeps the others", () => {
  using fd = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open /dev/null");
  libc().fcntl(fd.number, 2, 0);
  fd.makeNonBlocking();
  assertEquals(libc().fcntl(fd.number, 1, 0), 1);
  assertEquals(libc().fcntl(fd.number, 3, 0) & 0o4003, 0o4002);
});

Deno.test("facts of files agree with what the runtime says", async () => {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, new Uint8Array(12_345));
    await Deno.chmod(path, 0o640);
    const facts = factsOfPath(path)!;
    const stat = await Deno.lstat(path);
    assertEquals(facts.sizeBytes, 12_345);
    assertEquals(facts.permissions, 0o640);
    assertEquals(facts.isSocket, false);
    assertEquals(facts.identity, `${stat.dev >> 8 & 0xfff}:${stat.dev & 0xff}:${stat.ino}`);
    assertEquals(facts.blockBytes, stat.blksize);
    assertEquals(factsOfPath(`${path}.not`), null);
    using fd = FileDescriptor.open(cString(path), O_RDWR, "open it");
    assertEquals(factsOfDescriptor(fd.number), facts);
  } finally {
    await Deno.remove(path);
  }
});
