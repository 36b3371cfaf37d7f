import { assert, assertEquals } from "@std/assert";
import { CallBatch } from "../../host/call_batch.ts";
import { FileDescriptor } from "../../host/descriptors.ts";
import { addressOf, libc } from "../../host/libc.ts";
import { hostTest, type Need } from "../../rigs/require.ts";

const [EAGAIN, EMSGSIZE, EBADF] = [11, 90, 9];

const batches: Need = () => {
  if (Deno.build.os !== "linux") return `Linux is needed, this is ${Deno.build.os}`;
  using batch = CallBatch.open(2);
  return batch === null
    ? "io_uring is refused: allow it, or set the sysctl kernel.io_uring_disabled to 0"
    : null;
};

/** Two ends of a pair of datagram sockets that may wait. */
class Ends implements Disposable {
  readonly near: FileDescriptor;
  readonly far: FileDescriptor;
  readonly memory = new Uint8Array(200_000);
  readonly address = Number(addressOf(this.memory));

  constructor() {
    const numbers = new Int32Array(2);
    assertEquals(libc().socketpair(1, 2, 0, new Uint8Array(numbers.buffer)), 0);
    this.near = new FileDescriptor(numbers[0]);
    this.far = new FileDescriptor(numbers[1]);
  }

  [Symbol.dispose](): void {
    this.near[Symbol.dispose]();
    this.far[Symbol.dispose]();
  }
}

function resultsOf(batch: CallBatch): number[] {
  return Array.from({ length: batch.submit() }, (_, i) => batch.result(i));
}

hostTest("a batch makes its calls in order, and none of them waits", [batches], () => {
  using ends = new Ends();
  using batch = CallBatch.open(8)!;
  // More often than the rings have places, in bursts that do not divide them.
  for (let round = 0; round < 50; round++) {
    const count = 1 + round % 7;
    for (let i = 0; i < count; i++) {
      ends.memory[i] = round + i;
      batch.write(ends.near.number, ends.address + i, 1, round % 2 === 0);
    }
    assertEquals(resultsOf(batch), new Array<number>(count).fill(1));
    ends.memory.fill(0);
    for (let i = 0; i < count; i++) batch.read(ends.far.number, ends.address + i, 100);
    batch.read(ends.far.number, ends.address + 1000, 100);
    assertEquals(resultsOf(batch), [...new Array<number>(count).fill(1), -EAGAIN]);
    assertEquals([...ends.memory.subarray(0, count)], Array.from({ length: count }, (_, i) => round + i));
  }
});

hostTest("what is linked to a call that fails is not made, and there is no result for it", [batches], () => {
  using ends = new Ends();
  using batch = CallBatch.open(8)!;
  const write = (lengthBytes: number, isLinked: boolean) =>
    batch.write(ends.near.number, ends.address, lengthBytes, isLinked);
  for (const lengthBytes of [1, 2, 199_999 * 10, 3, 4]) write(lengthBytes, true);
  const results = resultsOf(batch);
  assertEquals(results.slice(0, 2), [1, 2]);
  assert(results.length === 3 && (results[2] === -EMSGSIZE || results[2] === -105), String(results));
  for (const lengthBytes of [5, 6]) write(lengthBytes, true);
  assertEquals(resultsOf(batch), [5, 6]);
  for (let i = 0; i < 5; i++) batch.read(ends.far.number, ends.address, 1000);
  assertEquals(resultsOf(batch), [1, 2, 5, 6, -EAGAIN]);
});

hostTest("a call that fails does not keep those behind it that are not linked", [batches], () => {
  using ends = new Ends();
  using batch = CallBatch.open(4)!;
  batch.write(ends.near.number, ends.address, 1, false);
  batch.write(-1, ends.address, 2, false);
  batch.write(ends.near.number, ends.address, 3, false);
  assertEquals(resultsOf(batch), [1, -EBADF, 3]);
});

hostTest("a batch leaves no descriptor and no memory behind", [batches], () => {
  const before = FileDescriptor.live;
  const mappings = () => Deno.readTextFileSync("/proc/self/maps").split("io_uring").length;
  const mapped = mappings();
  for (let i = 0; i < 200; i++) {
    using batch = CallBatch.open(16)!;
    assert(mappings() > mapped);
    batch[Symbol.dispose]();
  }
  assertEquals(FileDescriptor.live, before);
  assertEquals(mappings(), mapped);
});
