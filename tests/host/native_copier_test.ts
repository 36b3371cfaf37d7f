import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { MappedRegion } from "../../core/memory.ts";
import { MemoryMapping, NativeCopier, newMemoryFile } from "../../host/memory_mapping.ts";
import { hostTest, linux } from "../../rigs/require.ts";

const BYTES = 65_536;

/** A mapping with a copier, and the same bytes in ordinary memory. */
class Rig implements Disposable {
  readonly #file = newMemoryFile("copies", BYTES);
  readonly mapping = MemoryMapping.map(
    this.#file.number,
    { offsetBytes: 0, lengthBytes: BYTES },
    "copies",
  );
  readonly copier = new NativeCopier(this.mapping.address, BYTES);
  readonly region = new MappedRegion({
    guestAddress: 0,
    size: BYTES,
    buffer: this.mapping.buffer,
    bufferOffset: 0,
    copier: this.copier,
  });

  [Symbol.dispose](): void {
    this.copier[Symbol.dispose]();
    this.mapping[Symbol.dispose]();
    this.#file[Symbol.dispose]();
  }
}

hostTest("NativeCopier copies what a loop would, both ways, at any place and from any array", [linux], () => {
  using rig = new Rig();
  const model = new Uint8Array(BYTES);
  const arrays = [
    new Uint8Array(10_000),
    new Uint8Array(BYTES).subarray(77),
    Uint8Array.of(...new Array(40).fill(9)),
  ];
  for (const array of arrays) crypto.getRandomValues(array);
  const copy = fc.record({
    array: fc.nat(arrays.length - 1),
    at: fc.nat(5000),
    offset: fc.nat(BYTES - 1),
    length: fc.integer({ min: 1, max: 9000 }),
    inwards: fc.boolean(),
  });
  fc.assert(
    fc.property(copy, ({ array, at, offset, length, inwards }) => {
      const bytes = arrays[array];
      const from = Math.min(at, bytes.length - 1);
      const count = Math.min(length, bytes.length - from, BYTES - offset);
      if (inwards) {
        rig.region.copyIn(offset, bytes, from, count);
        for (let i = 0; i < count; i++) model[offset + i] = bytes[from + i];
      } else {
        const expected = bytes.slice();
        for (let i = 0; i < count; i++) expected[from + i] = model[offset + i];
        rig.region.copyOut(offset, bytes, from, count);
        assertEquals(bytes, expected);
      }
    }),
    { numRuns: 300 },
  );
  assertEquals(new Uint8Array(rig.mapping.buffer), model);
});

hostTest("NativeCopier throws once it has been disposed of, and touches nothing", [linux], () => {
  const rig = new Rig();
  const bytes = new Uint8Array(100).fill(5);
  rig.region.copyIn(0, bytes, 0, 100);
  rig[Symbol.dispose]();
  assertThrows(() => rig.region.copyIn(0, bytes, 0, 100), TypeError, "unmapped");
  assertThrows(() => rig.region.copyOut(0, bytes, 0, 100), TypeError, "unmapped");
  assertEquals(bytes, new Uint8Array(100).fill(5));
});

hostTest("NativeCopier reaches what lies beyond the first two gibibytes of a mapping", [linux], () => {
  const lengthBytes = 2 ** 31 + 2 ** 20;
  using file = newMemoryFile("large", lengthBytes);
  using mapping = MemoryMapping.map(file.number, { offsetBytes: 0, lengthBytes }, "large");
  using copier = new NativeCopier(mapping.address, lengthBytes);
  const view = new DataView(mapping.buffer);
  const bytes = crypto.getRandomValues(new Uint8Array(100));
  for (const offset of [2 ** 30 - 50, 2 ** 31 - 50, 2 ** 31 + 5]) {
    copier.copyIn(offset, bytes, 0, 100);
    for (const at of [0, 49, 50, 99]) {
      assertEquals(view.getUint8(offset + at), bytes[at], `byte ${offset + at}`);
    }
    const back = new Uint8Array(100);
    copier.copyOut(offset, back, 0, 100);
    assertEquals(back, bytes);
  }
});
