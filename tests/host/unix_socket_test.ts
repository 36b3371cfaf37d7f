import { assert, assertEquals, assertThrows } from "@std/assert";
import { HostError } from "../../core/errors.ts";
import { factsOfDescriptor, factsOfPath, FileDescriptor, O_RDWR } from "../../host/descriptors.ts";
import { EventFd, ReceivedEvent } from "../../host/event_fd.ts";
import { cString, libc, SystemCallError } from "../../host/libc.ts";
import { MemoryMapping, newMemoryFile } from "../../host/memory_mapping.ts";
import { MAX_DESCRIPTORS, UnixListener, UnixStream } from "../../host/unix_socket.ts";
import { assertNothingLeft, openDescriptors } from "./support/counts.ts";

function inFolder(fn: (folder: string) => void): () => void {
  return () => {
    const folder = Deno.makeTempDirSync({ prefix: "dv-" });
    try {
      assertNothingLeft(() => fn(folder));
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

function bytesOf(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

function receiveText(stream: UnixStream, descriptors: FileDescriptor[] = []): string {
  const buffer = new Uint8Array(256);
  const count = stream.receive(buffer, 0, buffer.length, descriptors);
  return count < 0 ? "closed" : new TextDecoder().decode(buffer.subarray(0, count));
}

function dispose(descriptors: readonly FileDescriptor[]): void {
  for (const descriptor of descriptors) descriptor[Symbol.dispose]();
}

Deno.test(
  "UnixListener.listen() takes connections, which carry bytes both ways",
  inFolder((folder) => {
    using listener = UnixListener.listen(`${folder}/s`);
    assertEquals(listener.accept(), null);
    using client = UnixStream.connect(`${folder}/s`);
    using server = listener.accept()!;
    assertEquals(listener.accept(), null);
    assertEquals(receiveText(server), "");
    assertEquals(client.send(bytesOf("xhello"), 1, 5), 5);
    assertEquals(receiveText(server), "hello");
    assertEquals(server.send(bytesOf("you"), 0, 3), 3);
    assertEquals(receiveText(client), "you");
    client[Symbol.dispose]();
    assertEquals(receiveText(server), "closed");
    // The first write after the other side has closed may still be taken; none raises SIGPIPE.
    for (let i = 0; i < 2; i++) server.send(bytesOf("you"), 0, 3);
    assertEquals(server.send(bytesOf("you"), 0, 3), -1);
  }),
);

Deno.test("UnixStream.send() takes what there is room for and loses nothing", () => {
  const [left, right] = UnixStream.pair();
  using _left = left;
  using _right = right;
  const source = new Uint8Array(1_000_000).map((_, i) => i % 251);
  const target = new Uint8Array(source.length);
  let sent = 0;
  let received = 0;
  while (received < source.length) {
    let taken: number;
    while (sent < source.length && (taken = left.send(source, sent, source.length - sent)) > 0) sent += taken;
    if (received === 0) assert(sent < source.length, "it was never full");
    const count = right.receive(target, received, Math.min(65_536, target.length - received), []);
    assert(count > 0);
    received += count;
  }
  assertEquals(target, source);
});

Deno.test("UnixStream passes descriptors: memory and an event are shared at the other end", () => {
  assertNothingLeft(() => {
    const [left, right] = UnixStream.pair();
    using _left = left;
    using _right = right;
    using file = newMemoryFile("dv-passed", 4096);
    using event = EventFd.create();
    using here = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes: 4096 }, "memory");
    assertEquals(left.send(bytesOf("two"), 0, 3, [file.number, event.fd.number]), 3);
    const descriptors: FileDescriptor[] = [];
    assertEquals(receiveText(right, descriptors), "two");
    assertEquals(descriptors.length, 2);
    for (const { number } of descriptors) assertEquals(libc().fcntl(number, 1, 0), 1, "not closed on exec");
    using there = MemoryMapping.map(descriptors[0].number, { offsetBytes: 0, lengthBytes: 4096 }, "memory");
    using bell = new ReceivedEvent(descriptors[1]);
    new Uint8Array(here.buffer)[17] = 99;
    assertEquals(new Uint8Array(there.buffer)[17], 99);
    assertEquals(bell.take(), false);
    event.signal();
    event.signal();
    assertEquals([bell.take(), bell.take()], [true, false]);
    // What comes next brings none, although the last message did.
    left.send(bytesOf("none"), 0, 4);
    const none: FileDescriptor[] = [];
    assertEquals(receiveText(right, none), "none");
    assertEquals(none.length, 0);
    dispose(descriptors);
  });
});

Deno.test("UnixStream receives as many descriptors as the kernel passes, and owns each", () => {
  assertNothingLeft(() => {
    const [left, right] = UnixStream.pair();
    using _left = left;
    using _right = right;
    using file = newMemoryFile("dv-many", 4096);
    const many = new Array<number>(MAX_DESCRIPTORS).fill(file.number);
    assertEquals(left.send(bytesOf("x"), 0, 1, many), 1);
    const descriptors: FileDescriptor[] = [];
    assertEquals(receiveText(right, descriptors), "x");
    assertEquals(descriptors.length, MAX_DESCRIPTORS);
    const identity = factsOfDescriptor(file.number).identity;
    assert(descriptors.every(({ number }) => factsOfDescriptor(number).identity === identity));
    dispose(descriptors);
    assertThrows(() => left.send(bytesOf("x"), 0, 1, [...many, file.number]), RangeError);
    assertThrows(() => left.send(bytesOf("x"), 0, 1, [1_000_000]), HostError, "EBADF");
  });
});

Deno.test("UnixStream.receive() leaks nothing when this process may open no more files", () => {
  const { getrlimit, setrlimit } = Deno.dlopen("libc.so.6", {
    getrlimit: { parameters: ["i32", "buffer"], result: "i32" },
    setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
  }).symbols;
  const RLIMIT_NOFILE = 7;
  const limits = new BigUint64Array(2);
  assertEquals(getrlimit(RLIMIT_NOFILE, limits), 0);
  assertNothingLeft(() => {
    const [left, right] = UnixStream.pair();
    using _left = left;
    using _right = right;
    using file = newMemoryFile("dv-few", 4096);
    left.send(bytesOf("x"), 0, 1, new Array<number>(8).fill(file.number));
    const used = new Set(openDescriptors().map((line) => parseInt(line)));
    let below = 0;
    for (let free = 0; free < 3; below++) if (!used.has(below)) free++;
    const descriptors: FileDescriptor[] = [];
    assertEquals(setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(below), limits[1])), 0);
    try {
      const error = assertThrows(() => right.receive(new Uint8Array(10), 0, 10, descriptors), HostError);
      assertEquals(
        error.message,
        'Cannot receive all file descriptors of a message: raise the limit of open files ("ulimit -n")',
      );
    } finally {
      setrlimit(RLIMIT_NOFILE, limits);
    }
    assertEquals(descriptors, []);
  });
});

Deno.test("UnixStream refuses ranges outside the buffer", () => {
  const [left, right] = UnixStream.pair();
  using _left = left;
  using _right = right;
  const buffer = new Uint8Array(8);
  for (const [at, length] of [[0, 9], [8, 1], [-1, 2], [0, 0], [NaN, 1]]) {
    assertThrows(() => left.send(buffer, at, length), RangeError);
    assertThrows(() => right.receive(buffer, at, length, []), RangeError);
  }
});

Deno.test("UnixStream.shutdown() closes for both sides, and what was sent still arrives", () => {
  const [left, right] = UnixStream.pair();
  using _left = left;
  using _right = right;
  left.send(bytesOf("last"), 0, 4);
  left.shutdown();
  assertEquals(receiveText(right), "last");
  assertEquals(receiveText(right), "closed");
  assertEquals(receiveText(left), "closed");
});

Deno.test(
  "UnixStream.connect() says what to do when no program is there",
  inFolder((folder) => {
    const missing = assertThrows(() => UnixStream.connect(`${folder}/none`), SystemCallError);
    assertEquals(missing.code, "ENOENT");
    const listener = UnixListener.listen(`${folder}/s`);
    Deno.linkSync(`${folder}/s`, `${folder}/stale`);
    listener[Symbol.dispose]();
    const stale = assertThrows(() => UnixStream.connect(`${folder}/stale`), SystemCallError);
    assertEquals(
      stale.message,
      `Cannot connect to ${folder}/stale: ECONNREFUSED (no program listens); start the program that listens there`,
    );
  }),
);

Deno.test(
  "UnixListener.listen() replaces a socket to which no program listens",
  inFolder((folder) => {
    const old = UnixListener.listen(`${folder}/s`);
    Deno.linkSync(`${folder}/s`, `${folder}/stale`);
    old[Symbol.dispose]();
    using listener = UnixListener.listen(`${folder}/stale`);
    using _client = UnixStream.connect(`${folder}/stale`);
    using server = listener.accept();
    assert(server !== null);
  }),
);

Deno.test(
  "UnixListener.listen() leaves alone what others use",
  inFolder((folder) => {
    using first = UnixListener.listen(`${folder}/s`);
    const taken = assertThrows(() => UnixListener.listen(`${folder}/s`), HostError);
    assertEquals(
      taken.message,
      `Cannot listen at ${folder}/s: another program does so already; stop it or use another path`,
    );
    first.accept()![Symbol.dispose](); // the probe
    using _client = UnixStream.connect(`${folder}/s`);
    first.accept()![Symbol.dispose]();
    Deno.writeTextFileSync(`${folder}/file`, "mine");
    assertThrows(() => UnixListener.listen(`${folder}/file`), HostError, "what lies there is not a socket");
    assertEquals(Deno.readTextFileSync(`${folder}/file`), "mine");
    Deno.symlinkSync(`${folder}/s`, `${folder}/link`);
    assertThrows(() => UnixListener.listen(`${folder}/link`), HostError, "what lies there is not a socket");
    assertThrows(() => UnixListener.listen(`${folder}/no/s`), HostError, "make the folder first");
  }),
);

Deno.test(
  "UnixListener sets mode and owner, and removes its file only if it is still its own",
  inFolder((folder) => {
    const path = `${folder}/s`;
    const listener = UnixListener.listen(path, { mode: 0o666, owner: Deno.uid()!, group: Deno.gid()! });
    assertEquals(factsOfPath(path)!.permissions, 0o666);
    listener[Symbol.dispose]();
    listener[Symbol.dispose]();
    assertEquals(factsOfPath(path), null);
    const narrow = UnixListener.listen(path, { mode: 0o600 });
    assertEquals(factsOfPath(path)!.permissions, 0o600);
    Deno.removeSync(path);
    using other = UnixListener.listen(path);
    narrow[Symbol.dispose]();
    assert(factsOfPath(path) !== null, "it removed the file of another");
    other[Symbol.dispose]();
  }),
);

Deno.test("UnixListener refuses paths that are no socket's", () => {
  for (const path of ["", "x".repeat(108), "a\0b", "é".repeat(54)]) {
    const error = assertThrows(
      () => UnixListener.listen(path),
      HostError,
      "and must have 1 to 107, none of them zero",
    );
    assert(error.message.includes(`${new TextEncoder().encode(path).length} bytes`));
    assertThrows(() => UnixStream.connect(path), HostError, "must have 1 to 107");
  }
});

Deno.test(
  "UnixListener.fromDescriptor() listens on a socket that was bound by another, and on nothing else",
  inFolder((folder) => {
    const c = libc();
    const number = c.socket(1, 1, 0);
    const address = new Uint8Array([1, 0, ...bytesOf(`${folder}/passed`), 0]);
    assertEquals(c.bind(number, address, address.length), 0);
    using listener = UnixListener.fromDescriptor(number);
    using _client = UnixStream.connect(`${folder}/passed`);
    using server = listener.accept();
    assert(server !== null);
    using file = FileDescriptor.open(cString("/dev/null"), O_RDWR, "open it");
    assertThrows(() => UnixListener.fromDescriptor(file.number), HostError, "it is not a socket");
    assert(file.isOpen);
    assertThrows(() => UnixListener.fromDescriptor(1_000_000), HostError, "EBADF");
  }),
);

Deno.test(
  "Unix sockets leave nothing behind after 200 times",
  inFolder((folder) => {
    for (let i = 0; i < 200; i++) {
      using listener = UnixListener.listen(`${folder}/s`);
      using client = UnixStream.connect(`${folder}/s`);
      using server = listener.accept()!;
      client.send(bytesOf("x"), 0, 1, [client.fd.number]);
      const descriptors: FileDescriptor[] = [];
      receiveText(server, descriptors);
      assertEquals(descriptors.length, 1);
      dispose(descriptors);
    }
  }),
);
