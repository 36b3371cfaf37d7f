import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { internetSum } from "../../testing/mod.ts";
import { Arena } from "../../rings/arena.ts";
import { KERNELS } from "../../kernels/kernels_wasm.ts";
import { build } from "../../tools/build_kernels.ts";
import { accelerateChecksums, addToSum, fold, kernelOf, swap16 } from "../../wire/checksum.ts";

/** Three pages of memory over which checksums are quick, full of ones. */
function quickMemory(): { bytes: Uint8Array<ArrayBuffer>; view: DataView } {
  const arena = Arena.reserve();
  assert(arena !== null);
  accelerateChecksums(arena.buffer, arena.kernels.sum);
  const bytes = arena.bytes.subarray(0, 3 * 65_536);
  bytes.fill(0xff);
  return { bytes, view: new DataView(arena.buffer, 0, bytes.length) };
}

/** A sum in network order; zero has two forms in one's complement, which are the same sum. */
function sumOf(view: DataView, at: number, length: number, sum = 0): number {
  return swap16(fold(addToSum(view, at, length, sum))) % 0xffff;
}

Deno.test("checksums over accelerated memory are those of the plainest implementation, at every length and place", () => {
  const { bytes, view } = quickMemory();
  assert(kernelOf(view.buffer) !== null);
  bytes.set(crypto.getRandomValues(new Uint8Array(4096)));
  for (let length = 0; length <= 400; length++) {
    for (const at of [0, 1, 7, 34, 63]) {
      assertEquals(
        sumOf(view, at, length),
        internetSum(bytes, at, at + length) % 0xffff,
        `${length} at ${at}`,
      );
    }
  }
  fc.assert(
    fc.property(fc.nat(60_000), fc.nat(65_535), fc.nat(0xffff), (at, length, start) => {
      const sum = sumOf(view, at, length, swap16(start));
      assertEquals(sum, internetSum(bytes, at, at + length, start) % 0xffff);
    }),
    { numRuns: 200 },
  );
});

Deno.test("checksums over accelerated memory carry what full words carry, at the longest as well", () => {
  const { bytes, view } = quickMemory();
  for (const length of [64, 65_535, 69_632, 131_071]) {
    assertEquals(sumOf(view, 3, length), internetSum(bytes, 3, 3 + length) % 0xffff, `length ${length}`);
  }
  bytes.fill(0);
  for (const length of [64, 1460, 131_071]) assertEquals(addToSum(view, 3, length, 0), 0);
});

Deno.test("a view that does not begin at its buffer's start is summed up from its own start", () => {
  const { bytes } = quickMemory();
  bytes.set(crypto.getRandomValues(new Uint8Array(2000)));
  const view = new DataView(bytes.buffer, 101, 1500);
  assertEquals(sumOf(view, 10, 1200), internetSum(bytes, 111, 1311) % 0xffff);
});

Deno.test("ordinary memory has no kernel, also right after accelerated memory was summed up", () => {
  const { view } = quickMemory();
  assert(kernelOf(view.buffer) !== null);
  const plain = new Uint8Array(200).fill(0xff);
  assertEquals(kernelOf(plain.buffer), null);
  assertEquals(sumOf(new DataView(plain.buffer), 0, 199), internetSum(plain, 0, 199) % 0xffff);
});

Deno.test("the kernels that are kept are those that their sources are built to", () => {
  assertEquals(build().toBase64(), KERNELS, "run: deno task kernels");
});
